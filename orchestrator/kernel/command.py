"""The command line that OCI runtimes share, called for one bundle (see foreign).

Source: the OCI runtime command line interface, and what runc, crun and runsc take beyond it.
"""

from __future__ import annotations

import _socket
import errno
import json
import os
import select
import signal
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from orchestrator.kernel import syscalls
from orchestrator.kernel.reading import Document, RefusedError
from orchestrator.kernel.report import ExecError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PR_SET_PDEATHSIG = 1
_LOG_LIMIT = 1 << 16
# What runtimes say of a program that can't be run; their exit code says nothing. As docker tells them apart.
_ABOUT_PROGRAM = ('exec: "', "executable", "exec format error")
_NOT_FOUND = ("executable file not found", "no such file or directory", "not found in $path")
_NOT_EXECUTABLE = ("permission denied", "is a directory", "exec format error", "not a directory")


class Runtime(NamedTuple):
    """launch.json's `runtime`."""

    path: str
    """The program."""
    state: str
    """Directory for its records, within the bundle: they go with it."""
    cgroups: list[str]
    """What its own processes join, so that they end with the container's."""
    hidden: str
    """The unified hierarchy beside those of v1, or "": ours alone, and crun won't run where it is seen."""
    enter: bool
    """Whether the container's namespaces are plain ones that we can enter ourselves."""


def read(launch_document: Document) -> Runtime | None:
    """The runtime of a bundle; None when it is ours. Raises RefusedError."""
    table = launch_document.table("runtime")
    path = table.text("path")
    if not path:
        return None
    table.only("path", "state", "cgroups", "hidden", "enter")
    state = table.text("state")
    if not path.startswith("/") or not state.startswith("/"):
        raise RefusedError("runtime: path and state have to be absolute")
    return Runtime(path, state, table.texts("cgroups"), table.text("hidden"), table.flag("enter"))


def die_with(parent: int) -> None:
    """SIGKILL for this process when its parent ends (prctl(2), PR_SET_PDEATHSIG)."""
    syscalls.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(125)


class Calls:
    """Runs the runtime's commands on one bundle, one after another."""

    def __init__(self, runtime: Runtime, bundle: str) -> None:
        self.name = os.path.basename(runtime.path)
        self.runtime = runtime
        self._bundle = bundle
        self._log = f"{bundle}/runtime.log"

    def argv(self, *words: str) -> list[str]:
        where = ["--root", self.runtime.state, "--log", self._log, "--log-format", "json"]
        return [self.runtime.path, *where, *words]

    def run(
        self, words: Sequence[str], stdio: Sequence[int], groups: Sequence[int] = (), console: int = -1
    ) -> int:
        """The terminal's master, or -1. `groups` are open files to write "0" to.

        Raises OSError, ExecError with what the runtime says when it fails.
        """
        with suppress(FileNotFoundError):
            os.unlink(self._log)
        os.makedirs(self.runtime.state, 0o700, exist_ok=True)
        pid = self._spawn(words, stdio, groups)
        master = self._await_console(pid, console) if console >= 0 else -1
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code:
            raise self._failure(words[0], code)
        if console >= 0 and master < 0:
            raise OSError(errno.EPROTO, f"{self.name} has sent no terminal")
        return master

    def _spawn(self, words: Sequence[str], stdio: Sequence[int], groups: Sequence[int]) -> int:
        parent = os.getpid()
        pid = os.fork()  # noqa: TID251 (a child of the keeper's, with one thread)
        if pid:
            return pid
        try:
            die_with(parent)
            for group in groups:
                os.write(group, b"0")
            os.chdir(self._bundle)
            high = [os.dup(fd) for fd in stdio]
            for place, fd in enumerate(high):
                os.dup2(fd, place)
            syscalls.close_range(3, flags=syscalls.CLOSE_RANGE_CLOEXEC)
            os.execve(self.runtime.path, self.argv(*words), {"PATH": PATH})  # noqa: S606 (no shell)
        except OSError as error:
            what = os.fsdecode(error.filename) if error.filename is not None else self.runtime.path
            _note(self._log, f"{what}: {error.strerror}")
        finally:
            os._exit(125)

    @staticmethod
    def _await_console(pid: int, listener: int) -> int:
        """-1 when it ends without having sent one."""
        pidfd = syscalls.pidfd_open(pid)
        try:
            ready, _, _ = select.select([listener, pidfd], [], [])
            return _take_console(listener) if listener in ready else -1
        finally:
            os.close(pidfd)
            os.close(listener)

    def _failure(self, word: str, code: int) -> Exception:
        message = said(self._log)
        if not message:
            return OSError(
                errno.EIO, f"{self.runtime.path} {word} ends with exit code {code} and says nothing"
            )
        lowered, text = message.lower(), f"{self.name}: {message}"
        if any(words in lowered for words in _ABOUT_PROGRAM):
            if any(words in lowered for words in _NOT_EXECUTABLE):
                return ExecError(errno.EACCES, text, 126)
            if any(words in lowered for words in _NOT_FOUND):
                return ExecError(errno.ENOENT, text, 127)
        return OSError(errno.EIO, text)

    def forget(self, name: str) -> None:
        """Take away what the runtime knows of a container, also when it was killed in the middle of it."""
        if os.path.isdir(f"{self.runtime.state}/{name}"):
            nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            with suppress(OSError, ExecError):
                self.run(["delete", "--force", name], [nothing] * 3)
            os.close(nothing)
        for directory, folders, files in os.walk(self.runtime.state, topdown=False):
            for file in files:
                os.unlink(f"{directory}/{file}")
            for folder in folders:
                os.rmdir(f"{directory}/{folder}")


def _note(log: str, message: str) -> None:
    with suppress(OSError):
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(fd, json.dumps({"level": "error", "msg": message}).encode())
        os.close(fd)


def said(log: str) -> str:
    """The last error in a runtime's log: one JSON object a line, with `level` and `msg`."""
    try:
        with open(log, "rb") as file:
            lines = file.read(_LOG_LIMIT).decode(errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level", "error") in ("error", "fatal"):
            return str(entry.get("msg", ""))
    return ""


def _take_console(listener: int) -> int:
    """The terminal's master (OCI runtime command line interface, --console-socket)."""
    listening = _socket.socket(fileno=os.dup(listener))
    fd, _ = listening._accept()  # type: ignore[attr-defined]
    listening.close()
    connection = _socket.socket(fileno=fd)
    _, ancillary, _, _ = connection.recvmsg(4096, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    connection.close()
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
    fds = [struct.unpack("i", data)[0] for level, kind, data in ancillary if (level, kind) == rights]
    if len(fds) != 1:
        raise OSError(errno.EPROTO, "the runtime has sent no terminal")
    master: int = fds[0]
    return master
