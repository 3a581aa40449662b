"""Signals by name or number, and how to send one to the right process."""

from __future__ import annotations

import os
import select
import signal

from orchestrator.oci import status
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.record import Record

_LAST = 64


def number(text: str) -> int:
    """TERM, SIGTERM, sigterm, 15, RTMIN+3 -> the number. Raises Complaint."""
    name = text.upper().removeprefix("SIG")
    if name.isascii() and name.isdigit():
        found = int(name) if len(name) <= 3 else 0
    elif name.startswith(("RTMIN+", "RTMAX-")) and name[6:].isdigit():
        found = (
            signal.SIGRTMIN + int(name[6:]) if name.startswith("RTMIN") else signal.SIGRTMAX - int(name[6:])
        )
    else:
        found = getattr(signal, f"SIG{name}", 0) if name.isalnum() else 0
    if not 0 < found <= _LAST:
        raise Complaint(f"unknown signal {text!r}")
    return int(found)


def pin(record: Record) -> int:
    """A pidfd of the container's first process. Raises Complaint when it no longer runs.

    It is checked while the descriptor holds it: its number can't be another's by then.
    """
    try:
        pidfd = os.pidfd_open(record.pid) if record.pid else -1
    except ProcessLookupError:
        pidfd = -1
    if pidfd < 0:
        raise Complaint("container not running")
    if not status.is_alive(record):
        os.close(pidfd)
        raise Complaint("container not running")
    return pidfd


def send(pidfd: int, what: int) -> None:
    """Signal the process behind a pidfd. Raises Complaint when it has ended."""
    try:
        signal.pidfd_send_signal(pidfd, what)
    except ProcessLookupError:
        raise Complaint("container not running") from None


def wait(pidfd: int, seconds: float) -> bool:
    """Whether the process ended within that time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
