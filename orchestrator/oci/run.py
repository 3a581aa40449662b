"""The command `run`: create, start, wait, delete."""

from __future__ import annotations

import _socket
import contextlib
import os

from orchestrator.oci import bundle, create, delete, descriptors, foreground, record, start
from orchestrator.oci.arguments import Call
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.record import Record
from orchestrator.oci.scope import Scope


def run(scope: Scope, call: Call) -> int:
    """Run a container; its exit code, or 0 at once with --detach."""
    asked = create.Asked.of(call)
    made = bundle.read(asked.bundle, asked.config)
    detached, terminal = bool(call.options.get("detach")), create.has_terminal(made)
    descriptors.check_console(terminal=terminal, path=asked.console_socket, detached=detached)
    # Set up before there is a process: nothing that is sent to us gets lost.
    front = None if detached else foreground.Foreground(terminal=terminal)
    console: _socket.socket | None = None
    try:
        if front:
            found = create.build(scope, asked, made, front.console)
        else:
            console = descriptors.connect(asked.console_socket) if asked.console_socket else None
            found = create.build(scope, asked, made, console.fileno() if console else -1)
        return _start(scope, found, front, keep=bool(call.options.get("keep")))
    finally:
        if console:
            console.close()
        if front:
            front.close()


def _start(scope: Scope, found: Record, front: foreground.Foreground | None, *, keep: bool) -> int:
    path = record.place(scope.root, found.id)
    try:
        start.go(scope, path)
    except BaseException:
        with contextlib.suppress(Complaint):
            _remove(scope, path)
        raise
    if not front:
        return 0
    code = front.follow(found.pid)
    if not keep:
        _remove(scope, path)
    return code


def _remove(scope: Scope, path: str) -> None:
    if not os.path.isdir(path):
        return
    with record.locked(path):
        found, config = record.read(path), record.config(path)
        delete.destroy(path, found)
    if config.get("hooks"):
        from orchestrator.oci import hooks

        hooks.run(scope, config, "poststop", found, "stopped")
