"""What a container uses, in the shape that runc's `events --stats` has; from v1 or v2 control files."""

from __future__ import annotations

import os
from collections.abc import Iterator

from orchestrator.oci.record import Record

Table = dict[str, object]
_TICK = 10**9 // os.sysconf("SC_CLK_TCK")
_NO_LIMIT = 2**64 - 1
# Our names for what cgroup v2 has in io.stat (cgroup-v2.rst, "IO Interface Files").
_IO = {"rbytes": ("Read", True), "wbytes": ("Write", True), "rios": ("Read", False), "wios": ("Write", False)}
_V1_IO = {
    "ioServiceBytesRecursive": (
        "blkio.throttle.io_service_bytes_recursive",
        "blkio.throttle.io_service_bytes",
    ),
    "ioServicedRecursive": ("blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"),
}


class Files:
    """The control files of a container, in whichever hierarchy they are."""

    def __init__(self, groups: tuple[str, ...]) -> None:
        self._groups = groups

    def text(self, name: str) -> str | None:
        """The content of a control file; None where there is none."""
        for group in self._groups:
            try:
                with open(f"{group}/{name}", encoding="ascii") as file:
                    return file.read()
            except OSError:
                continue
        return None

    def having(self, name: str) -> Files:
        """Those of the groups that have a control file. (Every group of v2 has a cpu.stat.)"""
        return Files(tuple(group for group in self._groups if os.path.exists(f"{group}/{name}")))

    def number(self, name: str, default: int = 0) -> int:
        """A single number, "max" as the largest there is."""
        text = (self.text(name) or "").strip()
        if text == "max":
            return _NO_LIMIT
        return int(text) if text.removeprefix("-").isdigit() else default

    def table(self, name: str) -> dict[str, int]:
        """Lines of a name and a number."""
        return dict(_pairs(self.text(name) or ""))


def _pairs(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            yield name, int(value)


def read(found: Record) -> Table:
    """All figures of a container."""
    files = Files(found.groups)
    return {
        "cpu": _cpu(files),
        "cpuset": _cpuset(files),
        "memory": _memory_v1(files) if files.text("memory.usage_in_bytes") else _memory_v2(files),
        "pids": _pids(files),
        "blkio": _io(files),
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }


def oom_kills(found: Record) -> int:
    """How many processes the kernel killed because the container's own memory limit was reached."""
    files = Files(found.groups)
    counts = files.table("memory.oom_control") or files.table("memory.events")
    return counts.get("oom_kill", 0)


def _cpu(files: Files) -> Table:
    """Nanoseconds."""
    if files.text("cpuacct.usage"):
        stat, throttled = files.table("cpuacct.stat"), files.having("cpu.shares").table("cpu.stat")
        usage: Table = {
            "total": files.number("cpuacct.usage"),
            "percpu": [int(word) for word in (files.text("cpuacct.usage_percpu") or "").split()],
            "kernel": stat.get("system", 0) * _TICK,
            "user": stat.get("user", 0) * _TICK,
        }
        waited = throttled.get("throttled_time", 0)
    else:
        throttled = files.table("cpu.stat")
        usage = {
            "total": throttled.get("usage_usec", 0) * 1000,
            "kernel": throttled.get("system_usec", 0) * 1000,
            "user": throttled.get("user_usec", 0) * 1000,
        }
        waited = throttled.get("throttled_usec", 0) * 1000
    throttling = {
        "periods": throttled.get("nr_periods", 0),
        "throttledPeriods": throttled.get("nr_throttled", 0),
        "throttledTime": waited,
    }
    return {"usage": usage, "throttling": {name: value for name, value in throttling.items() if value}}


def _cpuset(files: Files) -> Table:
    cpus = files.text("cpuset.effective_cpus") or files.text("cpuset.cpus.effective") or ""
    mems = files.text("cpuset.effective_mems") or files.text("cpuset.mems.effective") or ""
    return {"cpus": list(_members(cpus)), "mems": list(_members(mems))}


def _members(text: str) -> Iterator[int]:
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            yield from range(int(first), int(last or first) + 1)


def _memory_v1(files: Files) -> Table:
    def one(prefix: str) -> Table:
        table: Table = {
            "limit": files.number(f"{prefix}.limit_in_bytes"),
            "usage": files.number(f"{prefix}.usage_in_bytes"),
            "max": files.number(f"{prefix}.max_usage_in_bytes"),
            "failcnt": files.number(f"{prefix}.failcnt"),
        }
        return table

    raw = files.table("memory.stat")
    return {
        "cache": raw.get("cache", 0),
        "usage": one("memory"),
        "swap": one("memory.memsw"),
        "kernel": one("memory.kmem"),
        "kernelTCP": one("memory.kmem.tcp"),
        "raw": raw,
    }


def _memory_v2(files: Files) -> Table:
    raw = files.table("memory.stat")
    used, swapped = files.number("memory.current"), files.number("memory.swap.current")
    limit, swap = files.number("memory.max", _NO_LIMIT), files.number("memory.swap.max", _NO_LIMIT)
    return {
        "cache": raw.get("file", 0),
        "usage": {"limit": limit, "usage": used, "max": files.number("memory.peak"), "failcnt": 0},
        # As in v1, memory and swap together.
        "swap": {"limit": min(limit + swap, _NO_LIMIT), "usage": used + swapped, "failcnt": 0},
        "kernel": {"usage": raw.get("kernel", raw.get("kernel_stack", 0) + raw.get("slab", 0)), "failcnt": 0},
        "kernelTCP": {"failcnt": 0},
        "raw": raw,
    }


def _pids(files: Files) -> Table:
    limit = files.number("pids.max", _NO_LIMIT)
    return {"current": files.number("pids.current"), **({"limit": limit} if limit < _NO_LIMIT else {})}


def _io(files: Files) -> Table:
    found: Table = {}
    for name, places in _V1_IO.items():
        text = next((text for place in places if (text := files.text(place))), "")
        rows = [_row(*line.split()) for line in text.splitlines() if len(line.split()) == 3]
        if rows:
            found[name] = rows
    if found:
        return found
    rows_of: dict[bool, list[Table]] = {True: [], False: []}
    for line in (files.text("io.stat") or "").splitlines():
        device, *pairs = line.split()
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key in _IO and value.isdigit():
                operation, of_bytes = _IO[key]
                rows_of[of_bytes].append(_row(device, operation, value))
    for name, of_bytes in (("ioServiceBytesRecursive", True), ("ioServicedRecursive", False)):
        if rows_of[of_bytes]:
            found[name] = rows_of[of_bytes]
    return found


def _row(device: str, operation: str, value: str) -> Table:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor or 0), "op": operation, "value": int(value)}
