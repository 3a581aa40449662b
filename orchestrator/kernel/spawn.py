"""Starts the keeper. Standard library alone: the supervisor does it before it loads anything else, so that
the two are ready at the same time."""

from __future__ import annotations

import os
import sys


def spawn_keeper(run: str) -> int:
    """Start the keeper of a run directory in a session of its own; one that finds another there leaves.

    Returns its pid. Raises OSError when the directory is not there.
    """
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "keeper.py")
    quiet = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1)]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    log = (os.POSIX_SPAWN_OPEN, 2, os.path.join(run, "keeper.log"), flags, 0o600)
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", program, run],
        {"PATH": os.defpath, "LANG": "C.UTF-8"},
        file_actions=[*quiet, log],
        setsid=True,
    )


def has_keeper(run: str) -> bool:
    """Whether a keeper seems to be there; one that was killed leaves its socket behind."""
    return os.path.exists(os.path.join(run, "keeper.sock"))
