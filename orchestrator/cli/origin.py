"""`config --explain PATH`: which file and line a value came from, through which steps. Rendering is pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.cli import columns, loading, say
from orchestrator.cli.scope import Scope
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass
from orchestrator.stackfile.enable import nearest
from orchestrator.stackfile.trail import Step, Trail, explain
from orchestrator.stackfile.tree import Map, Node, Plain, Seq, dotted, plain

_LEAVES = 500
"""Values below a path that are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A value, and the step that gave it what it is."""

    path: str
    value: Plain
    step: Step


def told(scope: Scope, services: tuple[str, ...], path: str, form: str | None, *, colour: bool) -> str:
    """The story of the value at a path, and where the values below it come from. Raises UserError."""
    files = loading.UserFiles()
    trail = Trail()
    loading.load(files, scope.located(files), services, strict=True, warn=False, trail=trail)
    steps = explain(trail, path)
    found = _find(trail.final, path)
    if not steps:
        raise UserError(
            f"nothing says anything of {path}", exit_code=ExitCode.USAGE, hint=_hint(trail.final, path)
        )
    below: list[Origin] = []
    for where, value in _parts(found, path) if isinstance(found, Map | Seq) else ():
        below += _below(trail, where, value)
    if form == "json":
        rows = [{"path": one.path, **row(one.step), "value": one.value} for one in below]
        story = {"path": path, "value": plain(found), "steps": [row(step) for step in steps], "below": rows}
        return json.dumps({key: value for key, value in story.items() if value != []}, indent=2) + "\n"
    return render(path, None if isinstance(found, Map | Seq) else plain(found), steps, below, colour=colour)


def _below(trail: Trail, path: str, node: Node) -> list[Origin]:
    """The values below a path, each with the step that gave it what it is; in one row what was written as one
    (a port in its short form).
    """
    rows: list[Origin] = []
    if isinstance(node, Map | Seq) and node:
        for where, value in _parts(node, path):
            if len(rows) < _LEAVES:
                rows += _below(trail, where, value)
        places = {origin.step.place for origin in rows}
        if len(rows) > 1 and len(places) == 1 and None not in places:
            return [Origin(path=path, value=plain(node), step=rows[0].step)]
        return rows
    steps = [step for step in explain(trail, path) if step.kind not in ("kept", "interpolated")]
    placed = [step for step in steps if step.place is not None]
    return [Origin(path=path, value=plain(node), step=(placed or steps)[-1])] if steps else []


def _parts(node: Map | Seq, path: str) -> Iterator[tuple[str, Node]]:
    if isinstance(node, Map):
        yield from ((f"{path}.{key}", value) for key, value in node.items())
    else:
        yield from ((f"{path}[{index}]", value) for index, value in enumerate(node))


def _find(tree: Map, path: str) -> Node:
    """The value at a path; keys may hold dots."""
    for where, node in _walk(tree, ()):
        if dotted(where) == path:
            return node
    return None


def _walk(node: Node, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Node]]:
    if path:
        yield path, node
    if isinstance(node, Map):
        for key, value in node.items():
            yield from _walk(value, (*path, key))
    elif isinstance(node, Seq):
        for index, value in enumerate(node):
            yield from _walk(value, (*path, index))


def _hint(tree: Map, path: str) -> str:
    known = [dotted(where) for where, _ in _walk(tree, ())][: 20 * _LEAVES]
    return nearest(path, known) or "paths look like services.web.environment.NAME or services.web.ports[0]"


def row(step: Step) -> dict[str, Any]:
    """One step as an object; what it does not have is left out. Pure."""
    found: dict[str, Any] = {"step": step.kind}
    if step.place is not None:
        found |= {"file": step.place.file, "line": step.place.line, "column": step.place.column}
    if step.kind not in _SILENT:
        found["value"] = step.value
    if step.note:
        found["note"] = step.note
    if step.via:
        found["via"] = list(step.via)
    return found


_SILENT = ("reset", "kept")


def render(path: str, value: Plain, steps: Sequence[Step], below: Sequence[Origin], *, colour: bool) -> str:
    """`compose.yml:5:10  written here: "1"` lines, in columns; the value first, in bold. Pure."""
    head = f"{path}: {_shown(value)}" if value is not None or not below else path
    text = say.paint(say.printable(head), say.BOLD, on=colour) + "\n"
    lines: list[tuple[str, str]] = []
    last = ""
    for step in steps:
        place = str(step.place or "")
        lines.append(("" if place == last else place, f"{step.sentence}{_value(step)}"))
        last = place
    text += _columns(lines, colour=colour)
    if below:
        rows = [(str(one.step.place or "(default)"), f"{one.path}: {_shown(one.value)}") for one in below]
        text += "\n" + _columns(rows, colour=colour)
    return text


def _value(step: Step) -> str:
    if step.kind in _SILENT or isinstance(step.value, dict | list):
        return ""
    return f": {_shown(step.value)}"


def _shown(value: Plain) -> str:
    return columns.shorten(json.dumps(value, ensure_ascii=False), 200)


def _columns(rows: Sequence[tuple[str, str]], *, colour: bool) -> str:
    width = max((columns.width(place) for place, _ in rows), default=0)
    return "".join(
        f"  {say.paint(say.printable(place), say.CYAN, on=colour)}{' ' * (width - columns.width(place))}"
        f"  {say.printable(said)}".rstrip()
        + "\n"
        for place, said in rows
    )
