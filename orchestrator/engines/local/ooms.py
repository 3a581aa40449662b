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

PAUSE = 0.1
LOOKS = 12
"""v1 tells of it before anything is killed, v2 each time the limit is touched, and a kill may take its time:
so who was heard of is looked at for a while, and nobody is listened to all the time."""


class Ooms:
    """`note` is told of a run in which a process was killed for its memory."""

    def __init__(self, shared: Shared, note: Callable[[Live, Run], None]) -> None:
        self._shared = shared
        self._note = note
        self._listener = Listener(shared.hierarchies)
        self._suspects: dict[str, int] = {}
        self._added = trio.Event()

    def watch(self, live: Live) -> None:
        """While it runs, where it has a memory limit. What has happened already is seen, too."""
        container = live.container
        if container.definition.resources.memory is not None:
            self._listener.add(container.id, self._group(live))
            self._suspects[container.id] = 1
            self._added.set()

    def forget(self, live: Live) -> None:
        self._listener.drop(live.container.id)
        self._suspects.pop(live.container.id, None)

    def _group(self, live: Live) -> str:
        return f"{self._shared.places.cgroup}/{live.container.stack}/{live.container.id}"

    async def run(self) -> None:
        while True:
            if not self._suspects:
                await self._news()
            for name in self._listener.heard():
                self._suspects[name] = LOOKS
            for name, left in list(self._suspects.items()):
                if self._settled(name) or left == 1:
                    self._suspects.pop(name, None)
                else:
                    self._suspects[name] = left - 1
            await trio.sleep(PAUSE)

    async def _news(self) -> None:
        self._added = trio.Event()
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                await trio.lowlevel.wait_readable(self._listener.fileno())
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            await self._added.wait()
            nursery.cancel_scope.cancel()

    def _settled(self, name: str) -> bool:
        """Whether nothing more can be learned of its run."""
        live = self._shared.table.containers.get(name)
        run = live.container.run if live is not None else None
        if live is None or run is None or run.finished is not None:
            return True
        if not run.oom_killed and cgroups.oom_killed(self._shared.hierarchies, self._group(live)):
            run = replace(run, oom_killed=True)
            self._note(live, run)
        if run.oom_killed:
            self._listener.drop(name)
        return run.oom_killed
