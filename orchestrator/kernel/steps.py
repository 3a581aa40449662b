"""What has to be done to build a container's world, as an ordered list of small values.

Pure: (config, launch) -> Steps. `config` is the OCI runtime-spec document of a bundle, `launch` what OCI
doesn't describe. `kernel.rootfs` performs the steps; `describe()` names each in errors and golden tests.
 What we don't do is refused here by name, never dropped.

Named tuples, not dataclasses: the keeper imports this, and those would bring `inspect` along.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from orchestrator.kernel import syscalls as sys
from orchestrator.kernel.reading import Document, RefusedError

NAMESPACES = {
    "mount": sys.CLONE_NEWNS,
    "cgroup": sys.CLONE_NEWCGROUP,
    "uts": sys.CLONE_NEWUTS,
    "ipc": sys.CLONE_NEWIPC,
    "pid": sys.CLONE_NEWPID,
    "network": sys.CLONE_NEWNET,
}


class Overlay(NamedTuple):
    """A layer cake as the root, or as a directory of it. Without `upper` it is read-only."""

    target: str
    lower: tuple[str, ...]
    upper: str
    work: str

    def describe(self) -> str:
        return f"overlay {self.target} of {len(self.lower)} layers"


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

    def describe(self) -> str:
        shown = ",".join([*_attribute_names(self.attributes), *self.data])
        return f"mount {self.fstype} {self.target}" + (f" ({shown})" if shown else "")


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

    def describe(self) -> str:
        words = ["rbind" if self.recursive else "bind", *_attribute_names(self.add)]
        words += ["r" + name for name in _attribute_names(self.recursive_add)]
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


_DEVICES = (
    Node("/dev/null", "c", 1, 3, 0o666, 0, 0),
    Node("/dev/zero", "c", 1, 5, 0o666, 0, 0),
    Node("/dev/full", "c", 1, 7, 0o666, 0, 0),
    Node("/dev/random", "c", 1, 8, 0o666, 0, 0),
    Node("/dev/urandom", "c", 1, 9, 0o666, 0, 0),
    Node("/dev/tty", "c", 5, 0, 0o666, 0, 0),
)
_LINKS = (
    Link("/dev/ptmx", "pts/ptmx"),
    Link("/dev/fd", "/proc/self/fd"),
    Link("/dev/stdin", "/proc/self/fd/0"),
    Link("/dev/stdout", "/proc/self/fd/1"),
    Link("/dev/stderr", "/proc/self/fd/2"),
)

# Option -> (attributes to add, attributes to remove). The atime modes are one field, not bits:
# mount_setattr(2) wants all of it cleared before another is set.
_ATTRIBUTES = {
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
# The only files of /proc that may be covered: what lxcfs replaces.
_LXCFS = ("cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime")
_PROC_ALLOWED = {f"/proc/{name}" for name in _LXCFS}
_FILESYSTEMS = ("proc", "sysfs", "tmpfs", "devpts", "mqueue")
_IPC_SYSCTLS = ("kernel/sem", "kernel/shm", "kernel/msg", "fs/mqueue/")


def compile_steps(config: Document, launch: Document) -> Steps:
    """Everything to do for this bundle before its program can run. RefusedError names what we don't do."""
    linux = config.table("linux")
    config.only("ociVersion", "root", "process", "hostname", "domainname", "mounts", "linux", "annotations")
    config.table("root").only("path", "readonly")
    linux.only(
        "namespaces", "devices", "sysctl", "maskedPaths", "readonlyPaths", "rootfsPropagation",
        # These three were seen to by the engine: launch.json has the cgroups and the compiled filter.
        "cgroupsPath", "resources", "seccomp",
    )  # fmt: skip
    spaces = namespaces(linux)
    steps: list[Step] = [*_root(launch), *_seeds(launch)]
    mounts = [_mount(entry, launch) for entry in config.tables("mounts")]
    steps += mounts
    if not any(isinstance(step, Bind) and step.target == "/dev" for step in mounts):
        # A container that gets the host's /dev keeps it as it is.
        steps += _DEVICES
        steps += _devices(linux)
        steps += _LINKS
    steps += _terminal(config.table("process"))
    steps.append(Directory(_absolute(config.table("process").text("cwd") or "/", "process.cwd")))
    steps += _names(config, spaces)
    settings = linux.table("sysctl")
    steps += [_sysctl(key, settings.text(key), spaces) for key in settings.names()]
    steps += [Protect(_absolute(path, "readonlyPaths")) for path in linux.texts("readonlyPaths")]
    steps += [Mask(_absolute(path, "maskedPaths")) for path in linux.texts("maskedPaths")]
    if config.table("root").flag("readonly"):
        steps.append(Finish())
    return Steps(_propagation(linux), tuple(steps))


