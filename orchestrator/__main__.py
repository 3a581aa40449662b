"""The command `pystack`: finds out what is asked for and calls it, importing as little as it can."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


UNPRIVILEGED = ("config", "convert", "check", "schema", "version")


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    import gc

    # A command lives for a moment and makes no garbage worth looking for.
    gc.disable()
    code = enter(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        code = code or 128 + 13
    # Tearing the interpreter down would take milliseconds and has nothing left to do.
    os._exit(code)


def enter(argv: list[str]) -> int:
    """The exit code of a command line; every failure has been told on standard error."""
    ansi = None
    try:
        from orchestrator.cli import fast

        call = fast.parse(argv)
        if call is not None:
            ansi = str(call.scope.get("ansi") or "") or None
            return perform(call)
        from orchestrator.cli import full

        return full.run(argv, perform)
    except (Exception, KeyboardInterrupt) as error:
        try:
            from orchestrator.cli import failure

            return failure.report(error, ansi)
        except (OSError, KeyboardInterrupt):
            return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def perform(call: object) -> int:
    """Call the function that the table names for the command."""
    from importlib import import_module

    from orchestrator.cli.fast import Call
    from orchestrator.cli.scope import Scope
    from orchestrator.cli.table import COMMANDS

    assert isinstance(call, Call)
    module, _, function = COMMANDS[call.command].calls.partition(":")
    doing = getattr(import_module(f"orchestrator.cli.{module}"), function)
    scope: dict[str, Any] = call.scope
    code: int = doing(Scope(**scope), **call.values)
    return code


if __name__ == "__main__":
    main()
