"""Messages <-> bytes: one JSON object a line."""

from __future__ import annotations

from orchestrator.model.compact import dumps, loads

__all__ = ["FDS_LIMIT", "LINE_LIMIT", "Lines", "WireError", "decode", "dumps", "encode", "loads"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]

LINE_LIMIT = 64 * 1024 * 1024
"""Bytes of one message. A stack of 1000 services takes about 1 MiB."""
FDS_LIMIT = 8
"""File descriptors that go with one message."""


class WireError(ValueError):
    """The bytes are not a message."""


def encode(message: Message) -> bytes:
    """One line. Raises ValueError when it is over LINE_LIMIT."""
    line = (dumps(message) + "\n").encode("ascii")
    if len(line) > LINE_LIMIT:
        raise WireError(f"a message of {len(line)} bytes is over the limit of {LINE_LIMIT}")
    return line


def decode(line: bytes) -> Message:
    """The object on one line. Raises WireError."""
    try:
        message = loads(line.decode("utf-8").strip())
    except (ValueError, StopIteration, RecursionError, SystemError) as error:
        # SystemError: the C scanner of 3.11 finds no JSONDecodeError unless `json` was imported before.
        raise WireError(f"not a message: {line[:80]!r}") from error
    if not isinstance(message, dict):
        raise WireError(f"not an object: {line[:80]!r}")
    return message


class Lines:
    """Cuts a stream of bytes into lines. `feed` returns the lines completed; raises WireError when one
    grows over `limit`.
    """

    __slots__ = ("_limit", "_parts", "_size")

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        first, newline, rest = data.partition(b"\n")
        self._size += len(first)
        if self._size > self._limit:
            raise WireError(f"a message is over the limit of {self._limit} bytes")
        self._parts.append(first)
        if not newline:
            return []
        done = [b"".join(self._parts)]
        *lines, rest = rest.split(b"\n")
        done.extend(lines)
        self._parts, self._size = [rest], len(rest)
        return done
