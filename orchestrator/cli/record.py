"""Lines of a container's log file. Pure.

Format (that of the Kubernetes CRI): `2026-11-22T14:00:00.123456789Z stdout F text`, one record a line.
The tag P says that the text goes on in the next record of the same stream. Times have a fixed width, so
they are compared as bytes. The text is any bytes but a newline.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LINE_LIMIT = 1024 * 1024
"""Bytes of one line; a longer one is shown in pieces."""


class Record:
    """One record: when, which stream, whether the line ends here, the text."""

    __slots__ = ("ends", "error", "text", "time")

    def __init__(self, time: bytes, text: bytes, *, error: bool = False, ends: bool = True) -> None:
        self.time = time
        self.text = text
        self.error = error
        self.ends = ends

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and (self.time, self.text, self.error, self.ends) == (
            other.time,
            other.text,
            other.error,
            other.ends,
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Record({self.time!r}, {self.text!r}, error={self.error}, ends={self.ends})"


def parse(line: bytes) -> Record | None:
    """The record on a line (without its newline); None when it is not one, as after a crash of the disk."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in (b"stdout", b"stderr"):
        return None
    return Record(parts[0], parts[3], error=parts[1] == b"stderr", ends=not parts[2].startswith(b"P"))


class Joiner:
    """Puts the pieces of long lines together, each stream for itself. Times are those of the first piece."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[bool, Record] = {}

    def take(self, record: Record) -> list[Record]:
        """The lines that this record completes: none or one."""
        earlier = self._open.pop(record.error, None)
        if earlier is not None:
            record = Record(earlier.time, earlier.text + record.text, error=record.error, ends=record.ends)
        if record.ends or len(record.text) >= LINE_LIMIT:
            return [record]
        self._open[record.error] = record
        return []

    def rest(self) -> list[Record]:
        """What has not been ended, to be shown when nothing more will come."""
        left = sorted(self._open.values(), key=lambda record: record.time)
        self._open.clear()
        return left


def join(records: Iterable[Record]) -> Iterator[Record]:
    """Whole lines of records."""
    joiner = Joiner()
    for record in records:
        yield from joiner.take(record)
    yield from joiner.rest()


def between(records: Iterable[Record], since: bytes, until: bytes) -> Iterator[Record]:
    """Records from `since` on and before `until`; b"" is no bound."""
    for record in records:
        if record.time >= since and (not until or record.time < until):
            yield record
