"""Performs the steps that mount: new filesystems, binds, control groups, masks."""

from __future__ import annotations

import os
import stat

from orchestrator.kernel import mounts, seed, steps, syscalls
from orchestrator.kernel import world as places
from orchestrator.kernel.reading import RefusedError

FSCONFIG_STRING_LIMIT = 255
_SEALED = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC


def filesystem(step: steps.Filesystem, world: places.World) -> None:
    if max(map(len, map(os.fsencode, (step.source, *step.data))), default=0) > FSCONFIG_STRING_LIMIT:
        _old_filesystem(step, world)
        return
    fs = syscalls.fsopen(step.fstype)
    try:
        syscalls.fsconfig(fs, "source", step.source)
        for option in step.data:
            key, equals, value = option.partition("=")
            syscalls.fsconfig(fs, key, value if equals else None)
        tree = syscalls.fsmount(fs, 0 if step.copy_up else step.attributes)
    finally:
        os.close(fs)
    try:
        if step.fstype in ("proc", "sysfs"):
            _attach_kernel(world, tree, step.target)
            if step.fstype == "proc":
                world.proc_devices.add(os.fstat(tree).st_dev)
        else:
            if step.copy_up:
                _copy_up(world, tree, step)
            places.attach(world, tree, step.target, directory=True)
        if step.propagation:
            # Only now: what is detached belongs to no group of peers.
            _propagate(tree, step.propagation)
    finally:
        os.close(tree)


def _old_filesystem(step: steps.Filesystem, world: places.World) -> None:
    """mount(2), for strings too long for fsconfig(2): an overlay's many layers, say.

    It wants a path, so the place is named by its descriptor in the host's /proc, which is still there.
    """
    place = places.make(world.root, step.target, directory=True)
    try:
        data = ",".join(step.data)
        syscalls.mount(step.source, f"/proc/self/fd/{place}", step.fstype, 0, data)
    finally:
        os.close(place)
    tree = syscalls.openat2(world.root, step.target, os.O_PATH)
    try:
        syscalls.mount_setattr(tree, add=step.attributes, propagation=step.propagation & ~syscalls.MS_REC)
    finally:
        os.close(tree)


def _propagate(tree: int, propagation: int) -> None:
    syscalls.mount_setattr(
        tree,
        flags=syscalls.AT_RECURSIVE if propagation & syscalls.MS_REC else 0,
        propagation=propagation & ~syscalls.MS_REC,
    )


def _attach_kernel(world: places.World, tree: int, target: str) -> None:
    """proc and sysfs go to a real directory alone: a link there would have masks miss (CVE-2019-19921)."""
    os.close(places.make(world.root, target, directory=True))
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
    place = syscalls.openat2(world.root, target, os.O_PATH | os.O_DIRECTORY, resolve=resolve)
    try:
        syscalls.move_mount(tree, place)
    finally:
        os.close(place)


