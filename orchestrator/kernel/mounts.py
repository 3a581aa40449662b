"""The entries of OCI's `mounts` -> steps. Pure; what we don't do is refused by name, never dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.kernel import steps
from orchestrator.kernel import syscalls as sys
from orchestrator.kernel.reading import Document, RefusedError

# The only files of /proc that may be covered: what lxcfs replaces.
_LXCFS = ("cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime")
_PROC_ALLOWED = {f"/proc/{name}" for name in _LXCFS}
# Options of mount(8) that change nothing in the kernel.
_IDLE = ("silent", "loud", "async", "acl", "noiversion")
_FILESYSTEMS = ("proc", "sysfs", "tmpfs", "devpts", "mqueue")


def read(entry: Document, launch: Document) -> steps.Step:
    """One entry. `launch` is what OCI doesn't describe; without a root in it we are on our own."""
    entry.only("destination", "type", "source", "options", "uidMappings", "gidMappings")
    own = "root" not in launch
    target = absolute(entry.text("destination"), "mounts")
    fstype, options = entry.text("type"), entry.texts("options")
    binds = fstype == "bind" or "bind" in options or "rbind" in options
    _guard_proc(target, "bind" if binds else fstype, own=own)
    if (not own or not binds) and _mapped(entry, options):
        what = "are not supported" if binds else "are for bind mounts alone"
        raise RefusedError(f"mounts: {target}: uidMappings and gidMappings {what}")
    if binds:
        return _bind(entry, launch.table("subpaths").text(target), target, options)
    add, _ = _attributes(option for option in options if option in steps.ATTRIBUTES)
    if fstype in ("cgroup", "cgroup2"):
        only_read = 0 if own else sys.MOUNT_ATTR_RDONLY
        return steps.Cgroups(target, tuple(launch.texts("cgroups")), add | only_read)
    if not fstype or (not own and fstype not in _FILESYSTEMS):
        raise RefusedError(f"mounts: {target}: a filesystem of type {fstype!r} is not supported")
    propagation = 0
    for option in options:
        propagation = steps.PROPAGATIONS.get(option, propagation)
    known = {*steps.ATTRIBUTES, *steps.PROPAGATIONS, *_IDLE, "tmpcopyup", "newinstance"}
    data = tuple(option for option in options if option not in known)
    copy_up = "tmpcopyup" in options
    if copy_up and fstype != "tmpfs":
        raise RefusedError(f"mounts: {target}: tmpcopyup is for tmpfs alone")
    return steps.Filesystem(fstype, entry.text("source") or fstype, target, add, data, copy_up, propagation)


def _mapped(entry: Document, options: Sequence[str]) -> bool:
    return "uidMappings" in entry or "gidMappings" in entry or "idmap" in options or "ridmap" in options


def _bind(entry: Document, beneath: str, target: str, options: Sequence[str]) -> steps.Bind:
    propagation = sys.MS_PRIVATE | sys.MS_REC
    plain: list[str] = []
    deep: list[str] = []
    for option in options:
        if option in steps.PROPAGATIONS:
            propagation = steps.PROPAGATIONS[option]
        elif option in steps.ATTRIBUTES:
            plain.append(option)
        elif option.startswith("r") and option[1:] in steps.ATTRIBUTES:
            deep.append(option[1:])
        elif option not in ("bind", "rbind", "idmap", "ridmap", "dest-nofollow", *_IDLE):
            raise RefusedError(f"mounts: {target}: unknown option {option!r} of a bind mount")
    source = entry.text("source")
    if not source.startswith("/"):
        raise RefusedError(f"mounts: {target}: the source {source!r} is not an absolute path")
    add, remove = _attributes(plain)
    deep_add, deep_remove = _attributes(deep)
    return steps.Bind(
        source=source,
        beneath=beneath,
        target=target,
        recursive="rbind" in options,
        add=add,
        remove=remove,
        recursive_add=deep_add,
        propagation=propagation,
        recursive_remove=deep_remove,
        idmap=_idmap(entry, target, options),
        nofollow="dest-nofollow" in options,
    )


def _idmap(entry: Document, target: str, options: Sequence[str]) -> steps.Idmap | None:
    uids, gids = id_map(entry, "uidMappings"), id_map(entry, "gidMappings")
    if bool(uids) != bool(gids):
        raise RefusedError(f"mounts: {target}: uidMappings and gidMappings only make sense together")
    if not uids and not {"idmap", "ridmap"} & set(options):
        return None
    return steps.Idmap(uids, gids, "ridmap" in options)


def id_map(entry: Document, key: str) -> tuple[tuple[int, int, int], ...]:
    """OCI's id mappings: (inside, outside, how many)."""
    found: list[tuple[int, int, int]] = []
    for row in entry.tables(key):
        row.only("containerID", "hostID", "size")
        numbers = (row.number("containerID"), row.number("hostID"), row.number("size"))
        inner, outer, size = numbers
        if min(inner, outer) < 0 or size < 1 or max(inner, outer) + size > 2**32:
            raise RefusedError(f"{row.place}: {inner} {outer} {size} is no range of ids")
        found.append(numbers)
    return tuple(found)


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


def _guard_proc(target: str, fstype: str, *, own: bool) -> None:
    """Nothing may cover /proc: our own later writes and the masks would miss (CVE-2019-16884, 2023-27561)."""
    if target == "/proc" and (fstype == "proc" or (own and fstype == "bind")):
        return  # a bind is looked at when it is made: it has to be a procfs
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
