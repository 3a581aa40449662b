"""The command `kill`."""

from __future__ import annotations

import contextlib
import os
import signal

from orchestrator.oci import hierarchy, record, signals, status
from orchestrator.oci.arguments import Call
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.record import Record
from orchestrator.oci.scope import Scope


def kill(scope: Scope, call: Call) -> int:
    """Send a signal to the first process of a container, or to all."""
    name, *rest = call.words
    given = call.options.get("signal")
    what = signals.number(str(given) if given else rest[0] if rest else "TERM")
    path = record.place(scope.root, name)
    found = record.read(path)
    if call.options.get("all"):
        _signal_all(path, found, what)
        return 0
    if status.look(path, found) not in ("created", "running", "paused"):
        raise Complaint("container not running")
    pidfd = signals.pin(found)
    try:
        signals.send(pidfd, what)
    finally:
        os.close(pidfd)
    if what == signal.SIGKILL:
        _finish(found)
    return 0


def _finish(found: Record) -> None:
    """After SIGKILL: those that don't die with the first one, for they share the host's pid namespace; and
    v1's freezer, which holds even the dead back."""
    if found.shares_pids:
        hierarchy.kill(found)
    elif status.is_frozen(found):
        with contextlib.suppress(Complaint):
            hierarchy.freeze(found, frozen=False)


def _signal_all(path: str, found: Record, what: int) -> None:
    """To every process of the control group; a container that stopped may have some left."""
    if what == signal.SIGKILL and found.cgroup:
        hierarchy.kill(found)
        return
    everyone = hierarchy.processes(found)
    if not everyone and status.look(path, found) == "stopped":
        raise Complaint("container not running")
    pinned: dict[int, int] = {}
    try:
        for pid in everyone:
            with contextlib.suppress(ProcessLookupError):
                pinned[pid] = os.pidfd_open(pid)
        # Asked again now that none of these numbers can be given away.
        for pid in set(hierarchy.processes(found)) & set(pinned):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pinned[pid], what)
    finally:
        for pidfd in pinned.values():
            os.close(pidfd)
