"""Who gets the connections to host ports that containers share, as the planner says it."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.engines.local import clock
from orchestrator.engines.local.table import Live, Table
from orchestrator.engines.local.wiring import Wiring
from orchestrator.model import rotation
from orchestrator.model.action import RoutePorts
from orchestrator.model.errors import EngineError
from orchestrator.model.frozen import replace
from orchestrator.model.observation import Run


async def route(
    action: RoutePorts, table: Table, wiring: Wiring, note_run: Callable[[Live, Run], None]
) -> None:
    """Written down first, so that who has left stays away after a restart of the supervisor.

    Raises EngineError when the ports can't be led there; then it was not said, either.
    """
    now, before = clock.now(), list[tuple[Live, Run]]()
    for live in table.of_stack(action.stack):
        found = live.container
        if found.service != action.service or not found.ports:
            continue
        run = rotation.routed(found, member=found.id in action.members, now=now).run
        if run is not None and found.run is not None and run is not found.run:
            before.append((live, found.run))
            note_run(live, run)
    try:
        await wiring.sync()
    except EngineError:
        for live, run in before:
            since = live.container.run
            if since is not None and since.started == run.started:
                note_run(live, replace(since, rotation=run.rotation))
        raise
