"""Workers to be had: starts the process that forks them, and gives a socket to each (see worker).

It is started early, for it imports for 80 ms; what it forks is there in one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

from orchestrator.images.layers.inflate import LIBRARIES
from orchestrator.model.errors import EngineError

_BOOT = (
    "import sys; sys.path += sys.argv[1:]; "
    "from orchestrator.images.layers.worker import main; sys.exit(main())"
)
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])


class Workers:
    """A context: leaving it kills every worker that is still at work."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs:
            # A group of its own: Ctrl-C is for us to hear, and the group is what we kill.
            self._process = subprocess.Popen(
                command(),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                process_group=0,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def begin(self) -> socket.socket:
        """A worker's socket: write one order to it, read lines until the end.

        Closing it, or its writing half, kills the worker; the end comes when it is dead. Raises EngineError.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                with self._lock:
                    socket.send_fds(self._control, [b"."], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise EngineError(f"the unpacking worker is gone: {error.strerror}") from error
        return ours


def command() -> list[str]:
    """Without site packages, of which it gets what decompresses."""
    return [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, *dict.fromkeys((_PACKAGE_ROOT, *_homes()))]


def _homes() -> list[str]:
    """The directories that hold the libraries."""
    found = (importlib.util.find_spec(name) for name in LIBRARIES)
    return [
        os.path.dirname(os.path.dirname(spec.origin)) for spec in found if spec is not None and spec.origin
    ]
