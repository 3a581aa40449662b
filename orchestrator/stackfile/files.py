"""The little of the outside world that loading a stack needs, as the caller provides it."""

from __future__ import annotations

from orchestrator.model.errors import ExitCode
from orchestrator.stackfile import problem
from orchestrator.stackfile.problem import Mark, Report, StackfileError, reject
from orchestrator.stackfile.read import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object


class Files(Protocol):
    """The user's files. A dict is enough of a file system for tests."""

    @property
    def home(self) -> str:
        """The user's home directory, for ~ in paths."""

    def read(self, path: str) -> str:
        """The text of a file. Raises OSError (FileNotFoundError, IsADirectoryError ...) or UnicodeError."""

    def exists(self, path: str) -> bool:
        """Is there a file at this path?"""

    def digest(self, path: str) -> str:
        """SHA-256 of what a file holds; "" for what is no plain file, or too large. Raises OSError."""


def read_text(files: Files, path: str) -> Source:
    """Raises StackfileError when the file can't be read: a stack file or an --env-file the user named."""
    try:
        return Source(path=path, text=files.read(path))
    except OSError as error:
        raise reject(f"{path}: {why(error)}", exit_code=ExitCode.FILE_NOT_FOUND) from None
    except UnicodeError as error:
        raise reject(why(error), code=problem.SYNTAX, mark=_broken(path, error)) from None


def _broken(path: str, error: UnicodeError) -> Mark:
    """Where a text stops being UTF-8; columns count bytes there."""
    before = error.object[: error.start] if isinstance(error, UnicodeDecodeError) else b""
    return (path, before.count(b"\n") + 1, len(before) - before.rfind(b"\n"), 0)


def try_text(files: Files, path: str, mark: Mark | None, report: Report) -> Source | None:
    """The text of a file that a stack file names; None, and a problem, when it can't be read."""
    try:
        return Source(path=path, text=files.read(path))
    except (OSError, UnicodeError, ValueError) as error:
        report.error(mark, problem.FILE, f"{path}: {why(error)}")
        return None


def why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "that is a directory, not a file"
    if isinstance(error, OSError):
        return error.strerror or str(error) or "can't be read"
    return "the file is not UTF-8 text"


__all__ = ["Files", "StackfileError", "read_text", "try_text", "why"]
