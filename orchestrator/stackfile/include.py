"""Stack files that are part of another: the entries of `include`, and how their resources come in.

Compose Specification "include". Each part is loaded on its own, with its own directory and its own .env;
then its services, networks, volumes, configs, secrets and models are copied in. What both have must be the
same: a part is changed by an override file, not by the file that includes it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

from orchestrator.model.frozen import dataclass
from orchestrator.stackfile import dotenv, problem
from orchestrator.stackfile.check import check, fits
from orchestrator.stackfile.combine import bare_map
from orchestrator.stackfile.forms import Spot
from orchestrator.stackfile.intake import Document, Intake, Scope, absolute, at, remote
from orchestrator.stackfile.paths import move, settle_contexts
from orchestrator.stackfile.problem import Mark, Report
from orchestrator.stackfile.shorthand import lengthen
from orchestrator.stackfile.tree import Map, Node, Seq, Tagged, plain
from orchestrator.stackfile.unsupported import judge

SECTIONS = ("services", "networks", "volumes", "configs", "secrets", "models")
_LEFT_OUT = ("name",)
"""Keys of a part that mean nothing to the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of `include`."""

    paths: tuple[tuple[str, Mark | None], ...]
    project_directory: str | None
    env_files: tuple[tuple[str, Mark | None], ...]
    mark: Mark | None


def entries(tree: Map, report: Report) -> list[Entry]:
    """The entries of `include` in a document; wrong shapes go to the report, which settles. Entries that name
    no file include nothing, as with docker compose.
    """
    said, mark = tree.get("include"), tree.mark("include")
    if isinstance(said, Tagged):
        said = None if said.tag == "reset" else said.value
    if said is None:
        return []
    alone = Map()
    alone.put("include", said, mark, tree.key_at.get("include"))
    check(alone, report)
    report.settle()
    found = []
    for index, entry in enumerate(said if isinstance(said, Seq) else ()):
        place = said.mark(index) if isinstance(said, Seq) else None
        one = _entry(entry, place)
        where = f"include[{index}]"
        if "" in _plain_texts(entry.get("path") if isinstance(entry, Map) else entry):
            report.error(place, problem.MISSING_KEY, f"{where} needs `path`", path=where)
        elif not one.paths:
            report.refuse(place, problem.MISSING_KEY, f"{where} needs `path`", path=where)
        found.append(one)
    report.settle()
    return found


def _entry(node: Node, mark: Mark | None) -> Entry:
    if not isinstance(node, Map):
        return Entry(paths=tuple(_texts(node, mark)), project_directory=None, env_files=(), mark=mark)
    directory = node.get("project_directory")
    return Entry(
        paths=tuple(_texts(node.get("path"), node.mark("path") or mark)),
        project_directory=directory if isinstance(directory, str) and directory else None,
        env_files=tuple(_texts(node.get("env_file"), node.mark("env_file") or mark)),
        mark=mark,
    )


def _plain_texts(node: Node) -> list[Node]:
    return list(node) if isinstance(node, Seq) else [node]


def _texts(node: Node, mark: Mark | None) -> Iterator[tuple[str, Mark | None]]:
    if isinstance(node, Seq):
        for index, entry in enumerate(node):
            if isinstance(entry, str) and entry:
                yield entry, node.mark(index) or mark
    elif isinstance(node, str) and node:
        yield node, mark


def open_entry(
    entry: Entry, document: Document, scope: Scope, intake: Intake
) -> tuple[list[Document], Scope]:
    """The documents of a part and its scope. Raises StackfileError when a file can't be had."""
    home = intake.files.home
    via = (f"included from {at(entry.mark)}", *scope.via)
    chain = (*scope.open, (document.path, document.file))
    documents: list[Document] = []
    paths = [(absolute(path, scope.folder, home), path, mark) for path, mark in entry.paths]
    for path, written, mark in paths:
        intake.open_part(mark, len(chain))
        if remote(written):
            message = f"{written:.80} is on another machine: such files are not supported"
            intake.report.error(mark, problem.UNSUPPORTED, message, hint="fetch it, and include the copy")
        elif path in [known for known, _ in chain]:
            ring = [*(shown for _, shown in chain), intake.shown(path)]
            intake.report.error(
                mark, problem.CYCLE, f"files include each other in a circle: {' -> '.join(ring)}"
            )
        else:
            documents += intake.documents(path, mark, via) or ()
    intake.report.settle()
    for one in documents:
        intake.take(one.tree, entry.mark)
    folder = posixpath.dirname(paths[0][0]) if paths else scope.folder
    if entry.project_directory is not None:
        folder = absolute(entry.project_directory, scope.folder, home)
    variables = _variables(entry, folder, scope, intake, via)
    return documents, Scope(folder=folder, variables=variables, open=chain, via=via)


