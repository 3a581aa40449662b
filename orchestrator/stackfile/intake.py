"""The files that come into one load beside those the user named: read once, counted, shown by short names.

What hostile files could multiply has its limit here: files, and the values in them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from orchestrator.model.frozen import dataclass
from orchestrator.stackfile import problem
from orchestrator.stackfile.check import check, check_literal, fits
from orchestrator.stackfile.files import Files, try_text
from orchestrator.stackfile.interpolate import interpolate
from orchestrator.stackfile.problem import Mark, Report
from orchestrator.stackfile.read import MAX_NODES, Source, read
from orchestrator.stackfile.tree import Map, Node, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.stackfile.phases import Phase

MAX_PARTS = 1000
"""Files that are included, each time counted."""
MAX_CHAIN = 64
"""Files that include one another, services that extend one another."""
MAX_FAULTY = 10
"""Files and steps of merging that are told about on their own: finding words for what is wrong takes time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a stack file, its variables not yet filled in."""

    file: str
    """As errors show it."""
    path: str
    """Absolute, or - for standard input."""
    tree: Map
    variable: bool
    """Whether a value may have variables; a $ can also be written with a backslash."""
    tagged: bool
    """Whether it may have `!reset` or `!override`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What the files of one part share: the main files of a stack are a part, too."""

    folder: str
    """Absolute: where relative paths count from."""
    variables: Mapping[str, str]
    open: tuple[tuple[str, str], ...] = ()
    """The files that include this part, outermost first: absolute path, and as shown."""
    via: tuple[str, ...] = ()


class Intake:
    """One load's files and how much of its limits is used. `cwd` shortens the names that users see; `literal`
    leaves variables as they are written.
    """

    __slots__ = (
        "_faulty",
        "_uncounted",
        "contents",
        "cwd",
        "files",
        "known",
        "literal",
        "parts",
        "report",
        "values",
    )

    def __init__(self, files: Files, report: Report, cwd: str = "", *, literal: bool = False) -> None:
        self.files = files
        self.report = report
        self.cwd = cwd
        self.literal = literal
        self.parts = 0
        self.values = 0
        self._faulty = 0
        self._uncounted: list[Node] = []
        self.known: dict[str, list[Document] | None] = {}
        self.contents: dict[str, str] = {}
        """What configs and secrets of parts take from the parts' own variables: secrets.KEY -> value."""

    def shown(self, path: str) -> str:
        """A file's name as errors show it: short when it lies below the current directory."""
        inside = f"{self.cwd.rstrip('/')}/"
        return path.removeprefix(inside) if self.cwd and path.startswith(inside) else path

    def source(self, path: str, mark: Mark | None, via: tuple[str, ...]) -> Source | None:
        """The text of a file that the user's files name at `mark`; None, and a problem, without it."""
        found = try_text(self.files, path, mark, self.report)
        if found is None:
            return None
        self.report.spend(mark, len(found.text))
        shown = self.shown(path)
        self.report.came(shown, via)
        return Source(path=shown, text=found.text)

    def documents(self, path: str, mark: Mark | None, via: tuple[str, ...]) -> list[Document] | None:
        """The documents of a stack file; None when it can't be read."""
        if path not in self.known:
            source = self.source(path, mark, via)
            found = None
            if source is not None:
                found = documents(source, path, self.report)
            self.known[path] = found
            # what can't be read is told in full, once, before anything is made of the rest
            self.report.settle()
        return self.known[path]

    def filled(self, document: Document, variables: Mapping[str, str]) -> Map:
        """Its tree with the variables filled in; what is wrong goes to the report."""
        if self.literal or not document.variable:
            return document.tree
        return interpolate(document.tree, variables, self.report)

    def check(self, tree: Map, phase: Phase) -> None:
        """What the schemas say against a file or a step on the way goes to the report."""
        if self._faulty < MAX_FAULTY and not fits(tree):
            self._faulty += 1
            (check_literal if self.literal else check)(tree, self.report, phase)

    def take(self, node: Node, mark: Mark | None) -> None:
        """Count the values that a file or a service brings in. Raises StackfileError above the limit."""
        self._uncounted.append(node)
        if len(self._uncounted) == 1 and not self.values:
            return  # most stacks are one file, and who read it has counted
        self.values += sum(map(size, self._uncounted))
        self._uncounted.clear()
        if self.values > MAX_NODES:
            self.report.error(
                mark,
                problem.LIMIT,
                f"more than {MAX_NODES} values, everything that is extended and included written out",
            )
            self.report.settle()

    def open_part(self, mark: Mark | None, chain: int) -> None:
        """Count an included file. Raises StackfileError above the limits."""
        self.parts += 1
        if self.parts > MAX_PARTS:
            self.report.error(mark, problem.LIMIT, f"more than {MAX_PARTS} files are included")
        elif chain > MAX_CHAIN:
            self.report.error(mark, problem.LIMIT, f"more than {MAX_CHAIN} files include one another")
        else:
            return
        self.report.settle()


def documents(source: Source, path: str, report: Report) -> list[Document]:
    """What a text holds. `path` is where it lies; what is wrong goes to `report`."""
    variable, tagged = "$" in source.text or "\\" in source.text, "!" in source.text
    return [
        Document(file=source.path, path=path, tree=tree, variable=variable, tagged=tagged)
        for tree in read(source, report)
    ]


def at(mark: Mark | None) -> str:
    """A place in a sentence: compose.yml:3."""
    return f"{mark[0]}:{mark[1]}" if mark is not None else "the stack file"


def absolute(path: str, folder: str, home: str) -> str:
    """The absolute path of a file that a stack file names: relative to `folder`, ~ is `home`."""
    if path == "~" or path.startswith("~/"):
        path = home + path[1:]
    return posixpath.normpath(posixpath.join(folder, path))


def remote(path: str) -> bool:
    """A file on another machine, as docker compose could fetch it."""
    return "://" in path or path.startswith("git@")
