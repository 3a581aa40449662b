"""The verbs that change running containers without changing what is wanted: pause, unpause, update."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from orchestrator.api import orders
from orchestrator.api.amending import amended
from orchestrator.api.choosing import chosen
from orchestrator.api.session import Session
from orchestrator.api.stacks import Stacks
from orchestrator.engines.local import clock, steering
from orchestrator.engines.local.table import Live
from orchestrator.model.errors import PystackError, UserError, no_containers
from orchestrator.model.observation import Container, State
from orchestrator.reconciler.history import Event


async def pause(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    async def act(live: Live) -> None:
        await steering.pause(stacks.machine, live)

    lives = _running(stacks, request)
    await _each(session, stacks, lives, "pause", act)


async def unpause(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    async def act(live: Live) -> None:
        steering.unpause(stacks.machine, live)

    lives = _running(stacks, request)
    if not request.get("services"):
        lives = [live for live in lives if live.container.run is not None and live.container.run.paused]
    await _each(session, stacks, lives, "unpause", act)


def _running(stacks: Stacks, request: dict[str, Any]) -> list[Live]:
    """Those that are asked for by name must run; of the rest those that do."""
    names = list(request.get("services") or ())
    lives = chosen(stacks, request["stack"], names)
    if names:
        for live in lives:
            if live.container.state is not State.RUNNING:
                raise UserError(f"container {live.container.name} is not running")
    return [live for live in lives if live.container.state is State.RUNNING]


async def update(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    """Other limits, another restart policy. Each container stands for itself: what fails for one is told at
    the end, and the others have theirs."""
    asked = dict(request.get("changes") or {})
    cores = os.cpu_count() or 1
    lives = chosen(stacks, request["stack"], list(request["names"]))
    if not lives:
        raise no_containers(request["stack"])

    async def act(live: Live) -> None:
        definition = amended(live.container.definition, asked, cores)
        for sentence in await steering.update(stacks.machine, live, definition):
            await session.send({"event": "warning", "message": f"{live.container.name}: {sentence}"})

    because = ", ".join(f"{key}={value}" for key, value in asked.items() if value is not None)
    await _each(session, stacks, lives, "update", act, because)


async def repair(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    """Whether what is changed behind our back is put right, or only reported."""
    name = request["stack"]
    supervised = stacks.get(name)
    if supervised is None:
        raise no_containers(name)
    wanted = supervised.loop.desired
    if wanted.repair != bool(request["on"]):
        await stacks.want(name, lambda previous: orders.repair(previous or wanted, on=bool(request["on"])))
    await session.end()


async def _each(
    session: Session,
    stacks: Stacks,
    lives: list[Live],
    verb: str,
    act: Callable[[Live], Awaitable[None]],
    because: str = "asked for",
) -> None:
    done: list[str] = []
    wrong: list[PystackError] = []
    for live in lives:
        container = live.container
        try:
            await act(live)
        except PystackError as error:
            wrong.append(error)
            stacks.history.record(_event(container, verb, error.message, "failed"))
            continue
        done.append(container.name)
        stacks.history.record(_event(container, verb, because, "ok"))
        await session.send(
            {"event": "action", "target": f"container:{container.name}", "verb": verb, "outcome": "done"}
        )
    said = "\n".join(dict.fromkeys(one.message for one in wrong))
    exit_code, hint = (int(wrong[0].exit_code), wrong[0].hint) if wrong else (0, "")
    await session.end({"done": done}, exit_code=exit_code, error=said, hint=hint)


def _event(container: Container, verb: str, because: str, outcome: str) -> Event:
    return Event(
        at=clock.now(),
        target=f"container:{container.name}",
        verb=verb,
        because=because,
        outcome=outcome,
        stack=container.stack,
        service=container.service,
        id=container.id,
    )
