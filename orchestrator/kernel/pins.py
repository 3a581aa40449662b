"""A word of the kernel that outlives all of ours: the pidfd of a container's first process, on a file.

A supervisor that dies loses its pidfds, and a keeper that dies with it its children, which the machine's
init then buries. How such a process has ended the kernel tells through a pidfd (Linux 6.15) that was opened
while it lived: so one stands in the bundle, as a bind mount (Linux 6.14; 15 us). Older kernels refuse that,
and in a user namespace the mount would go with the last of our processes: there is none, and an end that
nobody saw stays unknown. Standard library only: the keeper does it.
"""

from __future__ import annotations

import os
from contextlib import suppress

from orchestrator.kernel import syscalls, userns

_NAME = "process"
_DEPTH = 8
"""So many that were mounted over one another are taken off; there is never more than one."""


def pin(bundle: str, pidfd: int) -> None:
    """Let the bundle's file name the process behind `pidfd`. That it can't be done is no error."""
    if not bundle or not userns.is_initial():
        return
    path = f"{bundle}/{_NAME}"
    with suppress(OSError):
        flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH
        copy = syscalls.open_tree(pidfd, "", flags)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            syscalls.move_mount(copy, syscalls.AT_FDCWD, to_path=path)
        finally:
            os.close(copy)


def unpin(bundle: str) -> None:
    """Forget the process. To be done before the bundle can be removed, and before its next run."""
    path = f"{bundle}/{_NAME}"
    if not os.path.lexists(path):
        return
    with suppress(OSError):  # nothing is mounted there any more
        for _ in range(_DEPTH):
            syscalls.umount(path, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
    with suppress(OSError):
        os.unlink(path)


def pinned(bundle: str) -> int:
    """A descriptor of what the bundle's file names: the process's pidfd where it could be pinned, else an
    ordinary file, which knows of no end. Raises OSError when there is none."""
    return os.open(f"{bundle}/{_NAME}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
