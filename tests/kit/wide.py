"""What a container costs the planner and the loop, by how many there are: on a machine in memory.

Processor time of one process: nothing sleeps, the clock jumps. The laws of the simulation watch all along.
"""

from __future__ import annotations

import gc
import time
from typing import NamedTuple

import trio
import trio.testing

from orchestrator.model.frozen import replace
from orchestrator.model.observation import Observation
from orchestrator.model.stack import (
    Attachment,
    Dependency,
    DirectoryRoot,
    Healthcheck,
    Network,
    Service,
    Stack,
)
from orchestrator.planner.plan import plan
from orchestrator.simulation.play import Stage
from orchestrator.simulation.scenario import Scenario

REPLICAS = 10
"""Containers of a service."""
SERVICES_A_NETWORK = 50
CHAIN = 4
"""Every service waits for the one before it, in chains of so many."""
LOOKS = 5


class Figures(NamedTuple):
    """Seconds of processor time: from nothing to converged, and for one pass that finds nothing to do."""

    containers: int
    up: float
    nothing: float


def wide(count: int) -> Stack:
    """`count` containers in services of ten, each waiting for another, on networks of five hundred."""
    services = {}
    for number in range(count // REPLICAS):
        after = f"s{number - 1}" if number % CHAIN else ""
        services[f"s{number}"] = Service(
            name=f"s{number}",
            root=DirectoryRoot(path="/nowhere"),
            replicas=REPLICAS,
            networks=(Attachment(network=f"n{number // SERVICES_A_NETWORK}"),),
            depends_on=(Dependency(service=after, condition="service_started"),) if after else (),
            healthcheck=Healthcheck(test=("CMD", "true"), interval=30.0),
        )
    keys = {one.networks[0].network for one in services.values()}
    networks = {key: Network(key=key, name=f"wide_{key}") for key in keys}
    return Stack(name="wide", services=services, networks=networks)


def converge(count: int) -> Stage:
    """A play of `up`, from nothing until all of it runs."""
    stage = Stage(wide(count), Scenario(lasts=0.1, healing=3600.0), 1, lambda _: None)
    trio.run(stage.run, clock=trio.testing.MockClock(autojump_threshold=0))
    played = stage.played()
    assert not played.broken, played.broken
    assert len(played.containers) == count
    return stage


def settled(stage: Stage) -> Observation:
    """Its world at a moment when no health check is due."""
    world = stage.engine.world
    return replace(world, at=max(one.run.started for one in world.containers if one.run is not None) + 1.0)


def measure(count: int) -> Figures:
    gc.collect()
    began = time.process_time()
    stage = converge(count)
    up = time.process_time() - began
    world = settled(stage)
    passes = []
    for _ in range(LOOKS):
        began = time.process_time()
        assert plan(stage.desired, world, world.at).actions == ()
        passes.append(time.process_time() - began)
    return Figures(count, up, min(passes))
