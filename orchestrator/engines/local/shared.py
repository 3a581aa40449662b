"""What all containers of a state root have in common."""

from __future__ import annotations

import trio

from orchestrator.engines.local.hostfiles import HostFiles
from orchestrator.engines.local.places import Places
from orchestrator.engines.local.table import Table
from orchestrator.engines.local.watching import Watching
from orchestrator.engines.local.wiring import Wiring
from orchestrator.images.store.content import Store
from orchestrator.kernel import cgroups
from orchestrator.model.frozen import dataclass


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
