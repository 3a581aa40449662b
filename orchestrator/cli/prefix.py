"""What stands before the lines of logs: names, padded and coloured as docker compose does (4.P). Pure."""

from __future__ import annotations

from orchestrator.cli.say import STDERR, STDOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.cli.record import Record

COLOURS = ("36", "33", "32", "35", "34", "36;1", "33;1", "32;1", "35;1", "34;1")
"""Cyan, yellow, green, magenta, blue, and the same bright."""


def short(name: str, stack: str) -> str:
    """A container's name without its stack's: web-1. A name of the user's own choice stays whole."""
    return name.removeprefix(f"{stack}-")


class View:
    """How lines of logs are shown. Names take colours in sorted order, late comers the next one free; the
    column is as wide as the longest name so far. `raw`: a line that has no end gets none.
    """

    __slots__ = ("_colour", "_names", "_prefix", "_timestamps", "_width", "raw")

    def __init__(
        self,
        names: Iterable[str] = (),
        *,
        prefix: bool = True,
        colour: bool = False,
        timestamps: bool = False,
        raw: bool = False,
    ) -> None:
        self._names: dict[str, int] = {}
        self._width = 0
        self._prefix = prefix
        self._colour = colour
        self._timestamps = timestamps
        self.raw = raw
        for name in sorted(names):
            self.add(name)

    def add(self, name: str) -> None:
        self._names.setdefault(name, len(self._names))
        self._width = max(self._width, len(name))

    def head(self, name: str) -> bytes:
        if not self._prefix:
            return b""
        self.add(name)
        text = f"{name:<{self._width}}  | "
        if self._colour:
            text = f"\x1b[{COLOURS[self._names[name] % len(COLOURS)]}m{text}\x1b[0m"
        return text.encode()

    def lines(self, items: Iterable[tuple[str, Record]]) -> list[tuple[int, bytes]]:
        """(descriptor, bytes) in order; neighbours of one descriptor are joined."""
        out: list[tuple[int, list[bytes]]] = []
        heads: dict[str, bytes] = {}
        for name, record in items:
            head = heads.get(name)
            if head is None:
                head = heads[name] = self.head(name)
            fd = STDERR if record.error else STDOUT
            if not out or out[-1][0] != fd:
                out.append((fd, []))
            parts = out[-1][1]
            parts.append(head)
            if self._timestamps:
                parts.append(record.time + b" ")
            parts.append(record.text)
            if record.ends or not self.raw:
                parts.append(b"\n")
        return [(fd, b"".join(parts)) for fd, parts in out]


def exit_line(name: str, code: object, *, restarting: bool) -> str:
    return f"{name} exited with code {code}{' (restarting)' if restarting else ''}\n"
