"""The verbs that only ask: what there is, what happened, what would be done."""

from __future__ import annotations

import os
from typing import Any

import trio

from orchestrator import __version__
from orchestrator.api import orders, rehearsing, show
from orchestrator.api.follow import described, follow
from orchestrator.api.rehearsing import Look
from orchestrator.api.session import Gone, Session
from orchestrator.api.stacks import Stacks
from orchestrator.engines.local import clock
from orchestrator.engines.local.table import Follower, Live, Table
from orchestrator.images.config import ImageConfig
from orchestrator.images.store.content import Store
from orchestrator.model import codec
from orchestrator.model.desired import Desired
from orchestrator.model.errors import PystackError
from orchestrator.model.frozen import replace
from orchestrator.model.observation import Container, Observation, State
from orchestrator.model.steps import shown
from orchestrator.reconciler.history import Event


async def ping(session: Session, stacks: Stacks, _request: dict[str, Any]) -> None:
    await session.end({"version": __version__, "pid": os.getpid(), "keeper_pid": stacks.machine.keeper.pid})


async def ps(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    supervised = stacks.get(request["stack"])
    if supervised is None:
        await session.end([])
        return
    view, now = supervised.loop.view, clock.now()
    waits = {wait.target: wait.because for wait in view.plan.waits} if view else {}
    live = sorted(
        stacks.machine.table.of_stack(supervised.name),
        key=lambda live: (live.container.service, live.container.slot),
    )
    desired, store = supervised.loop.desired, stacks.machine.store
    table = stacks.machine.table
    rows = [
        show.container_row(
            one.container, desired, waits, now, _image(store, one.container), _lost(table, one)
        )
        for one in live
    ]
    await session.end(rows)


def _lost(table: Table, live: Live) -> str:
    """What it has lost that we don't make anew, in words; "" as a rule."""
    states = (table.volumes.get(mounted.volume) for mounted in live.built.volumes)
    gone = sorted(state.name for state in states if state is not None and state.lost)
    return f"volume {gone[0]} is gone" if gone else live.container.broken


def _image(store: Store, container: Container) -> ImageConfig | None:
    """The run defaults of its image; None when it has none, or has lost it."""
    if not container.image_id:
        return None
    try:
        return store.config(container.image_id)
    except (PystackError, OSError):
        return None


async def ls(session: Session, stacks: Stacks, _request: dict[str, Any]) -> None:
    rows = [
        show.stack_row(
            supervised.loop.desired,
            [live.container for live in stacks.machine.table.of_stack(supervised.name)],
        )
        for supervised in stacks
    ]
    await session.end(sorted(rows, key=lambda row: str(row["name"])))


async def stack(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    supervised = stacks.get(request["stack"])
    found = codec.encode(supervised.loop.desired.stack) if supervised else None
    await session.end({"stack": found})


async def image_users(session: Session, stacks: Stacks, _request: dict[str, Any]) -> None:
    """Image id -> the containers made from it, and whether they run."""
    users: dict[str, list[dict[str, Any]]] = {}
    containers = (live.container for live in stacks.machine.table.containers.values())
    for container in sorted(containers, key=lambda one: one.name):
        if container.image_id:
            running = container.state is State.RUNNING
            users.setdefault(container.image_id, []).append({"container": container.name, "running": running})
    await session.end(users)


async def plan(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    name = str(request["stack"]["name"])
    await session.end(await rehearsing.plan(look(stacks, name), request))


async def drift(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    await session.end(await rehearsing.drift(look(stacks, request["stack"]), request))


def look(stacks: Stacks, name: str) -> Look:
    """Eyes on one stack, without hands."""
    machine, supervised = stacks.machine, stacks.get(name)
    failures = dict(supervised.loop.failures) if supervised else {}

    async def observe(desired: Desired) -> Observation:
        engine = machine.look(desired.stack, desired.pins.values())
        return replace(await engine.observe(), failures=failures)

    return Look(
        desired=supervised.loop.desired if supervised else None,
        observe=observe,
        in_flight=dict(supervised.loop.in_flight) if supervised else {},
        differences=lambda: list(machine.containers.gathering.everything(name).values()),
    )


async def logs(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    """Where the logs are; with "follow" also when they grow, until the client goes."""
    name, machine = request["stack"], stacks.machine
    services = set(request.get("services") or ())
    supervised = stacks.get(name)
    if supervised is not None:
        orders.demand(supervised.loop.desired.stack, services)

    def wanted(container: Container) -> bool:
        if services:
            return shown(container.definition) in services or container.service in services
        return not container.definition.oneoff or container.definition.step is not None

    channel = machine.table.feed.follow()
    try:
        for live in sorted(machine.table.of_stack(name), key=lambda live: live.container.name):
            if wanted(live.container):
                await session.send(described(machine, live.container))
        if request.get("follow"):
            session.watch()
            await _until_gone(session, stacks, name, wanted, channel)
    finally:
        channel.close()
    await session.end()


async def _until_gone(session: Session, stacks: Stacks, name: str, wanted: Any, channel: Follower) -> None:
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            try:
                while True:
                    await session.receive()
            except Gone:
                nursery.cancel_scope.cancel()

        def desired() -> Desired | None:
            supervised = stacks.get(name)
            return supervised.loop.desired if supervised else None

        nursery.start_soon(watch)
        await follow(session, stacks.machine, name, wanted, desired, channel)
        nursery.cancel_scope.cancel()


async def events(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    """The history from memory unless "history" is false, then what happens from now on if "follow" is set."""
    name = request.get("stack")
    async with stacks.history.follow() as channel:
        for event in list(stacks.history) if request.get("history", True) else ():
            if name in (None, event.stack) and event.outcome != "begun":
                await session.send(_event_line(event))
        if request.get("follow"):
            session.watch()
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    try:
                        while True:
                            await session.receive()
                    except Gone:
                        nursery.cancel_scope.cancel()

                nursery.start_soon(watch)
                async for event in channel:
                    if name in (None, event.stack) and event.outcome != "begun":
                        await session.send(_event_line(event))
                nursery.cancel_scope.cancel()
    await session.end()


def _event_line(event: Event) -> dict[str, Any]:
    return {
        "event": "action",
        "stack": event.stack,
        "service": event.service,
        "id": event.id,
        "time": clock.wall_at(event.at),
        "target": event.target,
        "verb": event.verb,
        "because": event.because,
        "outcome": event.outcome,
    }
