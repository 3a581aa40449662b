"""How a value came to be: which file and line, through which merge step, from which variable.

    trail = Trail()
    load(sources, given, trail)
    for step in explain(trail, "services.web.environment.A"):
        print(step)

Without a trail `load` keeps nothing, so that it costs nothing. With one it only keeps what it has anyhow: the
trees of every document before and after its variables were filled in, who extends whom, who includes whom.
The steps are found afterwards, by looking for the path in all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Literal

from orchestrator.model.errors import Place
from orchestrator.model.frozen import dataclass, field
from orchestrator.stackfile.problem import Mark, place_of
from orchestrator.stackfile.scalar import text_of
from orchestrator.stackfile.tree import Map, Node, Plain, Seq, Tagged, plain

Path = tuple[str | int, ...]
Kind = Literal[
    "written",
    "merged",
    "replaced",
    "kept",
    "reset",
    "overridden",
    "interpolated",
    "completed",
    "env_file",
    "default",
]

_SENTENCES: Mapping[Kind, str] = {
    "written": "written here",
    "merged": "merged with what was there",
    "replaced": "replaces what was there",
    "kept": "says nothing, so what was there stays",
    "reset": "!reset takes it away",
    "overridden": "!override replaces what was there",
    "interpolated": "variables filled in",
    "completed": "written out in full",
    "env_file": "from a file named here",
    "default": "in no file: the default, or follows from other keys",
}
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)|([A-Za-z_]\w*)|\$)")
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+|\.)")


@dataclass(slots=True, kw_only=True)
class Layer:
    """One document of a file, in the order in which documents were merged."""

    file: str
    """As errors show it."""
    written: Map
    """Before variables were filled in."""
    tree: Map
    variables: Mapping[str, str]
    bases: dict[str, Base] = field(default_factory=dict)
    """What services of this document extend, by the service's name."""
    parts: list[Part] = field(default_factory=list)
    """What this document includes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What a service extends: `service` in `layers` (the documents of the other file, or its own)."""

    service: str
    layers: list[Layer]
    via: str
    """extended by service web in compose.yml:3"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """An entry of `include`."""

    layers: list[Layer]
    via: str
    """included from compose.yml:3"""


@dataclass(slots=True, kw_only=True)
class Trail:
    """What one load has met. Made empty, filled by `load`, read by `explain`."""

    layers: list[Layer] = field(default_factory=list)
    environment: Mapping[str, str] = field(default_factory=dict)
    final: Map = field(default_factory=Map)
    """The complete tree, as `config` prints it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that was done to a value."""

    kind: Kind
    place: Place | None
    value: Plain
    """What the place says, or what came out."""
    via: tuple[str, ...] = ()
    """How the file came in, innermost first: included from compose.yml:3."""
    note: str = ""

    @property
    def sentence(self) -> str:
        """What was done, in words."""
        says = _SENTENCES[self.kind]
        extra = [self.note] if self.note else []
        return "; ".join([says, *extra, *self.via])

    def __str__(self) -> str:
        head = f"{self.place}: " if self.place else ""
        value = "" if self.kind in ("reset", "kept") else f": {json.dumps(self.value, ensure_ascii=False)}"
        return f"{head}{self.sentence}{value}"


def explain(trail: Trail, path: str) -> tuple[Step, ...]:
    """How the value at a path such as services.web.ports[0] came to be, earliest step first.

    Empty when there is no such value, and no file ever said one. Keys with dots in them are found, too.
    """
    steps = _parsed(trail.final, path)
    if not steps:
        return ()
    found = _at(trail.final, steps)
    marks = _marks(trail.final, steps)
    told: list[Step] = []
    for hit in _hits(trail.layers, steps, marks, ()):
        told += _told(hit, trail, first=not told)
    if found is _NOWHERE:
        return tuple(told)
    assert not isinstance(found, _Nowhere)
    value = plain(found)
    if not told:
        return (_silent(trail, steps, marks[-1] if marks else None, value),)
    last = next((step.value for step in reversed(told) if step.kind not in ("kept", "reset")), None)
    if last != value and not isinstance(found, Map | Seq):
        told.append(Step(kind="completed", place=None, value=value))
    return tuple(told)


def _silent(trail: Trail, path: Path, mark: Mark | None, value: Plain) -> Step:
    """The one step of a value that no layer says anything of."""
    if mark is not None:
        return Step(kind="completed", place=place_of(mark), value=value)
    if len(path) == 4 and (path[0], path[2]) == ("services", "environment"):
        named = list(_hits(trail.layers, (*path[:2], "env_file"), [], ()))
        if named:
            return Step(kind="env_file", place=place_of(named[-1].mark), value=value, via=named[-1].via)
    return Step(kind="default", place=None, value=value)


class _Nowhere:
    """There is no value at a path."""


_NOWHERE = _Nowhere()


def _parsed(tree: Map, path: str) -> Path:
    """The steps of a dotted path. The longest key that is there wins, so that keys may hold dots."""
    words: list[str | int] = []
    for index, key in _STEP.findall(path):
        words.append(int(index) if index else key)
    words = [word for word in words if word != "."]
    steps: list[str | int] = []
    node: Node = tree
    at = 0
    while at < len(words):
        length = 1
        if isinstance(node, Map):
            for more in range(len(words) - at, 1, -1):
                if ".".join(map(str, words[at : at + more])) in node:
                    length = more
                    break
        step = words[at] if length == 1 else ".".join(map(str, words[at : at + length]))
        steps.append(step)
        below = _at_step(node, step)
        node = None if isinstance(below, _Nowhere) else below
        at += length
    return tuple(steps)


def _at_step(node: Node, step: str | int) -> Node | _Nowhere:
    if isinstance(node, Map):
        return node.get(str(step), _NOWHERE)
    if isinstance(node, Seq) and isinstance(step, int) and step < len(node):
        return node[step]
    return _NOWHERE


def _at(tree: Map, path: Path) -> Node | _Nowhere:
    node: Node | _Nowhere = tree
    for step in path:
        if isinstance(node, _Nowhere):
            return node
        node = _at_step(node, step)
    return node


def _marks(tree: Map, path: Path) -> list[Mark | None]:
    """The places of the values along a path of the final tree."""
    marks: list[Mark | None] = []
    node: Node | _Nowhere = tree
    for step in path:
        if isinstance(node, Map):
            marks.append(node.mark(str(step)))
        elif isinstance(node, Seq) and isinstance(step, int):
            marks.append(node.mark(step))
        node = _NOWHERE if isinstance(node, _Nowhere) else _at_step(node, step)
    return marks


# --- looking through the layers ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hit:
    """A layer that says something at the path, or at a short form that stands for it."""

    layer: Layer
    path: Path
    value: Node
    mark: Mark | None
    via: tuple[str, ...]


def _hits(
    layers: list[Layer], path: Path, marks: list[Mark | None], via: tuple[str, ...], depth: int = 0
) -> Iterator[_Hit]:
    if depth > 200:
        return
    for layer in layers:
        for part in layer.parts:
            yield from _hits(part.layers, path, marks, (part.via, *via), depth + 1)
        base = layer.bases.get(str(path[1])) if len(path) > 1 and path[0] == "services" else None
        if base is not None:
            inside: Path = ("services", base.service, *path[2:])
            yield from _hits(base.layers, inside, marks, (base.via, *via), depth + 1)
        found = _look(layer.tree, path, marks)
        if found is not None:
            value, mark = found
            yield _Hit(layer=layer, path=path, value=value, mark=mark, via=via)


def _look(tree: Map, path: Path, marks: list[Mark | None]) -> tuple[Node, Mark | None] | None:
    """What a raw tree says at a canonical path: also in a list of key=value, or in a short form."""
    node: Node = tree
    mark: Mark | None = None
    for depth, step in enumerate(path):
        if isinstance(node, Tagged):
            if node.tag == "reset":
                return node, mark
            node = node.value
        wanted = marks[depth] if depth < len(marks) else None
        if isinstance(node, Map):
            key = str(step)
            if isinstance(step, int) or key not in node:
                return None
            mark = node.mark(key)
            node = node[key]
        elif isinstance(node, Seq):
            index = _index(node, step, wanted)
            if index is None:
                return None
            mark = node.mark(index)
            node = node[index]
        elif node is None or depth < 2:
            return None
        else:
            return node, mark
    return node, mark


def _index(node: Seq, step: str | int, wanted: Mark | None) -> int | None:
    """The entry of a raw list that became the one at `step`: by its place, or by its key."""
    if isinstance(step, int):
        return next((index for index, at in enumerate(node.at) if at is not None and at == wanted), None)
    for index, entry in enumerate(node):
        said = entry.value if isinstance(entry, Tagged) else entry
        if not isinstance(said, Map | Seq) and re.split("[=:]", text_of(said), maxsplit=1)[0] == step:
            return index
    return None


def _told(hit: _Hit, trail: Trail, *, first: bool) -> list[Step]:
    """What one layer did: it wrote or changed the value, perhaps with variables in it."""
    place = place_of(hit.mark)
    kind: Kind = "written" if first else "replaced"
    value = hit.value
    if isinstance(value, Tagged):
        kind = "reset" if value.tag == "reset" else "overridden"
        value = value.value
    elif not first and isinstance(value, Map | Seq):
        kind = "merged"
    elif value is None and not first and hit.path[2:3] != ("environment",):
        # a variable without a value is one: that of the user
        kind = "kept"
    raw = _look(hit.layer.written, hit.path, [])
    written = raw[0] if raw is not None and not isinstance(value, Map | Seq) else value
    if isinstance(written, Tagged):
        written = written.value
    names = _variables(written) if isinstance(written, str) else []
    if not names or written == value:
        return [Step(kind=kind, place=place, value=plain(value), via=hit.via)]
    note = ", ".join(f"{name} {_origin(name, hit.layer, trail)}" for name in names)
    return [
        Step(kind=kind, place=place, value=written if isinstance(written, str) else None, via=hit.via),
        Step(kind="interpolated", place=place, value=plain(value), note=note),
    ]


def _variables(text: str) -> list[str]:
    found: dict[str, None] = {}
    for braced, bare in _VARIABLE.findall(text):
        if braced or bare:
            found[braced or bare] = None
    return list(found)


def _origin(name: str, layer: Layer, trail: Trail) -> str:
    if name in trail.environment:
        return "from the environment"
    if name in layer.variables:
        return "from .env or an env file"
    return "not set"
