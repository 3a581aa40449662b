"""The runs: every process the keeper started, from the fork to the written exit record.

A run is a birth until its child says that execve succeeded, then it runs, then it is a zombie until its end
is on disk. Only then is it reaped: a keeper killed in between loses nothing, for either the record is there
or the kernel still has the status.
"""

from __future__ import annotations

import _socket
import _thread
import errno
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, NoReturn

from orchestrator.kernel import clone, launch, packets, pins, syscalls, userns
from orchestrator.kernel.program import Host
from orchestrator.kernel.reading import load
from orchestrator.kernel.report import Report

Child = Callable[[Report], NoReturn]


class StartError(Exception):
    """A start that was refused before the fork."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class Run(NamedTuple):
    """A process that runs. `bundle` is "" for an exec, which leaves no record."""

    id: str
    pid: int
    pidfd: int
    bundle: str


class Dead(NamedTuple):
    """A zombie: a child that ended and is not reaped yet."""

    pid: int
    exit_code: int
    signal: int | None


class Ended(NamedTuple):
    """How a run ended, and when: seconds since boot. Its record is written."""

    dead: Dead
    at: float


class Birth:
    """A start under way: the child was forked and its program doesn't run yet.

    `run` is the child's; where another runtime starts the container, the child tells of its first process
    later, and leaves. Until then `first` is None.
    """

    __slots__ = ("ended", "error", "first", "master", "ready", "run", "sock")

    def __init__(self, run: Run, sock: _socket.socket) -> None:
        self.run = run
        self.sock = sock
        self.ready = False
        self.first: Run | None = None
        self.ended: Ended | None = None  # the first process did, before the start was through
        self.master = -1
        self.error: packets.Message | None = None

    def listen(self) -> bool:
        """Take in what the child has said so far; True at the end, when its socket was closed."""
        while True:
            try:
                received = packets.receive(self.sock)
            except BlockingIOError:
                return False
            except (ValueError, OSError) as error:
                self.error = packets.failure(errno.EPROTO, str(error), step="start")
                return True
            if received is None:
                return True
            message, fds = received
            self.ready = self.ready or "ready" in message
            pid = message.get("pid")
            if isinstance(pid, int) and fds and self.first is None:
                self.first = self.run._replace(pid=pid, pidfd=fds.pop(0))
            self.master = fds.pop() if fds and self.master < 0 else self.master
            packets.close(fds)
            told = message.get("error")
            if isinstance(told, dict):
                self.error = told

    def outcome(self) -> packets.Message | None:
        """The error of this start; None when its program runs, or ran. To be asked after the end."""
        if self.error is None and not self.ready:
            return packets.failure(
                errno.ECHILD, "the process was killed before its program ran", step="start"
            )
        return self.error

    def close(self) -> None:
        self.sock.close()
        if self.first is not None:
            # One of the two processes is not the run.
            os.close(self.run.pidfd if self.ready and self.error is None else self.first.pidfd)
            self.first = None
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


class Pids(NamedTuple):
    """The pid namespace of a child: a new one, one to join (a pidfd or namespace), or the keeper's."""

    own: int  # the keeper's, to come back to
    new: bool = False
    joined: int = -1


