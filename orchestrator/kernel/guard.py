"""Watches over the supervisor: when it dies without a goodbye it is started again, with back-off."""

from __future__ import annotations

import _socket
import os
import sys
from collections.abc import Callable

from orchestrator.kernel import syscalls

_FIRST_DELAY = 0.05
_LONGEST_DELAY = 10.0
_GOOD_LIFE = 10.0
_SO_PEERPIDFD = 77  # include/uapi/asm-generic/socket.h, Linux 6.5

Watch = Callable[[int, Callable[[int], None]], None]
Unwatch = Callable[[int], None]


class Guard:
    """Who the supervisor is, how to start the next one, and when. Times are monotonic seconds."""

    def __init__(self, log: str) -> None:
        self._log = log
        self._command: list[str] = []
        self._environ: dict[str, str] = {}
        self._pidfd = -1
        self._since = 0.0
        self._delay = _FIRST_DELAY
        self._due: float | None = None
        self._died = False

    def watch(
        self,
        sock: _socket.socket,
        peer: int,
        command: list[str],
        environ: dict[str, str],
        now: float,
        watch: Watch,
        unwatch: Unwatch,
    ) -> None:
        """The peer of `sock` is the supervisor from now on; `command` with `environ` starts its successor."""
        pidfd = _peer(sock, peer)
        self.rest(unwatch)
        self._command, self._environ = command, environ
        self._hold(pidfd, now, watch)

    def rest(self, unwatch: Unwatch) -> None:
        """Stop watching: the supervisor left for good, or another took over."""
        self._release(unwatch)
        self._due, self._died = None, False

    def patience(self, now: float) -> float:
        """How long the poll may last; -1 for ever."""
        return -1 if self._due is None else max(0.0, self._due - now)

    def act(self, now: float, watch: Watch, unwatch: Unwatch) -> None:
        """After a poll: note a death, start the next supervisor when it is due."""
        if self._died:
            self._died = False
            self._release(unwatch)
            if now - self._since >= _GOOD_LIFE:
                self._delay = _FIRST_DELAY
            if self._command:
                self._due = now + self._delay
            self._delay = min(self._delay * 2, _LONGEST_DELAY)
        if self._due is not None and now >= self._due:
            self._due = None
            try:
                pid = spawn(self._command, self._environ, self._log)
                self._hold(syscalls.pidfd_open(pid), now, watch)
            except OSError as error:
                print(f"supervisor: {error}", file=sys.stderr, flush=True)
                self._due = now + self._delay

    def _hold(self, pidfd: int, now: float, watch: Watch) -> None:
        self._pidfd, self._since = pidfd, now
        watch(pidfd, self._note_death)

    def _note_death(self, _: int) -> None:
        self._died = True

    def _release(self, unwatch: Unwatch) -> None:
        if self._pidfd >= 0:
            unwatch(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


def _peer(sock: _socket.socket, pid: int) -> int:
    """A pidfd of the process at the other end: from the socket itself where the kernel can."""
    try:
        return sock.getsockopt(_socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        return syscalls.pidfd_open(pid)


def spawn(command: list[str], environ: dict[str, str], log: str) -> int:
    """Start a program in its own session, stdin null, output appended to `log`, directory /. Its pid."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return os.posix_spawn(
            command[0],
            command,
            environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)],
            setsid=True,
            setsigmask=(),
        )
    finally:
        os.close(output)
