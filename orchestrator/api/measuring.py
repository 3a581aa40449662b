"""The verbs that look into containers: what they use, what runs in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any, TypeVar

import trio

from orchestrator.api import show
from orchestrator.api.choosing import chosen
from orchestrator.api.orders import shown
from orchestrator.api.session import Gone, Session
from orchestrator.api.stacks import Stacks
from orchestrator.engines.local import clock, measuring
from orchestrator.engines.local.measuring import Sample, Subject
from orchestrator.engines.local.table import Live
from orchestrator.model.observation import State

T = TypeVar("T")
_LOOKERS = trio.CapacityLimiter(2)
"""Threads of their own: what a process says of itself may be long in coming. Nothing shall wait for it."""
FIRST_SECONDS = 0.5
"""Between the first two samples: a share of the processor is seen over a span only."""


async def stats(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    """A sample at once, one soon, then one every "interval" seconds, "count" in all or until the client goes.

    "all" takes in containers that do not run. Without "names" containers that come later are seen as well.
    """
    name, names = request["stack"], list(request.get("names") or ())
    count, interval = request.get("count"), max(float(request.get("interval") or 1.0), 0.1)
    session.watch()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_gone, session, nursery.cancel_scope)
        number = 0
        while True:
            lives = chosen(stacks, name, names)
            wanted = [live for live in lives if request.get("all") or live.container.state is State.RUNNING]
            samples = await _in_thread(stacks, wanted, measuring.measure)
            await session.send({"event": "stats", "rows": [_row(sample) for sample in samples]})
            number += 1
            if number == count or (stacks.get(name) is None and not lives):
                break
            await trio.sleep(FIRST_SECONDS if number == 1 else interval)
        await session.end()
        nursery.cancel_scope.cancel()


async def top(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    """The processes of each running container."""
    lives = chosen(stacks, request["stack"], list(request.get("names") or ()))
    wanted = [live for live in lives if live.container.state is State.RUNNING]
    found = await _in_thread(stacks, wanted, measuring.running)
    rows = [
        {
            "name": live.container.name,
            "service": shown(live.container.service),
            "slot": live.container.slot,
            "processes": [asdict(process) for process in processes],
        }
        for live, processes in zip(wanted, found, strict=True)
    ]
    await session.end({"now": clock.now(), "rows": rows})


async def _in_thread(
    stacks: Stacks, lives: Iterable[Live], look: Callable[[Any, list[Subject]], list[T]]
) -> list[T]:
    shared = stacks.machine.shared
    subjects = measuring.subjects(shared.places, lives)
    try:
        return await trio.to_thread.run_sync(look, shared.hierarchies, subjects, limiter=_LOOKERS)
    finally:
        measuring.release(subjects)


async def _until_gone(session: Session, scope: trio.CancelScope) -> None:
    try:
        while True:
            await session.receive()
    except Gone:
        scope.cancel()


def _row(sample: Sample) -> dict[str, Any]:
    container, used = sample.container, asdict(sample.usage)
    return {
        "id": container.id,
        "name": container.name,
        "service": shown(container.service),
        "state": show.state(container),
        "at": sample.at,
        **used,
        "memory_limit": used["memory_limit"] or measuring.memory_of_machine(),
        "memory_limited": used["memory_limit"] is not None,
    }
