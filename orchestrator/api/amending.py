"""What `update` makes of a container's limits and restart policy. Pure; docker's rules and words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator.model.errors import UserError
from orchestrator.model.stack import Resources, RestartPolicy, Service

LEAST_MEMORY = 6 * 1024 * 1024
LIMITS = (
    "memory memory_swap memory_reservation cpus cpu_quota cpu_period cpu_shares cpuset cpuset_mems pids "
    "blkio_weight"
).split()
_PERIOD = 100_000
_LIST = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")
_POLICIES: Mapping[str, RestartPolicy] = {
    "no": RestartPolicy(condition="no"),
    "always": RestartPolicy(condition="always"),
    "unless-stopped": RestartPolicy(condition="unless-stopped"),
    "on-failure": RestartPolicy(condition="on-failure"),
}


def amended(service: Service, asked: Mapping[str, Any], cores: int) -> Service:
    """The service with what was asked for; 0 lifts a limit. Raises UserError."""
    resources = service.resources
    for amend in (_memory, _cpu, _cpuset, _others):
        resources = amend(resources, asked, cores)
    restart = service.restart
    if asked.get("restart") is not None:
        restart = policy(str(asked["restart"]))
    return replace(service, resources=resources, restart=restart)


def policy(text: str) -> RestartPolicy:
    """Raises UserError."""
    word, colon, count = text.partition(":")
    found = _POLICIES.get(word)
    if found is None:
        raise UserError(f"invalid restart policy: {text!r}", hint=f"one of {', '.join(_POLICIES)}")
    if not colon:
        return found
    if word != "on-failure":
        raise UserError("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if not re.fullmatch("[0-9]{1,9}", count):
        raise UserError(f"invalid restart policy: {count!r} is no count")
    return replace(found, max_attempts=int(count) or None)


def _memory(now: Resources, asked: Mapping[str, Any], _: int) -> Resources:
    memory, swap, soft = asked.get("memory"), asked.get("memory_swap"), asked.get("memory_reservation")
    if memory and memory < LEAST_MEMORY:
        raise UserError("Minimum memory limit allowed is 6MB")
    then = replace(
        now,
        memory=now.memory if memory is None else _some(memory),
        memory_swap=now.memory_swap if swap is None else swap or None,
        memory_reservation=now.memory_reservation if soft is None else _some(soft),
    )
    if then.memory is None:
        then = replace(then, memory_swap=None) if swap is None else then
        if then.memory_swap not in (None, -1):
            raise UserError("You should always set the Memory limit when using Memoryswap limit, see usage")
        return replace(then, memory_swap=None)
    if then.memory_swap is not None and 0 <= then.memory_swap < then.memory:
        if swap is None:
            raise UserError(
                "Memory limit should be smaller than already set memoryswap limit, "
                "update the memoryswap at the same time"
            )
        raise UserError("Minimum memoryswap limit should be larger than memory limit, see usage")
    if then.memory_reservation is not None and then.memory < then.memory_reservation:
        raise UserError("Minimum memory limit can not be less than memory reservation limit, see usage")
    return then


def _some(value: int) -> int | None:
    return value if value > 0 else None


def _cpu(now: Resources, asked: Mapping[str, Any], cores: int) -> Resources:
    cpus, quota, period = asked.get("cpus"), asked.get("cpu_quota"), asked.get("cpu_period")
    shares = asked.get("cpu_shares")
    if shares is not None and shares and not 2 <= shares <= 262_144:
        raise UserError(f"cpu shares must be between 2 and 262144, not {shares}")
    then = now if shares is None else replace(now, cpu_shares=shares or None)
    if cpus is not None:
        if quota is not None or period is not None:
            raise UserError("Conflicting options: CPU quota or period and NanoCPUs cannot both be set")
        if cpus and not 0.01 <= cpus <= cores:
            raise UserError(
                f"range of CPUs is from 0.01 to {cores}.00, as there are only {cores} CPUs available"
            )
        return replace(then, cpus=cpus or None, cpu_period=None)
    if quota is None and period is None:
        return then
    if period is not None and period and not 1000 <= period <= 1_000_000:
        raise UserError(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if quota is not None and 0 < quota < 1000:
        raise UserError("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    old_period = now.cpu_period or _PERIOD
    if quota is None:
        quota = round(now.cpus * old_period) if now.cpus is not None else 0
    period = old_period if period is None else period or _PERIOD
    if quota <= 0:
        return replace(then, cpus=None, cpu_period=None)
    return replace(then, cpus=quota / period, cpu_period=period)


def _cpuset(now: Resources, asked: Mapping[str, Any], _: int) -> Resources:
    cpus, mems = asked.get("cpuset"), asked.get("cpuset_mems")
    for what, numbers in (("cpus", cpus), ("mems", mems)):
        if numbers and not _LIST.fullmatch(numbers):
            raise UserError(f"Invalid value {numbers} for cpuset {what}")
    return replace(
        now,
        cpuset=now.cpuset if cpus is None else cpus or None,
        cpuset_mems=now.cpuset_mems if mems is None else mems or None,
    )


def _others(now: Resources, asked: Mapping[str, Any], _: int) -> Resources:
    pids, weight = asked.get("pids"), asked.get("blkio_weight")
    then = now if pids is None else replace(now, pids=_some(pids))
    if weight is None:
        return then
    if weight and not 10 <= weight <= 1000:
        raise UserError("Range of blkio weight is from 10 to 1000")
    from orchestrator.model.sections import BlockIo

    return replace(then, blkio=replace(then.blkio or BlockIo(), weight=weight or None))