def _variables(
    entry: Entry, folder: str, scope: Scope, intake: Intake, via: tuple[str, ...]
) -> Mapping[str, str]:
    """The part's own variables, below those of the file that includes it."""
    home = intake.files.home
    named = [(absolute(path, scope.folder, home), mark) for path, mark in entry.env_files]
    own = posixpath.join(folder, ".env")
    if not named and intake.files.exists(own):
        named = [(own, entry.mark)]
    if not named:
        return scope.variables
    found: dict[str, str] = {}
    for path, mark in named:
        source = intake.source(path, mark, via)
        if source is not None:
            found.update(
                dotenv.parse(source, lambda key: scope.variables.get(key, found.get(key)), intake.report)
            )
    intake.report.settle()
    return {**found, **scope.variables}


def close_part(tree: Map, scope: Scope, outer: Scope, intake: Intake) -> Map:
    """A part's tree as it goes into the whole: absolute paths, its own variables in bare names."""
    report = intake.report
    rest = tree.without(*_LEFT_OUT, *(key for key in SECTIONS if isinstance(tree.get(key), Map)))
    if not report.problems:
        judge(rest, report)
    moved = settle_contexts(move(tree, scope.folder, intake.files.home), scope.folder)
    return moved if scope.variables is outer.variables else _bind(moved, scope, intake)


def _bind(tree: Map, scope: Scope, intake: Intake) -> Map:
    """The tree with the part's own variables where only their names stand."""
    for section in ("configs", "secrets"):
        for name, entry in _entries(tree, section):
            variable = entry.get("environment")
            if isinstance(variable, str) and variable in scope.variables:
                intake.contents[f"{section}.{name}"] = scope.variables[variable]
    services = tree.get("services")
    if not isinstance(services, Map):
        return tree
    fresh = services.copy()
    for name, service in _entries(tree, "services"):
        if "environment" in service:
            filled = service.copy()
            filled["environment"] = _filled(service["environment"], scope.variables)
            fresh[name] = filled
    result = tree.copy()
    result["services"] = fresh
    return result


def _entries(tree: Map, section: str) -> Iterator[tuple[str, Map]]:
    entries = tree.get(section)
    for name, entry in entries.items() if isinstance(entries, Map) else ():
        if isinstance(entry, Map):
            yield name, entry


def _filled(node: Node, variables: Mapping[str, str]) -> Node:
    """An environment in which names without a value have that of the part."""
    if isinstance(node, Map):
        fresh = node.copy()
        for key, value in node.items():
            if value is None and key in variables:
                fresh[key] = variables[key]
        return fresh
    if isinstance(node, Seq):
        listed = Seq()
        for index, entry in enumerate(node):
            value = variables.get(entry) if isinstance(entry, str) else None
            listed.add(entry if value is None else f"{entry}={value}", node.mark(index))
        return listed
    return node


def bring_in(result: Map, part: Map, own: set[str], scope: Scope, intake: Intake) -> None:
    """Put the resources of a part into the document `result`, which is changed, as are its sections in `own`.

    What both have and say differently goes to the report.
    """
    for section in SECTIONS:
        coming = part.get(section)
        if not isinstance(coming, Map):
            continue
        there = result.get(section)
        mine = there
        if isinstance(there, Tagged):
            mine = there.value if there.tag == "override" else None
        if mine is not None and not isinstance(mine, Map):
            continue
        both = mine if mine is not None and section in own else (mine or Map()).copy()
        _add(section, both, coming, scope, intake)
        if section not in own:
            own.add(section)
            fresh: Node = Tagged("override", both) if isinstance(there, Tagged) else both
            result.put(section, fresh, result.mark(section) or part.mark(section), part.key_at.get(section))


def _add(section: str, mine: Map, coming: Map, scope: Scope, intake: Intake) -> None:
    for name, value in coming.items():
        local = mine.get(name)
        if name not in mine:
            mine.take(name, coming)
        elif isinstance(local, Tagged) and local.tag == "reset":
            # the reset is for the files before; what is included stays
            mine.put(name, Tagged("override", value), coming.mark(name), coming.key_at.get(name))
        elif not _same(section, name, local, value, scope, intake):
            other = at(coming.key_mark(name))
            intake.report.error(
                mine.key_mark(name),
                problem.CONFLICT,
                f"{section}.{name} is defined here and, differently, in {other}",
                hint="to change what is included, use an override file: another -f, or a second path",
                path=f"{section}.{name}",
            )


def _same(section: str, name: str, local: Node, value: Node, scope: Scope, intake: Intake) -> bool:
    """Do both say the same, in whatever form?"""
    return _long(section, name, local, scope, intake) == _long(section, name, value, scope, intake)


def _long(section: str, name: str, value: Node, scope: Scope, intake: Intake) -> object:
    entry, tree = Map(), Map()
    entry[name] = value
    tree[section] = entry
    tree = bare_map(move(tree, scope.folder, intake.files.home))
    if fits(tree):
        tree = lengthen(tree, Spot(Report()))
    return plain(tree)
