"""Which variables a stack file uses, and what it says of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.model.frozen import dataclass
from orchestrator.stackfile.interpolate import NAME, closing
from orchestrator.stackfile.tree import Map, Node, Seq, Tagged

_MAX_NESTING = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A name behind a $, as all of its uses together have it."""

    name: str
    required: bool = False
    """Somewhere as ${NAME?}."""
    default: str = ""
    """Of ${NAME:-default}."""
    alternate: str = ""
    """Of ${NAME:+alternate}."""


def used(tree: Map) -> dict[str, Variable]:
    """The variables in the values of a tree whose variables were not filled in, by name, in order."""
    found: dict[str, Variable] = {}
    for text in _texts(tree):
        for one in _in_text(text, 0):
            known = found.get(one.name, one)
            found[one.name] = Variable(
                name=one.name,
                required=known.required or one.required,
                default=known.default or one.default,
                alternate=known.alternate or one.alternate,
            )
    return {name: found[name] for name in sorted(found)}


def _texts(node: Node) -> Iterator[str]:
    if isinstance(node, str):
        if "$" in node:
            yield node
    elif isinstance(node, Map):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, Seq):
        for value in node:
            yield from _texts(value)
    elif isinstance(node, Tagged):
        yield from _texts(node.value)


def _in_text(text: str, nesting: int) -> Iterator[Variable]:
    at = text.find("$")
    while at >= 0:
        after = text[at + 1 : at + 2]
        end = at + 1
        if after == "$":
            end = at + 2
        elif after == "{":
            close = closing(text, at + 1)
            if close is not None:
                yield from _braced(text[at + 2 : close], nesting)
                end = close + 1
        else:
            name = NAME.match(text, at + 1)
            if name is not None:
                yield Variable(name=name.group())
                end = name.end()
        at = text.find("$", end)


def _braced(inner: str, nesting: int) -> Iterator[Variable]:
    name = NAME.match(inner)
    if name is None or nesting > _MAX_NESTING:
        return
    rest = inner[name.end() :].removeprefix(":")
    operator, word = rest[:1], rest[1:]
    yield Variable(
        name=name.group(),
        required=operator == "?",
        default=word if operator == "-" else "",
        alternate=word if operator == "+" else "",
    )
    yield from _in_text(word, nesting + 1)
