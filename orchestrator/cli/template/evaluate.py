"""Nodes and data -> text."""

from __future__ import annotations

import difflib

from orchestrator.cli.template.functions import FUNCTIONS, OF_DOCKER
from orchestrator.cli.template.nodes import (
    Branch,
    Chain,
    Function,
    Jump,
    Literal,
    Node,
    Operand,
    Pipeline,
    Show,
)
from orchestrator.cli.template.scan import TemplateError
from orchestrator.cli.template.values import Struct, kind, ordered, shown, true

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    Variables = list[tuple[str, object]]

OUTPUT_LIMIT = 64 << 20
"""Characters of one result: nested loops over long lists multiply."""
ROUNDS_LIMIT = 100_000
_FIELDS_SHOWN = 12
_MISSING = object()


class _JumpError(Exception):
    """Leaves the body of a loop, by `break` or `continue`."""


def run(template: str, nodes: list[Node], data: object, *, heading: bool = False) -> str:
    """Raises TemplateError when the template does not fit the data. `heading`: see `compile`."""
    return _Run(template, data, heading=heading).whole(nodes)


class _Run:
    def __init__(self, template: str, data: object, *, heading: bool) -> None:
        self._template = template
        self._heading = heading
        self._variables: Variables = [("$", data)]
        self._out: list[str] = []
        self._length = 0
        self._rounds = 0
        self._root = data

    def whole(self, nodes: list[Node]) -> str:
        self._nodes(nodes, self._root)
        return "".join(self._out)

    # --- blocks ----------------------------------------------------------------------------------

    def _nodes(self, nodes: list[Node], dot: object) -> None:
        for node in nodes:
            if isinstance(node, str):
                self._write(node)
            elif isinstance(node, Show):
                value = self._pipeline(node.pipeline, dot)
                if not node.pipeline.names:
                    self._write(shown(value))
            elif isinstance(node, Jump):
                raise _JumpError(node.kind)
            else:
                self._branch(node, dot)

    def _write(self, text: str) -> None:
        self._length += len(text)
        if self._length > OUTPUT_LIMIT:
            raise TemplateError(f"template: the result is longer than {OUTPUT_LIMIT >> 20} MiB")
        self._out.append(text)

    def _branch(self, node: Branch, dot: object) -> None:
        known = len(self._variables)
        if node.kind == "range":
            self._range(node, dot)
        else:
            value = self._pipeline(node.pipeline, dot)
            inner = value if node.kind == "with" and true(value) else dot
            self._nodes(node.body if true(value) else node.other, inner)
        del self._variables[known:]

    def _range(self, node: Branch, dot: object) -> None:
        value = self._pipeline(node.pipeline, dot, assign=False)
        done = False
        for key, one in self._items(value, node.pipeline):
            done = True
            self._rounds += 1
            if self._rounds > ROUNDS_LIMIT:
                raise TemplateError(f"template: more than {ROUNDS_LIMIT} rounds of range")
            known = len(self._variables)
            names = node.pipeline.names
            self._assign(node.pipeline, names, (key, one)[-len(names) :] if names else ())
            try:
                self._nodes(node.body, one)
            except _JumpError as jump:
                if str(jump) == "break":
                    break
            finally:
                if node.pipeline.declares:
                    del self._variables[known:]
        if not done:
            self._nodes(node.other, dot)

    def _items(self, value: object, pipeline: Pipeline) -> Iterable[tuple[object, object]]:
        if value is None:
            return ()
        if isinstance(value, dict):
            return ordered(value)
        if isinstance(value, (list, tuple)):
            return enumerate(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return ((number, number) for number in range(value))
        raise self._wrong(pipeline.at, f"range can't iterate over {shown(value)}")

    # --- values ----------------------------------------------------------------------------------

    def _pipeline(self, pipeline: Pipeline, dot: object, *, assign: bool = True) -> object:
        value: object = _MISSING
        for command in pipeline.commands:
            value = self._command(command, value, dot)
        if assign and pipeline.names:
            self._assign(pipeline, pipeline.names, (value,))
        return value

    def _assign(self, pipeline: Pipeline, names: Sequence[str], values: Sequence[object]) -> None:
        for name, value in zip(names, values, strict=True):
            if pipeline.declares:
                self._variables.append((name, value))
                continue
            places = [place for place, (known, _) in enumerate(self._variables) if known == name]
            if not places:
                raise self._wrong(pipeline.at, f"undefined variable: {name}")
            self._variables[places[-1]] = (name, value)

    def _command(self, command: Sequence[Operand], last: object, dot: object) -> object:
        first, *rest = command
        if isinstance(first, Function) and first.name in ("and", "or"):
            return self._decide(first, rest, last, dot)
        if isinstance(first, Literal):
            if first.value is None:
                raise self._wrong(first.at, "nil is not a command")
            return first.value
        arguments = [self._operand(one, dot) for one in rest]
        if last is not _MISSING:
            arguments.append(last)
        if isinstance(first, Function):
            return self._call(first, arguments)
        return self._chain(first, dot, arguments)

    def _decide(self, first: Function, rest: Sequence[Operand], last: object, dot: object) -> object:
        """The first argument that decides, or the last one."""
        if not rest and last is _MISSING:
            raise self._wrong(first.at, f"wrong number of args for {first.name}: want at least 1 got 0")
        value: object = None
        for one in rest:
            value = self._operand(one, dot)
            if true(value) == (first.name == "or"):
                return value
        return value if last is _MISSING else last

    def _call(self, function: Function, arguments: Sequence[object]) -> object:
        if self._heading and arguments and function.name in OF_DOCKER:
            return arguments[0]
        try:
            return FUNCTIONS[function.name](*arguments)
        except TypeError:
            raise self._wrong(
                function.at, f"wrong number of args for {function.name}: got {len(arguments)}"
            ) from None
        except ValueError as error:
            raise self._wrong(function.at, f"error calling {function.name}: {error}") from None

    def _operand(self, operand: Operand, dot: object) -> object:
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Function):
            return self._command((operand,), _MISSING, dot)
        return self._chain(operand, dot, ())

    def _chain(self, chain: Chain, dot: object, arguments: Sequence[object]) -> object:
        if isinstance(chain.start, Pipeline):
            value = self._pipeline(chain.start, dot)
        elif chain.start == ".":
            value = dot
        else:
            value = self._variable(chain)
        for place, field in enumerate(chain.fields):
            value = self._field(value, field, chain)
            if callable(value):
                last = place == len(chain.fields) - 1
                value = self._method(value, chain, arguments if last else ())
                arguments = () if last else arguments
        if arguments:
            name = "." + ".".join(chain.fields) if chain.fields else str(chain.start)
            raise self._wrong(chain.at, f"{name} has arguments but cannot be invoked as function")
        return value

    def _variable(self, chain: Chain) -> object:
        """One that the body of an `if` has set is known to the parser in its `else`, but never set there."""
        for name, value in reversed(self._variables):
            if name == chain.start:
                return value
        raise self._wrong(chain.at, f"undefined variable: {chain.start}")

    def _method(self, function: Any, chain: Chain, arguments: Sequence[object]) -> object:
        try:
            found: object = function(*arguments)
        except TypeError:
            name = chain.fields[-1]
            raise self._wrong(chain.at, f"wrong number of args for {name}: got {len(arguments)}") from None
        return found

    def _field(self, value: object, name: str, chain: Chain) -> object:
        if isinstance(value, dict):
            found = value.get(name, _MISSING)
            if isinstance(value, Struct) and (found is _MISSING or found is None):
                found = value.zero.get(name, found)
            if found is _MISSING:
                raise self._wrong(chain.at, f'map has no entry for key "{name}"', _near(value, name))
            return found
        if value is None:
            raise self._wrong(chain.at, f"nil pointer evaluating interface {{}}.{name}")
        hint = "a list: {{range .List}}{{.}}{{end}} or {{index .List 0}}" if isinstance(value, list) else ""
        raise self._wrong(chain.at, f"can't evaluate field {name} in type {kind(value)}", hint)

    def _wrong(self, at: int, message: str, hint: str = "") -> TemplateError:
        before = self._template[:at]
        line, column = before.count("\n") + 1, at - (before.rfind("\n") + 1)
        return TemplateError(
            f'template: :{line}:{column}: executing "" at <{self._source(at)}>: {message}', hint
        )

    def _source(self, at: int) -> str:
        """The word of the template that stands there."""
        end = at + 1
        while end < len(self._template) and (self._template[end].isalnum() or self._template[end] in "._"):
            end += 1
        return self._template[at:end]


def _near(value: dict[str, Any], name: str) -> str:
    """Which field could be meant, or which there are."""
    same = [key for key in value if key.lower() == name.lower()]
    near = same or difflib.get_close_matches(name, map(str, value), n=1, cutoff=0.7)
    if near:
        return f"did you mean .{near[0]}?"
    some = sorted(map(str, value))
    return (
        f"it has {', '.join(some[:_FIELDS_SHOWN])}{' ...' if len(some) > _FIELDS_SHOWN else ''}"
        if some
        else ""
    )
