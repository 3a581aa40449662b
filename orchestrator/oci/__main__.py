"""The command `pystack-oci`: finds out what is asked for and calls it, importing as little as it can."""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.oci import arguments
    from orchestrator.oci.journal import Journal
    from orchestrator.oci.scope import Scope


_ENTERING = {"create", "run", "exec"}
"""What becomes a container's program, having been this one. Looked for before all else is imported, for it
is begun anew; elsewhere on the line such a word costs time and means nothing."""


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    # A command lives for a moment and makes no garbage worth looking for.
    gc.disable()
    if not _ENTERING.isdisjoint(sys.argv[1:]):
        from orchestrator.kernel.spawn import run_sealed

        run_sealed()
    code = enter(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        code = code or 1
    os._exit(code)


def enter(argv: list[str]) -> int:
    """The exit code of a command line; every failure has been told on standard error and in the log."""
    from orchestrator.oci import arguments
    from orchestrator.oci.complaint import Complaint
    from orchestrator.oci.journal import Journal
    from orchestrator.oci.scope import Scope
    from orchestrator.oci.table import COMMANDS, COMMON

    journal = Journal("", as_json=False, debug=False)
    try:
        call = arguments.parse(argv, COMMON, COMMANDS)
        text = {name: value for name, value in call.scope.items() if isinstance(value, str)}
        journal = Journal(
            text.get("log", ""), as_json=text.get("log-format") == "json", debug=bool(call.scope.get("debug"))
        )
        if call.command == "version":
            return _version()
        if call.command == "help":
            from orchestrator.oci import usage

            return usage.show(call.words)
        return perform(call, Scope.of(call, journal))
    except Complaint as error:
        journal.error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return _surprise(error, journal)


def perform(call: arguments.Call, scope: Scope) -> int:
    """Call the function that the table names for the command."""
    from importlib import import_module

    from orchestrator.oci.table import COMMANDS

    module, _, function = COMMANDS[call.command].calls.partition(":")
    doing = getattr(import_module(f"orchestrator.oci.{module}"), function)
    code: int = doing(scope, call)
    return code


def _surprise(error: Exception, journal: Journal) -> int:
    """What nobody translated: an answer of the kernel is a sentence, anything else a fault of ours."""
    if isinstance(error, OSError):
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        journal.error(f"{place}{error.strerror or error}")
        return 1
    from orchestrator.kernel.reading import RefusedError

    if isinstance(error, RefusedError):
        journal.error(str(error))
        return 1
    import traceback

    traceback.print_exc()
    journal.error(f"a fault of pystack-oci: {error!r}")
    return 1


def _version() -> int:
    from orchestrator import __version__
    from orchestrator.oci.grammar import NEWEST

    print(f"pystack-oci version {__version__}\nspec: {NEWEST}")
    return 0


if __name__ == "__main__":
    main()
