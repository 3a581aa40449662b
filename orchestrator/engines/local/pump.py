"""What a container prints, on its way from FIFO or terminal to the log file.

The FIFOs are opened read-write on both sides, so the death of a reader is neither EPIPE nor EOF to the
container; that its output has ended is told by its process, never by the FIFO.

We may be killed at any moment, and no byte may be lost or come twice for it. So a chunk is copied out of the
FIFO (tee(2)), written, and only then taken out; what was under way stands in a small file, by which the next
supervisor knows whether it was written and whether it was taken out.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import trio

from orchestrator.engines.local.logs import LogFile, records, stamp, texts
from orchestrator.engines.local.trouble import report
from orchestrator.engines.local.turns import SLICE, Turns
from orchestrator.kernel import syscalls

CHUNK = 64 * 1024
_ROW = struct.Struct("<QQ")
_IDLE = _ROW.pack(0, 0)


class Moving:
    """What is under way, a row a stream: bytes of the chunk (0: none), and the log's size before it.

    The file is made with the first output: most containers of a big stack never print.
    """

    def __init__(self, path: Path, streams: int) -> None:
        self._path = path
        self._streams = streams
        self._fd = -1

    def _open(self, flags: int = 0) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
        try:
            if os.fstat(fd).st_size < self._streams * _ROW.size:
                # Room for good: it must not run out in the middle of something.
                os.pwrite(fd, _IDLE * self._streams, 0)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd

    def begin(self, row: int, length: int, size: int) -> None:
        """Raises OSError."""
        if self._fd < 0:
            self._open(os.O_CREAT)
        os.pwrite(self._fd, _ROW.pack(length, size), row * _ROW.size)

    def done(self, row: int) -> None:
        if self._fd >= 0:
            os.pwrite(self._fd, _IDLE, row * _ROW.size)

    def pending(self, row: int) -> tuple[int, int]:
        """(0, 0) when there is nothing. Raises OSError."""
        if self._fd < 0:
            try:
                self._open()
            except FileNotFoundError:
                return 0, 0
        data = os.pread(self._fd, _ROW.size, row * _ROW.size)
        length, size = _ROW.unpack(data) if len(data) == _ROW.size else (0, 0)
        return length, size

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Pump:
    """Moves the output of one container into its log file; `grown` is called when it has grown."""

    def __init__(
        self,
        sources: Mapping[bytes, int],
        log: LogFile,
        grown: Callable[[], None],
        moving: Moving | None,
        turns: Turns | None = None,
    ) -> None:
        """`moving` is for FIFOs; None: a terminal, which can't be copied from. `turns`: of all that flood."""
        self._turns = turns or Turns()
        self._sources = sources
        self._rows = {stream: row for row, stream in enumerate(sources)}
        self._log = log
        self._grown = grown
        self._moving = moving
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    def settle(self) -> None:
        """Bring to an end what a supervisor that was killed had under way."""
        if self._moving is None:
            return
        try:
            for stream, fd in self._sources.items():
                length, size = self._moving.pending(self._rows[stream])
                if length:
                    self._settle_one(stream, fd, length, size)
                    self._moving.done(self._rows[stream])
        except OSError as error:
            report(error)

    def _settle_one(self, stream: bytes, fd: int, length: int, size: int) -> None:
        written = texts(self._log.since(size), stream)
        if len(written) < length:
            # Killed before it was all in the log, or the log was turned over just then: it is written anew.
            self._log.take_back(size)
        elif _peek(fd, length) == written:
            os.read(fd, length)  # killed before it was taken out

    async def run(self) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for stream, fd in self._sources.items():
                        nursery.start_soon(self._follow, stream, fd)
        finally:
            for stream, fd in self._sources.items():
                self._drain(stream, fd)
                trio.lowlevel.notify_closing(fd)
                os.close(fd)
            self._log.close()
            if self._moving is not None:
                self._moving.close()
            self._ended.set()

    async def _follow(self, stream: bytes, fd: int) -> None:
        worked = 0.0
        while True:
            await trio.lowlevel.wait_readable(fd)
            began = time.perf_counter()
            if not self._drain(stream, fd, limit=1):
                return
            worked += time.perf_counter() - began
            if worked > SLICE:
                await self._turns.rest(worked)
                worked = 0.0

    def _drain(self, stream: bytes, fd: int, limit: int = 1024) -> bool:
        """Move what is there, at most `limit` chunks; False when the source has ended (a closed terminal)."""
        moved = False
        try:
            for _ in range(limit):
                if not self._move(stream, fd):
                    return False
                moved = True
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            if moved:
                self._grown()
        return True

    def _move(self, stream: bytes, fd: int) -> bool:
        """One chunk. False at the end; raises BlockingIOError when there is nothing now."""
        moving = self._moving
        chunk = os.read(fd, CHUNK) if moving is None else _peek(fd, CHUNK)
        if not chunk:
            return False
        if moving is not None:
            with contextlib.suppress(OSError):
                moving.begin(self._rows[stream], len(chunk), self._log.size())
        self._log.append(records(chunk, stream, stamp(time.time_ns())))
        if moving is not None:
            os.read(fd, len(chunk))
            moving.done(self._rows[stream])
        return True

    async def finish(self) -> None:
        """Take what is left and stop. For use after the container's process has ended."""
        self._scope.cancel()
        await self._ended.wait()


_scratch: list[int] = []


def _peek(fifo: int, length: int) -> bytes:
    """What a FIFO holds, which goes on holding it. Raises BlockingIOError when it is empty."""
    if not _scratch:
        _scratch.extend(os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))
    reading, writing = _scratch
    return os.read(reading, syscalls.tee(fifo, writing, length))


def make_fifo(path: Path) -> None:
    """A FIFO of ours at `path`; one that is there already still holds output and stays."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)


def open_fifo(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