def namespaces(linux: Document) -> set[str]:
    """The namespaces a container doesn't share with the host. `path` is ignored: descriptors are given."""
    found: set[str] = set()
    for entry in linux.tables("namespaces"):
        entry.only("type", "path")
        kind = entry.text("type")
        if kind not in NAMESPACES:
            raise RefusedError(f"linux.namespaces: {kind!r} namespaces are not supported")
        if kind in found:
            raise RefusedError(f"linux.namespaces: {kind!r} stands there twice")
        found.add(kind)
    if "mount" not in found:
        raise RefusedError("linux.namespaces: a container without a mount namespace is not supported")
    return found


def _root(launch: Document) -> list[Step]:
    pieces: list[Step] = []
    for entry in launch.tables("root"):
        entry.only("target", "lower", "upper", "work")
        lower = tuple(entry.texts("lower"))
        if not lower:
            raise RefusedError("root: an overlay without layers")
        target = "/" + entry.text("target").strip("/")
        pieces.append(Overlay(target, lower, entry.text("upper"), entry.text("work")))
    if not pieces or not isinstance(pieces[0], Overlay) or pieces[0].target != "/":
        raise RefusedError("root: the first overlay has to be the root itself")
    return pieces


def _seeds(launch: Document) -> list[Step]:
    seeds: list[Step] = []
    for entry in launch.tables("seed"):
        entry.only("target", "data", "state")
        seeds.append(Seed(_absolute(entry.text("target"), "seed"), entry.text("data"), entry.text("state")))
    return seeds


def _mount(entry: Document, launch: Document) -> Step:
    entry.only("destination", "type", "source", "options")
    target = _absolute(entry.text("destination"), "mounts")
    fstype, options = entry.text("type"), entry.texts("options")
    _guard_proc(target, fstype)
    if fstype == "bind" or "bind" in options or "rbind" in options:
        beneath = launch.table("subpaths").text(target)
        return _bind(entry.text("source"), beneath, target, options)
    if fstype in ("cgroup", "cgroup2"):
        add, _ = _attributes(option for option in options if option in _ATTRIBUTES)
        return Cgroups(target, tuple(launch.texts("cgroups")), add | sys.MOUNT_ATTR_RDONLY)
    if fstype not in _FILESYSTEMS:
        raise RefusedError(f"mounts: {target}: a filesystem of type {fstype!r} is not supported")
    data = tuple(
        option
        for option in options
        if option not in _ATTRIBUTES
        and option not in PROPAGATIONS
        and option not in ("tmpcopyup", "newinstance")
    )
    add, _ = _attributes(option for option in options if option in _ATTRIBUTES)
    copy_up = "tmpcopyup" in options
    if copy_up and fstype != "tmpfs":
        raise RefusedError(f"mounts: {target}: tmpcopyup is for tmpfs alone")
    return Filesystem(fstype, entry.text("source") or fstype, target, add, data, copy_up)


def _bind(source: str, beneath: str, target: str, options: Sequence[str]) -> Bind:
    recursive, propagation = "rbind" in options, sys.MS_PRIVATE | sys.MS_REC
    plain: list[str] = []
    deep: list[str] = []
    for option in options:
        if option in PROPAGATIONS:
            propagation = PROPAGATIONS[option]
        elif option in _ATTRIBUTES:
            plain.append(option)
        elif option.startswith("r") and option[1:] in _ATTRIBUTES:
            deep.append(option[1:])
        elif option not in ("bind", "rbind"):
            raise RefusedError(f"mounts: {target}: unknown option {option!r} of a bind mount")
    if not source.startswith("/"):
        raise RefusedError(f"mounts: {target}: the source {source!r} is not an absolute path")
    add, remove = _attributes(plain)
    return Bind(source, beneath, target, recursive, add, remove, _attributes(deep)[0], propagation)


