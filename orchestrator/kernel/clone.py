"""fork(2) into a control group, by clone3(2) with CLONE_INTO_CGROUP, since Linux 5.7.

Who moves to a group by writing to its cgroup.procs waits, on a machine at rest, for a grace period of RCU
(the kernel's cgroup_threadgroup_rwsem): 5 to 10 ms, whatever the processor. Who is born there doesn't.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct

_CLONE3 = 435  # on every architecture but alpha
_INTO_CGROUP = 0x200000000
_ARGUMENTS = struct.Struct("=11Q")  # struct clone_args, as of Linux 5.7

# PyDLL: the interpreter's lock has to be held, as it is by os.fork.
_syscall = ctypes.PyDLL(None, use_errno=True)["syscall"]
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_char_p, ctypes.c_size_t]
_python = ctypes.pythonapi
_before, _in_child, _in_parent = (
    _python.PyOS_BeforeFork,
    _python.PyOS_AfterFork_Child,
    _python.PyOS_AfterFork_Parent,
)
for _hook in (_before, _in_child, _in_parent):
    _hook.restype, _hook.argtypes = None, []


def into(directory: str, flags: int = 0) -> int:
    """As os.fork, for a child that is born in the group of this directory; `flags` are CLONE_NEW* bits.

    -1 where that isn't a group of cgroup v2 that may be joined, or the kernel can't do it.
    """
    try:
        group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    arguments = _ARGUMENTS.pack(flags | _INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, group)
    _before()
    pid = int(_syscall(_CLONE3, arguments, _ARGUMENTS.size))
    if pid == 0:
        _in_child()
    else:
        _in_parent()
        os.close(group)
    return pid
