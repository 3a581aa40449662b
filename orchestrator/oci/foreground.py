"""Stands between a process and our caller: passes signals on, and with a terminal the bytes both ways."""

from __future__ import annotations

import _socket
import array
import contextlib
import errno
import fcntl
import os
import select
import signal
import termios
import tty
from typing import Any

from orchestrator.oci.complaint import Complaint

_CHUNK = 1 << 16
# What a process has to hear itself, or that is about ourselves.
_OURS = {signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGWINCH, signal.SIGKILL, signal.SIGSTOP}
_OURS |= {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP}
_OURS |= {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGSYS}


class Foreground:
    """To be made before the process, to be closed after it."""

    def __init__(self, *, terminal: bool) -> None:
        self._kept: list[Any] | None = None
        self._theirs: _socket.socket | None = None
        self._ours: _socket.socket | None = None
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in signal.valid_signals():
            if number not in _OURS or number in (signal.SIGCHLD, signal.SIGWINCH):
                with contextlib.suppress(OSError, ValueError):
                    signal.signal(number, _note)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        if terminal:
            self._ours, self._theirs = _socket.socketpair(
                _socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC
            )

    @property
    def console(self) -> int:
        """The descriptor that the launcher sends the terminal to; -1 without one."""
        return self._theirs.fileno() if self._theirs else -1

    def follow(self, pid: int) -> int:
        """Wait for the end of our child; its exit code as a shell has it."""
        master = self._receive() if self._ours else -1
        pidfd = os.pidfd_open(pid)
        try:
            if master >= 0:
                self._enter_raw(master)
            self._pass_on(pidfd, master)
            if master >= 0:
                _drain(master)
        finally:
            self._leave_raw()
            for fd in (pidfd, master):
                if fd >= 0:
                    os.close(fd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return code if code >= 0 else 128 - code

    def close(self) -> None:
        """Give the terminal back and close everything."""
        self._leave_raw()
        for sock in (self._ours, self._theirs):
            if sock:
                sock.close()
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)

    def _receive(self) -> int:
        assert self._ours is not None
        room = _socket.CMSG_SPACE(array.array("i").itemsize)
        _, ancillary, _, _ = self._ours.recvmsg(4096, room, _socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                fds.frombytes(content)
        if not fds:
            raise Complaint("the process sent no terminal")
        return fds[0]

    def _enter_raw(self, master: int) -> None:
        """Our own terminal hands every key on untouched, and the size is passed on."""
        with contextlib.suppress(termios.error, OSError):
            self._kept = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSANOW)
            _resize(master)

    def _leave_raw(self) -> None:
        if self._kept is not None:
            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(0, termios.TCSADRAIN, self._kept)
            self._kept = None

    def _pass_on(self, pidfd: int, master: int) -> None:
        poll = select.poll()
        for fd in (pidfd, self._reader):
            poll.register(fd, select.POLLIN)
        if master >= 0:
            poll.register(master, select.POLLIN)
            poll.register(0, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._reader in ready:
                _forward(os.read(self._reader, 256), pidfd, master)
            if master in ready and not _copy(master, 1):
                poll.unregister(master)
            if 0 in ready and master >= 0 and not _copy(0, master):
                poll.unregister(0)
            if pidfd in ready:
                return


def _note(_: int, __: object) -> None:
    """The wake-up descriptor tells which signal came."""


def _forward(numbers: bytes, pidfd: int, master: int) -> None:
    for number in numbers:
        if number == signal.SIGWINCH and master >= 0:
            with contextlib.suppress(OSError):
                _resize(master)
        elif number not in _OURS:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)


def _resize(master: int) -> None:
    size = array.array("H", [0, 0, 0, 0])
    fcntl.ioctl(0, termios.TIOCGWINSZ, size)
    fcntl.ioctl(master, termios.TIOCSWINSZ, size)


def _copy(source: int, target: int) -> bool:
    """Hand on what there is; False at the end. The end of a terminal is EIO (pty(7))."""
    try:
        data = os.read(source, _CHUNK)
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EPIPE):
            raise
        return False
    return bool(data)


def _drain(master: int) -> None:
    """What it wrote last."""
    poll = select.poll()
    poll.register(master, select.POLLIN)
    while poll.poll(0) and _copy(master, 1):
        pass
