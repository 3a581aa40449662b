"""The command `delete`, and how a container is taken away."""

from __future__ import annotations

import contextlib
import os
import signal

from orchestrator.oci import hierarchy, record, signals, status
from orchestrator.oci.arguments import Call
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.record import Record
from orchestrator.oci.scope import Scope

_PATIENCE = 10.0  # seconds from SIGKILL to the end


def delete(scope: Scope, call: Call) -> int:
    """Take a container away. One that isn't stopped is refused, or with --force killed."""
    name, force = call.words[0], bool(call.options.get("force"))
    path = record.place(scope.root, name)
    if not os.path.isdir(path):
        if force:
            return 0
        raise Complaint("container does not exist")
    with record.locked(path):
        try:
            found = record.read(path)
            config = record.config(path)
        except Complaint:
            # A `create` that was killed before it had made anything, or a damaged record.
            if not force:
                raise
            record.remove(path)
            return 0
        what = status.look(path, found) if found.pid else "stopped"
        if what != "stopped" and not force:
            raise Complaint(f"cannot delete container {name} that is not stopped: {what}")
        destroy(path, found)
    if config.get("hooks"):
        from orchestrator.oci import hooks

        hooks.run(scope, config, "poststop", found, "stopped")
    return 0


def destroy(path: str, found: Record) -> None:
    """Kill what is left of a container, take its control groups and its directory away. Raises Complaint."""
    _end(found)
    if found.cgroup:
        hierarchy.remove(found.made, found.cgroup)
    if found.shares_mounts:
        # Its mounts are in our own mount namespace. Seldom, so what it takes is loaded for it alone.
        from orchestrator.kernel import create
        from orchestrator.kernel.reading import Document

        create.release(Document(record.config(path)), found.bundle)
    record.remove(path)


def _end(found: Record) -> None:
    """Kill the first process, which may be ending of itself, and whoever is in the groups."""
    try:
        pidfd = signals.pin(found)
    except Complaint:  # it has ended
        hierarchy.kill(found)
        return
    try:
        with contextlib.suppress(Complaint):  # just now
            signals.send(pidfd, signal.SIGKILL)
        hierarchy.kill(found)
        if not signals.wait(pidfd, _PATIENCE):
            raise Complaint(f"process {found.pid} of container {found.id} does not end")
    finally:
        os.close(pidfd)
