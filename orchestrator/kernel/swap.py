"""Other files at mount points of a running container: each appears as a whole, at one moment.

A mounted file can't be renamed over. The new one is mounted beneath the old one, which is then taken away:
whoever opens the path finds the one or the other, whoever has the old one open goes on reading it. Only what
is in the container's mount namespace can be mounted there, so a thread of its own enters it; it does nothing
else and ends. The container may change its directories meanwhile: only what is mounted on one of our own
files is ever touched. On the way to it there may be a filesystem of the container's own that never answers
(FUSE): then the thread is left behind, one a container, and ends with that filesystem. Standard library only.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass

from orchestrator.kernel import syscalls

PATIENCE = 5.0
"""Seconds that the container's filesystems have to answer."""
MOST_LEFT = 16
"""Threads that are left behind, of all containers."""
_left: dict[str, threading.Thread] = {}
"""Container -> the thread that waits for its filesystems still."""

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


def swap(init: int, exchanges: Collection[Exchange], whose: str) -> None:
    """`init`: pidfd of the first process of the container `whose`.

    Raises OSError: ESRCH when it has ended, EBUSY when something else is mounted at a target, ETIMEDOUT when
    a filesystem on the way there does not answer, nor has since the last time.
    """
    for one, thread in list(_left.items()):
        if not thread.is_alive():
            _left.pop(one, None)
    if whose in _left or len(_left) >= MOST_LEFT:
        raise _silent()
    visit = _Visit(init, exchanges)
    visit.start()
    visit.join(PATIENCE)
    if visit.is_alive():
        visit.given_up = True
        _left[whose] = visit
        raise _silent()
    if visit.error is not None:
        raise visit.error


def _silent() -> OSError:
    return OSError(errno.ETIMEDOUT, "a filesystem that is mounted in it does not answer")


def _clone(source: str) -> int:
    """A detached, read-only mount of a file."""
    flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_SYMLINK_NOFOLLOW
    tree = syscalls.open_tree(syscalls.AT_FDCWD, source, flags)
    syscalls.mount_setattr(tree, add=syscalls.MOUNT_ATTR_RDONLY, propagation=syscalls.MS_PRIVATE)
    return tree


class _Visit(threading.Thread):
    """Its descriptors are its own: nobody else knows when it is done with them."""

    def __init__(self, init: int, exchanges: Collection[Exchange]) -> None:
        super().__init__(name="swap", daemon=True)
        self.error: OSError | None = None
        self.given_up = False
        """Nobody waits any more, and another may have come meanwhile: nothing is to be changed."""
        with ExitStack() as held:
            self._init = os.dup(init)
            held.callback(os.close, self._init)
            self._proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            held.callback(os.close, self._proc)
            self._trees: list[tuple[Exchange, int]] = []
            for one in exchanges:
                self._trees.append((one, _clone(one.source)))
                held.callback(os.close, self._trees[-1][1])
            self._held = held.pop_all()

    def run(self) -> None:
        """Nothing is imported or printed in here: the thread's root is the container's."""
        try:
            with self._held:
                # Root and working directory are this thread's alone from here on, as setns(2) wants it.
                syscalls.unshare(syscalls.CLONE_FS)
                syscalls.setns(self._init, syscalls.CLONE_NEWNS)
                for one, tree in self._trees:
                    self._exchange(one, tree)
        except OSError as error:
            self.error = error

    def _exchange(self, one: Exchange, tree: int) -> None:
        # Links may lead anywhere: what is found is looked at. Other threads go on while this waits, which
        # syscalls.openat2 would not let them.
        place = os.open(one.target, os.O_PATH | os.O_CLOEXEC)
        try:
            _demand_ours(place, one)
            if self.given_up:
                raise _silent()
            if _put_beneath(tree, place):
                self._take_away(place)
            else:
                self._put_instead(tree, place)
        finally:
            os.close(place)

    def _take_away(self, place: int) -> None:
        # The very mount that was found: no path of the container's is looked up again.
        os.fchdir(self._proc)
        syscalls.umount(f"thread-self/fd/{place}", syscalls.MNT_DETACH)

    def _put_instead(self, tree: int, place: int) -> None:
        """Before Linux 6.5, where what is mounted on top of a file goes when that file is renamed over: the
        old one is taken away first, and for a moment the empty file below is seen."""
        path = os.readlink(f"thread-self/fd/{place}", dir_fd=self._proc)
        if os.fstat(place).st_nlink == 0:
            path = path.removesuffix(_DELETED)
        above, _, name = path.rpartition("/")
        directory = os.open(above or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if self.given_up:
                raise _silent()
            self._take_away(place)
            _put_onto(tree, directory, name)
        finally:
            os.close(directory)


def _demand_ours(place: int, one: Exchange) -> None:
    found = os.fstat(place)
    # A file that was mounted, but not yet in its place when somebody was killed, has no name any more.
    nameless = found.st_nlink == 0 and found.st_dev in {device for device, _ in one.held}
    if (found.st_dev, found.st_ino) not in one.held and not nameless:
        raise OSError(errno.EBUSY, "something else is mounted there", one.target)


def _put_beneath(tree: int, place: int) -> bool:
    """Whether the kernel can: Linux 6.5."""
    try:
        syscalls.move_mount(tree, place, beneath=True)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def _put_onto(tree: int, directory: int, name: str) -> None:
    below = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(below).st_mode):
            raise OSError(errno.EBUSY, "no regular file to mount on", name)
        syscalls.move_mount(tree, below)
    finally:
        os.close(below)
