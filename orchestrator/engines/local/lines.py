"""Whether a run has printed the line that says that it is ready (`x-log-ready`).

The log file is what is read, from where it ended as the run began: so a supervisor that is killed leaves
nothing behind that its successor could not do again, and whoever prints much holds up nobody but itself. Both
the pattern and the text are somebody else's: of a line so much is looked at as is said here, and a line that
takes the processor for longer ends the search. Matching can't be interrupted from outside, except by a signal
to the main thread: the timer of setitimer(2) that counts the processor's time sends it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import trio

from orchestrator.engines.local.logs import STREAMS
from orchestrator.model.frozen import dataclass

CHUNK = 32 * 1024
LINE_LIMIT = 1024
"""Bytes of a line that are looked at: the time for a careless pattern grows with the square of it."""
SLICE = 0.005
"""Seconds of the processor until others are let in."""
LONGEST = 0.1
"""Seconds of the processor that a line may take."""
COMPILING = 0.25
"""Seconds of the processor until the pattern has to be understood."""

Search = Callable[[str], re.Match[str] | None]


class TooLongError(Exception):
    """A line takes too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place in a container's log: which file, by its inode (0: none was there), and where in it."""

    inode: int = 0
    offset: int = 0


def mark(log: Path) -> Mark:
    """Where the log ends now."""
    try:
        found = log.stat()
    except FileNotFoundError:
        return Mark()
    return Mark(inode=found.st_ino, offset=found.st_size)


class Lines:
    """Follows the log of one run until the line was found, or the run has ended without.

    `told` is called once: with True or False, and why the search was given up, if it was.
    """

    def __init__(
        self, log: Path, files: int, place: Mark, pattern: str, told: Callable[[bool, str], None]
    ) -> None:
        self._log = log
        self._names = [log, *(log.with_name(f"{log.name}.{number}") for number in range(1, files))]
        self._place = place
        self._pattern = pattern
        self._told = told
        self._open: dict[bytes, bytes] = {}
        """Stream -> the beginning of its line that goes on."""
        self._bell = trio.Event()
        self._complete = False
        self._done = trio.Event()

    def grown(self) -> None:
        """There is more in the log."""
        self._bell.set()

    async def finish(self) -> None:
        """The run has ended and all that it has printed is in the log."""
        self._complete = True
        self._bell.set()
        await self._done.wait()

    async def run(self) -> None:
        try:
            self._told(*await self._search())
        finally:
            self._done.set()

    async def _search(self) -> tuple[bool, str]:
        try:
            with _at_most(COMPILING):
                search = re.compile(plain(self._pattern)).search
        except TooLongError:
            return False, f"its x-log-ready takes longer than {COMPILING:g} s to be understood"
        try:
            while True:
                self._bell, complete = trio.Event(), self._complete
                if await self._read_on(search) or (complete and self._rest(search)):
                    return True, ""
                if complete:
                    return False, ""
                await self._bell.wait()
        except TooLongError:
            return False, f"its x-log-ready takes longer than {LONGEST:g} s for a line that it has printed"
        except OSError as error:
            return False, f"its log can't be read: {error.strerror}"

    async def _read_on(self, search: Search) -> bool:
        """Look at all that is in the log by now."""
        while True:
            written = self._next()
            if not written:
                return False
            lines = deque(self._lines(written))
            while lines:
                if self._found(search, lines):
                    return True
                await trio.lowlevel.checkpoint()

    def _rest(self, search: Search) -> bool:
        """A last line may have no end."""
        return self._found(search, deque(self._open.values()))

    def _found(self, search: Search, lines: deque[bytes]) -> bool:
        """Take lines for one slice of time. Raises TooLongError."""
        began = time.thread_time()
        try:
            with _at_most(LONGEST):
                while lines:
                    if search(lines[0].decode(errors="replace")):
                        return True
                    lines.popleft()
                    if time.thread_time() - began > SLICE:
                        break
        except TooLongError:
            if time.thread_time() - began > LONGEST / 2:
                raise
            # Other threads have had the time: it is counted for the whole process.
        return False

    def _lines(self, written: bytes) -> Iterator[bytes]:
        """What was printed, by lines and without their ends; each cut off at the limit."""
        for record in written.split(b"\n")[:-1]:
            fields = record.split(b" ", 3)
            if len(fields) != 4 or fields[1] not in STREAMS:
                continue
            stream, text = fields[1], fields[3]
            line = (self._open.pop(stream, b"") + text)[:LINE_LIMIT]
            if fields[2] == b"F":
                yield line.rstrip(b"\r")
            else:
                self._open[stream] = line

    def _next(self) -> bytes:
        """Whole records from the place on, which moves behind them; b"" when there are no more."""
        for path in reversed(self._ahead()):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            try:
                found = os.fstat(fd)
                if found.st_ino != self._place.inode:
                    self._place = Mark(inode=found.st_ino)
                offset = min(self._place.offset, found.st_size)  # a full disk has its half records cut off
                written = self._records(fd, offset)
            finally:
                os.close(fd)
            if written:
                self._place = Mark(inode=found.st_ino, offset=offset + len(written))
                return written
        return b""

    def _ahead(self) -> list[Path]:
        """The files from the place on, newest first: all of them when its file has gone."""
        for number, path in enumerate(self._names):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == self._place.inode:
                    return self._names[: number + 1]
        return self._names

    @staticmethod
    def _records(fd: int, offset: int) -> bytes:
        """A record may be longer than a chunk: it has at most what the pump takes at once, and a head."""
        for size in (CHUNK, 8 * CHUNK):
            data = os.pread(fd, size, offset)
            whole = data[: data.rfind(b"\n") + 1]
            if whole or len(data) < size:
                return whole
        return b""


def plain(pattern: str) -> str:
    """`.*x` finds what `x` finds, and takes the square of its time."""
    for lead in (".*?", ".*"):
        rest = pattern.removeprefix(lead)
        if rest != pattern and not rest.startswith(("+", "*", "?", "{")):
            return rest
    return pattern


_armed = [False]


def _over(_signal: int, _frame: FrameType | None) -> None:
    if _armed[0]:
        raise TooLongError


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raises TooLongError when the block takes the processor for longer, even in the middle of a match.

    Only the main thread is interrupted by signals; the supervisor's is the one that runs trio.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if signal.getsignal(signal.SIGVTALRM) is not _over:
        signal.signal(signal.SIGVTALRM, _over)
    _armed[0] = True
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        _armed[0] = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
