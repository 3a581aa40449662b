"""What the global options say, for every command."""

from __future__ import annotations

import os
from typing import NamedTuple, Self

from orchestrator.oci.arguments import Call
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.journal import Journal


class Scope(NamedTuple):
    """Where state is kept, what is done about control groups, where to write what went wrong."""

    root: str
    journal: Journal
    groups: bool
    """Whether containers get control groups; False for --cgroup-manager disabled."""
    lenient: bool
    """Whether to go on without them where they may not be made: an ordinary user without delegation."""
    systemd: bool

    @classmethod
    def of(cls, call: Call, journal: Journal) -> Self:
        """The scope of a command line. Raises Complaint when there is no place for state."""
        scope = call.scope
        manager, rootless = scope.get("cgroup-manager"), str(scope.get("rootless", "auto"))
        return cls(
            root=os.path.abspath(str(scope.get("root") or _default_root())),
            journal=journal,
            groups=manager != "disabled",
            lenient=rootless == "true" or (rootless == "auto" and os.geteuid() != 0),
            systemd=manager == "systemd" or bool(scope.get("systemd-cgroup")),
        )


def _default_root() -> str:
    if os.geteuid() == 0:
        return "/run/pystack-oci"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if not runtime:
        raise Complaint("XDG_RUNTIME_DIR is not set: say with --root where state may be kept")
    return f"{runtime}/pystack-oci"
