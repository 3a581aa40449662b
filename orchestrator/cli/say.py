"""Output of a command: whole lines to a descriptor, and whether colours may be used."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

STDOUT = 1
STDERR = 2
RED = "31"
YELLOW = "33"
CYAN = "36"
BOLD = "1"
FAINT = "2"


def write(fd: int, data: bytes) -> None:
    """All of `data`, also to a pipe that somebody has made non-blocking. Raises OSError (EPIPE)."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            import select

            waiting = select.poll()
            waiting.register(fd, select.POLLOUT)
            waiting.poll()


def out(text: str) -> None:
    write(STDOUT, text.encode("utf-8", "surrogateescape"))


def put(text: str, path: str | None) -> int:
    """Into a file, or to standard output where none is named: exit code 0. Raises UserError."""
    if path is None:
        out(text)
        return 0
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        from orchestrator.model.errors import UserError

        raise UserError(f"{path}: {error.strerror}") from None
    return 0


def err(text: str) -> None:
    write(STDERR, text.encode("utf-8", "surrogateescape"))


def warning(message: str, place: object = None) -> None:
    head = f"{place}: " if place is not None else ""
    err(f"{printable(head)}{paint('warning:', YELLOW, on=colourful(STDERR))} {printable(message)}\n")


def colourful(fd: int, ansi: str | None = None, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether colours go to `fd`. `ansi` is the option, then COMPOSE_ANSI; a non-empty NO_COLOR says no
    unless they say always (https://no-color.org).
    """
    wish = ansi or environ.get("COMPOSE_ANSI") or "auto"
    if wish == "always":
        return True
    if wish == "never" or environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    return is_terminal(fd)


def is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def paint(text: str, colour: str, *, on: bool) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if on else text


def printable(text: str) -> str:
    """Text of unknown origin without control characters, which could command a terminal."""
    return "".join(
        letter if letter in "\n\t" or letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
