"""$VARIABLES in the values of a tree: Compose's interpolation, all operators.

Compose Specification "Interpolation"; where it is silent, what docker compose 2.40 does (observed).
Keys are never touched; a value is expanded once (what comes out of a variable stays as it is).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from orchestrator.model.frozen import dataclass
from orchestrator.stackfile import problem
from orchestrator.stackfile.problem import Mark, Report
from orchestrator.stackfile.tree import Map, Node, Seq, Tagged, dotted

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BRACE = re.compile(r"[{}]")
_MAX_NESTING = 32
_MAX_TEXT = 1024 * 1024
_DOUBLE = "write $$ for a dollar sign that is meant literally"


class InterpolationError(ValueError):
    """The text is no valid template, or a required variable is missing."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """Where values come from, and who is told of a name that has none."""

    values: Mapping[str, str]
    missing: Callable[[str], None]


def expand(text: str, variables: Variables) -> str:
    """The text with its variables replaced. Raises InterpolationError."""
    return _expand(text, variables, 0)


def _expand(text: str, variables: Variables, nesting: int) -> str:
    if nesting > _MAX_NESTING:
        raise InterpolationError(f"variables nested more than {_MAX_NESTING} levels deep")
    parts: list[str] = []
    length = 0
    at = 0
    while True:
        dollar = text.find("$", at)
        if dollar < 0:
            parts.append(text[at:])
            return "".join(parts)
        parts.append(text[at:dollar])
        value, at = _one(text, dollar, variables, nesting)
        length += len(value)
        if length > _MAX_TEXT:
            raise InterpolationError("the expanded text is longer than 1 MiB")
        parts.append(value)


def _one(text: str, dollar: int, variables: Variables, nesting: int) -> tuple[str, int]:
    """What the `$` at this index stands for, and where the text goes on."""
    after = text[dollar + 1 : dollar + 2]
    if after == "$":
        return "$", dollar + 2
    if after == "{":
        end = closing(text, dollar + 1)
        if end is None:
            raise InterpolationError(f"${{ without its }} in {text!r:.80}", hint=_DOUBLE)
        return _braced(text[dollar + 2 : end], variables, nesting), end + 1
    name = NAME.match(text, dollar + 1)
    if name is None:
        return "$", dollar + 1
    return _lookup(name.group(), variables), name.end()


def closing(text: str, opening: int) -> int | None:
    """Braces balance; where they don't, the last one closes (docker compose: ${X:-{} is "{")."""
    depth = 0
    for brace in _BRACE.finditer(text, opening):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return brace.start()
    last = text.rfind("}")
    return last if last > opening else None


def _lookup(name: str, variables: Variables) -> str:
    value = variables.values.get(name)
    if value is None:
        variables.missing(name)
        return ""
    return value


def _nobody(_name: str) -> None:
    """A variable without a value that is not used."""


def _braced(inner: str, variables: Variables, nesting: int) -> str:
    name = NAME.match(inner)
    if name is None or "\n" in inner:
        raise InterpolationError(f"${{{inner:.60}}} is not a variable", hint=_DOUBLE)
    key, rest = name.group(), inner[name.end() :]
    if not rest:
        return _lookup(key, variables)
    unless_empty = rest.startswith(":")
    operator, word = rest[unless_empty : unless_empty + 1], rest[unless_empty + 1 :]
    value = variables.values.get(key)
    is_set = bool(value) if unless_empty else value is not None
    if operator and operator in "-+?" and is_set is not (operator == "+"):
        # not what it stands for, but docker compose reads it all the same, and what is wrong in it is told
        _expand(word, Variables(values=variables.values, missing=_nobody), nesting + 1)
        return "" if operator == "+" else value or ""
    match operator:
        case "-" | "+":
            return _expand(word, variables, nesting + 1)
        case "?":
            why = _expand(word, variables, nesting + 1)
            raise InterpolationError(
                f"required variable {key} is missing a value" + (f": {why}" if why else ""),
                hint=f"set {key} in the environment or in .env",
            )
    raise InterpolationError(
        f"${{{inner:.60}}} is not a variable: after the name only :- - :+ + :? ? are known", hint=_DOUBLE
    )


def interpolate(tree: Map, values: Mapping[str, str], report: Report) -> Map:
    """The tree with the variables in its values replaced; what is wrong goes to `report`."""
    walker = _Walker(values, report)
    result = walker.walk(tree, (), None)
    assert isinstance(result, Map)
    return result


class _Walker:
    def __init__(self, values: Mapping[str, str], report: Report) -> None:
        self.report = report
        self.mark: Mark | None = None
        self.told: set[str] = set()
        self.variables = Variables(values=values, missing=self._missing)

    def _missing(self, name: str) -> None:
        if name not in self.told:
            self.told.add(name)
            self.report.warn(self.mark, f"the variable {name} is not set: an empty text takes its place")

    def walk(self, node: Node, path: tuple[str | int, ...], mark: Mark | None) -> Node:
        """A new node where something changed, the same one otherwise."""
        if isinstance(node, str):
            return self._text(node, path, mark) if "$" in node else node
        if isinstance(node, Map):
            return self._map(node, path)
        if isinstance(node, Seq):
            return self._list(node, path)
        if isinstance(node, Tagged) and node.tag == "override":
            return Tagged(node.tag, self.walk(node.value, path, mark))
        return node

    def _map(self, node: Map, path: tuple[str | int, ...]) -> Map:
        changed: Map | None = None
        for key, value in node.items():
            if value.__class__ is str:
                if "$" not in value:
                    continue
            elif not isinstance(value, Map | Seq | Tagged):
                continue
            fresh = self.walk(value, (*path, key), node.at.get(key))
            if fresh is not value:
                changed = changed or node.copy()
                changed[key] = fresh
        return changed if changed is not None else node

    def _list(self, node: Seq, path: tuple[str | int, ...]) -> Seq:
        fresh = [self.walk(value, (*path, index), node.mark(index)) for index, value in enumerate(node)]
        if all(new is old for new, old in zip(fresh, node, strict=True)):
            return node
        changed = Seq()
        changed.extend(fresh)
        changed.at = node.at
        return changed

    def _text(self, text: str, path: tuple[str | int, ...], mark: Mark | None) -> str:
        self.mark = mark
        try:
            expanded = expand(text, self.variables)
            self.report.spend(mark, len(expanded))
            return expanded
        except InterpolationError as error:
            self.report.error(mark, problem.VARIABLE, error.message, hint=error.hint, path=dotted(path))
            return text
