"""OCI's `linux.resources` -> the control files that say so on v1 or v2. Pure: `groups` writes them.

Each value goes where the document says, one to one; what a machine can't do is refused by name. Sources: the
runtime specification, config-linux, "Control groups", and the kernel's Documentation/admin-guide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from orchestrator.kernel.devices import DEFAULT, NOTHING, DeviceRule
from orchestrator.kernel.limits import CPU_PERIOD, CgroupError, Hierarchies, Setting, weight
from orchestrator.kernel.reading import Document, RefusedError

_CPU_LIST = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*\n?")
_ALWAYS = tuple(rule for rule in DEFAULT if rule != NOTHING)
_GONE = "the kernel gave this limit up"


def settings(hier: Hierarchies, resources: Document) -> tuple[Setting, ...]:
    """The control files to write, in order.

    Raises CgroupError naming what this machine lacks, RefusedError for a value that makes no sense.
    """
    resources.only(
        "devices", "memory", "cpu", "blockIO", "pids", "hugepageLimits", "network", "rdma", "unified"
    )
    found: list[Setting] = []
    for key, rule in _RULES.items():
        if key in resources:
            found += rule(hier, resources)
    return tuple(found)


def devices(resources: Document) -> tuple[DeviceRule, ...]:
    """The rules in order; after them, as runc has it, the nodes that every container has."""
    rules: list[DeviceRule] = []
    for entry in resources.tables("devices"):
        entry.only("allow", "type", "major", "minor", "access")
        kind, access = entry.text("type") or "a", entry.text("access") or "rwm"
        if kind not in ("a", "b", "c") or not set(access) <= set("rwm"):
            raise RefusedError(f"{entry.place}: {kind!r} {access!r} is no device rule")
        major, minor = (entry.number(name, default=-1) for name in ("major", "minor"))
        if kind == "a" and major < 0 and minor < 0 and set(access) == set("rwm"):
            rules.append(DeviceRule(allow=entry.flag("allow"), kind="a"))
            continue
        # The kernel's "a" takes no numbers: both kinds, then.
        kinds: tuple[Literal["b", "c"], ...] = (
            ("b", "c") if kind == "a" else ("b",) if kind == "b" else ("c",)
        )
        rules += [
            DeviceRule(
                allow=entry.flag("allow"),
                kind=each,
                major=None if major < 0 else major,
                minor=None if minor < 0 else minor,
                access=access,
            )
            for each in kinds
        ]
    return (*rules, *_ALWAYS) if rules else ()


def _version(hier: Hierarchies, controller: str, place: str) -> int:
    """Where the controller lives: 1 or 2. A hybrid machine may have some there and some here."""
    if controller in hier.v2:
        return 2
    if ("blkio" if controller == "io" else controller) in hier.v1:
        return 1
    raise CgroupError(f"{place}: this machine has no {controller} cgroup controller")


def _limit(value: int, version: int) -> str:
    return str(value) if value >= 0 else "max" if version == 2 else "-1"


def _memory(hier: Hierarchies, resources: Document) -> Iterator[Setting]:
    memory = resources.table("memory")
    memory.only(
        "limit", "reservation", "swap", "kernel", "kernelTCP", "swappiness", "disableOOMKiller",
        "useHierarchy", "checkBeforeUpdate",
    )  # fmt: skip
    version = _version(hier, "memory", "memory")
    if version == 2:
        yield from _memory_v2(memory)
        return
    for key, file, without in (
        ("limit", "memory.limit_in_bytes", ""),
        ("swap", "memory.memsw.limit_in_bytes", ""),
        ("reservation", "memory.soft_limit_in_bytes", ""),
        ("kernel", "memory.kmem.limit_in_bytes", _GONE),
        ("kernelTCP", "memory.kmem.tcp.limit_in_bytes", _GONE),
    ):
        # 0 is "not set" in what the Go programs write.
        if key in memory and memory.number(key):
            yield Setting("memory", file, _limit(memory.number(key), 1), without)
    if "swappiness" in memory:
        yield Setting("memory", "memory.swappiness", str(memory.number("swappiness")))
    if memory.flag("disableOOMKiller"):
        yield Setting("memory", "memory.oom_control", "1")
    if memory.flag("useHierarchy"):
        yield Setting("memory", "memory.use_hierarchy", "1", "there is no other way")


def _memory_v2(memory: Document) -> Iterator[Setting]:
    for key in ("kernel", "kernelTCP", "swappiness", "disableOOMKiller"):
        if key in memory and memory.raw[key] not in (False, 0, -1):
            raise CgroupError(f"{memory.place}.{key}: cgroup v2 has no such thing")
    limit, swap = memory.number("limit"), memory.number("swap")
    if limit:
        yield Setting("memory", "memory.max", _limit(limit, 2))
    if swap:
        # OCI counts memory and swap together, v2 swap alone.
        if swap > 0 and limit <= 0:
            raise RefusedError(f"{memory.place}.swap: on cgroup v2 it needs a limit too")
        if 0 < swap < limit:
            raise RefusedError(
                f"{memory.place}.swap: {swap} is memory and swap together, so at least {limit}"
            )
        yield Setting("memory", "memory.swap.max", _limit(swap - limit if swap > 0 else -1, 2))
    if memory.number("reservation"):
        yield Setting("memory", "memory.low", _limit(memory.number("reservation"), 2))


def _cpu(hier: Hierarchies, resources: Document) -> Iterator[Setting]:
    cpu = resources.table("cpu")
    cpu.only(
        "shares", "quota", "period", "burst", "realtimeRuntime", "realtimePeriod", "cpus", "mems", "idle"
    )
    if any(name in cpu for name in cpu.names() if name not in ("cpus", "mems")):
        version = _version(hier, "cpu", "cpu")
        yield from (_cpu_v2 if version == 2 else _cpu_v1)(cpu)
    for name in ("cpus", "mems"):
        numbers = cpu.text(name)
        if not numbers:
            continue
        _version(hier, "cpuset", f"cpu.{name}")
        if not _CPU_LIST.fullmatch(numbers):
            raise RefusedError(f"{cpu.place}.{name}: {numbers!r} is not a list such as 0-2,4")
        yield Setting("cpuset", f"cpuset.{name}", numbers.strip())


def _cpu_v1(cpu: Document) -> Iterator[Setting]:
    for key, file in (
        ("shares", "cpu.shares"),
        ("period", "cpu.cfs_period_us"),
        ("quota", "cpu.cfs_quota_us"),
        ("burst", "cpu.cfs_burst_us"),
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
    ):
        if key in cpu and cpu.number(key):
            yield Setting("cpu", file, str(cpu.number(key)))
    if "idle" in cpu:
        yield Setting("cpu", "cpu.idle", str(cpu.number("idle")))


def _cpu_v2(cpu: Document) -> Iterator[Setting]:
    for key in ("realtimePeriod", "realtimeRuntime"):
        if cpu.number(key):
            raise CgroupError(f"{cpu.place}.{key}: cgroup v2 has no such thing")
    if cpu.number("shares"):
        yield Setting("cpu", "cpu.weight", str(weight(cpu.number("shares"))))
    if cpu.number("quota") or cpu.number("period"):
        quota = cpu.number("quota")
        amount = str(quota) if quota > 0 else "max"
        yield Setting("cpu", "cpu.max", f"{amount} {cpu.number('period') or CPU_PERIOD}")
    if cpu.number("burst"):
        yield Setting("cpu", "cpu.max.burst", str(cpu.number("burst")))
    if "idle" in cpu:
        yield Setting("cpu", "cpu.idle", str(cpu.number("idle")))


def _pids(hier: Hierarchies, resources: Document) -> Iterator[Setting]:
    pids = resources.table("pids")
    pids.only("limit")
    # 0 counted as not set before the specification's 1.3.
    if pids.number("limit"):
        _version(hier, "pids", "pids")
        yield Setting("pids", "pids.max", "max" if pids.number("limit") < 0 else str(pids.number("limit")))


_THROTTLES = (
    ("throttleReadBpsDevice", "rbps", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "wbps", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "riops", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "wiops", "blkio.throttle.write_iops_device"),
)


def _block(hier: Hierarchies, resources: Document) -> Iterator[Setting]:
    block = resources.table("blockIO")
    names = [key for key, _, _ in _THROTTLES]
    block.only("weight", "leafWeight", "weightDevice", *names)
    if not any(block.raw.get(name) for name in block.names()):
        return
    version = _version(hier, "io", "blockIO")
    controller = "io" if version == 2 else "blkio"
    yield from _weights(block, "", version)
    for entry in block.tables("weightDevice"):
        entry.only("major", "minor", "weight", "leafWeight")
        yield from _weights(entry, f"{entry.number('major')}:{entry.number('minor')} ", version)
    for key, word, file in _THROTTLES:
        for entry in block.tables(key):
            entry.only("major", "minor", "rate")
            number, rate = f"{entry.number('major')}:{entry.number('minor')}", entry.number("rate")
            if version == 1:
                yield Setting(controller, file, f"{number} {rate}")
            else:
                yield Setting(controller, "io.max", f"{number} {word}={rate or 'max'}")


def _weights(entry: Document, head: str, version: int) -> Iterator[Setting]:
    """Only some block device schedulers have weights, each with files of its own."""
    value, leaf = entry.number("weight"), entry.number("leafWeight")
    if value and not 10 <= value <= 1000:
        raise RefusedError(f"{entry.place}.weight: {value} is not between 10 and 1000")
    if version == 2:
        if leaf:
            raise CgroupError(f"{entry.place}.leafWeight: cgroup v2 has no such thing")
        if value:
            wide = 1 + (value - 10) * 9999 // 990
            yield Setting("io", "io.weight", f"{head}{wide}", instead=("io.bfq.weight", f"{head}{value}"))
        return
    tail = "_device" if head else ""
    if value:
        bfq = (f"blkio.bfq.weight{tail}", f"{head}{value}")
        yield Setting("blkio", f"blkio.weight{tail}", f"{head}{value}", instead=bfq)
    if leaf:
        yield Setting("blkio", f"blkio.leaf_weight{tail}", f"{head}{leaf}")


def _hugepages(hier: Hierarchies, resources: Document) -> Iterator[Setting]:
    for entry in resources.tables("hugepageLimits"):
        entry.only("pageSize", "limit")
        size = entry.text("pageSize")
        if not re.fullmatch(r"[1-9][0-9]*[KMG]B", size):
            raise RefusedError(f"{entry.place}.pageSize: {size!r} is not a size such as 2MB")
        version = _version(hier, "hugetlb", entry.place)
        tail = "max" if version == 2 else "limit_in_bytes"
        for kind in ("", ".rsvd"):
            # Reservations are limited alike, or they would get round the limit; since Linux 5.7.
            file = f"hugetlb.{size}{kind}.{tail}"
            yield Setting("hugetlb", file, str(entry.number("limit")), "so be it" if kind else "")


def _network(hier: Hierarchies, resources: Document) -> Iterator[Setting]:
    network = resources.table("network")
    network.only("classID", "priorities")
    if network.number("classID"):
        if "net_cls" not in hier.v1:
            raise CgroupError("network.classID: this machine has no net_cls cgroup controller")
        yield Setting("net_cls", "net_cls.classid", str(network.number("classID")))
    for entry in network.tables("priorities"):
        entry.only("name", "priority")
        if "net_prio" not in hier.v1:
            raise CgroupError("network.priorities: this machine has no net_prio cgroup controller")
        yield Setting("net_prio", "net_prio.ifpriomap", f"{entry.text('name')} {entry.number('priority')}")


def _rdma(hier: Hierarchies, resources: Document) -> Iterator[Setting]:
    rdma = resources.table("rdma")
    for device in rdma.names():
        entry = rdma.table(device)
        entry.only("hcaHandles", "hcaObjects")
        _version(hier, "rdma", "rdma")
        words = [
            f"{word}={entry.number(key)}"
            for key, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
            if key in entry
        ]
        yield Setting("rdma", "rdma.max", " ".join([device, *words]))


def _unified(hier: Hierarchies, resources: Document) -> Iterator[Setting]:
    unified = resources.table("unified")
    for file in unified.names():
        if "/" in file or file in ("", ".", "..") or "\0" in file:
            raise RefusedError(f"unified: {file!r} is not the name of a file of a control group")
        controller = file.partition(".")[0]
        if controller != "cgroup" and controller not in hier.v2:
            raise CgroupError(f"unified: {file}: this machine has no {controller} controller on cgroup v2")
        if hier.unified is None:
            raise CgroupError(f"unified: {file}: this machine has no cgroup v2")
        yield Setting("" if controller == "cgroup" else controller, file, unified.text(file))


_RULES = {
    "memory": _memory,
    "cpu": _cpu,
    "pids": _pids,
    "blockIO": _block,
    "hugepageLimits": _hugepages,
    "network": _network,
    "rdma": _rdma,
    "unified": _unified,
}
