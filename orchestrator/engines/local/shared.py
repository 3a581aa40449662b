"""What all containers of a state root have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

from orchestrator.engines.local.hostfiles import HostFiles
from orchestrator.engines.local.places import Places
from orchestrator.engines.local.table import Table
from orchestrator.engines.local.trouble import of_file
from orchestrator.engines.local.watching import Watching
from orchestrator.engines.local.wiring import Wiring
from orchestrator.images.store.content import Store
from orchestrator.kernel import cgroups
from orchestrator.model.frozen import dataclass

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all containers of a state root have in common."""

    places: Places
    table: Table
    store: Store
    hierarchies: cgroups.Hierarchies
    wiring: Wiring
    nursery: trio.Nursery
    files: HostFiles
    threads: trio.CapacityLimiter
    watching: Watching

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Work that waits for the disk. An OSError becomes the EngineError that says which file it was."""
        try:
            return await trio.to_thread.run_sync(work, limiter=self.threads)
        except OSError as error:
            raise of_file(error, within=(self.places.data, self.places.run)) from error
