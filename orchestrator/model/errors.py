"""The error families. Everything else that is raised is a bug and may show a traceback."""

from __future__ import annotations

from enum import IntEnum

from orchestrator.model.frozen import dataclass


class ExitCode(IntEnum):
    """Exit codes of the command line, by class of failure (documented in docs/exit-codes.md).

    2 is typer's own for usage errors; 14-15 are those of docker compose; 126-127 those of a shell
    (POSIX.1-2017, XCU 2.8.2); 130 is 128+SIGINT.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_PERMITTED = 4
    SUPERVISOR = 5
    IMAGE = 6
    CONFLICT = 7
    FILE_NOT_FOUND = 14
    INVALID_STACK = 15
    NOT_EXECUTABLE = 126
    COMMAND_NOT_FOUND = 127
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place in a text the user wrote. Line and column count from 1."""

    file: str
    line: int
    column: int
    end_column: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class PystackError(Exception):
    """Base of the two expected families: carries one clear message, an exit code, perhaps a hint."""

    def __init__(self, message: str, *, exit_code: ExitCode = ExitCode.FAILED, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class UserError(PystackError):
    """The user asked for something that can't be: says what, where, and what would be right."""


def no_containers(stack: str) -> UserError:
    """What every command says that needs a stack which is not there (docker compose's words)."""
    return UserError(
        f'no container found for project "{stack}"',
        hint="`pystack up` creates them, `pystack ls -a` lists what is there",
    )


class EngineError(PystackError):
    """An action failed in the world.

    `retryable` tells the planner whether the same action may succeed later without the user
    changing anything (a busy device) or not (command not found). `lasting` says that it may, but not
    within seconds (a full disk): it is told at once, and tried again seldom.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = True,
        lasting: bool = False,
        exit_code: ExitCode = ExitCode.FAILED,
        hint: str = "",
    ) -> None:
        super().__init__(message, exit_code=exit_code, hint=hint)
        self.retryable = retryable
        self.lasting = lasting
