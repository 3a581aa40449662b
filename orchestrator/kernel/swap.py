"""Other files at mount points of a running container: each appears as a whole, at one moment.

A mounted file can't be renamed over. The new one is mounted beneath the old one, which is then taken away:
whoever opens the path finds the one or the other, whoever has the old one open goes on reading it. Only what
is in the container's mount namespace can be mounted there, so a thread of its own enters it; it does nothing
else and ends. The container may change its directories meanwhile: only what is mounted on one of our own
files is ever touched. Standard library only.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.kernel import syscalls

_DELETED = " (deleted)"
"""What the kernel puts behind the path of a file without a name (proc_pid_fd(5))."""

File = tuple[int, int]
"""Device and inode."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """`source`, a file of the host, takes the place of one of the files `held`, or of a deleted file of the
    same filesystem, at `target`."""

    source: str
    target: str
    held: Collection[File]


def identity(path: str) -> File | None:
    """None when there is no such file."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def swap(init: int, exchanges: Collection[Exchange]) -> None:
    """`init`: pidfd of the container's first process. Raises OSError: ESRCH when it has ended, EBUSY when
    something else is mounted at a target."""
    trees: list[int] = []
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        trees.extend(_clone(one.source) for one in exchanges)
        failed: list[OSError] = []
        arguments = (init, proc, list(zip(exchanges, trees, strict=True)), failed)
        thread = threading.Thread(target=_swap_inside, args=arguments, name="swap")
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
    finally:
        for fd in (proc, *trees):
            os.close(fd)


def _clone(source: str) -> int:
    """A detached, read-only mount of a file."""
    flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_SYMLINK_NOFOLLOW
    tree = syscalls.open_tree(syscalls.AT_FDCWD, source, flags)
    syscalls.mount_setattr(tree, add=syscalls.MOUNT_ATTR_RDONLY, propagation=syscalls.MS_PRIVATE)
    return tree


def _swap_inside(init: int, proc: int, trees: list[tuple[Exchange, int]], failed: list[OSError]) -> None:
    """The whole life of the thread. Nothing is imported or printed in here: its root is the container's."""
    try:
        # Root and working directory are this thread's alone from here on, as setns(2) wants it.
        syscalls.unshare(syscalls.CLONE_FS)
        syscalls.setns(init, syscalls.CLONE_NEWNS)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for one, tree in trees:
                _exchange(one, tree, root, proc)
        finally:
            os.close(root)
    except OSError as error:
        failed.append(error)


def _exchange(one: Exchange, tree: int, root: int, proc: int) -> None:
    place = _open(root, one.target, os.O_PATH, one)
    try:
        # The path without links: of it the last step is taken alone, in a directory that is held.
        path = os.readlink(f"thread-self/fd/{place}", dir_fd=proc)
        if os.fstat(place).st_nlink == 0:
            path = path.removesuffix(_DELETED)
        above, _, name = path.rpartition("/")
    finally:
        os.close(place)
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
    directory = syscalls.openat2(root, above or "/", os.O_PATH | os.O_DIRECTORY, resolve=resolve)
    try:
        place = _open(directory, name, os.O_PATH | os.O_NOFOLLOW, one)
        try:
            covered = _put(tree, place)
        finally:
            os.close(place)
        if covered:
            os.fchdir(directory)
            syscalls.umount(name, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
    finally:
        os.close(directory)


def _open(directory: int, path: str, flags: int, one: Exchange) -> int:
    """The file that is mounted there, found to be one of ours."""
    place = syscalls.openat2(directory, path, flags)
    found = os.fstat(place)
    # A file that was mounted, but not yet in its place when somebody was killed, has no name any more.
    nameless = found.st_nlink == 0 and found.st_dev in {device for device, _ in one.held}
    if (found.st_dev, found.st_ino) not in one.held and not nameless:
        os.close(place)
        raise OSError(errno.EBUSY, "something else is mounted there", one.target)
    return place


def _put(tree: int, place: int) -> bool:
    """Whether it lies beneath the old one. Before Linux 6.5 it covers it, and the old one stays below."""
    try:
        syscalls.move_mount(tree, place, beneath=True)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        syscalls.move_mount(tree, place)
        return False
    return True
