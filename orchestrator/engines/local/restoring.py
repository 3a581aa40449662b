"""What is found by its control group and its process alone, because somebody has deleted the run directory.

A container that runs has its records made again, and is not restarted for it: its bundle, without which it
can't be entered, its pid.json, and the pidfd that tells how it ends.
"""

from __future__ import annotations

import json

from orchestrator.engines.local import alive, bundle, clock, records
from orchestrator.engines.local.ground import look_up
from orchestrator.engines.local.joining import joined, network_owner
from orchestrator.engines.local.records import RunRecord
from orchestrator.engines.local.shared import Shared
from orchestrator.engines.local.table import Live
from orchestrator.engines.local.trouble import note
from orchestrator.kernel import pins

DOCUMENTS = ("config.json", "launch.json")


def restore(shared: Shared, live: Live, group: str) -> None:
    """Its bundle, where that is not whole. Raises EngineError: a peer or its image has gone; OSError."""
    container, places, run = live.container, shared.places, live.container.run
    home = places.bundle(container.id)
    if run is None or live.pidfd is None or all((home / name).exists() for name in DOCUMENTS):
        return
    note(f"container {container.name}: its records in {home} were deleted: they are made again")
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    peer = network_owner(shared.table, container, container.peers)
    shares = joined(shared.table, live, container.peers).keys()
    ground = look_up(shared, live, group, peer.container if peer else None, shares)
    for name, text in bundle.texts(container, ground).items():
        records.write_plain(home / f"{name}.json", text.encode())
    records.write(home / "run.json", RunRecord(run=run, boot_id=clock.boot_id()))
    if not (home / "pid.json").exists():
        records.write_bytes(home / "pid.json", json.dumps(alive.birth(run.pid)).encode())
        pins.pin(str(home), live.pidfd)
