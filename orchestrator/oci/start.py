"""The command `start`."""

from __future__ import annotations

import contextlib
import json
import os
import select

from orchestrator.oci import delete, record, status
from orchestrator.oci.arguments import Call
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.record import Record
from orchestrator.oci.scope import Scope

_REFUSALS = {
    "creating": "cannot start a container that is still being created",
    "running": "cannot start an already running container",
    "paused": "cannot start an already running container",
    "stopped": "cannot start a container that has stopped",
}


def start(scope: Scope, call: Call) -> int:
    """Let a created container run its program."""
    go(scope, record.place(scope.root, call.words[0]))
    return 0


def go(scope: Scope, path: str) -> Record:
    """Start the container at `path`; returns when its program runs. Raises Complaint."""
    with record.locked(path):
        found = record.read(path)
        what = status.look(path, found)
        if what in _REFUSALS:
            raise Complaint(_REFUSALS[what])
        config = record.config(path)
        try:
            _release(path)
        except _HookFailedError as error:
            # runtime.md, "Lifecycle": stop the container and go on with its destruction.
            delete.destroy(path, found)
            failed: Complaint | None = error
        else:
            failed = None
    # Not under the lock: hooks may use us.
    if config.get("hooks"):
        from orchestrator.oci import hooks

        hooks.run(
            scope, config, "poststop" if failed else "poststart", found, "stopped" if failed else "running"
        )
    if failed:
        raise failed
    return found


class _HookFailedError(Complaint):
    """A startContainer hook failed."""


def _release(path: str) -> None:
    """Wake the process that waits at the FIFO, and hear what became of it. Raises Complaint.

    The name goes first: whatever kills us now, the container counts as started and goes on, for a writer that
    came and left wakes it too.
    """
    fifo = f"{path}/{status.FIFO}"
    try:
        fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Complaint(f"cannot start a container that has stopped ({error.strerror})") from None
    try:
        os.unlink(fifo)
        with contextlib.suppress(BrokenPipeError):
            os.write(fd, b"0")
        # The other end is close-on-exec: it vanishes with execve or with the process, POLLERR says (poll(2)).
        poll = select.poll()
        poll.register(fd, 0)
        poll.poll()
    finally:
        os.close(fd)
    _raise_failure(f"{fifo}.error")


def _raise_failure(path: str) -> None:
    """What the process wrote before it gave up, if it did."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 16)
        os.unlink(path)
    except FileNotFoundError:
        return
    if not text:
        return
    try:
        told = json.loads(text)
        step, message = str(told.get("step") or ""), str(told.get("message") or "")
    except (ValueError, AttributeError):
        step, message = "", text
    if "hook" in step.lower():
        raise _HookFailedError(f"{step}: {message}")
    raise Complaint(f"unable to start container process: {message}")
