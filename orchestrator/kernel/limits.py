"""What a container may use, and which control files of v1 or v2 say so. Pure: `cgroups` writes them.

Source of the file names: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.kernel.devices import DeviceRule

CPU_PERIOD = 100_000  # microseconds; the kernel's default and Docker's
_CPU_LIST = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")


class CgroupError(Exception):
    """A group or limit that this machine refuses; the message names the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchies:
    """Where the controllers of this machine are mounted."""

    mode: Literal["v1", "hybrid", "v2", "none"]
    """"none": an ordinary user to whom no group is delegated."""
    v1: Mapping[str, str]
    """Controller -> mount point; co-mounted controllers share one."""
    unified: str | None
    v2: frozenset[str]
    """Controllers of the unified hierarchy."""
    delegated: bool = False
    """Whether `unified` is a group that was given to an ordinary user, not the mount point."""
    above: str = ""
    """The group in which `unified` lies below the mount point, where systemd has given us one: "/a/b"."""
    named: tuple[str, ...] = ()
    """Hierarchies of v1 without a controller. We don't use them, but other runtimes do."""

    @property
    def bases(self) -> tuple[str, ...]:
        """Every mount point, the unified one first."""
        unified = () if self.unified is None else (self.unified,)
        return (*unified, *dict.fromkeys(self.v1.values()), *self.named)


@dataclass(frozen=True, slots=True, kw_only=True)
class IoLimit:
    """Limits of one block device, in bytes and operations a second, and its weight (1 to 1000)."""

    major: int
    minor: int
    weight: int | None = None
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
    swappiness: int | None = None
    oom_kill_disable: bool = False
    cpus: float | None = None
    cpu_period: int | None = None
    """Microseconds in which the share of `cpus` is given out; 100,000 unless said."""
    cpu_shares: int | None = None
    cpuset: str | None = None
    cpuset_mems: str | None = None
    pids: int | None = None
    io_weight: int | None = None
    """10 to 1000, as Docker has it."""
    io: tuple[IoLimit, ...] = ()
    devices: tuple[DeviceRule, ...] = ()
    """Rules after the default ones."""
    all_devices: bool = False
    """For privileged containers: no device is denied."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One value for one control file."""

    controller: str
    file: str
    value: str
    without: str = ""
    """What it means when the kernel has no such file; "": then the limit is refused."""
    instead: tuple[str, str] | None = None
    """File and value for a kernel that has that one (block device schedulers have their own)."""

    @property
    def key(self) -> tuple[str, str]:
        """What is set: the file, the device in it, and what of the device."""
        return self.file, self.value.rpartition("=")[0] or self.value.partition(" ")[0] * (":" in self.value)


def settings(hier: Hierarchies, limits: Limits) -> tuple[Setting, ...]:
    """The control files to write for these limits, in order.

    Raises CgroupError for a limit that makes no sense or whose controller this machine lacks.
    """
    found: list[Setting] = []
    for controller, what, rule in _RULES:
        wanted = tuple(rule(limits, 2 if controller in hier.v2 else 1))
        if not wanted:
            continue
        if lacks := _lack(hier, controller):
            raise CgroupError(f"{what}: {lacks}")
        found += wanted
    if limits.memory_swap not in (None, -1) and limits.memory is None:
        raise CgroupError("memory_swap needs a memory limit too")
    return tuple(found)


def missing(hier: Hierarchies, limits: Limits) -> tuple[str, ...]:
    """A sentence for each limit whose controller is not there."""
    return tuple(
        f"{what}: {lacks}"
        for controller, what, rule in _RULES
        if (lacks := _lack(hier, controller)) and tuple(rule(limits, 2))
    )


def _lack(hier: Hierarchies, controller: str) -> str:
    """Why a controller can't be used; "" when it can."""
    if controller in hier.v2 or ("blkio" if controller == "io" else controller) in hier.v1:
        return ""
    if hier.delegated:
        return f"no cgroup with the {controller} controller is delegated to this user"
    return f"this machine has no {controller} cgroup controller"


def changes(hier: Hierarchies, before: Limits, after: Limits) -> tuple[Setting, ...]:
    """The control files to write where `before` is in force and `after` shall be. Raises as `settings`."""
    old, new = settings(hier, before), settings(hier, after)
    kept = {setting.key for setting in new}
    lifted = [_lifted(setting) for setting in old if setting.key not in kept]
    in_force = set(old)
    return (*lifted, *(setting for setting in new if setting not in in_force))


def _lifted(setting: Setting) -> Setting:
    """The same control file without a limit."""
    _, place = setting.key
    head = f"{place}=" if "=" in setting.value else f"{place} " if place else ""
    value = "max" if "=" in setting.value else _NO_LIMIT.get(setting.file, "0")
    return replace(
        setting,
        value=f"{head}{value}",
        without=setting.without or "it had no such limit",
        instead=(setting.instead[0], f"{head}100") if setting.instead else None,
    )


