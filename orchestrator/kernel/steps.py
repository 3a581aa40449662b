"""What has to be done to build a container's world, as small values; `kernel.layout` puts them in order.

`kernel.rootfs` performs them; `describe()` names each in errors and golden tests.

Named tuples, not dataclasses: the keeper imports this, and those would bring `inspect` along.
"""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.kernel import syscalls as sys

NAMESPACES = {
    "mount": sys.CLONE_NEWNS,
    "cgroup": sys.CLONE_NEWCGROUP,
    "uts": sys.CLONE_NEWUTS,
    "ipc": sys.CLONE_NEWIPC,
    "pid": sys.CLONE_NEWPID,
    "network": sys.CLONE_NEWNET,
}
OCI_NAMESPACES = {**NAMESPACES, "user": sys.CLONE_NEWUSER, "time": sys.CLONE_NEWTIME}


class Overlay(NamedTuple):
    """A layer cake as the root, or as a directory of it. Without `upper` it is read-only."""

    target: str
    lower: tuple[str, ...]
    upper: str
    work: str

    def describe(self) -> str:
        return f"overlay {self.target} of {len(self.lower)} layers"


class Rootfs(NamedTuple):
    """A directory of the host as the root, as it is: a bundle's own."""

    path: str
    slave: bool = False  # what the host mounts there later is to be seen

    def describe(self) -> str:
        return f"root {self.path}"


class Seed(NamedTuple):
    """Fill an empty volume with what the root has at `target`."""

    target: str
    data: str
    state: str

    def describe(self) -> str:
        return f"seed the volume at {self.target}"


class Filesystem(NamedTuple):
    """A new filesystem: proc, tmpfs, devpts, ..."""

    fstype: str
    source: str
    target: str
    attributes: int
    data: tuple[str, ...]
    copy_up: bool
    propagation: int = 0  # 0: as it comes, which is private

    def describe(self) -> str:
        shown = ",".join([*_attribute_names(self.attributes), *self.data])
        return f"mount {self.fstype} {self.target}" + (f" ({shown})" if shown else "")


class Idmap(NamedTuple):
    """Who a mount's files belong to: (id in the filesystem, id as seen, how many). empty: the container's."""

    uids: tuple[tuple[int, int, int], ...]
    gids: tuple[tuple[int, int, int], ...]
    recursive: bool


class Bind(NamedTuple):
    """A host directory or file at a place of the container."""

    source: str
    beneath: str
    target: str
    recursive: bool
    add: int
    remove: int
    recursive_add: int
    propagation: int
    recursive_remove: int = 0
    idmap: Idmap | None = None
    nofollow: bool = False  # a link at the target's end is covered, not followed

    def describe(self) -> str:
        words = ["rbind" if self.recursive else "bind", *_attribute_names(self.add)]
        words += ["r" + name for name in _attribute_names(self.recursive_add)]
        if self.idmap:
            words.append("ridmap" if self.idmap.recursive else "idmap")
        words += [
            name for name, flags in PROPAGATIONS.items() if flags == self.propagation and name != "rprivate"
        ]
        inner = f"/{self.beneath}" if self.beneath else ""
        return f"mount {self.source}{inner} at {self.target} ({','.join(words)})"


class Cgroups(NamedTuple):
    """A read-only view of the container's own cgroups."""

    target: str
    directories: tuple[str, ...]
    attributes: int

    def describe(self) -> str:
        return f"mount cgroups {self.target}"


class Node(NamedTuple):
    """A device node or FIFO; `kind` as in mknod(1)."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int

    def describe(self) -> str:
        return f"mknod {self.path} {self.kind} {self.major}:{self.minor} {self.mode:04o}"


class Link(NamedTuple):
    """A symbolic link."""

    path: str
    to: str

    def describe(self) -> str:
        return f"link {self.path} -> {self.to}"


class Sysctl(NamedTuple):
    """A kernel setting of a namespace of the container's own; `path` below /proc/sys."""

    path: str
    value: str

    def describe(self) -> str:
        return f"sysctl {self.path} = {self.value}"


class Mask(NamedTuple):
    """Hide a path: an empty directory or /dev/null on top."""

    path: str

    def describe(self) -> str:
        return f"mask {self.path}"


class Protect(NamedTuple):
    """Make a path read-only."""

    path: str

    def describe(self) -> str:
        return f"read-only {self.path}"


class Console(NamedTuple):
    """The container's terminal: a pty of its own devpts, also at /dev/console."""

    height: int
    width: int

    def describe(self) -> str:
        return f"terminal {self.width}x{self.height}"


class Directory(NamedTuple):
    """A directory that has to be there, made when missing: the working directory."""

    path: str

    def describe(self) -> str:
        return f"mkdir {self.path}"


class Finish(NamedTuple):
    """Make the root read-only."""

    def describe(self) -> str:
        return "read-only /"


class Hostname(NamedTuple):
    """The name of the uts namespace."""

    name: str

    def describe(self) -> str:
        return f"hostname {self.name}"


class Domainname(NamedTuple):
    """The NIS domain of the uts namespace."""

    name: str

    def describe(self) -> str:
        return f"domainname {self.name}"


Step = (
    Overlay
    | Rootfs
    | Seed
    | Filesystem
    | Bind
    | Cgroups
    | Node
    | Link
    | Sysctl
    | Mask
    | Protect
    | Console
    | Directory
    | Finish
    | Hostname
    | Domainname
)


class Steps(NamedTuple):
    """The world of one container: what its root mount propagates in the end, then the steps in order."""

    propagation: int
    steps: tuple[Step, ...]


# Option -> (attributes to add, attributes to remove). The atime modes are one field, not bits:
# mount_setattr(2) wants all of it cleared before another is set.
ATTRIBUTES = {
    "ro": (sys.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, sys.MOUNT_ATTR_RDONLY),
    "nosuid": (sys.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, sys.MOUNT_ATTR_NOSUID),
    "nodev": (sys.MOUNT_ATTR_NODEV, 0),
    "dev": (0, sys.MOUNT_ATTR_NODEV),
    "noexec": (sys.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, sys.MOUNT_ATTR_NOEXEC),
    "nosymfollow": (sys.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, sys.MOUNT_ATTR_NOSYMFOLLOW),
    "nodiratime": (sys.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, sys.MOUNT_ATTR_NODIRATIME),
    "relatime": (0, sys.MOUNT_ATTR__ATIME),
    "atime": (0, sys.MOUNT_ATTR__ATIME),
    "norelatime": (0, sys.MOUNT_ATTR__ATIME),
    "nostrictatime": (0, sys.MOUNT_ATTR__ATIME),
    "noatime": (sys.MOUNT_ATTR_NOATIME, sys.MOUNT_ATTR__ATIME),
    "strictatime": (sys.MOUNT_ATTR_STRICTATIME, sys.MOUNT_ATTR__ATIME),
    "defaults": (0, 0),
}
PROPAGATIONS = {
    "private": sys.MS_PRIVATE,
    "rprivate": sys.MS_PRIVATE | sys.MS_REC,
    "slave": sys.MS_SLAVE,
    "rslave": sys.MS_SLAVE | sys.MS_REC,
    "shared": sys.MS_SHARED,
    "rshared": sys.MS_SHARED | sys.MS_REC,
    "unbindable": sys.MS_UNBINDABLE,
    "runbindable": sys.MS_UNBINDABLE | sys.MS_REC,
}


def _attribute_names(attributes: int) -> list[str]:
    return [name for name, (bit, _) in ATTRIBUTES.items() if bit and attributes & bit == bit]
