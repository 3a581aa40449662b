"""The verb `resume`: what was wanted before the machine was restarted is wanted still; wait for it."""

from __future__ import annotations

from typing import Any

import trio

from orchestrator.api import show
from orchestrator.api.session import Session
from orchestrator.api.stacks import Stacks, Supervised
from orchestrator.engines.local import clock
from orchestrator.model.errors import UserError
from orchestrator.reconciler.loop import View


async def resume(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    """Ends with the rows of all containers, and what could not be done, once nothing is left to do or
    `timeout` seconds are over. Stacks go on by themselves as soon as there is a supervisor."""
    chosen = [_find(stacks, name) for name in request["stacks"]] or list(stacks)
    left: list[str] = []
    with trio.move_on_after(float(request["timeout"])) as waiting:
        async with trio.open_nursery() as nursery:
            for one in chosen:
                nursery.start_soon(_settle, one)
    if waiting.cancelled_caught:
        left.append("not everything has come up in time")
    rows: list[dict[str, Any]] = []
    for one in chosen:
        view = one.loop.view
        left += [f"{wait.target}: {wait.because}" for wait in (view.plan.waits if view else ())]
        for live in stacks.machine.table.of_stack(one.name):
            row = show.container_row(live.container, one.loop.desired, {}, clock.now())
            rows.append({"stack": one.name, **row})
    rows.sort(key=lambda row: (row["stack"], row["service"], row["slot"]))
    await session.end({"containers": rows, "left": left})


def _find(stacks: Stacks, name: str) -> Supervised:
    found = stacks.get(name)
    if found is None:
        raise UserError(f"no such stack: {name}", hint="`pystack ls -a` lists those there are")
    return found


async def _settle(supervised: Supervised) -> None:
    await supervised.loop.until(_is_settled, revision=supervised.loop.revision)


def _is_settled(view: View) -> bool:
    return view.plan.settled
