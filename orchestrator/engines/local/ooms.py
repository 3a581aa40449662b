"""Notices that a container's memory limit was reached, also when its first process lives on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import trio

from orchestrator.engines.local.shared import Shared
from orchestrator.engines.local.table import Live
from orchestrator.kernel import cgroups
from orchestrator.kernel.oom import Listener
from orchestrator.model.observation import Run

AGAIN = (0.0, 0.01, 0.05, 0.2, 1.0)
"""v1 tells of it before anything is killed, and what is killed may take its time: so it is looked again."""


class Ooms:
    """`note` is told of a run in which a process was killed for its memory."""

    def __init__(self, shared: Shared, note: Callable[[Live, Run], None]) -> None:
        self._shared = shared
        self._note = note
        self._listener = Listener(shared.hierarchies)
        self._suspects: set[str] = set()

    def watch(self, live: Live) -> None:
        """While it runs, where it has a memory limit."""
        container = live.container
        if container.definition.resources.memory is not None:
            self._listener.add(container.id, f"{self._shared.places.cgroup}/{container.stack}/{container.id}")

    def forget(self, live: Live) -> None:
        self._listener.drop(live.container.id)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(self._listener.fileno())
                for name in self._listener.heard() - self._suspects:
                    self._suspects.add(name)
                    nursery.start_soon(self._look, name)

    async def _look(self, name: str) -> None:
        try:
            for pause in AGAIN:
                await trio.sleep(pause)
                live = self._shared.table.containers.get(name)
                run = live.container.run if live is not None else None
                if live is None or run is None or run.finished is not None or run.oom_killed:
                    return
                group = f"{self._shared.places.cgroup}/{live.container.stack}/{name}"
                if cgroups.oom_killed(self._shared.hierarchies, group):
                    self._note(live, replace(run, oom_killed=True))
                    return
        finally:
            self._suspects.discard(name)
