"""The tree of a stack file: maps and lists that know where each key and value was written.

Trees are never changed after they were made: phases build new ones and share what stays the same (which
also keeps YAML aliases cheap).
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.stackfile.problem import Mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

Scalar = str | int | float | bool | None
Node: TypeAlias = "Map | Seq | Tagged | Timestamp | str | int | float | bool | None"
Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | float | bool | None"


class Map(dict[str, Node]):
    """A mapping. `at` and `key_at` say where values and keys stand; a key made by us has no mark."""

    __slots__ = ("at", "key_at")

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[str, Mark] = {}
        self.key_at: dict[str, Mark] = {}

    def put(self, key: str, value: Node, mark: Mark | None, key_mark: Mark | None = None) -> None:
        self[key] = value
        if mark is not None:
            self.at[key] = mark
        if key_mark is not None:
            self.key_at[key] = key_mark

    def take(self, key: str, other: Map) -> None:
        """Take over a key with its value and places."""
        self.put(key, other[key], other.at.get(key), other.key_at.get(key))

    def mark(self, key: str) -> Mark | None:
        """Where the value stands; where its key stands when the value has no text of its own."""
        return self.at.get(key) or self.key_at.get(key)

    def key_mark(self, key: str) -> Mark | None:
        return self.key_at.get(key) or self.at.get(key)

    def alike(self) -> Map:
        """An empty map whose keys, once they are there, stand where this one's do. Its places are shared:
        nothing may be `put` into it."""
        other = Map.__new__(Map)
        other.at = self.at
        other.key_at = self.key_at
        return other

    def copy(self) -> Map:
        other = Map()
        other.update(self)
        other.at.update(self.at)
        other.key_at.update(self.key_at)
        return other

    def without(self, *keys: str) -> Map:
        other = self.copy()
        for key in keys:
            other.pop(key, None)
        return other


class Seq(list[Node]):
    """A list. `at` says where each entry stands (None for entries made by us)."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        super().__init__()
        self.at: list[Mark | None] = []

    def add(self, value: Node, mark: Mark | None) -> None:
        self.append(value)
        self.at.append(mark)

    def mark(self, index: int) -> Mark | None:
        return self.at[index] if index < len(self.at) else None


class Tagged:
    """A value with !reset or !override. None is left once the files are combined."""

    __slots__ = ("tag", "value")

    def __init__(self, tag: Literal["reset", "override"], value: Node) -> None:
        self.tag = tag
        self.value = value


class Timestamp:
    """An unquoted date. YAML gives it a type of its own, which no key of a stack file takes."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timestamp) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


def size(node: Node) -> int:
    """How many values there are, aliases written out."""
    if isinstance(node, Map):
        return 1 + sum([size(value) for value in node.values()])
    if isinstance(node, Seq):
        return 1 + sum([size(value) for value in node])
    return size(node.value) if isinstance(node, Tagged) else 1


def plain(node: Node, text: Callable[[str], str] = str) -> Plain:
    """The tree as bare data, every string value passed through `text`."""
    if isinstance(node, str):
        return text(node)
    if isinstance(node, dict):
        return {key: plain(value, text) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(value, text) for value in node]
    if isinstance(node, Timestamp):
        return node.text
    return plain(node.value, text) if isinstance(node, Tagged) else node


def find(root: Node, path: tuple[str | int, ...]) -> Mark | None:
    """Where the value at `path` stands; the nearest enclosing one that has a place otherwise."""
    mark: Mark | None = None
    node = root
    for step in path:
        if isinstance(node, Map) and isinstance(step, str):
            mark = node.mark(step) or mark
            node = node.get(step)
        elif isinstance(node, Seq) and isinstance(step, int) and step < len(node):
            mark = node.mark(step) or mark
            node = node[step]
        else:
            break
    return mark


def dotted(path: tuple[str | int, ...]) -> str:
    """services.web.ports[0]"""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
