"""Reading a container's log file, its rotated predecessors, and what is added as it grows."""

from __future__ import annotations

import errno
import os

from orchestrator.cli.record import Record, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 128 * 1024
ROTATED_LIMIT = 1000
"""The highest number of a rotated file that is looked for."""


class LogFile:
    """One container's log. `path` is the newest file; path.1, path.2 ... are older.

    The newest file stays open, so nothing is missed when it is renamed or removed between two looks.
    """

    __slots__ = ("_fd", "_left", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd: int | None = None
        self._left = b""

    def skip(self) -> None:
        """Begin at the end: only what is added from now on."""
        if self._open():
            assert self._fd is not None
            end = os.fstat(self._fd).st_size
            os.lseek(self._fd, end - len(_unfinished(self._fd, end)), os.SEEK_SET)

    def history(self) -> Iterator[Record]:
        """Everything there is, the oldest first; `added` goes on behind it."""
        for number in range(rotated(self.path), 0, -1):
            yield from _whole(f"{self.path}.{number}")
        yield from self.added()

    def tail(self, count: int) -> list[Record]:
        """The last `count` lines (not records); `added` goes on behind them."""
        found: list[bytes] = []
        lines = 0
        if self._open():
            assert self._fd is not None
            size = os.fstat(self._fd).st_size
            lines = _backwards(self._fd, size, count, found)
            os.lseek(self._fd, size - len(_unfinished(self._fd, size)), os.SEEK_SET)
        number = 1
        while lines < count and (fd := _open(f"{self.path}.{number}")) is not None:
            try:
                older: list[bytes] = []
                lines += _backwards(fd, os.fstat(fd).st_size, count - lines, older)
                found = older + found
            finally:
                os.close(fd)
            number += 1
        return [record for line in found if (record := parse(line)) is not None]

    def added(self) -> Iterator[Record]:
        """What has been written since the last look, through any number of rotations."""
        if not self._open():
            return
        while True:
            yield from self._drain()
            if not self._next():
                return

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> bool:
        if self._fd is None:
            self._fd = _open(self.path)
        return self._fd is not None

    def _drain(self) -> Iterator[Record]:
        assert self._fd is not None
        if os.fstat(self._fd).st_size < os.lseek(self._fd, 0, os.SEEK_CUR):
            # Emptied in place.
            os.lseek(self._fd, 0, os.SEEK_SET)
            self._left = b""
        while data := os.read(self._fd, BLOCK):
            *lines, self._left = (self._left + data).split(b"\n")
            for line in lines:
                if (record := parse(line)) is not None:
                    yield record

    def _next(self) -> bool:
        """Go on to the file that followed ours, when ours was renamed."""
        assert self._fd is not None
        own = _identity(os.fstat(self._fd))
        following = self.path
        for number in range(ROTATED_LIMIT):
            name = f"{self.path}.{number}" if number else self.path
            try:
                there = _identity(os.stat(name))
            except FileNotFoundError:
                if number == 0:
                    # Removed, or between the two steps of a rotation: look again at the next growth.
                    return False
                break
            if there == own:
                if number == 0:
                    return False
                break
            following = name
        fd = _open(following)
        if fd is None:
            return False
        # Whatever came between our last read and the renaming is still in the old file.
        if os.fstat(self._fd).st_size > os.lseek(self._fd, 0, os.SEEK_CUR):
            os.close(fd)
            return True
        # Half a record at the end of a finished file will never be completed.
        self._left = b""
        os.close(self._fd)
        self._fd = fd
        return True


def rotated(path: str) -> int:
    """The highest number of a rotated file, 0 when there is none."""
    number = 0
    while number < ROTATED_LIMIT and os.path.exists(f"{path}.{number + 1}"):
        number += 1
    return number


def _open(path: str) -> int | None:
    """None for what is not there, or is a link: what a log became is not printed (CVE-2026-53492)."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _whole(path: str) -> Iterator[Record]:
    fd = _open(path)
    if fd is None:
        return
    left = b""
    try:
        while data := os.read(fd, BLOCK):
            *lines, left = (left + data).split(b"\n")
            for line in lines:
                if (record := parse(line)) is not None:
                    yield record
    finally:
        os.close(fd)


def _unfinished(fd: int, size: int) -> bytes:
    """A record at the end that has no newline yet."""
    start = max(size - BLOCK, 0)
    tail = os.pread(fd, size - start, start)
    return tail[tail.rfind(b"\n") + 1 :]


def _backwards(fd: int, size: int, count: int, found: list[bytes]) -> int:
    """Put the last `count` lines of a file into `found`, in order; how many there were. Reads from the
    end, so the size of the file does not matter.
    """
    if count <= 0:
        return 0
    text = b""
    start = size
    block = BLOCK
    while True:
        step = min(block, start)
        block *= 2
        start -= step
        text = os.pread(fd, step, start) + text
        # The last piece is empty, or a record that is still being written.
        pieces = text.split(b"\n")[:-1]
        whole = pieces if start == 0 else pieces[1:]
        ends = [index for index, piece in enumerate(whole) if _ends_line(piece)]
        if start == 0 or len(ends) > count:
            break
    # An unended line at the very end counts as one, too.
    open_end = bool(whole) and not _ends_line(whole[-1])
    wanted = count - open_end
    if len(ends) > wanted:
        first = ends[-wanted - 1] + 1 if wanted else ends[-1] + 1
        whole = whole[first:]
        lines = count
    else:
        lines = len(ends) + open_end
    found.extend(whole)
    return lines


def _ends_line(piece: bytes) -> bool:
    parts = piece.split(b" ", 3)
    return len(parts) == 4 and not parts[2].startswith(b"P")
