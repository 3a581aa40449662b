"""What is wrong with a stack file, told with the place, the line, and what would be right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from orchestrator.model.errors import ExitCode, Place, UserError
from orchestrator.model.frozen import dataclass

MAX_PROBLEMS = 20
MAX_WORK = 64 * 1024 * 1024
"""Characters that variables may become, and that env files and included files may have together."""
_EXCERPT_WIDTH = 160

Mark = tuple[str, int, int, int]
"""File as shown, line, column, end column (0 when unknown), counted from 1."""

SYNTAX = "E001"
DUPLICATE_KEY = "E002"
LIMIT = "E003"
KEY_NOT_TEXT = "E004"
EMPTY = "E006"
VARIABLE = "E010"
UNKNOWN_KEY = "E012"
WRONG_VALUE = "E013"
MISSING_KEY = "E014"
CONFLICT = "E015"
UNDEFINED = "E016"
DUPLICATE = "E017"
CYCLE = "E018"
NAME = "E019"
UNSUPPORTED = "E020"
FILE = "E021"
ENV_FORMAT = "E022"

CODES = {
    SYNTAX: ("syntax", "The text is not YAML."),
    DUPLICATE_KEY: ("duplicate-key", "A mapping has a key twice."),
    LIMIT: ("limit", "The file is too large, too deep, or grows too large."),
    KEY_NOT_TEXT: ("key-not-text", "A key is not a text."),
    EMPTY: ("empty", "The file says nothing."),
    VARIABLE: ("variable", "A variable is misspelt, or a required one is missing."),
    UNKNOWN_KEY: ("unknown-key", "A key has no meaning where it stands."),
    WRONG_VALUE: ("wrong-value", "A value is of the wrong kind or out of range."),
    MISSING_KEY: ("missing-key", "Something needs a key that is not there."),
    CONFLICT: ("conflict", "Two things contradict each other."),
    UNDEFINED: ("undefined", "Something is named that is not defined."),
    DUPLICATE: ("duplicate", "Two things want the same name or place, or a list says something twice."),
    CYCLE: ("cycle", "Things need each other in a circle."),
    NAME: ("name", "A name can't be one."),
    UNSUPPORTED: (
        "unsupported",
        "Something can't be honoured here, and leaving it out would change what runs.",
    ),
    FILE: ("file", "A file is missing or can't be read."),
    ENV_FORMAT: ("env-format", "An env file has a line that is no variable."),
}
"""Every code with its name and what it says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, at one place."""

    code: str
    message: str
    place: Place | None = None
    path: str = ""
    """Where in the tree: services.web.ports[0]."""
    hint: str = ""
    excerpt: tuple[str, ...] = ()
    """The source line and a line of carets below it."""
    service: str = ""
    """Of a refusal: the service that can't be run; "" for every one."""
    via: tuple[str, ...] = ()
    """How the file came in, innermost first: included from compose.yml:3."""

    def __str__(self) -> str:
        head = f"{self.place}: " if self.place else ""
        rows = [f"{head}error[{self.code}]: {self.message}", *self.excerpt, *(f"  {way}" for way in self.via)]
        if self.hint:
            rows.append(f"  hint: {self.hint}")
        return "\n".join(rows)

    def as_warning(self) -> Warned:
        """As commands tell it that run nothing."""
        return Warned(message=f"{self.message} (`up` refuses it)", place=self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something the user should know that does not stop the stack."""

    message: str
    place: Place | None = None

    def __str__(self) -> str:
        return f"{self.place}: warning: {self.message}" if self.place else f"warning: {self.message}"


class StackfileError(UserError):
    """A stack file can't be used. Carries every problem found, sorted by place, at most twenty."""

    def __init__(
        self,
        problems: Sequence[Problem],
        *,
        exit_code: ExitCode = ExitCode.INVALID_STACK,
        unseen: int = 0,
    ) -> None:
        ordered = sorted(problems, key=_order)
        self.problems = tuple(ordered[:MAX_PROBLEMS])
        self.more = len(ordered) - len(self.problems) + unseen
        """How many there are beside them."""
        rows = [str(problem) for problem in self.problems]
        super().__init__("\n".join([*rows, *self.rest]), exit_code=exit_code)

    @property
    def rest(self) -> tuple[str, ...]:
        """The line that says that there are more problems, if there are."""
        return (f"... and {self.more} more",) if self.more else ()


def _order(problem: Problem) -> tuple[str, int, int, str]:
    place = problem.place
    return (place.file, place.line, place.column, problem.message) if place else ("", 0, 0, problem.message)


def place_of(mark: Mark | None) -> Place | None:
    if mark is None:
        return None
    file, line, column, end = mark
    return Place(file=file, line=line, column=column, end_column=end or None)


def mark_of(place: Place | None) -> Mark | None:
    return (place.file, place.line, place.column, place.end_column or 0) if place is not None else None


class Report:
    """Collects what a phase finds, so that the user sees all of it at once."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Warned] = []
        self.refusals: list[Problem] = []
        """What is well said and can't be run: it stops only commands that run something."""
        self.texts: dict[str, str] = {}
        """The files that were read, for excerpts."""
        self._seen: set[tuple[str, int, int, str]] = set()
        self._warned: set[Warned] = set()
        self._refused: set[Problem] = set()
        self._unseen = 0
        self._work = 0
        self._ways: dict[str, tuple[str, ...]] = {}

    def knows(self, file: str, text: str) -> None:
        """Remember the text of a file, for excerpts."""
        self.texts[file] = text

    def came(self, file: str, via: tuple[str, ...]) -> None:
        """Remember how a file came in, innermost first: included from compose.yml:3."""
        if via:
            self._ways.setdefault(file, via)

    def error(self, mark: Mark | None, code: str, message: str, *, hint: str = "", path: str = "") -> None:
        if len(self.problems) >= 10 * MAX_PROBLEMS:
            self._unseen += 1
            return
        problem = self._problem(mark, code, message, hint=hint, path=path)
        key = _order(problem)
        if key not in self._seen:
            self._seen.add(key)
            self.problems.append(problem)

    def refuse(
        self,
        mark: Mark | None,
        code: str,
        message: str,
        *,
        hint: str = "",
        path: str = "",
        service: str = "",
    ) -> None:
        """As `error`, for what docker compose takes and then fails to start, or we can't run."""
        refusal = self._problem(mark, code, message, hint=hint, path=path, service=service)
        if len(self.refusals) < 10 * MAX_PROBLEMS and refusal not in self._refused:
            self._refused.add(refusal)
            self.refusals.append(refusal)

    def _problem(
        self, mark: Mark | None, code: str, message: str, *, hint: str, path: str, service: str = ""
    ) -> Problem:
        return Problem(
            code=code,
            message=message,
            place=place_of(mark),
            path=path,
            hint=hint,
            excerpt=excerpt(self.texts, mark),
            service=service,
            via=self._ways.get(mark[0], ()) if mark is not None else (),
        )

    def warn(self, mark: Mark | None, message: str) -> None:
        warned = Warned(message=message, place=place_of(mark))
        if warned not in self._warned:
            self._warned.add(warned)
            self.warnings.append(warned)

    def spend(self, mark: Mark | None, characters: int) -> None:
        """Count text that was read or made of variables. Raises StackfileError above the limit of a load."""
        self._work += characters
        if self._work > MAX_WORK:
            self.error(mark, LIMIT, f"more than {MAX_WORK >> 20} million characters are read or made")
            self.settle()

    def settle(self) -> None:
        """Between phases: go on only with a tree that is right so far. Raises StackfileError."""
        if self.problems:
            raise StackfileError(self.problems, unseen=self._unseen)


def excerpt(texts: Mapping[str, str], mark: Mark | None) -> tuple[str, ...]:
    """The source line and a line of carets below it; of a long line the part around the place. Nothing when
    the file's text is not known.
    """
    if mark is None or mark[0] not in texts:
        return ()
    file, line, column, end = mark
    lines = _lines(texts[file])
    if not 0 < line <= len(lines):
        return ()
    source = lines[line - 1]
    width = max(1, min(end, len(source) + 1) - column) if end else 1
    if len(source) > _EXCERPT_WIDTH:
        source, column = _window(source, column)
        width = min(width, max(1, len(source) + 1 - column))
    # what a terminal would obey must not reach it
    source = "".join(char if char.isprintable() else " " for char in source)
    number = f"{line:>5}"
    blanks = " " * _columns(source[: column - 1])
    carets = "^" * max(1, _columns(source[column - 1 : column - 1 + width]))
    return (f"{number} | {source}", f"{' ' * len(number)} | {blanks}{carets}")


@lru_cache(maxsize=2)
def _lines(text: str) -> list[str]:
    """Hundreds of excerpts may be wanted of one large file."""
    return text.splitlines()


def written(texts: Mapping[str, str], mark: Mark | None) -> str:
    """The text at a place as it stands in its file; the rest of its line when the end is not known."""
    if mark is None:
        return ""
    file, line, column, end = mark
    lines = _lines(texts.get(file, ""))
    return lines[line - 1][column - 1 : end - 1 if end else None] if 0 < line <= len(lines) else ""


def _window(source: str, column: int) -> tuple[str, int]:
    """The part of a long line around a column, and the column in it."""
    first = max(0, min(column - 1 - _EXCERPT_WIDTH // 3, len(source) - _EXCERPT_WIDTH))
    last = min(len(source), first + _EXCERPT_WIDTH)
    before = "..." if first else ""
    after = "..." if last < len(source) else ""
    return f"{before}{source[first:last]}{after}", column - first + len(before)


def _columns(text: str) -> int:
    """Columns of a terminal: two for wide East Asian characters (Unicode Standard Annex 11)."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def reject(
    message: str,
    *,
    code: str = FILE,
    mark: Mark | None = None,
    hint: str = "",
    exit_code: ExitCode = ExitCode.INVALID_STACK,
) -> StackfileError:
    """One problem on its own, as the error to raise."""
    problem = Problem(code=code, message=message, place=place_of(mark), hint=hint)
    return StackfileError([problem], exit_code=exit_code)
