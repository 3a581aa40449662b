"""How much of everything this machine may have, and has: what ends a host before its memory does."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """What may be, at most, and beside it what there is of it now. None: this kernel does not say."""

    processes: int | None = None
    """kernel.pid_max and kernel.threads-max, whichever is less, of threads."""
    processes_now: int = 0
    group: int | None = None
    """The least pids.max of the control groups that ours are in."""
    group_now: int = 0
    namespaces: int | None = None
    """The least of user.max_{net,mnt,pid,ipc,uts}_namespaces: each container has one of each."""
    neighbours: int | None = None
    """net.ipv4.neigh.default.gc_thresh3, of all network namespaces together (arp(7))."""
    watches: int | None = None
    """fs.inotify.max_user_watches, of one user."""
    descriptors: int | None = None
    """RLIMIT_NOFILE of this process, as far as it may be raised; the keeper's is the same."""


def own_groups(base: str | None, cgroup: str = "/proc/self/cgroup") -> list[str]:
    """Where this process, and so the keeper's children, are counted by the pids controller of cgroup v1."""
    if base is None:
        return []
    rows = [line.split(":", 2) for line in Path(cgroup).read_text().splitlines()]
    return [f"{base}{place}" for _, names, place in rows if "pids" in names.split(",")]


def look(groups: Sequence[str] = ()) -> Ceilings:
    """As things are. `groups`: directories of the control groups that containers' are made in."""
    pids = [n for n in (_number("sys/kernel/pid_max"), _number("sys/kernel/threads-max")) if n is not None]
    kinds = ("net", "mnt", "pid", "ipc", "uts")
    spaces = [n for kind in kinds if (n := _number(f"sys/user/max_{kind}_namespaces")) is not None]
    group, group_now = _group(groups)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return Ceilings(
        processes=min(pids, default=None),
        processes_now=_threads(),
        group=group,
        group_now=group_now,
        namespaces=min(spaces, default=None),
        neighbours=_number("sys/net/ipv4/neigh/default/gc_thresh3"),
        watches=_number("sys/fs/inotify/max_user_watches"),
        descriptors=None if most == resource.RLIM_INFINITY else most,
    )


def _number(path: str, base: Path = _PROC) -> int | None:
    """None also for "max", and for what is not there (neigh: in other network namespaces than the first)."""
    try:
        return int((base / path).read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _threads() -> int:
    """All on this machine: "running/there are" is the fourth of /proc/loadavg (proc_loadavg(5))."""
    try:
        return int((_PROC / "loadavg").read_text().split()[3].partition("/")[2])
    except (OSError, ValueError, IndexError):
        return 0


def _group(directories: Sequence[str]) -> tuple[int | None, int]:
    """pids.max and pids.current of that group, of these and those above, that has the least room left."""
    found: tuple[int | None, int] = (None, 0)
    seen: set[Path] = set()
    for directory in map(Path, directories):
        for place in (directory, *directory.parents):
            if place in seen:
                break
            seen.add(place)
            most = _number("pids.max", place)
            now = _number("pids.current", place) or 0
            if most is not None and (found[0] is None or most - now < found[0] - found[1]):
                found = (most, now)
    return found
