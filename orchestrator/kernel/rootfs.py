"""Performs the steps of `kernel.steps` in the forked child, which has its own mount namespace by then.

Until the pivot every place in the container is reached from a descriptor of its root with openat2
(RESOLVE_IN_ROOT) and every mount is attached to such a descriptor, never to a path: a link planted by an
image or by another container can't lead out, nor can it be exchanged in between (CVE-2021-30465,
CVE-2025-31133). Needs Linux 5.12 (mount_setattr).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress

from orchestrator.kernel import mounts, seed, steps, syscalls, terminal, userns
from orchestrator.kernel.reading import RefusedError

# Symbolic links followed where a mount point has to be made: what the kernel allows (path_resolution(7)).
_LINK_LIMIT = 40
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_FSCONFIG_STRING_LIMIT = 255


class World:
    """What the child holds while it builds: descriptors, all close-on-exec."""

    __slots__ = (
        "empty",
        "master",
        "mountpoint",
        "null",
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
        self.roots: list[int] = []  # mounts that make up the root
        self.trees: dict[steps.Bind, int] = {}  # clones of binds that stay shared with the host
        self.proc_devices: set[int] = set()
        self.empty = -1
        self.master = -1
        self.slave = -1


def detach_from_host(plan: steps.Steps, world: World) -> None:
    """Stop this namespace's mounts from reaching the host's, save for binds that ask to stay shared."""
    mode = syscalls.MS_PRIVATE
    for step in plan.steps:
        if not isinstance(step, steps.Bind) or not step.propagation & (
            syscalls.MS_SHARED | syscalls.MS_SLAVE
        ):
            continue
        mode = syscalls.MS_SLAVE
        if step.propagation & syscalls.MS_SHARED:
            # Cloned now, the mount stays in the host's peer group; a moment later it no longer would.
            world.trees[step] = _clone_source(step)
    if plan.propagation & (syscalls.MS_SHARED | syscalls.MS_SLAVE):
        mode = syscalls.MS_SLAVE
    syscalls.mount(None, "/", None, mode | syscalls.MS_REC)
    # Opened here: only what lies in one's own mount namespace can be cloned (open_tree(2): EINVAL).
    world.null = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)
    if os.fstat(world.null).st_rdev != os.makedev(1, 3):
        raise OSError(errno.ENODEV, "/dev/null of the host is not the null device")


def perform(step: steps.Step, world: World) -> None:
    """Do one step."""
    _PERFORMERS[type(step)](step, world)


def pivot(plan: steps.Steps, world: World) -> None:
    """Make the new root the only one: afterwards nothing of the host can be named."""
    os.fchdir(world.root)
    syscalls.pivot_root(".", ".")
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")
    if plan.propagation != steps.PROPAGATIONS["rprivate"]:
        syscalls.mount(None, "/", None, plan.propagation)


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


def _attach(world: World, tree: int, target: str, *, directory: bool) -> None:
    """Put a detached mount at a place of the container, made when missing; never over /proc."""
    place = make(world.root, target, directory=directory)
    try:
        if os.fstat(place).st_dev in world.proc_devices and not mounts.may_cover(target):
            raise RefusedError(f"{target} leads into /proc: nothing can be mounted there")
        syscalls.move_mount(tree, place)
    finally:
        os.close(place)


def _overlay(step: steps.Overlay, world: World) -> None:
    for directory in (step.upper, step.work):
        if directory and not os.path.isdir(directory):
            os.makedirs(directory, 0o755)
    if step.work:
        _forget_crash(step.work)
    os.makedirs(world.mountpoint, 0o700, exist_ok=True)
    tree = _new_overlay(step, world.mountpoint)
    if step.target == "/":
        place = os.open(world.mountpoint, os.O_PATH | os.O_CLOEXEC)
        syscalls.move_mount(tree, place)
        os.close(place)
        world.root = tree
    else:
        _attach(world, tree, step.target, directory=True)
    world.roots.append(tree)


def _rootfs(step: steps.Rootfs, world: World) -> None:
    """The bundle's directory with what is mounted below, put over itself: pivot_root(2) wants a mount.

    Never through a link at its end: whoever may write to the bundle's parent could point it anywhere.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    place = os.open(step.path, flags)
    try:
        deep = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
        tree = syscalls.open_tree(place, "", deep)
        syscalls.move_mount(tree, place)
    finally:
        os.close(place)
    world.root = tree
    world.roots.append(tree)


def _forget_crash(work: str) -> None:
    """Take away the kernel's mark that a volatile overlay was not cleanly unmounted.

    It is left whenever the last process of a container dies with the machine still up, where nothing was
    lost; after a crash of the machine the engine throws the upper directory away (by boot id).
    """
    mark = f"{work}/work/incompat/volatile"
    with suppress(FileNotFoundError):
        os.unlink(f"{mark}/dirty")
        os.rmdir(mark)