def bind(source: str, target: str, attributes: int) -> Bind:
    """A plain private bind mount."""
    return Bind(
        source=source,
        beneath="",
        target=target,
        recursive=False,
        add=attributes,
        remove=0,
        recursive_add=0,
        propagation=PROPAGATIONS["rprivate"],
    )


def _attributes(options: Iterable[str]) -> tuple[int, int]:
    """Attributes to add and to remove; of options that contradict each other the later one counts."""
    add = remove = 0
    for option in options:
        plus, minus = _ATTRIBUTES[option]
        add = add & ~minus | plus
        remove = remove & ~plus | minus
    return add, remove


def _guard_proc(target: str, fstype: str) -> None:
    """Nothing may cover /proc: our own later writes and the masks would miss (CVE-2019-16884, 2023-27561)."""
    if target == "/proc" and fstype == "proc":
        return
    if (target == "/proc" or target.startswith("/proc/")) and not may_cover(target):
        raise RefusedError(f"mounts: {target}: nothing can be mounted over /proc")


def may_cover(target: str) -> bool:
    """Whether a mount may land there although it is a file of procfs."""
    return target in _PROC_ALLOWED


def _devices(linux: Document) -> list[Step]:
    nodes: list[Step] = []
    for entry in linux.tables("devices"):
        entry.only("path", "type", "major", "minor", "fileMode", "uid", "gid")
        path, kind = _absolute(entry.text("path"), "linux.devices"), entry.text("type")
        if kind not in ("c", "u", "b", "p"):
            raise RefusedError(f"linux.devices: {path}: unknown type {kind!r}")
        numbers = (entry.number("major"), entry.number("minor"))
        mode = entry.number("fileMode", default=0o666) & 0o7777
        nodes.append(Node(path, kind, *numbers, mode, entry.number("uid"), entry.number("gid")))
    return nodes


def _terminal(process: Document) -> list[Step]:
    if not process.flag("terminal"):
        return []
    size = process.table("consoleSize")
    return [Console(min(size.number("height"), 65535), min(size.number("width"), 65535))]


def _names(config: Document, spaces: set[str]) -> list[Step]:
    steps: list[Step] = []
    hostname, domainname = config.text("hostname"), config.text("domainname")
    if (hostname or domainname) and "uts" not in spaces:
        raise RefusedError(
            "hostname: would rename the host, for the container has no uts namespace of its own"
        )
    if hostname:
        steps.append(Hostname(hostname))
    if domainname:
        steps.append(Domainname(domainname))
    return steps


def _sysctl(key: str, value: str, spaces: set[str]) -> Sysctl:
    """Only settings that belong to a namespace of the container: others would be the whole machine's."""
    # "net.ipv4.conf.eth0/1.forwarding": whichever of "." and "/" comes first separates (sysctl.d(5)).
    path = key if "/" in key and "." not in key.partition("/")[0] else key.translate({46: "/", 47: "."})
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise RefusedError(f"linux.sysctl: {key!r} is not the name of a setting")
    if path.startswith("net/"):
        needed = "network"
    elif path.startswith(_IPC_SYSCTLS):
        needed = "ipc"
    elif path == "kernel/domainname":
        needed = "uts"
    else:
        raise RefusedError(f"linux.sysctl: {key} belongs to the whole machine, not to a container")
    if needed not in spaces:
        raise RefusedError(
            f"linux.sysctl: {key} would be the host's, for the container shares its {needed} namespace"
        )
    return Sysctl(path, value)


def _propagation(linux: Document) -> int:
    """How mounts travel between the host and the container's mount namespace; private unless asked."""
    asked = linux.text("rootfsPropagation") or "rprivate"
    if asked not in PROPAGATIONS:
        raise RefusedError(f"linux.rootfsPropagation: unknown value {asked!r}")
    return PROPAGATIONS[asked] | sys.MS_REC


def _absolute(path: str, where: str) -> str:
    """A path inside the container, normalized and without ".."."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/") or ".." in parts or "\0" in path:
        raise RefusedError(f"{where}: {path!r} is not an absolute path inside the container")
    return "/" + "/".join(parts)


def _attribute_names(attributes: int) -> list[str]:
    return [name for name, (bit, _) in _ATTRIBUTES.items() if bit and attributes & bit == bit]
