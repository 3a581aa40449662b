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

from orchestrator.kernel import mounting, seed, steps, syscalls, terminal, userns
from orchestrator.kernel import world as places

_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
# Before 6.5 overlayfs takes any option and refuses all of them together when it is mounted, without a word
# which: what a kernel understands can't be tried out there.
_RELEASE = tuple(int(part) for part in os.uname().release.split(".")[:2])


def detach_from_host(plan: steps.Steps, world: places.World) -> None:
    """Stop this namespace's mounts from reaching the host's, save for binds that ask to stay shared."""
    mode = syscalls.MS_PRIVATE
    for step in plan.steps:
        if not isinstance(step, steps.Bind) or not step.propagation & (
            syscalls.MS_SHARED | syscalls.MS_SLAVE
        ):
            continue
        mode = syscalls.MS_SLAVE
        if step.propagation & syscalls.MS_SHARED and step not in world.trees:
            # Cloned now, the mount stays in the host's peer group; a moment later it no longer would.
            world.trees[step] = mounting.prepared(step, world)
    if plan.propagation & (syscalls.MS_SHARED | syscalls.MS_SLAVE):
        mode = syscalls.MS_SLAVE
    syscalls.mount(None, "/", None, mode | syscalls.MS_REC)
    open_null(world)


def open_null(world: places.World) -> None:
    """The host's /dev/null, for masks."""
    # Opened here: only what lies in one's own mount namespace can be cloned (open_tree(2): EINVAL).
    world.null = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)
    if os.fstat(world.null).st_rdev != os.makedev(1, 3):
        raise OSError(errno.ENODEV, "/dev/null of the host is not the null device")


def perform(step: steps.Step, world: places.World) -> None:
    """Do one step."""
    if not isinstance(step, steps.Node | steps.Link):
        places.leave(world)
    _PERFORMERS[type(step)](step, world)


def pivot(plan: steps.Steps, world: places.World) -> None:
    """Make the new root the only one: afterwards nothing of the host can be named."""
    os.fchdir(world.root)
    syscalls.pivot_root(".", ".")
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")
    if plan.propagation != steps.PROPAGATIONS["rprivate"]:
        _spread(plan, world)


def cover(plan: steps.Steps, world: places.World) -> None:
    """Move the new root over the old one: an initramfs can't be pivoted from (pivot_root(2), EINVAL)."""
    os.fchdir(world.root)
    syscalls.mount(".", "/", None, syscalls.MS_MOVE)
    os.chroot(".")
    os.chdir("/")
    if plan.propagation != steps.PROPAGATIONS["rprivate"]:
        _spread(plan, world)


def confine(world: places.World) -> None:
    """For a mount namespace that isn't the container's own: the others in it keep their root."""
    os.fchdir(world.root)
    os.chroot(".")
    os.chdir("/")


def _spread(plan: steps.Steps, world: places.World) -> None:
    """What the root propagates, and with MS_REC all mounts that don't say it for themselves."""
    mode = plan.propagation & ~syscalls.MS_REC
    syscalls.mount(None, "/", None, mode)
    if not plan.propagation & syscalls.MS_REC:
        return
    silent = (0, steps.PROPAGATIONS["rprivate"])
    for step in plan.steps:
        if isinstance(step, steps.Bind | steps.Filesystem) and step.propagation in silent:
            with suppress(OSError):  # covered by a later mount
                place = syscalls.openat2(world.root, step.target, os.O_PATH)
                try:
                    syscalls.mount_setattr(place, flags=syscalls.AT_RECURSIVE, propagation=mode)
                finally:
                    os.close(place)


def _overlay(step: steps.Overlay, world: places.World) -> None:
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
        places.attach(world, tree, step.target, directory=True)
    world.roots.append(tree)


def clone_root(step: steps.Rootfs) -> int:
    """A detached clone of the bundle's directory with what is mounted below.

    Never through a link at its end: whoever may write to the bundle's parent could point it anywhere.
    """
    place = _open_root(step)
    try:
        deep = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
        return syscalls.open_tree(place, "", deep)
    finally:
        os.close(place)


