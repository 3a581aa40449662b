"""What may be done to a container while it runs, besides signals: pause it, and change its limits."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import trio

from orchestrator.engines.local import limiting, records
from orchestrator.engines.local.gathering import handled
from orchestrator.engines.local.machine import Machine
from orchestrator.engines.local.table import Changed, Live
from orchestrator.engines.local.trouble import of_file
from orchestrator.kernel import cgroups
from orchestrator.model.errors import EngineError, UserError
from orchestrator.model.observation import Run, State
from orchestrator.model.stack import Service

FREEZE_SECONDS = 2.0


async def pause(machine: Machine, live: Live) -> None:
    """Return when every process of the container stands still. Raises UserError, EngineError."""
    container, run = live.container, live.container.run
    if run is None or container.state is not State.RUNNING:
        raise UserError(f"container {container.name} is not running")
    if run.paused:
        raise UserError(f"container {container.name} is already paused")
    with handled(live):
        await _freeze(machine, live, run)
    machine.table.feed.publish(Changed(kind="container", container=live.container))


async def _freeze(machine: Machine, live: Live, run: Run) -> None:
    container = live.container
    hierarchies, group = machine.shared.hierarchies, machine.containers.cgroup(container)
    try:
        cgroups.freeze(hierarchies, group, frozen=True)
    except cgroups.CgroupError as error:
        raise EngineError(f"container {container.name}: {error}") from error
    with trio.move_on_after(FREEZE_SECONDS):
        while not cgroups.frozen(hierarchies, group):  # noqa: ASYNC110 (a millisecond or two)
            await trio.sleep(0.001)
    latest = live.container.run
    if latest is None or latest.started != run.started or latest.finished is not None:
        raise UserError(f"container {container.name} is not running")
    if not cgroups.frozen(hierarchies, group):
        machine.containers.thaw(live)
        raise EngineError(f"container {container.name} does not stand still within {FREEZE_SECONDS:g} s")
    machine.containers.note_run(live, replace(latest, paused=True))


def unpause(machine: Machine, live: Live) -> None:
    """Raises UserError."""
    run = live.container.run
    if run is None or not run.paused:
        raise UserError(f"container {live.container.name} is not paused")
    machine.containers.thaw(live)
    machine.table.feed.publish(Changed(kind="container", container=live.container))


async def update(machine: Machine, live: Live, definition: Service) -> tuple[str, ...]:
    """Put other limits and another restart policy into force, and into the container's record: its later runs
    have them, too. Its fingerprint stays, so it is not replaced for them.

    Returns what should be said. Raises EngineError; then nothing has changed that is written down.
    """
    with handled(live):
        return await _update(machine, live, definition)


async def _update(machine: Machine, live: Live, definition: Service) -> tuple[str, ...]:
    before = live.container
    after = replace(before, definition=definition)
    said: tuple[str, ...] = ()
    if before.state is State.RUNNING:
        hierarchies, group = machine.shared.hierarchies, machine.containers.cgroup(before)
        work = functools.partial(limiting.change, hierarchies, before, after, group)
        more, said = await trio.to_thread.run_sync(work, limiter=machine.shared.threads)
        if more:
            _join_later(machine, live, more)
    else:
        limiting.limits(after)  # raises for what can't be
    built = replace(live.built, container=replace(live.built.container, definition=definition))
    home = machine.places.container(before.stack, before.id)
    try:
        records.write(home / "container.json", built)
    except OSError as error:
        raise of_file(error, f"container {before.name}") from error
    live.built = built
    live.container = replace(live.container, definition=definition)
    if live.container.state is State.RUNNING:
        machine.containers.watch(live)
        machine.containers.gathering.accept(live)
    machine.table.ring(before.stack)
    return said


def _join_later(machine: Machine, live: Live, directories: tuple[str, ...]) -> None:
    """Processes that `exec` brings in are under the new limits as well."""
    path = machine.places.bundle(live.container.id) / "launch.json"
    try:
        document = json.loads(path.read_bytes())
        document["cgroups"] = list(dict.fromkeys((*document["cgroups"], *directories)))
        records.write_bytes(path, json.dumps(document, separators=(",", ":")).encode())
    except (OSError, *records.UNREADABLE) as error:
        raise EngineError(f"container {live.container.name}: {path}: {error}") from error
