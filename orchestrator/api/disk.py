"""The verbs about room on the disk: what containers and volumes take, and giving it back."""

from __future__ import annotations

from typing import Any

import trio

from orchestrator.api import orders, show
from orchestrator.api.converging import converge
from orchestrator.api.session import Session
from orchestrator.api.stacks import Stacks, Supervised
from orchestrator.engines.local import clock, storage
from orchestrator.engines.local.table import Live
from orchestrator.model.desired import Desired
from orchestrator.model.observation import State


async def disk(session: Session, stacks: Stacks, _request: dict[str, Any]) -> None:
    """Containers and volumes of the machine with the bytes that each takes."""
    machine = stacks.machine
    containers = sorted(machine.table.containers.values(), key=lambda live: live.container.name)
    rows = [
        {
            "id": live.container.id,
            "name": live.container.name,
            "image": show.root_name(live.container.definition.root),
            "image_id": live.container.image_id,
            "command": " ".join(live.container.definition.command or ()),
            "state": show.state(live.container),
            "status": show.status(live.container, clock.now()),
            "size": await _size(stacks, live),
        }
        for live in containers
    ]
    volumes = [
        {
            "name": name,
            "key": volume.key,
            "users": len(volume.users),
            "size": await trio.to_thread.run_sync(storage.size_of, str(machine.places.volume(name))),
        }
        for name, volume in sorted(machine.table.volumes.items())
    ]
    await session.end({"containers": rows, "volumes": volumes})


async def _size(stacks: Stacks, live: Live) -> int:
    place = stacks.machine.places.container(live.container.stack, live.container.id)
    return await trio.to_thread.run_sync(storage.size_of, str(place))


async def prune(session: Session, stacks: Stacks, _request: dict[str, Any]) -> None:
    """Remove every container that does not run and will not by itself, of all stacks.

    The result: their ids, and the bytes gained.
    """
    removed: list[str] = []
    gained = 0
    for supervised in list(stacks):
        services = _idle(stacks, supervised)
        if not services:
            continue
        doomed = [
            live
            for live in stacks.machine.table.of_stack(supervised.name)
            if live.container.service in services
        ]
        sizes = {live.container.id: await _size(stacks, live) for live in doomed}

        def change(previous: Desired | None, services: list[str] = services) -> Desired:
            assert previous is not None
            return orders.remove(previous, services)

        await converge(session, stacks, supervised.name, change, services, goal="gone", end=False)
        gone = sizes.keys() - stacks.machine.table.containers.keys()
        removed += sorted(gone)
        gained += sum(sizes[one] for one in gone)
    await session.end({"removed": removed, "gained": gained})


def _idle(stacks: Stacks, supervised: Supervised) -> list[str]:
    """Services of which no container runs, or is about to."""
    desired, now = supervised.loop.desired, clock.now()
    busy: dict[str, bool] = {}
    for live in stacks.machine.table.of_stack(supervised.name):
        container = live.container
        runs = container.state is State.RUNNING or show.restarts(container, desired, now)
        busy[container.service] = busy.get(container.service, False) or runs
    return sorted(name for name, runs in busy.items() if not runs and name in desired.stack.services)
