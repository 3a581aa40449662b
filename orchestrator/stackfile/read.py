"""YAML text -> tree. Hostile text ends in a StackfileError, never in a deep recursion or a full memory.

Built on parser events rather than on PyYAML's nodes: no recursion, duplicate keys are seen, aliases are
counted as if written out (so an alias bomb is refused before anything walks it), and a fifth less time.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.model.frozen import dataclass
from orchestrator.stackfile import libyaml, problem
from orchestrator.stackfile.problem import Mark, Report
from orchestrator.stackfile.scalar import scalar
from orchestrator.stackfile.tree import Map, Node, Seq, Tagged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    from yaml.events import AliasEvent, Event, MappingStartEvent, ScalarEvent, SequenceStartEvent

MAX_BYTES = 8 * 1024 * 1024
MAX_NODES = 500_000
MAX_DEPTH = 64
_CORE = "tag:yaml.org,2002:"
_MERGING: Mapping[str, Literal["reset", "override"]] = {"!reset": "reset", "!override": "override"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One text of the user's: `path` as errors show it."""

    path: str
    text: str


class _Frame:
    """A map or list that is still open."""

    __slots__ = ("anchor", "height", "key", "key_mark", "mark", "merges", "node", "size", "tag")

    def __init__(self, node: Map | Seq, mark: Mark, anchor: str | None, tag: str | None) -> None:
        self.node = node
        self.mark = mark
        self.anchor = anchor
        self.tag = tag
        self.size = 1
        self.height = 1
        self.key: str | None = None
        self.key_mark: Mark | None = None
        self.merges: list[tuple[Node, Mark]] = []


class _Refused(Exception):
    """The rest of the text is not worth reading; the report says why."""


def read(source: Source, report: Report) -> list[Map]:
    """The documents of a text; none when it is empty. What is wrong goes to `report`."""
    report.knows(source.path, source.text)
    start: Mark = (source.path, 1, 1, 0)
    if len(source.text) > MAX_BYTES:
        report.error(start, problem.LIMIT, f"the file is larger than {MAX_BYTES // 1024 // 1024} MiB")
        return []
    builder = _Builder(source.path, report)
    steps = builder.steps()
    try:
        for event in libyaml.parse(source.text):
            step = steps.get(event.__class__)
            if step is not None:
                step(event)
    except _Refused:
        return []
    except libyaml.MarkedYAMLError as error:
        _syntax(source, error, report)
        return []
    except libyaml.YAMLError as error:
        reason = getattr(error, "reason", None) or "can't be read"
        report.error(_position(source, error), problem.SYNTAX, f"not YAML: {reason}")
        return []
    except UnicodeError:
        report.error(start, problem.SYNTAX, "not YAML: the file is not UTF-8 text")
        return []
    return _documents(builder.documents, report)


def _documents(nodes: list[tuple[Node, Mark]], report: Report) -> list[Map]:
    documents: list[Map] = []
    for node, mark in nodes:
        if isinstance(node, Tagged):
            if node.tag == "reset":
                report.error(mark, problem.WRONG_VALUE, "!reset can't stand at the top of a stack file")
                continue
            report.warn(mark, "!override has no meaning at the top of a stack file")
            node = node.value  # noqa: PLW2901
        if isinstance(node, Map):
            documents.append(node)
        elif node is None and len(nodes) > 1:
            hint = "leave out the line --- before it"
            report.error(mark, problem.EMPTY, "an empty document among others", hint=hint)
        elif node is not None:
            report.error(
                mark,
                problem.WRONG_VALUE,
                "the top of a stack file must be a mapping (services:, networks:, ...)",
            )
    return documents


def _syntax(source: Source, error: libyaml.MarkedYAMLError, report: Report) -> None:
    spot = error.problem_mark or error.context_mark
    mark: Mark = (source.path, spot.line + 1, spot.column + 1, 0) if spot else (source.path, 1, 1, 0)
    what = error.problem or error.context or "can't be read"
    hint = ""
    lines = source.text.splitlines()
    line = lines[mark[1] - 1] if mark[1] <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        hint = "a tab can't indent YAML: use spaces"
    elif error.context and error.context_mark is not None and error.problem:
        hint = f"{error.context} that begins in line {error.context_mark.line + 1}"
    report.error(mark, problem.SYNTAX, f"not YAML: {what}", hint=hint)


def _position(source: Source, error: libyaml.YAMLError) -> Mark:
    offset = getattr(error, "position", 0)
    before = source.text[: offset if isinstance(offset, int) else 0]
    return (source.path, before.count("\n") + 1, len(before) - before.rfind("\n"), 0)


