"""What a service may use: cores, memory, processes, rlimits."""

from __future__ import annotations

from orchestrator.model import stack as model
from orchestrator.stackfile.enable import nearest
from orchestrator.stackfile.reader import Reader

ULIMITS = (
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
)
_CPU_PERIOD = 100_000


def ulimits(said: Reader) -> tuple[model.Ulimit, ...]:
    if "ulimits" not in said.node:
        return ()
    both = said.part("ulimits")
    found: list[model.Ulimit] = []
    for name, limit in said.named("ulimits"):
        if name not in ULIMITS:
            limit.refuse(f"{name!r} is not a limit of Linux", hint=nearest(name, ULIMITS))
        one = both.whole(name)
        soft = one if one is not None else limit.whole("soft") or 0
        hard = one if one is not None else limit.whole("hard") or 0
        if soft > hard >= 0:
            limit.refuse(f"the soft limit {soft} is above the hard limit {hard}")
        found.append(model.Ulimit(name=name, soft=soft, hard=hard))
    return tuple(found)


_KEYS = frozenset(
    "deploy cpus cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpuset "
    "mem_limit mem_reservation mem_swappiness memswap_limit oom_kill_disable pids_limit".split()
)
_NO_LIMITS = model.Resources()


def resources(said: Reader) -> model.Resources:
    """deploy.resources and the older keys of the service must not contradict each other."""
    if _KEYS.isdisjoint(said.node):
        return _NO_LIMITS
    both = said.part("deploy").part("resources")
    limits, reservations = both.part("limits"), both.part("reservations")
    _agree(said, "cpus", said.number("cpus"), limits, "cpus", limits.number("cpus"))
    _agree(said, "mem_limit", said.bytes("mem_limit"), limits, "memory", limits.bytes("memory"))
    _agree(said, "pids_limit", said.whole("pids_limit"), limits, "pids", limits.whole("pids"))
    _agree(
        said,
        "mem_reservation",
        said.bytes("mem_reservation"),
        reservations,
        "memory",
        reservations.bytes("memory"),
    )
    memory = _first(limits.bytes("memory"), said.bytes("mem_limit"))
    swap = said.bytes("memswap_limit") or None
    if swap is not None and swap > 0 and (memory is None or swap < memory):
        said.refuse("needs a mem_limit that is no larger: it counts memory and swap", key="memswap_limit")
    return model.Resources(
        memory=memory,
        memory_reservation=_first(reservations.bytes("memory"), said.bytes("mem_reservation")),
        memory_swap=swap,
        cpus=_cores(said, limits),
        cpu_period=said.whole("cpu_period") or None if said.whole("cpu_quota") else None,
        cpu_shares=said.whole("cpu_shares") or None,
        cpuset=said.text("cpuset"),
        cpu_rt_period=said.whole("cpu_rt_period"),
        cpu_rt_runtime=said.whole("cpu_rt_runtime"),
        cpu_count=said.whole("cpu_count"),
        cpu_percent=said.whole("cpu_percent"),
        mem_swappiness=said.bytes("mem_swappiness"),
        oom_kill_disable=said.flag("oom_kill_disable"),
        pids=_first(limits.whole("pids"), said.whole("pids_limit")),
    )


def _agree(
    said: Reader, key: str, own: float | None, limits: Reader, other: str, limit: float | None
) -> None:
    """Docker compose takes a deploy section without the limit for one that says 0."""
    if own and limits.said and own != (limit or 0):
        stated = f"deploy says {other}: {limit:.15g}" if limit else f"deploy says nothing of {other}"
        said.wrong(f"{own:.15g} here, but {stated}", key=key, hint="keep one of the two")


def _first(*choices: int | None) -> int | None:
    """The first that is said; None and -1 both mean no limit."""
    found = next((choice for choice in choices if choice), None)
    return found if found and found > 0 else None


def _cores(said: Reader, limits: Reader) -> float | None:
    cores = limits.number("cpus") or said.number("cpus")
    quota = said.whole("cpu_quota")
    if not cores and quota and quota > 0:
        cores = quota / (said.whole("cpu_period") or _CPU_PERIOD)
    if cores is not None and cores < 0:
        said.refuse("can't be negative", key="cpus")
    return cores or None
