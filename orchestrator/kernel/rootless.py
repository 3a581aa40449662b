"""The way into a user's own namespaces, and the line to the porter, who stays outside (see porter).

Standard library only: the supervisor does this first of all.
"""

from __future__ import annotations

import _socket
import errno
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from orchestrator.kernel import packets, syscalls, userns

_START_SECONDS = 15.0
_ANSWER_SECONDS = 5.0
_NOBODY = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)


class Line:
    """A connection to the porter: for as long as it is open the porter stays. For use by any thread.

    A porter that was killed is found again by the next request, once a command has started another.
    """

    def __init__(self, run: str) -> None:
        """Raises OSError when no porter is there."""
        self._run = run
        self._lock = threading.Lock()
        self._sock: _socket.socket | None = connect(run)

    def ask(self, request: packets.Message) -> tuple[packets.Message, list[int]]:
        """The answer and its descriptors. Raises OSError: what the porter met, or that it is not there."""
        with self._lock:
            for sock in (self._sock, None):
                try:
                    self._sock = sock or connect(self._run)
                    packets.send(self._sock, packets.pack(request))
                    received = packets.receive(self._sock)
                except OSError:
                    if sock is None:
                        raise
                    received = None
                if received is not None:
                    break
                self._hang_up()
            else:
                raise ConnectionResetError(errno.ECONNRESET, "the porter process has ended")
        message, fds = received
        error = message.get("error")
        if isinstance(error, dict):
            raise OSError(error.get("errno") or errno.EIO, str(error.get("message")))
        return message, fds

    def _hang_up(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def open(self, family: int, kind: int, address: Sequence[str | int] | None = None) -> int:
        """A non-blocking socket in the host's network; bound, and listening if it is a stream's, where an
        address is given. Raises OSError."""
        _, fds = self.ask({"op": "open", "family": family, "kind": kind, "address": list(address or ())})
        return fds[0]

    def porter(self) -> int:
        """The pid of the porter. Raises OSError when it has gone."""
        with self._lock:
            if self._sock is None:
                self._sock = connect(self._run)
            raw = self._sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        return int.from_bytes(raw[:4], sys.byteorder)

    def leave(self) -> None:
        """Nobody of us needs the porter any more. Return when it has gone, if it goes."""
        with suppress(OSError):
            message, _ = self.ask({"op": "leave"})
            if message.get("leaving") and self._sock is not None:
                self._sock.recv(1)


def connect(run: str) -> _socket.socket:
    """Raises OSError."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(_ANSWER_SECONDS)
        sock.connect(f"{run}/porter.sock")
    except BaseException:
        sock.close()
        raise
    return sock


def is_served(run: str) -> bool:
    """Whether a porter answers for this run directory."""
    try:
        connect(run).close()
    except OSError:
        return False
    return True


def enter(run: str) -> Line:
    """Move this process, which must have one thread, into the namespaces of this run directory; they are
    made when they are not there. Keep the line. Raises userns.RefusedError, OSError."""
    line = _reach(run)
    _, fds = line.ask({"op": "enter"})
    # The user namespace first: it gives the right to enter the others.
    for fd, kind in zip(
        fds, (syscalls.CLONE_NEWUSER, syscalls.CLONE_NEWNS, syscalls.CLONE_NEWNET), strict=True
    ):
        syscalls.setns(fd, kind)
        os.close(fd)
    userns.extents.cache_clear()
    userns.is_single.cache_clear()
    return line


def _reach(run: str) -> Line:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        with suppress(OSError):
            return Line(run)
        start(run)
    raise OSError(errno.ETIMEDOUT, "the porter process does not answer")


def start(run: str) -> None:
    """Start a porter and wait until it listens, or has found another. Raises userns.RefusedError."""
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "porter.py")
    ready, theirs = os.pipe2(os.O_CLOEXEC)
    quiet = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", program, run, "3"],
        {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
        file_actions=[(os.POSIX_SPAWN_DUP2, theirs, 3), *quiet],
        setsid=True,
    )
    os.close(theirs)
    try:
        said = os.read(ready, 4096)
    finally:
        os.close(ready)
    if said == b"1":
        return
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
    if said:
        raise userns.RefusedError(said.decode(errors="replace"))
    time.sleep(0.01)  # another has it
