"""Commands that others have and we don't."""

from __future__ import annotations

from orchestrator.oci.arguments import Call
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.scope import Scope
from orchestrator.oci.table import COMMANDS


def refuse(_: Scope, call: Call) -> int:
    """Raises Complaint with the reason."""
    raise Complaint(f"{call.command}: {COMMANDS[call.command].about}")