def _new_overlay(step: steps.Overlay, mountpoint: str) -> int:
    """A detached overlay mount.

    `volatile`: without it the last unmount syncs the whole filesystem below (measured 47-128 ms against 5).
    Its strings are limited to 255 bytes, and `lowerdir+` needs Linux 6.8, else mount(2) does it.
    """
    if max(map(len, map(os.fsencode, (*step.lower, step.upper, step.work)))) > _FSCONFIG_STRING_LIMIT:
        return _old_overlay(step, mountpoint)
    fs = syscalls.fsopen("overlay")
    try:
        syscalls.fsconfig(fs, "source", "overlay")
        try:
            for layer in step.lower:
                syscalls.fsconfig(fs, "lowerdir+", layer)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return _old_overlay(step, mountpoint)
        if step.upper:
            syscalls.fsconfig(fs, "upperdir", step.upper)
            syscalls.fsconfig(fs, "workdir", step.work)
            _fsconfig_if_known(fs, "volatile")
        if not userns.is_initial():
            syscalls.fsconfig(fs, "userxattr")  # trusted.* is not ours to write (overlayfs.rst)
        syscalls.fsconfig(fs, "index", "off")
        syscalls.fsconfig(fs, "metacopy", "off")
        # Linux 6.6: else a new upper directory gets an attribute of its own, a write to the disk's journal.
        _fsconfig_if_known(fs, "uuid", "null")
        return syscalls.fsmount(fs)
    finally:
        os.close(fs)


def _fsconfig_if_known(fs: int, key: str, value: str | None = None) -> None:
    try:
        syscalls.fsconfig(fs, key, value)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def _old_overlay(step: steps.Overlay, mountpoint: str) -> int:
    """The same through mount(2). Its options are limited to one page, so layers get /proc/self/fd names."""
    directories = [path for path in (*step.lower, step.upper, step.work) if path]
    layers = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in directories]
    names = [f"/proc/self/fd/{fd}" for fd in layers]
    options = f"lowerdir={':'.join(names[: len(step.lower)])},index=off,metacopy=off"
    options += "" if userns.is_initial() else ",userxattr"
    if step.upper:
        options += f",upperdir={names[-2]},workdir={names[-1]}"
    try:
        try:
            syscalls.mount("overlay", mountpoint, "overlay", 0, options + (",volatile" if step.upper else ""))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            syscalls.mount("overlay", mountpoint, "overlay", 0, options)
        # mount(2) can't make a detached mount, so it is cloned and its place given back.
        tree = syscalls.open_tree(syscalls.AT_FDCWD, mountpoint, syscalls.OPEN_TREE_CLONE)
        syscalls.umount(mountpoint, syscalls.MNT_DETACH)
        return tree
    finally:
        for fd in layers:
            os.close(fd)