PARENT = "as the parent"
"""Stands for the parent group's value: a cpuset of v1 can't be empty."""
_NO_LIMIT = {
    "memory.limit_in_bytes": "-1",
    "memory.memsw.limit_in_bytes": "-1",
    "memory.soft_limit_in_bytes": "-1",
    "memory.swappiness": "60",
    "memory.max": "max",
    "memory.swap.max": "max",
    "cpu.cfs_quota_us": "-1",
    "cpu.cfs_period_us": str(CPU_PERIOD),
    "cpu.max": f"max {CPU_PERIOD}",
    "cpu.shares": "1024",
    "cpu.weight": "100",
    "cpuset.cpus": PARENT,
    "cpuset.mems": PARENT,
    "pids.max": "max",
    "blkio.weight": "500",
    "io.weight": "100",
}
"""What each file says where nothing was asked for, if that is not 0 (the kernel's defaults)."""


def _memory(limits: Limits, version: int) -> Iterator[Setting]:
    memory, total = limits.memory, limits.memory_swap
    if memory is not None and total is None:
        total = 2 * memory
    if memory is not None and total is not None and total != -1 and total < memory:
        raise CgroupError(f"memory_swap ({total}) is memory and swap together, so at least memory ({memory})")
    if version == 1:
        if memory is not None:
            yield Setting("memory", "memory.limit_in_bytes", str(memory))
            yield Setting("memory", "memory.memsw.limit_in_bytes", str(total), "swap is not limited")
        if limits.memory_reservation is not None:
            yield Setting("memory", "memory.soft_limit_in_bytes", str(limits.memory_reservation))
    else:
        if memory is not None:
            swap = "max" if total in (None, -1) else str((total or 0) - memory)
            yield Setting("memory", "memory.max", str(memory))
            yield Setting("memory", "memory.swap.max", swap, "swap is not limited")
        if limits.memory_reservation is not None:
            yield Setting("memory", "memory.low", str(limits.memory_reservation))
    # v2 has neither of the two, nor anything in their place (cgroup-v2.rst).
    if limits.swappiness is not None:
        if not 0 <= limits.swappiness <= 100:
            raise CgroupError(f"swappiness: {limits.swappiness} is not between 0 and 100")
        yield Setting("memory", "memory.swappiness", str(limits.swappiness), "swappiness is the machine's")
    if limits.oom_kill_disable:
        yield Setting("memory", "memory.oom_control", "1", "it is killed when it is out of memory")


def _cpu(limits: Limits, version: int) -> Iterator[Setting]:
    if limits.cpus is not None:
        period = limits.cpu_period or CPU_PERIOD
        quota = round(limits.cpus * period)
        if not 1000 <= period <= 1_000_000:
            raise CgroupError(f"cpu period: {period} is not between 1000 and 1000000 microseconds")
        if quota < 1000:  # the kernel's smallest quota is 1 ms
            least = 1000 / period
            raise CgroupError(f"cpus: {limits.cpus:g} is too little, the least is {least:g}")
        if version == 1:
            yield Setting("cpu", "cpu.cfs_period_us", str(period))
            yield Setting("cpu", "cpu.cfs_quota_us", str(quota))
        else:
            yield Setting("cpu", "cpu.max", f"{quota} {period}")
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
    for name, numbers in (("cpus", limits.cpuset), ("mems", limits.cpuset_mems)):
        if numbers is None:
            continue
        if not _CPU_LIST.fullmatch(numbers):
            raise CgroupError(f"cpuset {name}: {numbers!r} is not a list such as 0-2,4")
        yield Setting("cpuset", f"cpuset.{name}", numbers)


def _pids(limits: Limits, _: int) -> Iterator[Setting]:
    if limits.pids is not None:
        yield Setting("pids", "pids.max", "max" if limits.pids <= 0 else str(limits.pids))


def _io(limits: Limits, version: int) -> Iterator[Setting]:
    if limits.io_weight is not None:
        yield _io_weight(limits.io_weight, "", version)
    for device in limits.io:
        number = f"{device.major}:{device.minor}"
        if device.weight is not None:
            yield _io_weight(device.weight, number, version)
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


def _io_weight(value: int, number: str, version: int) -> Setting:
    """Weights are the scheduler's, and only BFQ (formerly CFQ) and io.cost have them."""
    if not 10 <= value <= 1000:
        raise CgroupError(f"blkio weight: {value} is not between 10 and 1000")
    head = f"{number} " if number else ""
    if version == 1:
        tail = "_device" if number else ""
        bfq = (f"blkio.bfq.weight{tail}", f"{head}{value}")
        return Setting("blkio", f"blkio.weight{tail}", f"{head}{value}", instead=bfq)
    # io.weight goes from 1 to 10000; runc and crun stretch the range in this way.
    wide = 1 + (value - 10) * 9999 // 990
    return Setting("io", "io.weight", f"{head}{wide}", instead=("io.bfq.weight", f"{head}{value}"))


Rule = Callable[[Limits, int], Iterator[Setting]]
_RULES: tuple[tuple[str, str, Rule], ...] = (
    ("memory", "memory limit", _memory),
    ("cpu", "cpu limit", _cpu),
    ("cpuset", "cpuset", _cpuset),
    ("pids", "pids limit", _pids),
    ("io", "block device limit", _io),
)
