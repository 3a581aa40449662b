"""What a container uses now, from the cheapest place of the kernel that knows it.

A controller's own figure is preferred. On v1 a container has a group of a controller only where a limit asks
for one, so without it the figure comes from its processes. Sources: the kernel's
Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/ and filesystems/proc.rst.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.kernel import cgroups, syscalls
from orchestrator.kernel.controls import read
from orchestrator.kernel.limits import Hierarchies

_PAGE = os.sysconf("SC_PAGE_SIZE")
_UNLIMITED = 1 << 60  # v1 says "no limit" by the largest number of whole pages


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Counters since the start, and what is held now. Bytes, nanoseconds, tasks.

    `memory` is what docker shows: without the page cache that the kernel would drop first. `counted` says
    who knows: the memory controller, or the processes by what they have mapped. Block and network counters
    are those of the whole container.
    """

    cpu: int = 0
    memory: int = 0
    memory_limit: int | None = None
    counted: Literal["controller", "processes"] = "processes"
    pids: int = 0
    pids_limit: int | None = None
    read: int = 0
    written: int = 0
    received: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Leader:
    """A container's first process: its pid, and the pidfd that says whether it is still the one."""

    pid: int
    pidfd: int
    own_network: bool = True


def usage(hier: Hierarchies, path: str, leader: Leader | None = None) -> Usage:
    """Of the group `path`; the network is seen through `leader`. A group that is gone uses nothing."""
    members = members_of(hier, path, leader.pid if leader else 0)
    memory, limit, counted = _memory(hier, path, members)
    tasks, most = _tasks(hier, path, members)
    block = _blocks(hier, path, members)
    network = _network(leader) if leader is not None and leader.own_network else (0, 0)
    return Usage(
        cpu=_cpu(hier, path, members),
        memory=memory,
        memory_limit=limit,
        counted=counted,
        pids=tasks,
        pids_limit=most,
        read=block[0],
        written=block[1],
        received=network[0],
        sent=network[1],
    )


def members_of(hier: Hierarchies, path: str, leader: int) -> tuple[int, ...]:
    """The processes of a container; without control groups those of the pid namespace of its first one."""
    return cgroups.pids(hier, path) if hier.mode != "none" else sharing_pids_with(leader)


def sharing_pids_with(leader: int) -> tuple[int, ...]:
    """Every process of its pid namespace."""
    space = _space(leader)
    found = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return tuple(pid for pid in found if space and _space(pid) == space)


