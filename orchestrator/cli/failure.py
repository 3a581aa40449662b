"""What a command prints when it fails, and its exit code. Imported only then."""

from __future__ import annotations

import os

from orchestrator.cli import say
from orchestrator.model.errors import ExitCode, PystackError


def report(error: BaseException, ansi: str | None = None) -> int:
    """Tell the user in one message; the traceback only with PYSTACK_DEBUG=1. Returns the exit code.

    `ansi` is the option of that name.
    """
    if os.environ.get("PYSTACK_DEBUG") not in (None, "", "0"):
        import traceback

        say.err("".join(traceback.format_exception(error)))
    if isinstance(error, BrokenPipeError):
        return 128 + 13  # as a program that SIGPIPE has ended
    if isinstance(error, KeyboardInterrupt):
        say.err("\n")
        return ExitCode.INTERRUPTED
    message, hint, code = describe(error)
    colour = say.colourful(say.STDERR, ansi)
    say.err((_painted(error) if colour else "") or render(message, hint, colour=colour))
    return code


def _painted(error: BaseException) -> str:
    """The problems of a stack file in colours; "" for anything else."""
    from orchestrator.cli import diagnose
    from orchestrator.stackfile.problem import StackfileError

    if not isinstance(error, StackfileError):
        return ""
    rest = "".join(f"{line}\n" for line in error.rest)
    return diagnose.text(map(diagnose.of_problem, error.problems), colour=True) + rest


def describe(error: BaseException) -> tuple[str, str, int]:
    """(message, hint, exit code). Pure."""
    if isinstance(error, PystackError):
        return error.message, error.hint, int(error.exit_code) or int(ExitCode.FAILED)
    if isinstance(error, PermissionError):
        what = f"{error.filename}: " if error.filename else ""
        return f"{what}permission denied", "", ExitCode.NOT_PERMITTED
    if isinstance(error, OSError):
        what = f"{error.filename}: " if error.filename else ""
        return f"{what}{error.strerror or error}", "", ExitCode.FAILED
    name = type(error).__name__
    return (
        f"internal error: {name}: {error}",
        "this is a bug in pystack; PYSTACK_DEBUG=1 shows where",
        ExitCode.FAILED,
    )


def render(message: str, hint: str, *, colour: bool) -> str:
    """Messages of the stack file's loader carry their own head (`stack.yml:3:5: error[E012]: ...`)."""
    text = say.printable(message)
    located = "error[" in text.partition("\n")[0]
    head = "" if located else say.paint("error:", say.RED, on=colour) + " "
    tail = f"\n  hint: {say.printable(hint)}" if hint else ""
    return f"{head}{text}{tail}\n"
