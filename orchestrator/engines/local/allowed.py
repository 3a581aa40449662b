"""What a container may use, as OCI's `linux.resources`: for whoever reads the bundle. Pure.

Our own control groups are written from the same `Limits` (kernel/limits); a bundle that another runtime runs
gets its limits from this document alone. Source: OCI runtime specification, config-linux.
"""

from __future__ import annotations

import functools
from typing import Any

from orchestrator.kernel.devices import DEFAULT, EVERYTHING, DeviceRule
from orchestrator.kernel.limits import CPU_PERIOD, Limits

Json = dict[str, Any]


@functools.lru_cache(maxsize=256)
def resources(limits: Limits, *, counts_swap: bool = True) -> Json:
    """The document, not to be changed. `counts_swap`: without a limit of its own, swap is limited where the
    kernel can."""
    document: Json = {"devices": [_device(rule) for rule in _rules(limits)]}
    for name, section in (
        ("memory", _memory(limits, counts_swap=counts_swap)),
        ("cpu", _cpu(limits)),
        ("blockIO", _block_io(limits)),
    ):
        if section:
            document[name] = section
    if limits.pids is not None:
        document["pids"] = {"limit": limits.pids if limits.pids > 0 else -1}
    return document


def _rules(limits: Limits) -> tuple[DeviceRule, ...]:
    return (EVERYTHING,) if limits.all_devices else (*DEFAULT, *limits.devices)


def _device(rule: DeviceRule) -> Json:
    """Every device there is has neither type nor numbers."""
    numbers = {"major": rule.major, "minor": rule.minor}
    named = {} if rule.kind == "a" else {"type": rule.kind}
    given = {} if rule.kind == "a" else {key: value for key, value in numbers.items() if value is not None}
    return {"allow": rule.allow, **named, **given, "access": rule.access}


def _memory(limits: Limits, *, counts_swap: bool) -> Json:
    swap = limits.memory_swap
    if swap is None and limits.memory is not None and counts_swap:
        swap = 2 * limits.memory
    rows: Json = {
        "limit": limits.memory,
        "reservation": limits.memory_reservation,
        "swap": swap,
        "swappiness": limits.swappiness,
        "disableOOMKiller": limits.oom_kill_disable or None,
    }
    return {key: value for key, value in rows.items() if value is not None}


def _cpu(limits: Limits) -> Json:
    section: Json = {}
    if limits.cpu_shares is not None:
        section["shares"] = limits.cpu_shares
    if limits.cpus is not None:
        period = limits.cpu_period or CPU_PERIOD
        section |= {"quota": round(limits.cpus * period), "period": period}
    if limits.cpuset is not None:
        section["cpus"] = limits.cpuset
    if limits.cpuset_mems is not None:
        section["mems"] = limits.cpuset_mems
    return section


_THROTTLES = {
    "throttleReadBpsDevice": "read_bps",
    "throttleWriteBpsDevice": "write_bps",
    "throttleReadIOPSDevice": "read_iops",
    "throttleWriteIOPSDevice": "write_iops",
}


def _block_io(limits: Limits) -> Json:
    found: Json = {} if limits.io_weight is None else {"weight": limits.io_weight}
    weights = [
        {"major": device.major, "minor": device.minor, "weight": device.weight}
        for device in limits.io
        if device.weight is not None
    ]
    if weights:
        found["weightDevice"] = weights
    for key, field in _THROTTLES.items():
        rows = [
            {"major": device.major, "minor": device.minor, "rate": rate}
            for device in limits.io
            if (rate := getattr(device, field)) is not None
        ]
        if rows:
            found[key] = rows
    return found
