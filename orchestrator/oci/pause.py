"""The commands `pause` and `resume`."""

from __future__ import annotations

from orchestrator.oci import hierarchy, record, status
from orchestrator.oci.arguments import Call
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.scope import Scope


def pause(scope: Scope, call: Call) -> int:
    """Freeze every process of a running container."""
    path = record.place(scope.root, call.words[0])
    with record.locked(path):
        found = record.read(path)
        if status.look(path, found) not in ("running", "created"):
            raise Complaint("container not running")
        hierarchy.freeze(found, frozen=True)
    return 0


def resume(scope: Scope, call: Call) -> int:
    """Let the processes of a paused container go on."""
    path = record.place(scope.root, call.words[0])
    with record.locked(path):
        found = record.read(path)
        if not (status.is_alive(found) and status.is_frozen(found)):
            raise Complaint("container not paused")
        hierarchy.freeze(found, frozen=False)
    return 0
