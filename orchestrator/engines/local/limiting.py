"""What a service may use, as limits of its container's control group. Plain, synchronous."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Literal

from orchestrator.engines.local import storage
from orchestrator.engines.local.trouble import note
from orchestrator.kernel import cgroups
from orchestrator.kernel.devices import EVERYTHING, DeviceRule
from orchestrator.model.errors import EngineError
from orchestrator.model.observation import Container
from orchestrator.model.stack import Service

_PASSING = frozenset((errno.EBUSY, errno.ENODEV, errno.ENOMEM, errno.ENOSPC, errno.EAGAIN))


def create(hierarchies: cgroups.Hierarchies, container: Container, group: str) -> tuple[str, ...]:
    """Make the container's group; the directories that its processes must join. Raises EngineError."""
    try:
        return cgroups.create(
            hierarchies,
            group,
            limits(container, device_rules(container)),
            warn=lambda text: note(f"{container.name}: {text}"),
        )
    except cgroups.CgroupError as error:
        raise refusal(container, error) from error


def change(
    hierarchies: cgroups.Hierarchies, before: Container, after: Container, group: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Put the limits of `after` into force where those of `before` were.

    Returns further directories that processes to come must join, and what should be said. Raises EngineError.
    """
    said: list[str] = []
    try:
        more = cgroups.update(hierarchies, group, limits(before), limits(after), warn=said.append)
    except cgroups.CgroupError as error:
        raise EngineError(f"container {after.name}: {error}", retryable=False) from error
    except OSError as error:
        raise EngineError(f"container {after.name}: {error.strerror}: {error.filename}") from error
    return more, tuple(said)


def refusal(container: Container, error: cgroups.CgroupError) -> EngineError:
    cause = error.__cause__
    passing = isinstance(cause, OSError) and cause.errno in _PASSING
    return EngineError(f"service {container.service}: {error}", retryable=passing)


def limits(container: Container, devices: tuple[DeviceRule, ...] = ()) -> cgroups.Limits:
    """Raises EngineError for a block device that is none."""
    return limits_of(container.definition, devices)


def limits_of(service: Service, devices: tuple[DeviceRule, ...] = ()) -> cgroups.Limits:
    """The same for a service."""
    said = service.resources
    return cgroups.Limits(
        memory=said.memory,
        memory_reservation=said.memory_reservation,
        memory_swap=said.memory_swap,
        swappiness=said.mem_swappiness,
        oom_kill_disable=said.oom_kill_disable,
        cpus=said.cpus,
        cpu_period=said.cpu_period,
        cpu_shares=said.cpu_shares,
        cpuset=said.cpuset,
        cpuset_mems=said.cpuset_mems,
        pids=said.pids,
        io_weight=(said.blkio.weight or None) if said.blkio else None,
        io=_io(service),
        devices=devices,
        all_devices=service.privileged,
    )


def _io(service: Service) -> tuple[cgroups.IoLimit, ...]:
    said = service.resources.blkio
    if said is None:
        return ()
    rows = (
        *((path, "weight", value) for path, value in said.weight_device),
        *((path, "read_bps", value) for path, value in said.device_read_bps),
        *((path, "write_bps", value) for path, value in said.device_write_bps),
        *((path, "read_iops", value) for path, value in said.device_read_iops),
        *((path, "write_iops", value) for path, value in said.device_write_iops),
    )
    values: dict[tuple[int, int], dict[str, int]] = {}
    for path, name, value in rows:
        if value:
            values.setdefault(_number(path, service.name), {})[name] = value
    return tuple(cgroups.IoLimit(major=major, minor=minor, **of) for (major, minor), of in values.items())


def _number(path: str, service: str) -> tuple[int, int]:
    """Major and minor of a block device."""
    try:
        found = Path(path).stat()
    except OSError as error:
        raise EngineError(
            f"service {service}: blkio_config: {path}: {error.strerror}", retryable=False
        ) from error
    if not stat.S_ISBLK(found.st_mode):
        raise EngineError(f"service {service}: blkio_config: {path} is not a block device", retryable=False)
    return os.major(found.st_rdev), os.minor(found.st_rdev)


def device_rules(container: Container) -> tuple[DeviceRule, ...]:
    """Rules for the devices asked for, with their permissions, and further ones."""
    service = container.definition
    if service.privileged:
        return ()
    permissions = {device.target: device.permissions for device in service.devices}
    named = (
        DeviceRule(kind=device.kind, major=device.major, minor=device.minor, access=permissions[device.path])
        for device in storage.devices(container)
    )
    return (*named, *(rule for text in service.device_cgroup_rules for rule in further(text, service.name)))


_RULE = re.compile(r"([abc]) ([0-9]{1,7}|\*):([0-9]{1,7}|\*) ([rwm]{1,3})")


def further(text: str, service: str = "") -> tuple[DeviceRule, ...]:
    """The rules of "c 1:3 mr": kind (a is both), numbers or *, what is allowed. Raises EngineError."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise EngineError(
            f"service {service}: device_cgroup_rules: {text!r} is not of the form 'c 1:3 rwm'",
            retryable=False,
        )
    kind, major, minor, access = found.groups()
    if text == "a *:* rwm":
        return (EVERYTHING,)
    kinds: tuple[Literal["b", "c"], ...] = ("b",) if kind == "b" else ("c",) if kind == "c" else ("b", "c")
    numbers = [None if number == "*" else int(number) for number in (major, minor)]
    return tuple(DeviceRule(kind=each, major=numbers[0], minor=numbers[1], access=access) for each in kinds)