def _space(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _base(hier: Hierarchies, v2: str, v1: str) -> str | None:
    """The hierarchy that has the controller."""
    return hier.unified if v2 in hier.v2 else hier.v1.get(v1)


def _read(base: str | None, path: str, file: str) -> str | None:
    """None where there is no such group, file or hierarchy."""
    if base is None:
        return None
    try:
        return read(f"{base}/{path}", file)
    except OSError:
        return None


def _field(text: str, name: str) -> int:
    """The number after `name` at the beginning of a line; 0 where there is no such line."""
    begin = 0 if text.startswith(f"{name} ") else text.find(f"\n{name} ") + 1
    if begin == 0 and not text.startswith(f"{name} "):
        return 0
    return int(text[begin + len(name) + 1 :].split(None, 1)[0])


def _limit(text: str | None) -> int | None:
    word = (text or "max").strip()
    return None if word == "max" or int(word) >= _UNLIMITED else int(word)


# --- processor ---------------------------------------------------------------------------------------


def _cpu(hier: Hierarchies, path: str, members: Sequence[int]) -> int:
    """cpu.stat is there without the cpu controller (cgroup-v2.rst, "CPU Interface Files")."""
    text = _read(hier.unified, path, "cpu.stat")
    if text is not None:
        return _field(text, "usage_usec") * 1000
    text = _read(hier.v1.get("cpuacct"), path, "cpuacct.usage")
    if text is not None:
        return int(text)
    return sum(map(_cpu_of, members))


def _cpu_of(pid: int) -> int:
    """utime, stime, and those of children it has waited for (proc_pid_stat(5), fields 14 to 17)."""
    text = _of_process(pid, "stat")
    ticks = sum(map(int, text.rpartition(")")[2].split()[11:15])) if text else 0
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


# --- memory ------------------------------------------------------------------------------------------


def _memory(
    hier: Hierarchies, path: str, members: Sequence[int]
) -> tuple[int, int | None, Literal["controller", "processes"]]:
    """(bytes, limit, who says so)."""
    on_v2 = "memory" in hier.v2
    base = _base(hier, "memory", "memory")
    used = _read(base, path, "memory.current" if on_v2 else "memory.usage_in_bytes")
    if used is None:
        return _mapped(members), None, "processes"
    stat = _read(base, path, "memory.stat") or ""
    cache = _field(stat, "inactive_file" if on_v2 else "total_inactive_file")
    limit = _limit(_read(base, path, "memory.max" if on_v2 else "memory.limit_in_bytes"))
    return max(int(used) - cache, 0), limit, "controller"


def _mapped(members: Sequence[int]) -> int:
    """What the processes have in memory. Pages that several of them share count once (PSS), which the kernel
    finds out by walking their page tables; with one process its resident set says nearly the same at once.
    """
    if len(members) == 1:
        return _resident(members[0])
    return sum(_proportional(pid) for pid in members)


def _resident(pid: int) -> int:
    text = _of_process(pid, "statm")
    return int(text.split()[1]) * _PAGE if text else 0


def _proportional(pid: int) -> int:
    text = _of_process(pid, "smaps_rollup")
    begin = text.find("\nPss:")
    if begin < 0:
        return _resident(pid)
    return int(text[begin + 5 :].split(None, 1)[0]) * 1024


# --- tasks -------------------------------------------------------------------------------------------


def _tasks(hier: Hierarchies, path: str, members: Sequence[int]) -> tuple[int, int | None]:
    """(tasks, limit): threads are counted, as by the controller."""
    base = _base(hier, "pids", "pids")
    text = _read(base, path, "pids.current")
    if text is not None:
        return int(text), _limit(_read(base, path, "pids.max"))
    return sum(map(_threads, members)), None


def _threads(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/task").st_nlink - 2
    except OSError:
        return 0


# --- block devices -----------------------------------------------------------------------------------


def _blocks(hier: Hierarchies, path: str, members: Sequence[int]) -> tuple[int, int]:
    """(read, written)."""
    if "io" in hier.v2:
        text = _read(hier.unified, path, "io.stat")
        if text is not None:
            return _sum(text, "rbytes="), _sum(text, "wbytes=")
    else:
        text = _read(hier.v1.get("blkio"), path, "blkio.throttle.io_service_bytes_recursive")
        if text is not None:
            return _sum(text, "Read "), _sum(text, "Write ")
    counts = [_io_of(pid) for pid in members]
    return sum(count[0] for count in counts), sum(count[1] for count in counts)


def _sum(text: str, before: str) -> int:
    return sum(int(part.split(None, 1)[0]) for part in text.split(before)[1:])


def _io_of(pid: int) -> tuple[int, int]:
    """A process counts what those children did that it has waited for (kernel/exit.c), so the living ones
    have it all.
    """
    text = _of_process(pid, "io")
    return _field(text, "read_bytes:"), _field(text, "write_bytes:")


# --- network -----------------------------------------------------------------------------------------


def _network(leader: Leader) -> tuple[int, int]:
    """(received, sent) by all interfaces of its network namespace but loopback."""
    try:
        home = os.open(f"/proc/{leader.pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return 0, 0
    try:
        # The directory stays that of one process; only now does the pidfd say that it is ours.
        syscalls.pidfd_send_signal(leader.pidfd, 0)
        fd = os.open("net/dev", os.O_RDONLY | os.O_CLOEXEC, dir_fd=home)
        try:
            lines = os.read(fd, 65536).decode().splitlines()[2:]
        finally:
            os.close(fd)
    except OSError:
        return 0, 0
    finally:
        os.close(home)
    rows = [line.partition(":") for line in lines]
    counts = [fields.split() for name, _, fields in rows if name.strip() != "lo"]
    return sum(int(count[0]) for count in counts), sum(int(count[8]) for count in counts)


def _of_process(pid: int, file: str) -> str:
    """ "" for a process that is gone."""
    with contextlib.suppress(OSError):
        return read(f"/proc/{pid}", file)
    return ""
