"""What a container may use, and which control files of v1 or v2 say so. Pure: `cgroups` writes them.

Source of the file names: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from orchestrator.kernel.devices import DeviceRule

_CPU_PERIOD = 100_000  # microseconds; the kernel's default and Docker's
_CPU_LIST = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")


class CgroupError(Exception):
    """A group or limit that this machine refuses; the message names the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchies:
    """Where the controllers of this machine are mounted."""

    mode: Literal["v1", "hybrid", "v2"]
    v1: Mapping[str, str]
    """Controller -> mount point; co-mounted controllers share one."""
    unified: str | None
    v2: frozenset[str]
    """Controllers of the unified hierarchy."""

    @property
    def bases(self) -> tuple[str, ...]:
        """Every mount point, the unified one first."""
        unified = () if self.unified is None else (self.unified,)
        return (*unified, *dict.fromkeys(self.v1.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class IoLimit:
    """Limits of one block device, in bytes and operations a second."""

    major: int
    minor: int
    read_bps: int | None = None
    write_bps: int | None = None
    read_iops: int | None = None
    write_iops: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a container may use: bytes, cores, processes. None is no limit."""

    memory: int | None = None
    memory_reservation: int | None = None
    memory_swap: int | None = None
    """Memory and swap together; -1 for any amount of swap; None for twice `memory`, as Docker does."""
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset: str | None = None
    pids: int | None = None
    io: tuple[IoLimit, ...] = ()
    devices: tuple[DeviceRule, ...] = ()
    """Rules after the default ones."""
    all_devices: bool = False
    """For privileged containers: no device is denied."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One value for one control file. An optional file may be missing (kernel option or swap off)."""

    controller: str
    file: str
    value: str
    optional: bool = False


def settings(hier: Hierarchies, limits: Limits) -> tuple[Setting, ...]:
    """The control files to write for these limits, in order.

    Raises CgroupError for a limit that makes no sense or whose controller this machine lacks.
    """
    found: list[Setting] = []
    for controller, what, wanted, rule in (
        (
            "memory",
            "memory limit",
            limits.memory is not None or limits.memory_reservation is not None,
            _memory,
        ),
        ("cpu", "cpu limit", limits.cpus is not None or limits.cpu_shares is not None, _cpu),
        ("cpuset", "cpuset", limits.cpuset is not None, _cpuset),
        ("pids", "pids limit", limits.pids is not None, _pids),
        ("io", "block device limit", bool(limits.io), _io),
    ):
        if not wanted:
            continue
        if controller in hier.v2:
            found += rule(limits, 2)
        elif ("blkio" if controller == "io" else controller) in hier.v1:
            found += rule(limits, 1)
        else:
            raise CgroupError(f"{what}: this machine has no {controller} cgroup controller")
    if limits.memory_swap not in (None, -1) and limits.memory is None:
        raise CgroupError("memory_swap needs a memory limit too")
    return tuple(found)


def _memory(limits: Limits, version: int) -> Iterator[Setting]:
    memory, total = limits.memory, limits.memory_swap
    if memory is not None and total is None:
        total = 2 * memory
    if memory is not None and total is not None and total != -1 and total < memory:
        raise CgroupError(f"memory_swap ({total}) is memory and swap together, so at least memory ({memory})")
    if version == 1:
        if memory is not None:
            yield Setting("memory", "memory.limit_in_bytes", str(memory))
            yield Setting("memory", "memory.memsw.limit_in_bytes", str(total), optional=True)
        if limits.memory_reservation is not None:
            yield Setting("memory", "memory.soft_limit_in_bytes", str(limits.memory_reservation))
        return
    if memory is not None:
        swap = "max" if total in (None, -1) else str((total or 0) - memory)
        yield Setting("memory", "memory.max", str(memory))
        yield Setting("memory", "memory.swap.max", swap, optional=True)
    if limits.memory_reservation is not None:
        yield Setting("memory", "memory.low", str(limits.memory_reservation))


def _cpu(limits: Limits, version: int) -> Iterator[Setting]:
    if limits.cpus is not None:
        quota = round(limits.cpus * _CPU_PERIOD)
        if quota < 1000:  # the kernel's smallest quota is 1 ms
            raise CgroupError(f"cpus: {limits.cpus:g} is too little, the least is 0.01")
        if version == 1:
            yield Setting("cpu", "cpu.cfs_period_us", str(_CPU_PERIOD))
            yield Setting("cpu", "cpu.cfs_quota_us", str(quota))
        else:
            yield Setting("cpu", "cpu.max", f"{quota} {_CPU_PERIOD}")
    if limits.cpu_shares is not None and version == 1:
        yield Setting("cpu", "cpu.shares", str(limits.cpu_shares))
    elif limits.cpu_shares is not None:
        yield Setting("cpu", "cpu.weight", str(weight(limits.cpu_shares)))


def weight(shares: int) -> int:
    """cpu.weight (1..10000, usually 100) for v1's cpu.shares (2..262144, usually 1024).

    The quadratic curve on a logarithmic scale that OCI runtimes agreed on in 2025: it keeps 2 -> 1,
    1024 -> 100 and 262144 -> 10000, where the older linear one made the default shares 39.
    """
    if shares <= 2:
        return 1
    if shares >= 262_144:
        return 10_000
    level = math.log2(shares)
    return math.ceil(10 ** ((level * level + 125 * level) / 612 - 7 / 34))


def _cpuset(limits: Limits, _: int) -> Iterator[Setting]:
    cpus = limits.cpuset or ""
    if not _CPU_LIST.fullmatch(cpus):
        raise CgroupError(f"cpuset: {cpus!r} is not a list such as 0-2,4")
    yield Setting("cpuset", "cpuset.cpus", cpus)


def _pids(limits: Limits, _: int) -> Iterator[Setting]:
    unlimited = limits.pids is None or limits.pids <= 0
    yield Setting("pids", "pids.max", "max" if unlimited else str(limits.pids))


def _io(limits: Limits, version: int) -> Iterator[Setting]:
    for device in limits.io:
        number = f"{device.major}:{device.minor}"
        for v2_key, v1_file, value in (
            ("rbps", "read_bps_device", device.read_bps),
            ("wbps", "write_bps_device", device.write_bps),
            ("riops", "read_iops_device", device.read_iops),
            ("wiops", "write_iops_device", device.write_iops),
        ):
            if value is None:
                continue
            if version == 1:
                yield Setting("blkio", f"blkio.throttle.{v1_file}", f"{number} {value}")
            else:
                yield Setting("io", "io.max", f"{number} {v2_key}={value}")
