"""How a process ended that the keeper did not start, or whose keeper has died.

From Linux 6.15 on a pidfd tells it, whoever has reaped the process. On older kernels only its parent learns
it: there the supervisor takes the orphans of a keeper that it has started itself, and asks as their parent.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import trio

from orchestrator.kernel import pins, syscalls

_BURY_SECONDS = 5.0


def adopt_orphans() -> bool:
    """Become the parent of what a dead keeper leaves, where that is of use; then `bury` has to run."""
    if tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 15):
        return False
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    return True


async def bury(is_awaited: Callable[[int], bool]) -> None:
    """Reap children that nobody waits for: what orphans have left, and the dead keeper itself."""
    while True:
        await trio.sleep(_BURY_SECONDS)
        _reap(pid for pid in _children() if not is_awaited(pid))


def _reap(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _children() -> list[int]:
    """Of the whole process, by the thread that they belong to (proc_pid_children(5))."""
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            found += map(int, Path(f"/proc/self/task/{thread}/children").read_text().split())
    return found


def told(bundle: Path) -> int | None:
    """The exit code of a first process that ended while none of ours lived, as the kernel knows it by the
    pidfd in its bundle; None when it does not."""
    try:
        pidfd = pins.pinned(str(bundle))
    except OSError:
        return None
    try:
        status = syscalls.pidfd_exit_status(pidfd)
        if status is None:
            status = _unburied(pidfd)
    finally:
        os.close(pidfd)
    return _code(status)


def _unburied(pidfd: int) -> int | None:
    """The wait status of a zombie that its new parent has not looked after yet."""
    try:
        status = _zombie_status(syscalls.pidfd_pid(pidfd))
    except OSError:
        return syscalls.pidfd_exit_status(pidfd)  # just now it has
    return status if _is_there(pidfd) else syscalls.pidfd_exit_status(pidfd)


def _code(status: int | None) -> int | None:
    """128 and the signal for a process that was killed, as a shell has it."""
    if status is None:
        return None
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


async def end_of(pidfd: int, pid: int) -> int | None:
    """The exit code of a process, when it has ended (pidfd_open(2): readable at exit); None when lost."""
    own = os.dup(pidfd)
    try:
        await trio.lowlevel.wait_readable(own)
        code = _child_code(own)
        status = await _exit_status(own, pid) if code is None else None
    finally:
        trio.lowlevel.notify_closing(own)
        os.close(own)
    if status is not None:
        code = os.waitstatus_to_exitcode(status)
    return 128 - code if code is not None and code < 0 else code


def _child_code(pidfd: int) -> int | None:
    """The exit code of a dead child, negative for a signal, and reap it. None when it is no child of ours."""
    try:
        end = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    if end is None:
        return None
    return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status


async def _exit_status(pidfd: int, pid: int) -> int | None:
    """The wait status of a dead process that is not our child; None when it is lost (kernels before 6.15).

    While it is a zombie its status stands in /proc, afterwards the pidfd has it.
    """
    for _ in range(100):
        status = _zombie_status(pid)
        there = _is_there(pidfd)
        if status is not None and there:
            return status
        status = syscalls.pidfd_exit_status(pidfd)
        if status is not None or not there:  # reaped: the kernel knows it now or never will
            return status
        await trio.sleep(0.02)
    return None


def _zombie_status(pid: int) -> int | None:
    """Field 52 of /proc/PID/stat (proc_pid_stat(5)) of a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[49]) if fields[0] == "Z" else None


def _is_there(pidfd: int) -> bool:
    """Whether the pid still belongs to the process of the pidfd: signal 0 reaches zombies, too."""
    try:
        syscalls.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    return True
