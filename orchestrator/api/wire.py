"""Messages <-> bytes: one JSON object a line.

CPython's C scanner and encoder are used without the package `json` around them, which imports `re` and
`enum` and costs each command some 7 ms; where they are missing, `json` it is.
"""

from __future__ import annotations

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


def _compact() -> tuple[Any, Any]:
    """(loads, dumps)."""
    try:
        import _json

        class Rules:
            strict = True
            object_hook = None
            object_pairs_hook = None
            parse_float = float
            parse_int = int
            parse_constant = float
            memo: dict[str, str] = {}  # noqa: RUF012 - one object, read by the C scanner

        scanner: Any = _json.make_scanner  # typeshed asks for a scanner to make one
        scan = scanner(Rules)
        make: Any = _json.make_encoder

        def default(value: object) -> object:
            raise TypeError(f"{type(value).__name__} does not go into a message")

        def dumps(value: object) -> str:
            text = _json.encode_basestring_ascii
            switches = (False, False, False)  # sort_keys, skipkeys, allow_nan
            return "".join(make({}, default, text, None, ":", ",", *switches)(value, 0))

        def loads(text: str) -> object:
            value, end = scan(text, 0)
            if end != len(text):
                raise ValueError(f"something follows at {end}")
            return value

        if loads(dumps({"a": [1, "é", None, 2.5]})) != {"a": [1, "é", None, 2.5]}:
            raise ImportError
    except (ImportError, AttributeError, TypeError):
        import json

        def dumps(value: object) -> str:
            return json.dumps(value, separators=(",", ":"), allow_nan=False)

        def loads(text: str) -> object:
            return json.loads(text)

    return loads, dumps


_loads, _dumps = _compact()


def dumps(value: object) -> str:
    """Compact JSON, ASCII only. Raises TypeError or ValueError for what is not JSON."""
    text: str = _dumps(value)
    return text


def loads(text: str) -> object:
    """The value of a whole JSON text without blanks around it. Raises ValueError or StopIteration."""
    value: object = _loads(text)
    return value


def encode(message: Message) -> bytes:
    """One line. Raises ValueError when it is over LINE_LIMIT."""
    line = (dumps(message) + "\n").encode("ascii")
    if len(line) > LINE_LIMIT:
        raise WireError(f"a message of {len(line)} bytes is over the limit of {LINE_LIMIT}")
    return line


def decode(line: bytes) -> Message:
    """The object on one line. Raises WireError."""
    try:
        message = _loads(line.decode("utf-8").strip())
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
