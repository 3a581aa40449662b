"""What a rule of `pystack check` looks at, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from orchestrator.model.errors import Place
from orchestrator.model.frozen import dataclass
from orchestrator.stackfile.problem import Mark, written
from orchestrator.stackfile.tree import Map, Node, Seq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

Severity: TypeAlias = 'Literal["error", "warning", "note"]'
"""error: it can't work, or must not be so. warning: most likely not meant. note: good to know."""
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to look at, at one place: a rule's, or what loading has to say."""

    code: str
    severity: Severity
    message: str
    place: Place | None = None
    path: str = ""
    """Where in the tree: services.web.ports[0]."""
    hint: str = ""
    excerpt: tuple[str, ...] = ()
    """The source line and a line of carets below it; none where the line holds a secret."""
    via: tuple[str, ...] = ()
    """How the file came in, innermost first: included from compose.yml:3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a rule yields."""

    path: Path
    mark: Mark | None
    message: str
    hint: str = ""
    """In place of the rule's."""
    severity: Severity | None = None
    """In place of the rule's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A stack as rules see it. `tree` is the merged tree in long forms with its places; what is switched off
    or used by nothing is in it, too.
    """

    tree: Map
    active: frozenset[str]
    """The services that are switched on."""
    texts: Mapping[str, str]

    def services(self) -> Iterator[tuple[str, Map]]:
        yield from bodies(self.tree.get("services"))

    def written(self, mark: Mark | None) -> str:
        """The text at a place as it stands in its file, before interpolation; its line's rest when the end
        is not known.
        """
        return written(self.texts, mark)

    def literal(self, mark: Mark | None) -> bool:
        """Does the value stand in the file itself? Else a variable, an alias or another file gives it."""
        text = self.written(mark)
        return bool(text) and not text.startswith("*") and "$" not in text.replace("$$", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table. `because` is one sentence for the page; `hint` says what to do instead."""

    code: str
    name: str
    severity: Severity
    because: str
    hint: str
    find: Callable[[Look], Iterator[Found]]
    secret: bool = False
    """The source line is not shown."""


def bodies(node: Node) -> Iterator[tuple[str, Map]]:
    """The named mappings of a section."""
    if isinstance(node, Map):
        for name, body in node.items():
            if isinstance(body, Map):
                yield name, body


def items(node: Node) -> Iterator[tuple[int, Node, Mark | None]]:
    """The entries of a list with their places."""
    if isinstance(node, Seq):
        for index, value in enumerate(node):
            yield index, value, node.mark(index)


def part(node: Map, key: str) -> Map:
    """A mapping below a key; an empty one when there is none."""
    value = node.get(key)
    return value if isinstance(value, Map) else Map()


def text(node: Map, key: str) -> str:
    """A text below a key; "" when there is none."""
    value = node.get(key)
    return value if isinstance(value, str) else ""
