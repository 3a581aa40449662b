"""The children of the test process: who they are, and how to wait for those that a test has made.

waitpid(-1) would wait for the servers, too, that tests share and that live until the end.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

SERVERS: set[int] = set()
"""Processes that live longer than a test."""


def children() -> set[int]:
    """Pids of our children but for the servers, the dead that nobody has waited for included."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(status.parent.name))
    return found - SERVERS


def bury(within: float) -> None:
    """Wait for all of them, for so many seconds at most."""
    deadline = time.monotonic() + within
    while (left := children()) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if children():
            time.sleep(0.01)
