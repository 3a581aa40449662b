"""What the child holds while it builds a container's world, and how it reaches and makes places in there.

Every place is reached from a descriptor of the container's root with openat2 (RESOLVE_IN_ROOT) and every
mount is attached to such a descriptor, never to a path: a link planted by an image or by another container
can't lead out, nor can it be exchanged in between (CVE-2021-30465, CVE-2025-31133).
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from orchestrator.kernel import mounts, steps, syscalls
from orchestrator.kernel.reading import RefusedError

# Symbolic links followed where a mount point has to be made: what the kernel allows (path_resolution(7)).
_LINK_LIMIT = 40


class World:
    """What the child holds while it builds: descriptors, all close-on-exec."""

    __slots__ = (
        "above",
        "empty",
        "guest",
        "idmaps",
        "master",
        "mountpoint",
        "null",
        "place",
        "proc",
        "proc_devices",
        "root",
        "roots",
        "slave",
        "trees",
    )

    def __init__(self, *, mountpoint: str, proc: int) -> None:
        self.mountpoint = mountpoint
        self.proc = proc  # the host's /proc, opened before any namespace was entered
        self.null = -1  # the host's /dev/null, checked to be 1:3
        self.root = -1
        self.place = -1  # where the root is to be put, when that was opened beforehand
        self.guest = False  # in a user namespace: device nodes can't be made there
        self.idmaps: dict[steps.Idmap, int] = {}  # user namespaces with these maps
        self.roots: list[int] = []  # mounts that make up the root
        self.trees: dict[
            steps.Step, int
        ] = {}  # what was cloned beforehand, where the host's mounts were ours
        self.above = ("", -1)  # the directory of the last node or link, and its descriptor
        self.proc_devices: set[int] = set()
        self.empty = -1
        self.master = -1
        self.slave = -1


def make(root: int, path: str, *, directory: bool, hops: int = _LINK_LIMIT) -> int:
    """An O_PATH descriptor of a place below `root`, made with its parents when it is missing.

    A dangling link (/etc/resolv.conf -> ../run/resolv.conf) is followed inside the root and its goal made.
    """
    try:
        return syscalls.openat2(root, path, os.O_PATH)
    except FileNotFoundError:
        pass
    parent, _, name = path.rstrip("/").rpartition("/")
    above = make(root, parent, directory=True, hops=hops) if parent else os.dup(root)
    try:
        if directory:
            os.mkdir(name, 0o755, dir_fd=above)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
            os.close(syscalls.openat2(above, name, flags, 0o644))
    except FileExistsError:
        return _through_link(root, above, parent, name, directory=directory, hops=hops)
    else:
        return syscalls.openat2(above, name, os.O_PATH | os.O_NOFOLLOW)
    finally:
        os.close(above)


def parent(world: World, path: str) -> tuple[int, str]:
    """The directory that a node or link is to be made in, and its name there. Many come one after another,
    and the directory is looked up once for them: `leave` ends that."""
    directory, _, name = path.rpartition("/")
    if world.above[1] < 0 or world.above[0] != directory:
        leave(world)
        world.above = (directory, make(world.root, directory, directory=True))
    return world.above[1], name


def leave(world: World) -> None:
    """Something else is to be done: a mount may cover what `parent` knows."""
    if world.above[1] >= 0:
        os.close(world.above[1])
        world.above = ("", -1)


def _through_link(root: int, above: int, parent: str, name: str, *, directory: bool, hops: int) -> int:
    try:
        goal = os.readlink(name, dir_fd=above)
    except OSError:
        # No link: somebody made it between our two looks.
        return syscalls.openat2(above, name, os.O_PATH | os.O_NOFOLLOW)
    if hops == 0:
        raise OSError(errno.ELOOP, f"{parent}/{name}: {os.strerror(errno.ELOOP)}")
    return make(
        root, goal if goal.startswith("/") else f"{parent}/{goal}", directory=directory, hops=hops - 1
    )


def attach(world: World, tree: int, target: str, *, directory: bool, nofollow: bool = False) -> None:
    """Put a detached mount at a place of the container, made when missing; never over /proc."""
    place = -1
    if nofollow:
        with suppress(FileNotFoundError):
            place = syscalls.openat2(world.root, target, os.O_PATH | os.O_NOFOLLOW)
    if place < 0:
        place = make(world.root, target, directory=directory)
    try:
        if os.fstat(place).st_dev in world.proc_devices and not mounts.may_cover(target):
            raise RefusedError(f"{target} leads into /proc: nothing can be mounted there")
        syscalls.move_mount(tree, place)
    finally:
        os.close(place)
