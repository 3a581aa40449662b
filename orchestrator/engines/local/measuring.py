"""What containers use and what runs in them, looked up for `stats` and `top`. Plain, synchronous."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from orchestrator.engines.local.places import Places
from orchestrator.engines.local.table import Live
from orchestrator.kernel import cgroups
from orchestrator.kernel.processes import Process, processes
from orchestrator.kernel.usage import Leader, Usage, members_of, usage
from orchestrator.model.frozen import dataclass
from orchestrator.model.observation import Container
from orchestrator.model.stack import OfHost


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A container to be looked at. `pidfd` is a copy of ours, None when it does not run."""

    container: Container
    group: str
    pidfd: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a container used at a moment (nanoseconds of the monotonic clock)."""

    container: Container
    at: int
    usage: Usage


def subjects(places: Places, lives: Iterable[Live]) -> list[Subject]:
    """For use in a thread: descriptors stay open however the containers fare meanwhile. See `release`."""
    return [
        Subject(
            container=live.container,
            group=f"{places.cgroup}/{live.container.stack}/{live.container.id}",
            pidfd=None if live.pidfd is None else os.dup(live.pidfd),
        )
        for live in lives
    ]


def release(found: Iterable[Subject]) -> None:
    for subject in found:
        if subject.pidfd is not None:
            os.close(subject.pidfd)


def measure(hierarchies: cgroups.Hierarchies, found: Iterable[Subject]) -> list[Sample]:
    return [_sample(hierarchies, subject) for subject in found]


def _sample(hierarchies: cgroups.Hierarchies, subject: Subject) -> Sample:
    at, used = time.monotonic_ns(), Usage()
    run = subject.container.run
    if run is not None and subject.pidfd is not None:
        own_network = not isinstance(subject.container.definition.network_mode, OfHost)
        leader = Leader(run.pid, subject.pidfd, own_network)
        used = usage(hierarchies, subject.group, leader)
    return Sample(container=subject.container, at=at, usage=used)


def memory_of_machine() -> int:
    """What a container without a limit may use."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def running(hierarchies: cgroups.Hierarchies, found: Iterable[Subject]) -> list[tuple[Process, ...]]:
    """The processes of each."""
    return [
        processes(members_of(hierarchies, subject.group, run.pid if (run := subject.container.run) else 0))
        for subject in found
    ]
