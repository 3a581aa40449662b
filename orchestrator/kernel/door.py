"""The keeper's lock and socket, by which others find it.

Whoever finds no keeper starts one, which knows nothing of the containers that run. So both are put back when
somebody has deleted them, or the whole run directory, while their keeper lives.
"""

from __future__ import annotations

import _socket
import fcntl
import os

_BACKLOG = 64
_LOOK_SECONDS = 10.0


class Door:
    """`listener` is what to accept from: another one after `put_back`. Times are monotonic seconds."""

    __slots__ = ("_due", "_lock", "_run", "_stamp", "listener")

    def __init__(self, run: str) -> None:
        self._run = run
        self._lock = _lock(f"{run}/keeper.lock")
        self._stamp: tuple[int, int] | None = None
        self._due = 0.0
        self.listener: _socket.socket | None = None

    @property
    def taken(self) -> bool:
        """Whether another keeper has this state root."""
        return self._lock < 0

    def listen(self) -> None:
        """The socket under a temporary name: it gets its own by `open`, when everything is ready."""
        temporary = f"{self._run}/keeper.sock.new"
        if os.path.lexists(temporary):
            os.unlink(temporary)
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        listener.bind(temporary)
        os.chmod(temporary, 0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)  # noqa: FBT003 (the standard library's signature)
        self._stamp = _stamp(temporary)
        self.listener = listener

    def open(self) -> None:
        os.rename(f"{self._run}/keeper.sock.new", f"{self._run}/keeper.sock")

    def patience(self, now: float, other: float) -> float:
        """How long a poll may last that could last `other` (-1: for ever)."""
        if self.taken:
            return other
        left = max(0.0, self._due - now)
        return left if other < 0 else min(left, other)

    def hurry(self) -> None:
        """Look soon: our supervisor, which watches our names with its own, has gone."""
        self._due = 0.0

    def stands(self, now: float) -> bool:
        """Whether both are where others look for them, as far as it is time to look."""
        if now < self._due or self.taken:
            return True
        self._due = now + _LOOK_SECONDS
        return self._is_locked() and _stamp(f"{self._run}/keeper.sock") == self._stamp

    def put_back(self) -> bool:
        """Lock and listen again where nobody else does by now. Raises OSError; then it is tried again."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        os.makedirs(self._run, 0o700, exist_ok=True)
        if not self._is_locked():
            lock = _lock(f"{self._run}/keeper.lock")
            os.close(self._lock)
            self._lock = lock
        if not self.taken:
            self.listen()
            self.open()
        return not self.taken

    def close(self) -> None:
        """Take our files along; the lock last, while it is still held."""
        if self.taken or not self._is_locked():
            return
        for name in ("keeper.sock", "keeper.log", "supervisor.log", "keeper.lock"):
            path = f"{self._run}/{name}"
            if os.path.lexists(path) and not (name.endswith(".log") and os.stat(path).st_size):
                os.unlink(path)

    def _is_locked(self) -> bool:
        held = os.fstat(self._lock)
        return _stamp(f"{self._run}/keeper.lock") == (held.st_dev, held.st_ino)


def _lock(path: str) -> int:
    """The lock of a state root, held as long as we live; -1 when another keeper has it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return -1
        held = os.fstat(fd)
        if _stamp(path) == (held.st_dev, held.st_ino):
            return fd
        os.close(fd)  # its last owner removed it while we waited for it


def _stamp(path: str) -> tuple[int, int] | None:
    """Which file it is; None when there is none."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino
