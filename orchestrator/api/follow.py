"""Tells a client which containers there are, when their logs grow, and when they end.

The client reads the log files itself: no byte of output passes through the supervisor a second time, and a
slow reader slows nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from orchestrator.api.session import Session
from orchestrator.api.show import restarts
from orchestrator.engines.local import clock
from orchestrator.engines.local.machine import Machine
from orchestrator.engines.local.table import Follower
from orchestrator.model.desired import Desired
from orchestrator.model.observation import Container, State
from orchestrator.model.steps import shown

CALM = 0.01
"""Seconds in which growth of one log is told once."""


def described(machine: Machine, container: Container) -> dict[str, Any]:
    return {
        "event": "container",
        "id": container.id,
        "name": container.name,
        "service": shown(container.definition) if container.definition.step else container.service,
        "step": container.definition.step is not None,
        "slot": container.slot,
        "log": str(machine.containers.log_path(container)),
        "tty": container.definition.tty,
        "attach": container.definition.attach,
        "state": container.state.value,
    }


async def follow(
    session: Session,
    machine: Machine,
    stack: str,
    wanted: Callable[[Container], bool],
    desired: Callable[[], Desired | None],
    channel: Follower,
) -> None:
    """Until the client goes or falls too far behind. `channel` is older than the list of containers."""
    grown: set[str] = set()
    pending = trio.Event()

    async def tell_growth() -> None:
        nonlocal pending
        while True:
            await pending.wait()
            pending = trio.Event()
            told, names = list(grown), grown
            names.clear()
            for container_id in told:
                await session.send({"event": "grown", "id": container_id})
            await trio.sleep(CALM)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell_growth)
        async for change in channel:
            container = change.container
            if container.stack != stack or not wanted(container):
                continue
            if change.kind == "grown":
                grown.add(container.id)
                pending.set()
            elif change.kind == "container":
                await session.send(described(machine, container))
            elif change.kind == "exited":
                if container.id in grown:
                    grown.discard(container.id)
                    await session.send({"event": "grown", "id": container.id})
                await session.send(ended(container, desired()))
            else:
                await session.send({"event": "removed", "id": container.id})
        nursery.cancel_scope.cancel()


def ended(container: Container, desired: Desired | None) -> dict[str, Any]:
    run = container.run
    return {
        "event": "exited",
        "id": container.id,
        "name": container.name,
        "exit_code": run.exit_code if run else None,
        "restarting": restarts(container, desired, clock.now()),
        "state": State.EXITED.value,
    }
