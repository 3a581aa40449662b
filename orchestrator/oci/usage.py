"""What --help prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.oci.arguments import HELP, Option
from orchestrator.oci.complaint import UsageError
from orchestrator.oci.table import COMMANDS, COMMON


def show(words: Sequence[str]) -> int:
    """Print the help of a command, or of all."""
    print(text(words[0] if words else ""))
    return 0


def text(name: str) -> str:
    """The help as a text. Raises UsageError for a command that is none."""
    if not name:
        commands = "\n".join(f"  {key:10} {command.about}" for key, command in COMMANDS.items())
        return (
            "pystack-oci [options] COMMAND [options] [CONTAINER-ID] ...\n\n"
            f"Runs containers from OCI bundles.\n\ncommands:\n{commands}\n\noptions:\n{_options(COMMON)}"
        )
    if name not in COMMANDS:
        raise UsageError(f"{name!r} is not a command", 3)
    command = COMMANDS[name]
    takes = f"Takes {command.words}.\n\n" if command.words else ""
    return f"pystack-oci {name}: {command.about}.\n{takes}options:\n{_options((*command.options, HELP))}"


def _options(options: Iterable[Option]) -> str:
    rows = []
    for option in options:
        names = ", ".join(("--" if len(name) > 1 else "-") + name for name in option.names)
        rows.append(
            f"  {names + (' ' + option.takes.upper().rstrip('S') if option.takes else ''):34} {option.about}"
        )
    return "\n".join(rows)
