"""The user's terminal while a container's terminal is shown on it."""

from __future__ import annotations

import os
import termios
import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

STDIN = 0
STDOUT = 1
DETACH_KEYS = b"\x10\x11"
"""Ctrl-P, Ctrl-Q: leave without ending it."""


class Raw:
    """While entered, keys go through as they are. However it is left, the terminal is as it was."""

    __slots__ = ("_before", "_fd")

    def __init__(self, fd: int = STDIN) -> None:
        self._fd = fd
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        if os.isatty(self._fd):
            self._before = termios.tcgetattr(self._fd)
            tty.setraw(self._fd, termios.TCSADRAIN)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)


def size() -> tuple[int, int]:
    """(rows, columns) of the user's terminal; 24 by 80 when it has none."""
    for fd in (STDOUT, STDIN):
        try:
            columns, rows = os.get_terminal_size(fd)
        except OSError:
            continue
        if rows and columns:
            return rows, columns
    return 24, 80


def resize(master: int) -> None:
    """Give a container's terminal the size of ours; its program gets SIGWINCH."""
    try:
        termios.tcsetwinsize(master, size())
    except (termios.error, OSError):
        return


class DetachKeys:
    """Looks for Ctrl-P Ctrl-Q in what the user types; a lone Ctrl-P goes through with the next key."""

    __slots__ = ("_held", "pressed")

    def __init__(self) -> None:
        self.pressed = False
        self._held = b""

    def __call__(self, data: bytes) -> bytes:
        data = self._held + data
        self._held = b""
        before, keys, _ = data.partition(DETACH_KEYS)
        if keys:
            self.pressed = True
            return before
        if data.endswith(DETACH_KEYS[:1]):
            self._held = data[-1:]
            return data[:-1]
        return data
