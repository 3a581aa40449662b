"""Everything that builds a container's world, in order: (config, launch) -> Steps. Pure.

`config` is the OCI runtime-spec document of a bundle, `launch` what OCI doesn't describe. What we don't do is
refused here by name, never dropped.
"""

from __future__ import annotations

from collections.abc import Container

from orchestrator.kernel import mounts, steps
from orchestrator.kernel import syscalls as sys
from orchestrator.kernel.mounts import absolute
from orchestrator.kernel.reading import Document, RefusedError

_DEVICES = (
    steps.Node("/dev/null", "c", 1, 3, 0o666, 0, 0),
    steps.Node("/dev/zero", "c", 1, 5, 0o666, 0, 0),
    steps.Node("/dev/full", "c", 1, 7, 0o666, 0, 0),
    steps.Node("/dev/random", "c", 1, 8, 0o666, 0, 0),
    steps.Node("/dev/urandom", "c", 1, 9, 0o666, 0, 0),
    steps.Node("/dev/tty", "c", 5, 0, 0o666, 0, 0),
)
_LINKS = (
    steps.Link("/dev/ptmx", "pts/ptmx"),
    steps.Link("/dev/fd", "/proc/self/fd"),
    steps.Link("/dev/stdin", "/proc/self/fd/0"),
    steps.Link("/dev/stdout", "/proc/self/fd/1"),
    steps.Link("/dev/stderr", "/proc/self/fd/2"),
)


_PROCESS_LINUX = (
    "uidMappings", "gidMappings", "timeOffsets", "netDevices", "personality", "memoryPolicy",
    "mountLabel", "intelRdt",
)  # fmt: skip
_IPC_SYSCTLS = ("kernel/sem", "kernel/shm", "kernel/msg", "fs/mqueue/")


def compile_steps(config: Document, launch: Document, bundle: str = "") -> steps.Steps:
    """Everything to do for this bundle before its program can run. RefusedError names what we don't do.

    The root is what `launch` says, or the directory that `config` names below the `bundle`.
    """
    linux = config.table("linux")
    config.only(
        "ociVersion", "root", "process", "hostname", "domainname", "mounts", "linux", "hooks", "annotations"
    )
    config.table("root").only("path", "readonly")
    own = "root" not in launch
    linux.only(
        "namespaces", "devices", "sysctl", "maskedPaths", "readonlyPaths", "rootfsPropagation",
        # These three were seen to by the caller: it made the cgroups and compiled the filter.
        "cgroupsPath", "resources", "seccomp",
        # These are about the process, and `kernel.create` does them.
        *(_PROCESS_LINUX if own else ()),
    )  # fmt: skip
    if not own and "hooks" in config:
        raise RefusedError("hooks are not supported")
    spaces = namespaces(linux, steps.OCI_NAMESPACES if own else steps.NAMESPACES)
    if not own and "mount" not in spaces:
        raise RefusedError("linux.namespaces: a container without a mount namespace is not supported")
    found: list[steps.Step] = [_rootfs(config, bundle)] if own else [*_root(launch), *_seeds(launch)]
    wanted = [mounts.read(entry, launch) for entry in config.tables("mounts")]
    found += wanted
    if not any(isinstance(step, steps.Bind) and step.target == "/dev" for step in wanted):
        # A container that gets the host's /dev keeps it as it is.
        found += _DEVICES
        found += _devices(linux)
        found += _LINKS
    found += _terminal(config.table("process"))
    found.append(steps.Directory(absolute(config.table("process").text("cwd") or "/", "process.cwd")))
    found += _names(config, spaces)
    settings = linux.table("sysctl")
    found += [_sysctl(key, settings.text(key), spaces) for key in settings.names()]
    found += [steps.Protect(absolute(path, "readonlyPaths")) for path in linux.texts("readonlyPaths")]
    found += [steps.Mask(absolute(path, "maskedPaths")) for path in linux.texts("maskedPaths")]
    if config.table("root").flag("readonly"):
        found.append(steps.Finish())
    return steps.Steps(_propagation(linux), tuple(found))


