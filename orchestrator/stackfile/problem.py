"""What is wrong with a stack file, told with the place, the line, and what would be right."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.model.errors import ExitCode, Place, UserError
from orchestrator.model.frozen import dataclass

MAX_PROBLEMS = 20
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

    def __str__(self) -> str:
        head = f"{self.place}: " if self.place else ""
        rows = [f"{head}error[{self.code}]: {self.message}", *self.excerpt]
        if self.hint:
            rows.append(f"  hint: {self.hint}")
        return "\n".join(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something the user should know that does not stop the stack."""

    message: str
    place: Place | None = None

    def __str__(self) -> str:
        return f"{self.place}: warning: {self.message}" if self.place else f"warning: {self.message}"


class StackfileError(UserError):
    """A stack file can't be used. Carries every problem found, sorted by place, at most twenty."""

    def __init__(self, problems: Sequence[Problem], *, exit_code: ExitCode = ExitCode.INVALID_STACK) -> None:
        ordered = sorted(problems, key=_order)
        self.problems = tuple(ordered[:MAX_PROBLEMS])
        super().__init__("\n".join(str(problem) for problem in self.problems), exit_code=exit_code)


def _order(problem: Problem) -> tuple[str, int, int, str]:
    place = problem.place
    return (place.file, place.line, place.column, problem.message) if place else ("", 0, 0, problem.message)


def place_of(mark: Mark | None) -> Place | None:
    if mark is None:
        return None
    file, line, column, end = mark
    return Place(file=file, line=line, column=column, end_column=end or None)


class Report:
    """Collects what a phase finds, so that the user sees all of it at once."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Warned] = []
        self._texts: dict[str, str] = {}
        self._seen: set[tuple[str, int, int, str]] = set()

    def knows(self, file: str, text: str) -> None:
        """Remember the text of a file, for excerpts."""
        self._texts[file] = text

    def error(self, mark: Mark | None, code: str, message: str, *, hint: str = "", path: str = "") -> None:
        if len(self.problems) > 10 * MAX_PROBLEMS:
            return
        problem = Problem(
            code=code,
            message=message,
            place=place_of(mark),
            path=path,
            hint=hint,
            excerpt=self._excerpt(mark) if mark else (),
        )
        key = _order(problem)
        if key not in self._seen:
            self._seen.add(key)
            self.problems.append(problem)

    def warn(self, mark: Mark | None, message: str) -> None:
        warned = Warned(message=message, place=place_of(mark))
        if warned not in self.warnings:
            self.warnings.append(warned)

    def settle(self) -> None:
        """Between phases: go on only with a tree that is right so far. Raises StackfileError."""
        if self.problems:
            raise StackfileError(self.problems)

    def _excerpt(self, mark: Mark) -> tuple[str, ...]:
        file, line, column, end = mark
        text = self._texts.get(file)
        if text is None:
            return ()
        lines = text.splitlines()
        if not 0 < line <= len(lines):
            return ()
        # what a terminal would obey must not reach it
        source = "".join(char if char.isprintable() else " " for char in lines[line - 1])
        if len(source) > _EXCERPT_WIDTH:
            return ()
        width = max(1, min(end, len(source) + 1) - column) if end else 1
        number = f"{line:>5}"
        return (f"{number} | {source}", f"{' ' * len(number)} | {' ' * (column - 1)}{'^' * width}")


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
