"""The verb behind `cp`, `diff`, `commit` and `export`: where a container's files are, and the promise that it
does not start meanwhile. The copying is the client's; when it goes, everything is as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import trio

from orchestrator.api.choosing import chosen
from orchestrator.api.session import Gone, Session
from orchestrator.api.stacks import Stacks
from orchestrator.engines.local import lending, steering
from orchestrator.engines.local.table import Live
from orchestrator.model import codec
from orchestrator.model.errors import PystackError, UserError
from orchestrator.model.observation import State


async def files(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    """One line for each container that is meant, then `ready`; until the client goes they are lent to it, and
    with "pause" those that run stand still."""
    lives = _meant(stacks, request)
    machine = stacks.machine
    with contextlib.ExitStack() as loans:
        for live in lives:
            lending.demand_reachable(machine.shared, live)
            loans.enter_context(lending.lent(live))
        paused: list[Live] = []
        try:
            if request.get("pause"):
                for sentence in await _pause(stacks, lives, paused):
                    await session.send({"event": "warning", "message": sentence})
            for live in lives:
                await session.send(*await _described(stacks, live), fds=_pidfd(live))
            await session.send({"event": "ready"})
            with contextlib.suppress(Gone):
                await session.receive()
        finally:
            for live in paused:
                with contextlib.suppress(PystackError):  # it ended, or somebody was quicker
                    steering.unpause(machine, live)
    await session.end()


async def _pause(stacks: Stacks, lives: Iterable[Live], paused: list[Live]) -> list[str]:
    """Returns what should be said: where nothing can be frozen, files are copied as they change."""
    said = []
    for live in lives:
        run = live.container.run
        if live.container.state is State.RUNNING and run is not None and not run.paused:
            try:
                await steering.pause(stacks.machine, live)
            except UserError:
                continue  # it has just ended
            except PystackError as error:
                said.append(f"it goes on running meanwhile: {error.message}")
                continue
            paused.append(live)
    return said


def _pidfd(live: Live) -> list[int]:
    running = live.container.state is State.RUNNING and live.pidfd is not None
    return [live.pidfd] if running and live.pidfd is not None else []


async def _described(stacks: Stacks, live: Live) -> list[dict[str, Any]]:
    container, machine = live.container, stacks.machine
    try:
        view = await trio.to_thread.run_sync(
            lending.view, machine.shared, live, limiter=machine.shared.threads
        )
    except OSError as error:
        raise PystackError(f"container {container.name}: {error}") from error
    return [
        {
            "event": "container",
            "id": container.id,
            "name": container.name,
            "service": container.service,
            "stack": container.stack,
            "image": container.image_id,
            "running": bool(_pidfd(live)),
            "definition": codec.encode(container.definition),
            "view": view,
        }
    ]


def _meant(stacks: Stacks, request: dict[str, Any]) -> list[Live]:
    """One container by its name or id, or those of a service. Raises UserError."""
    word, name = str(request["word"]), str(request["stack"])
    index, every = request.get("index"), bool(request.get("all"))
    found = sorted(chosen(stacks, name, [word]), key=_order)
    if not every:  # whoever names a one-off itself means it
        found = [live for live in found if not live.container.definition.oneoff or word in _names(live)]
    if index is not None:
        found = [live for live in found if live.container.slot == index]
        if not found:
            raise UserError(f'service "{word}" has no container with index {index}')
    if not found:
        raise UserError(
            f'no container found for service "{word}"', hint="`pystack ps -a` lists what is there"
        )
    return found if request.get("many") else found[:1]


def _order(live: Live) -> tuple[bool, int, str]:
    return live.container.definition.oneoff, live.container.slot, live.container.name


def _names(live: Live) -> tuple[str, ...]:
    container = live.container
    return (container.name, container.service, *(container.id[:length] for length in range(3, 65)))
