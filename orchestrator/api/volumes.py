"""The verbs about the volumes of the machine, whichever stack has made them."""

from __future__ import annotations

from typing import Any

import trio

from orchestrator.api.session import Session
from orchestrator.api.stacks import Stacks
from orchestrator.engines.local import clock, storage
from orchestrator.model.action import RemoveVolume
from orchestrator.model.errors import EngineError, ExitCode
from orchestrator.model.observation import VolumeState
from orchestrator.model.stack import Stack
from orchestrator.reconciler.history import Event

ANONYMOUS = "com.docker.volume.anonymous"
PROJECT = "com.docker.compose.project"
KEY = "com.docker.compose.volume"


def row(volume: VolumeState, users: list[str]) -> dict[str, Any]:
    """What is told of a volume; `users` are names of containers. Pure."""
    own = {PROJECT: volume.stack, KEY: volume.key} if volume.key else {ANONYMOUS: ""}
    return {
        "name": volume.name,
        "driver": "local",
        "stack": volume.stack,
        "key": volume.key,
        "mountpoint": volume.path,
        "created": volume.created_at,
        "labels": {**own, **volume.labels},
        "options": dict(volume.driver_opts),
        "users": users,
    }


async def volumes(session: Session, stacks: Stacks, _request: dict[str, Any]) -> None:
    """Every volume of the machine, by name."""
    table = stacks.machine.table
    await session.end([row(table.volumes[name], _users(stacks, name)) for name in sorted(table.volumes)])


def _users(stacks: Stacks, name: str) -> list[str]:
    table = stacks.machine.table
    ids = table.volumes[name].users if name in table.volumes else ()
    return sorted(table.containers[one].container.name for one in ids if one in table.containers)


async def remove(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    """Volumes by name, each for itself: what is in use stays. With "force" one that is not there is none to
    complain of. The result: which were removed, what is wrong with the others, and the bytes gained.
    """
    removed: list[str] = []
    errors: list[dict[str, Any]] = []
    gained = 0
    for name in request["names"]:
        state = stacks.machine.table.volumes.get(name)
        users = _users(stacks, name)
        if state is None:
            if not request.get("force"):
                errors.append({"name": name, "message": f"get {name}: no such volume", "exit_code": 1})
            continue
        if users:
            message = f"remove {name}: volume is in use by container {', '.join(users)}"
            errors.append({"name": name, "message": message, "exit_code": int(ExitCode.CONFLICT)})
            continue
        try:
            gained += await trio.to_thread.run_sync(storage.size_of, str(stacks.machine.places.volume(name)))
            await stacks.machine.look(Stack(name="")).apply(RemoveVolume(name=name))
        except EngineError as error:
            errors.append({"name": name, "message": error.message, "exit_code": int(error.exit_code)})
            continue
        removed.append(name)
        stacks.history.record(_event(state))
    await session.end({"removed": removed, "errors": errors, "gained": gained})


def _event(volume: VolumeState) -> Event:
    return Event(
        at=clock.now(),
        target=f"volume:{volume.name}",
        verb="remove",
        because="asked for",
        outcome="ok",
        stack=volume.stack,
    )