class _Builder:
    def __init__(self, file: str, report: Report) -> None:
        self.file = file
        self.report = report
        self.documents: list[tuple[Node, Mark]] = []
        self.frames: list[_Frame] = []
        self.anchors: dict[str, tuple[Node, int, int]] = {}
        self.opened: set[str] = set()

    def steps(self) -> dict[type, Callable[[Any], None]]:
        """What to do, by the class of an event."""
        return {
            libyaml.SCALAR: self._scalar,
            libyaml.MAPPING_START: self._open,
            libyaml.MAPPING_END: self._close,
            libyaml.SEQUENCE_START: self._open,
            libyaml.SEQUENCE_END: self._close,
            libyaml.ALIAS: self._alias,
            libyaml.DOCUMENT_START: self._begin,
        }

    def _begin(self, _: Event) -> None:
        self.anchors.clear()

    def _mark(self, event: Event) -> Mark:
        start, end = event.start_mark, event.end_mark
        assert start is not None
        assert end is not None
        line = start.line
        stop = end.column + 1 if end.line == line else 0
        return (self.file, line + 1, start.column + 1, stop)

    def _scalar(self, event: ScalarEvent) -> None:
        mark = self._mark(event)
        text, style = event.value, event.style
        value: Node = text if style else scalar(text)
        if event.tag is not None:
            value = self._tagged(event.tag, text, value, mark)
        if style == '"' and "\0" in text:
            # Only an escape can bring one, and none of the system calls it would go to takes it.
            self.report.error(mark, problem.WRONG_VALUE, "a text can't hold the character \\0")
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1, 0)
        self._add(value, mark, 1, 0, merge=text == "<<" and not style)

    def _tagged(self, tag: str, text: str, value: Node, mark: Mark) -> Node:
        """A scalar with a tag; `value` is what it would be without."""
        if tag in _MERGING:
            # as docker compose has it: what has a tag is a text; but nothing stays nothing
            return Tagged(_MERGING[tag], None if value is None else text)
        match tag.removeprefix(_CORE):
            case "str" | "!" | "binary":
                return text
            case "int" | "float" | "bool" | "null" | "timestamp":
                return scalar(text)
        self._bad_tag(tag, mark)
        return text

    def _bad_tag(self, tag: str, mark: Mark) -> None:
        if tag.removeprefix(_CORE) not in ("map", "seq", "!", "set", "omap"):
            self.report.warn(mark, f"the YAML tag {tag} has no meaning here")

    def _open(self, event: MappingStartEvent | SequenceStartEvent) -> None:
        mark = self._mark(event)
        if len(self.frames) >= MAX_DEPTH:
            self._refuse(mark, f"nested more than {MAX_DEPTH} levels deep")
        if event.tag is not None and event.tag not in _MERGING:
            self._bad_tag(event.tag, mark)
        # a collection's own text is long: point at its beginning only
        mark = (mark[0], mark[1], mark[2], 0)
        node: Map | Seq = Map() if event.__class__ is libyaml.MAPPING_START else Seq()
        if event.anchor is not None:
            self.opened.add(event.anchor)
            self.anchors.pop(event.anchor, None)
        self.frames.append(_Frame(node, mark, event.anchor, event.tag))

    def _close(self, _: Event) -> None:
        frame = self.frames.pop()
        if frame.merges:
            self._merge(frame)
        tag = _MERGING.get(frame.tag or "")
        node = frame.node if tag is None else Tagged(tag, frame.node)
        if frame.anchor is not None:
            self.opened.discard(frame.anchor)
            self.anchors[frame.anchor] = (node, frame.size, frame.height)
        self._add(node, frame.mark, frame.size, frame.height)

    def _alias(self, event: AliasEvent) -> None:
        mark = self._mark(event)
        known = self.anchors.get(event.anchor or "")
        if known is None:
            why = "contains itself" if event.anchor in self.opened else "is not defined above"
            self.report.error(mark, problem.SYNTAX, f"alias *{event.anchor} {why}")
            raise _Refused
        node, size, height = known
        if len(self.frames) + height > MAX_DEPTH:
            self._refuse(mark, f"nested more than {MAX_DEPTH} levels deep")
        self._add(node, mark, size, height)

    def _add(self, node: Node, mark: Mark, size: int, height: int, *, merge: bool = False) -> None:
        if not self.frames:
            self.documents.append((node, mark))
            return
        frame = self.frames[-1]
        frame.size += size
        if height >= frame.height:
            frame.height = height + 1
        if frame.size > MAX_NODES:
            self._refuse(mark, f"more than {MAX_NODES} values, aliases written out")
        target = frame.node
        if isinstance(target, Seq):
            target.append(node)
            target.at.append(mark)
        elif frame.key_mark is None:
            self._key(frame, node, mark, merge=merge)
        else:
            self._value(frame, target, node, mark)

    def _key(self, frame: _Frame, node: Node, mark: Mark, *, merge: bool) -> None:
        frame.key_mark = mark
        if merge:
            frame.key = None
        elif isinstance(node, str):
            frame.key = node
            earlier = frame.node.key_at.get(node) if isinstance(frame.node, Map) else None
            if earlier is not None:
                self.report.error(
                    mark,
                    problem.DUPLICATE_KEY,
                    f"the key {node!r} stands here twice",
                    hint=f"first at line {earlier[1]}, column {earlier[2]}",
                )
        else:
            frame.key = ""
            self.report.error(mark, problem.KEY_NOT_TEXT, "a key must be text", hint="put it in quotes")

    def _value(self, frame: _Frame, target: Map, node: Node, mark: Mark) -> None:
        key, key_mark = frame.key, frame.key_mark
        assert key_mark is not None
        frame.key_mark = None
        if key is None:
            frame.merges.append((node, mark))
            return
        target[key] = node
        # an absent value has no text: its key stands for it
        target.at[key] = mark if node is not None else key_mark
        target.key_at[key] = key_mark

    def _merge(self, frame: _Frame) -> None:
        """`<<`: the map's own keys win over merged ones, earlier merged maps over later ones."""
        target = frame.node
        assert isinstance(target, Map)
        for node, mark in frame.merges:
            for base in node if isinstance(node, Seq) else [node]:
                if not isinstance(base, Map):
                    self.report.error(mark, problem.WRONG_VALUE, "<< takes a mapping or a list of mappings")
                    continue
                for key in base:
                    if key not in target:
                        target.take(key, base)

    def _refuse(self, mark: Mark, message: str) -> None:
        self.report.error(mark, problem.LIMIT, message)
        raise _Refused