def _seed(step: steps.Seed, world: World) -> None:
    try:
        source = syscalls.openat2(world.root, step.target, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        source = -1
    try:
        seed.fill(source, step.data, step.state)
    finally:
        if source >= 0:
            os.close(source)


def _filesystem(step: steps.Filesystem, world: World) -> None:
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
            return
        if step.copy_up:
            _copy_up(world, tree, step)
        _attach(world, tree, step.target, directory=True)
    finally:
        os.close(tree)


def _attach_kernel(world: World, tree: int, target: str) -> None:
    """proc and sysfs go to a real directory alone: a link there would have masks miss (CVE-2019-19921)."""
    os.close(make(world.root, target, directory=True))
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
    place = syscalls.openat2(world.root, target, os.O_PATH | os.O_DIRECTORY, resolve=resolve)
    try:
        syscalls.move_mount(tree, place)
    finally:
        os.close(place)


def _copy_up(world: World, tree: int, step: steps.Filesystem) -> None:
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


def _clone_source(step: steps.Bind) -> int:
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


def _bind(step: steps.Bind, world: World) -> None:
    tree = world.trees.pop(step, -1)
    if tree < 0:
        tree = _clone_source(step)
    try:
        syscalls.mount_setattr(
            tree,
            flags=syscalls.AT_RECURSIVE if step.propagation & syscalls.MS_REC else 0,
            propagation=step.propagation & ~syscalls.MS_REC,
        )
        if step.add or step.remove:
            syscalls.mount_setattr(tree, add=step.add, remove=step.remove)
        if step.recursive_add:
            syscalls.mount_setattr(tree, flags=syscalls.AT_RECURSIVE, add=step.recursive_add)
        _attach(world, tree, step.target, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
    finally:
        os.close(tree)


def _cgroups(step: steps.Cgroups, world: World) -> None:
    """On cgroup v2 the namespaced filesystem itself, else a tmpfs with the container's own directories."""
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        _filesystem(_frame("cgroup2", step.target, step.attributes), world)
        return
    writable = step.attributes & ~syscalls.MOUNT_ATTR_RDONLY
    _filesystem(_frame("tmpfs", step.target, writable, "mode=755", "size=64k"), world)
    for directory in step.directories:
        name = directory.removeprefix("/sys/fs/cgroup/").partition("/")[0]
        _bind(mounts.bind(directory, f"{step.target}/{name}", step.attributes), world)
    _protect(steps.Protect(step.target), world)


def _frame(fstype: str, target: str, attributes: int, *data: str) -> steps.Filesystem:
    return steps.Filesystem(
        fstype=fstype, source="cgroup", target=target, attributes=attributes, data=data, copy_up=False
    )


def _node(step: steps.Node, world: World) -> None:
    if step.kind != "p" and not userns.is_initial():
        _node_of_host(step, world)
        return
    parent, _, name = step.path.rpartition("/")
    above = make(world.root, parent, directory=True)
    try:
        device = os.makedev(step.major, step.minor)
        try:
            os.mknod(name, _KINDS[step.kind] | step.mode, device, dir_fd=above)
        except FileExistsError:
            found = os.stat(name, dir_fd=above, follow_symlinks=False)
            same = stat.S_IFMT(found.st_mode) == _KINDS[step.kind] and found.st_rdev == device
            if not same:
                raise
            os.chmod(name, step.mode, dir_fd=above)
        if step.uid or step.gid:
            os.chown(name, step.uid, step.gid, dir_fd=above, follow_symlinks=False)
    finally:
        os.close(above)


def _node_of_host(step: steps.Node, world: World) -> None:
    """In a user namespace nodes can't be made: the host's is bound, with its owner and mode (mknod(2))."""
    kind, device = _KINDS[step.kind], os.makedev(step.major, step.minor)
    letter = "b" if step.kind == "b" else "c"
    for path in (step.path, f"/dev/{letter}/{step.major}:{step.minor}", *_nodes_below("/dev")):
        try:
            found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            status = os.fstat(found)
            if stat.S_IFMT(status.st_mode) != kind or status.st_rdev != device:
                continue
            tree = syscalls.open_tree(found, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
            try:
                _attach(world, tree, step.path, directory=False)
            finally:
                os.close(tree)
            return
        finally:
            os.close(found)
    raise OSError(errno.ENODEV, f"the host has no device node {letter} {step.major}:{step.minor} to bind")


def _nodes_below(directory: str) -> Iterator[str]:
    for place, _, names in os.walk(directory):
        for name in names:
            yield f"{place}/{name}"


def _link(step: steps.Link, world: World) -> None:
    parent, _, name = step.path.rpartition("/")
    above = make(world.root, parent, directory=True)
    try:
        os.symlink(step.to, name, dir_fd=above)
    except FileExistsError:
        pass  # the image brought its own
    finally:
        os.close(above)


def _sysctl(step: steps.Sysctl, world: World) -> None:
    """Through the host's /proc, which no container can have tampered with; it shows our own namespaces."""
    resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
    fd = syscalls.openat2(world.proc, f"sys/{step.path}", os.O_WRONLY, resolve=resolve)
    try:
        os.write(fd, os.fsencode(step.value))
    finally:
        os.close(fd)


def _mask(step: steps.Mask, world: World) -> None:
    try:
        place = syscalls.openat2(world.root, step.path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return  # nothing there to hide
    try:
        cover = _empty(world) if stat.S_ISDIR(os.fstat(place).st_mode) else world.null
        tree = syscalls.open_tree(cover, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
        syscalls.move_mount(tree, place)
        os.close(tree)
    finally:
        os.close(place)


def _empty(world: World) -> int:
    """One empty read-only filesystem for all masked directories: each superblock costs when it goes."""
    if world.empty < 0:
        fs = syscalls.fsopen("tmpfs")
        syscalls.fsconfig(fs, "size", "0")
        syscalls.fsconfig(fs, "nr_inodes", "2")
        syscalls.fsconfig(fs, "mode", "755")
        attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
        world.empty = syscalls.fsmount(fs, attributes | syscalls.MOUNT_ATTR_RDONLY)
        os.close(fs)
    return world.empty


def _protect(step: steps.Protect, world: World) -> None:
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


def _console(step: steps.Console, world: World) -> None:
    world.master, world.slave = terminal.open_pair(world.root, step.height, step.width)
    tree = syscalls.open_tree(world.slave, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
    try:
        _attach(world, tree, "/dev/console", directory=False)
    finally:
        os.close(tree)


def _directory(step: steps.Directory, world: World) -> None:
    os.close(make(world.root, step.path, directory=True))


def _finish(_: steps.Finish, world: World) -> None:
    for tree in world.roots:
        syscalls.mount_setattr(tree, add=syscalls.MOUNT_ATTR_RDONLY)


def _hostname(step: steps.Hostname, _: World) -> None:
    syscalls.sethostname(step.name)


def _domainname(step: steps.Domainname, _: World) -> None:
    syscalls.setdomainname(step.name)


# The values take each its own step type, which a dict can't say: hence Callable[..., None].
_PERFORMERS: dict[type, Callable[..., None]] = {
    steps.Overlay: _overlay,
    steps.Rootfs: _rootfs,
    steps.Seed: _seed,
    steps.Filesystem: _filesystem,
    steps.Bind: _bind,
    steps.Cgroups: _cgroups,
    steps.Node: _node,
    steps.Link: _link,
    steps.Sysctl: _sysctl,
    steps.Mask: _mask,
    steps.Protect: _protect,
    steps.Console: _console,
    steps.Directory: _directory,
    steps.Finish: _finish,
    steps.Hostname: _hostname,
    steps.Domainname: _domainname,
}