def ground_steps(config: Document, launch: Document) -> steps.Steps:
    """What another runtime finds done: the root, filled volumes, and the working directory."""
    cwd = steps.Directory(absolute(config.table("process").text("cwd") or "/", "process.cwd"))
    return steps.Steps(steps.PROPAGATIONS["rprivate"], (*_root(launch), *_seeds(launch), cwd))


def namespaces(linux: Document, known: Container[str] = steps.NAMESPACES) -> set[str]:
    """The namespaces a container doesn't share with the host, new ones and those to join (`path`)."""
    found: set[str] = set()
    for entry in linux.tables("namespaces"):
        entry.only("type", "path")
        kind = entry.text("type")
        if kind not in known:
            raise RefusedError(f"linux.namespaces: {kind!r} namespaces are not supported")
        if kind in found:
            raise RefusedError(f"linux.namespaces: {kind!r} stands there twice")
        found.add(kind)
    return found


def _rootfs(config: Document, bundle: str) -> steps.Rootfs:
    path = config.table("root").text("path")
    if not path:
        raise RefusedError("root.path: a container needs a root")
    slave = bool(_propagation(config.table("linux")) & (sys.MS_SLAVE | sys.MS_SHARED))
    return steps.Rootfs(path if path.startswith("/") else f"{bundle}/{path}", slave)


def _root(launch: Document) -> list[steps.Step]:
    pieces: list[steps.Step] = []
    for entry in launch.tables("root"):
        entry.only("target", "lower", "upper", "work")
        lower = tuple(entry.texts("lower"))
        if not lower:
            raise RefusedError("root: an overlay without layers")
        target = "/" + entry.text("target").strip("/")
        pieces.append(steps.Overlay(target, lower, entry.text("upper"), entry.text("work")))
    if not pieces or not isinstance(pieces[0], steps.Overlay) or pieces[0].target != "/":
        raise RefusedError("root: the first overlay has to be the root itself")
    return pieces


def _seeds(launch: Document) -> list[steps.Step]:
    seeds: list[steps.Step] = []
    for entry in launch.tables("seed"):
        entry.only("target", "data", "state")
        seeds.append(
            steps.Seed(absolute(entry.text("target"), "seed"), entry.text("data"), entry.text("state"))
        )
    return seeds


def _devices(linux: Document) -> list[steps.Step]:
    nodes: list[steps.Step] = []
    for entry in linux.tables("devices"):
        entry.only("path", "type", "major", "minor", "fileMode", "uid", "gid")
        path, kind = absolute(entry.text("path"), "linux.devices"), entry.text("type")
        if kind not in ("c", "u", "b", "p"):
            raise RefusedError(f"linux.devices: {path}: unknown type {kind!r}")
        numbers = (entry.number("major"), entry.number("minor"))
        mode = entry.number("fileMode", default=0o666) & 0o7777
        nodes.append(steps.Node(path, kind, *numbers, mode, entry.number("uid"), entry.number("gid")))
    return nodes


def _terminal(process: Document) -> list[steps.Step]:
    if not process.flag("terminal"):
        return []
    size = process.table("consoleSize")
    return [steps.Console(min(size.number("height"), 65535), min(size.number("width"), 65535))]


def _names(config: Document, spaces: set[str]) -> list[steps.Step]:
    found: list[steps.Step] = []
    hostname, domainname = config.text("hostname"), config.text("domainname")
    if (hostname or domainname) and "uts" not in spaces:
        raise RefusedError(
            "hostname: would rename the host, for the container has no uts namespace of its own"
        )
    if hostname:
        found.append(steps.Hostname(hostname))
    if domainname:
        found.append(steps.Domainname(domainname))
    return found


def _sysctl(key: str, value: str, spaces: set[str]) -> steps.Sysctl:
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
    return steps.Sysctl(path, value)


def _propagation(linux: Document) -> int:
    """How mounts travel between the host and the container's mount namespace; private unless asked."""
    asked = linux.text("rootfsPropagation") or "rprivate"
    if asked not in steps.PROPAGATIONS:
        raise RefusedError(f"linux.rootfsPropagation: unknown value {asked!r}")
    return steps.PROPAGATIONS[asked]