def _open_root(step: steps.Rootfs) -> int:
    return os.open(step.path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _rootfs(step: steps.Rootfs, world: places.World) -> None:
    """Put over itself: pivot_root(2) wants a mount, and hooks look for the container there."""
    place = world.place if world.place >= 0 else _open_root(step)
    try:
        tree = world.trees.pop(step, -1)
        if tree < 0:
            tree = clone_root(step)
        mode = syscalls.MS_SLAVE if step.slave else syscalls.MS_PRIVATE
        syscalls.mount_setattr(tree, flags=syscalls.AT_RECURSIVE, propagation=mode)
        syscalls.move_mount(tree, place)
    finally:
        os.close(place)
        world.place = -1
    world.root = tree
    world.roots.append(tree)


def _forget_crash(work: str) -> None:
    """Take away the kernel's mark that a volatile overlay was not cleanly unmounted.

    It is left whenever the last process of a container dies with the machine still up, where nothing was
    lost; after a crash of the machine the engine throws the layer away (storage.settle_layers).
    """
    mark = f"{work}/work/incompat/volatile"
    with suppress(FileNotFoundError):
        os.unlink(f"{mark}/dirty")
    with suppress(FileNotFoundError):  # also when one before us was killed in between
        os.rmdir(mark)


def _new_overlay(step: steps.Overlay, mountpoint: str) -> int:
    """A detached overlay mount.

    `volatile`: without it the last unmount syncs the whole filesystem below (measured 47-128 ms against 5).
    Its strings are limited to 255 bytes, and `lowerdir+` needs Linux 6.8, else mount(2) does it.
    """
    longest = max(map(len, map(os.fsencode, (*step.lower, step.upper, step.work))))
    if longest > mounting.FSCONFIG_STRING_LIMIT or _RELEASE < (6, 8):
        return _old_overlay(step, mountpoint)
    fs = syscalls.fsopen("overlay")
    try:
        syscalls.fsconfig(fs, "source", "overlay")
        for layer in step.lower:
            syscalls.fsconfig(fs, "lowerdir+", layer)
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


def _seed(step: steps.Seed, world: places.World) -> None:
    try:
        source = syscalls.openat2(world.root, step.target, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        source = -1
    try:
        seed.fill(source, step.data, step.state)
    finally:
        if source >= 0:
            os.close(source)


def clone_device(step: steps.Node) -> int:
    """A detached clone of the host's node of this device, by that name or another."""
    kind, device = _KINDS[step.kind], os.makedev(step.major, step.minor)
    letter = "b" if step.kind == "b" else "c"
    for path in (step.path, f"/dev/{letter}/{step.major}:{step.minor}", *_nodes_below("/dev")):
        try:
            found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            status = os.fstat(found)
            if stat.S_IFMT(status.st_mode) == kind and status.st_rdev == device:
                return syscalls.open_tree(found, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
        finally:
            os.close(found)
    raise OSError(errno.ENODEV, f"the host has no device node {letter} {step.major}:{step.minor} to bind")


def _nodes_below(directory: str) -> Iterator[str]:
    for place, _, names in os.walk(directory):
        for name in names:
            yield f"{place}/{name}"


def _bind_node(step: steps.Node, world: places.World) -> None:
    """In a user namespace nodes can't be made: the host's is bound, with its owner and mode (mknod(2))."""
    tree = world.trees.pop(step, -1)
    if tree < 0:
        tree = clone_device(step)
    try:
        places.attach(world, tree, step.path, directory=False, nofollow=True)
    finally:
        os.close(tree)


def _node(step: steps.Node, world: places.World) -> None:
    if step.kind != "p" and (world.guest or not userns.is_initial()):
        _bind_node(step, world)
        return
    above, name = places.parent(world, step.path)
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


def _link(step: steps.Link, world: places.World) -> None:
    above, name = places.parent(world, step.path)
    with suppress(FileExistsError):  # the image brought its own
        os.symlink(step.to, name, dir_fd=above)


def _sysctl(step: steps.Sysctl, world: places.World) -> None:
    """Through the host's /proc, which no container can have tampered with; it shows our own namespaces."""
    resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
    fd = syscalls.openat2(world.proc, f"sys/{step.path}", os.O_WRONLY, resolve=resolve)
    try:
        os.write(fd, os.fsencode(step.value))
    finally:
        os.close(fd)


def _console(step: steps.Console, world: places.World) -> None:
    world.master, world.slave = terminal.open_pair(world.root, step.height, step.width)
    tree = syscalls.open_tree(world.slave, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
    try:
        places.attach(world, tree, "/dev/console", directory=False)
    finally:
        os.close(tree)


def _directory(step: steps.Directory, world: places.World) -> None:
    os.close(places.make(world.root, step.path, directory=True))


def _finish(_: steps.Finish, world: places.World) -> None:
    for tree in world.roots:
        syscalls.mount_setattr(tree, add=syscalls.MOUNT_ATTR_RDONLY)


def _hostname(step: steps.Hostname, _: places.World) -> None:
    syscalls.sethostname(step.name)


def _domainname(step: steps.Domainname, _: places.World) -> None:
    syscalls.setdomainname(step.name)


# The values take each its own step type, which a dict can't say: hence Callable[..., None].
_PERFORMERS: dict[type, Callable[..., None]] = {
    steps.Overlay: _overlay,
    steps.Rootfs: _rootfs,
    steps.Seed: _seed,
    steps.Filesystem: mounting.filesystem,
    steps.Bind: mounting.bind,
    steps.Cgroups: mounting.cgroups,
    steps.Node: _node,
    steps.Link: _link,
    steps.Sysctl: _sysctl,
    steps.Mask: mounting.mask,
    steps.Protect: mounting.protect,
    steps.Console: _console,
    steps.Directory: _directory,
    steps.Finish: _finish,
    steps.Hostname: _hostname,
    steps.Domainname: _domainname,
}
