"""System calls that only OCI bundles ask for, beside `syscalls`: the keeper, whose size counts, has none."""

from __future__ import annotations

import ctypes
import errno
import os
import signal

from orchestrator.kernel.syscalls import failure, machine

# Name -> number on x86-64 and on aarch64.
_CALLS = {
    "clone": (56, 220),
    "personality": (135, 92),
    "set_mempolicy": (238, 237),
    "ioprio_set": (251, 30),
    "sched_setattr": (314, 274),
}
_COLUMN = {"x86_64": 0, "aarch64": 1}.get(machine(), -1)
_IOPRIO_WHO_PROCESS = 1
_CLONE_FILES = 0x400

_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def sched_setattr(pid: int, attributes: bytes) -> None:
    """Set the scheduling policy of a process: struct sched_attr (sched_setattr(2))."""
    _invoke("sched_setattr", pid, ctypes.c_char_p(attributes), 0)


def ioprio_set(pid: int, priority: int) -> None:
    """Set class << 13 | level of a process (ioprio_set(2))."""
    _invoke("ioprio_set", _IOPRIO_WHO_PROCESS, pid, priority)


def personality(domain: int) -> None:
    """What this process takes the kernel for (personality(2))."""
    _invoke("personality", domain)


def set_mempolicy(mode: int, nodes: bytes) -> None:
    """Where this process's memory comes from: MPOL_* and a bit mask of nodes (set_mempolicy(2))."""
    # The kernel takes one bit less than is said, and none for a policy without nodes.
    empty = not any(nodes)
    mask = None if empty else ctypes.c_char_p(nodes)
    _invoke("set_mempolicy", mode, mask, 0 if empty else len(nodes) * 8 + 1)


def fork_sharing_files() -> int:
    """fork(2), but what either opens or closes the other has too (CLONE_FILES, clone(2)).

    The child must do little and end with os._exit: the interpreter was not told of it.
    """
    return _invoke("clone", _CLONE_FILES | signal.SIGCHLD, 0, 0, 0, 0)


def _invoke(name: str, *arguments: object) -> int:
    """Each argument goes as a long or a pointer."""
    if _COLUMN < 0:
        raise failure(name, errno.ENOSYS)
    number = _CALLS[name][_COLUMN]
    whole = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(_syscall(ctypes.c_long(number), *whole))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
