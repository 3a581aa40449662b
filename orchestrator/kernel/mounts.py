"""The entries of OCI's `mounts` -> steps. Pure; what we don't do is refused by name, never dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.kernel import steps
from orchestrator.kernel import syscalls as sys
from orchestrator.kernel.reading import Document, RefusedError

# The only files of /proc that may be covered: what lxcfs replaces.
_LXCFS = ("cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime")
_PROC_ALLOWED = {f"/proc/{name}" for name in _LXCFS}
_FILESYSTEMS = ("proc", "sysfs", "tmpfs", "devpts", "mqueue")


def read(entry: Document, launch: Document) -> steps.Step:
    entry.only("destination", "type", "source", "options")
    target = absolute(entry.text("destination"), "mounts")
    fstype, options = entry.text("type"), entry.texts("options")
    _guard_proc(target, fstype)
    if fstype == "bind" or "bind" in options or "rbind" in options:
        beneath = launch.table("subpaths").text(target)
        return _bind(entry.text("source"), beneath, target, options)
    if fstype in ("cgroup", "cgroup2"):
        add, _ = _attributes(option for option in options if option in steps.ATTRIBUTES)
        return steps.Cgroups(target, tuple(launch.texts("cgroups")), add | sys.MOUNT_ATTR_RDONLY)
    if fstype not in _FILESYSTEMS:
        raise RefusedError(f"mounts: {target}: a filesystem of type {fstype!r} is not supported")
    data = tuple(
        option
        for option in options
        if option not in steps.ATTRIBUTES
        and option not in steps.PROPAGATIONS
        and option not in ("tmpcopyup", "newinstance")
    )
    add, _ = _attributes(option for option in options if option in steps.ATTRIBUTES)
    copy_up = "tmpcopyup" in options
    if copy_up and fstype != "tmpfs":
        raise RefusedError(f"mounts: {target}: tmpcopyup is for tmpfs alone")
    return steps.Filesystem(fstype, entry.text("source") or fstype, target, add, data, copy_up)


def _bind(source: str, beneath: str, target: str, options: Sequence[str]) -> steps.Bind:
    recursive, propagation = "rbind" in options, sys.MS_PRIVATE | sys.MS_REC
    plain: list[str] = []
    deep: list[str] = []
    for option in options:
        if option in steps.PROPAGATIONS:
            propagation = steps.PROPAGATIONS[option]
        elif option in steps.ATTRIBUTES:
            plain.append(option)
        elif option.startswith("r") and option[1:] in steps.ATTRIBUTES:
            deep.append(option[1:])
        elif option not in ("bind", "rbind"):
            raise RefusedError(f"mounts: {target}: unknown option {option!r} of a bind mount")
    if not source.startswith("/"):
        raise RefusedError(f"mounts: {target}: the source {source!r} is not an absolute path")
    add, remove = _attributes(plain)
    return steps.Bind(source, beneath, target, recursive, add, remove, _attributes(deep)[0], propagation)


def bind(source: str, target: str, attributes: int) -> steps.Bind:
    """A plain private bind mount."""
    return steps.Bind(
        source=source,
        beneath="",
        target=target,
        recursive=False,
        add=attributes,
        remove=0,
        recursive_add=0,
        propagation=steps.PROPAGATIONS["rprivate"],
    )


def _attributes(options: Iterable[str]) -> tuple[int, int]:
    """Attributes to add and to remove; of options that contradict each other the later one counts."""
    add = remove = 0
    for option in options:
        plus, minus = steps.ATTRIBUTES[option]
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


def absolute(path: str, where: str) -> str:
    """A path inside the container, normalized and without ".."."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/") or ".." in parts or "\0" in path:
        raise RefusedError(f"{where}: {path!r} is not an absolute path inside the container")
    return "/" + "/".join(parts)
