"""Bytes between descriptors, without ever blocking on one while another waits."""

from __future__ import annotations

import errno
import os
import stat

from orchestrator.cli import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 64 * 1024
BUFFER_LIMIT = 256 * 1024
"""Input that the other side has not taken yet; beyond it we stop reading."""


class Flow:
    """Input on its way: from a descriptor of ours to a pipe or terminal of the container's.

    `sink` is made non-blocking. A terminal whose program does not read takes a few kilobytes; if we waited
    for it, we would not take its output either, and both would stand still.
    """

    __slots__ = ("_buffer", "_filter", "ended", "keep_sink", "sink", "source")

    def __init__(
        self,
        source: int,
        sink: int,
        *,
        keep_sink: bool = False,
        through: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.source = source
        self.sink = sink
        self.keep_sink = keep_sink
        """The end of our input does not close the sink: a terminal goes on."""
        self.ended = False
        self._buffer = b""
        self._filter = through
        os.set_blocking(sink, False)

    @property
    def hungry(self) -> bool:
        return not self.ended and len(self._buffer) < BUFFER_LIMIT

    @property
    def loaded(self) -> bool:
        return bool(self._buffer) and self.sink >= 0

    def pull(self) -> None:
        """Take what the source has. It must be readable."""
        try:
            data = os.read(self.source, CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EBADF):
                raise
            data = b""
        if not data:
            self.ended = True
            self._close_when_done()
            return
        self._buffer += self._filter(data) if self._filter else data
        self.push()

    def push(self) -> None:
        """Give the sink what it takes."""
        if self.sink < 0:
            return
        try:
            while self._buffer:
                self._buffer = self._buffer[os.write(self.sink, self._buffer) :]
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            # Nobody will read it any more.
            self.ended = True
            self._buffer = b""
        self._close_when_done()

    def close(self) -> None:
        if self.sink >= 0:
            os.close(self.sink)
            self.sink = -1

    def _close_when_done(self) -> None:
        if self.ended and not self._buffer and not self.keep_sink:
            self.close()


def take(fd: int, sink: int) -> bool:
    """Copy what `fd` (readable) has to `sink`, one of our own; False at its end."""
    try:
        data = os.read(fd, CHUNK)
    except BlockingIOError:
        return True
    except OSError as error:
        # The other side of a terminal has been closed: pty(7).
        if error.errno != errno.EIO:
            raise
        data = b""
    if data:
        say.write(sink, data)
    return bool(data)


def drain(fd: int, sink: int) -> None:
    """Copy what is there now, without waiting for more."""
    os.set_blocking(fd, False)
    while True:
        try:
            data = os.read(fd, CHUNK)
        except OSError:
            return
        if not data:
            return
        say.write(sink, data)


def harmless(fd: int) -> bool:
    """Whether a container may have this descriptor: a pipe, or /dev/null.

    A file or device could be opened again for writing through /proc/self/fd, whatever it was opened for
    here, and a terminal takes orders (TIOCSTI, ioctl_tty(2)); those get a pipe in between.
    """
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    if stat.S_ISFIFO(status.st_mode):
        return True
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