def _copy_up(world: places.World, tree: int, step: steps.Filesystem) -> None:
    try:
        source = syscalls.openat2(world.root, step.target, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        source = -1
    inside = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    try:
        if source >= 0:
            seed.copy_tree(source, inside)
    finally:
        os.close(inside)
        if source >= 0:
            os.close(source)
    syscalls.mount_setattr(tree, add=step.attributes)


def clone_source(step: steps.Bind) -> int:
    """A detached clone of what a bind mount shows."""
    source = os.open(step.source, os.O_PATH | os.O_CLOEXEC)
    try:
        if step.beneath:
            # Below the source containers may write: what they planted must not lead out of it.
            inner = syscalls.openat2(source, step.beneath, os.O_PATH)
            os.close(source)
            source = inner
        deep = syscalls.AT_RECURSIVE if step.recursive else 0
        flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH | deep
        return syscalls.open_tree(source, "", flags)
    finally:
        os.close(source)


def prepared(step: steps.Bind, world: places.World) -> int:
    """A detached clone with all that the mount shall have."""
    tree = clone_source(step)
    try:
        if step.target == "/proc":
            _check_procfs(tree, world)
        _propagate(tree, step.propagation)
        if step.add or step.remove:
            syscalls.mount_setattr(tree, add=step.add, remove=step.remove)
        if step.recursive_add or step.recursive_remove:
            deep = syscalls.AT_RECURSIVE
            syscalls.mount_setattr(tree, flags=deep, add=step.recursive_add, remove=step.recursive_remove)
        if step.idmap:
            deep = syscalls.AT_RECURSIVE if step.idmap.recursive else 0
            owner = world.idmaps[step.idmap]
            syscalls.mount_setattr(tree, flags=deep, add=syscalls.MOUNT_ATTR_IDMAP, userns_fd=owner)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _check_procfs(tree: int, world: places.World) -> None:
    """Over /proc comes a procfs or nothing: our own later writes and the masks would miss."""
    found, real = os.fstat(tree), os.fstat(world.proc)
    if (found.st_dev, found.st_ino) != (real.st_dev, real.st_ino):
        raise RefusedError("mounts: /proc: only a procfs can be mounted there")


def bind(step: steps.Bind, world: places.World) -> None:
    tree = world.trees.pop(step, -1)
    tree = prepared(step, world) if tree < 0 else _renewed(tree)
    try:
        if step.target == "/proc":
            _attach_kernel(world, tree, step.target)
            world.proc_devices.add(os.fstat(tree).st_dev)
            return
        directory = stat.S_ISDIR(os.fstat(tree).st_mode)
        places.attach(world, tree, step.target, directory=directory, nofollow=step.nofollow)
    finally:
        os.close(tree)


def _renewed(tree: int) -> int:
    """The same, made now: mountinfo is in the order of making (Linux 6.8), and the specification wants ours.

    Before Linux 6.15 what is detached can't be cloned, nor can what is unbindable: then it is as it was.
    """
    try:
        again = syscalls.open_tree(
            tree, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
        )
    except OSError:
        return tree
    os.close(tree)
    return again


def cgroups(step: steps.Cgroups, world: places.World) -> None:
    """On cgroup v2 the namespaced filesystem itself, else a tmpfs with the container's own directories."""
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        filesystem(_frame("cgroup2", step.target, step.attributes), world)
        return
    writable = step.attributes & ~syscalls.MOUNT_ATTR_RDONLY
    filesystem(_frame("tmpfs", step.target, writable, "mode=755", "size=64k"), world)
    for directory in step.directories:
        name = directory.removeprefix("/sys/fs/cgroup/").partition("/")[0]
        bind(mounts.bind(directory, f"{step.target}/{name}", step.attributes), world)
    protect(steps.Protect(step.target), world)


def _frame(fstype: str, target: str, attributes: int, *data: str) -> steps.Filesystem:
    return steps.Filesystem(
        fstype=fstype, source="cgroup", target=target, attributes=attributes, data=data, copy_up=False
    )


def mask(step: steps.Mask, world: places.World) -> None:
    try:
        place = syscalls.openat2(world.root, step.path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return  # nothing there to hide
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            tree = syscalls.open_tree(world.null, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
            # It is the host's own: its mode and owner are not the container's to change.
            syscalls.mount_setattr(tree, add=_SEALED)
        elif world.empty < 0:
            tree = world.empty = _empty()
        else:
            tree = syscalls.open_tree(world.empty, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
        syscalls.move_mount(tree, place)
        if tree != world.empty:
            os.close(tree)
    finally:
        os.close(place)


def _empty() -> int:
    """An empty read-only filesystem for all masked directories: each superblock costs when it goes.

    It covers the first of them itself, and copies of it the others: before Linux 6.15 only what is
    attached in one's own mount namespace can be copied.
    """
    fs = syscalls.fsopen("tmpfs")
    try:
        syscalls.fsconfig(fs, "size", "0")
        syscalls.fsconfig(fs, "nr_inodes", "2")
        syscalls.fsconfig(fs, "mode", "755")
        attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
        return syscalls.fsmount(fs, attributes | syscalls.MOUNT_ATTR_RDONLY)
    finally:
        os.close(fs)


def protect(step: steps.Protect, world: places.World) -> None:
    try:
        place = syscalls.openat2(world.root, step.path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
        tree = syscalls.open_tree(place, "", flags)
        syscalls.mount_setattr(tree, flags=syscalls.AT_RECURSIVE, add=syscalls.MOUNT_ATTR_RDONLY)
        syscalls.move_mount(tree, place)
        os.close(tree)
    finally:
        os.close(place)