def fork(child: Child, pids: Pids, group: str = "") -> tuple[int, _socket.socket]:
    """Fork a child that runs `child`; returns its pid and the keeper's end of its report socket.

    The child begins in the control group of the directory `group` where that can be: see `Report.group`.

    A pid namespace has to be there before the fork. It is made or joined for children only and given back
    right after: a single fork, where unsharing in the child would take a second one.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        if (pids.new or pids.joined >= 0) and not userns.is_initial():
            pid = _fork_in_thread(child, pids, theirs, group)
        else:
            pid = _fork(child, pids, theirs, group)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    return pid, ours


def _fork(child: Child, pids: Pids, theirs: _socket.socket, group: str, *, come_back: bool = True) -> int:
    if pids.joined >= 0:
        syscalls.setns(pids.joined, syscalls.CLONE_NEWPID)
    strayed = pids.joined >= 0
    pid = -1
    try:
        pid = clone.into(group, syscalls.CLONE_NEWPID if pids.new else 0) if group else -1
        if pid < 0:
            group = ""
            if pids.new:
                syscalls.unshare(syscalls.CLONE_NEWPID)
                strayed = True
            pid = os.fork()  # noqa: TID251 (the keeper is who forks)
        if pid == 0:
            _live(child, theirs, group)
    except OSError as error:
        if error.errno == errno.ENOMEM and pids.joined >= 0:
            raise StartError(errno.ESRCH, "the pid namespace to join has ended") from None
        raise
    finally:
        if come_back and strayed and pid != 0:
            syscalls.setns(pids.own, syscalls.CLONE_NEWPID)
    return pid


def _fork_in_thread(child: Child, pids: Pids, theirs: _socket.socket, group: str) -> int:
    """The machine's own pid namespace is not ours to come back to in a user namespace. But it is each thread
    that has a pid namespace for its children (setns(2)), and a thread can be thrown away."""
    done = _thread.allocate_lock()
    done.acquire()
    result: list[int | BaseException] = []

    def thread() -> None:
        try:
            result.append(_fork(child, pids, theirs, group, come_back=False))
        except BaseException as error:
            result.append(error)
        finally:
            done.release()

    _thread.start_new_thread(thread, ())
    done.acquire()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


def _live(child: Child, sock: _socket.socket, born: str) -> NoReturn:
    """Never returns into the keeper's loop, whatever happens."""
    try:
        child(Report(sock, born))
    finally:
        os._exit(125)


def peek() -> Dead | None:
    """Some child that ended, left unreaped; None when there is none."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if found is None:
        return None
    if found.si_code == os.CLD_EXITED:
        return Dead(found.si_pid, found.si_status, None)
    return Dead(found.si_pid, 128 + found.si_status, found.si_status)


def reap(pid: int) -> None:
    """Take the zombie away."""
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def write_exit(run: Run, dead: Dead, boot_id: str) -> float:
    """exit.json of a container's run; returns the time of its end, in seconds since boot."""
    at = time.clock_gettime(time.CLOCK_BOOTTIME)
    if run.bundle:
        record = {
            "format": 1,
            "id": run.id,
            "pid": run.pid,
            "exit_code": dead.exit_code,
            "signal": dead.signal,
            "at": at,
            "boot_id": boot_id,
        }
        launch.replace_file(f"{run.bundle}/exit.json", json.dumps(record).encode())
        pins.unpin(run.bundle)  # it has nothing to add any more
    return at


def forget(bundle: str) -> None:
    """Remove the records of an earlier or failed run."""
    pins.unpin(bundle)
    for name in ("pid.json", "exit.json"):
        with suppress(FileNotFoundError):
            os.unlink(f"{bundle}/{name}")


def adopt(bundle: str, host: Host) -> int:
    """A pidfd of the first process of a container that another keeper started, by its pid.json.

    Boot id and start time must agree, and are compared while the pidfd holds the process, so its number
    can't have been given to another in between. Raises StartError (ESRCH) when it no longer runs.
    """
    try:
        born = load(f"{bundle}/pid.json")
    except OSError as error:
        raise StartError(errno.ESRCH, f"the container does not run: {error}") from None
    pid = born.number("pid")
    try:
        pidfd = syscalls.pidfd_open(pid)
    except OSError:
        raise StartError(errno.ESRCH, "the container does not run any more") from None
    if born.text("boot_id") != host.boot_id or start_time(host.proc, pid) != born.number("start_time"):
        os.close(pidfd)
        raise StartError(errno.ESRCH, "the container does not run any more")
    return pidfd


def start_time(proc: int, pid: int) -> int | None:
    """When a process was started, in clock ticks since boot (field 22 of proc_pid_stat(5)); None if gone."""
    try:
        with open(os.open(f"{pid}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc), "rb") as file:
            return int(file.read().rpartition(b") ")[2].split()[19])
    except OSError:
        return None
