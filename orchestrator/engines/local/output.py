"""What containers print is read while they run, and to its end when they have ended."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from orchestrator.engines.local import logs
from orchestrator.engines.local.pump import Moving, Pump, make_fifo, open_fifo
from orchestrator.engines.local.readiness import rotation
from orchestrator.engines.local.shared import Shared
from orchestrator.engines.local.table import Changed, Live

OUTPUTS = ("stdout", "stderr")
"""The FIFOs of a container without a terminal, in its bundle."""


def follow(shared: Shared, live: Live, *, fresh: bool = False) -> None:
    """Read what it prints from now on; what a former run left unread comes first. `fresh`: a new run."""
    home = shared.places.bundle(live.container.id)
    if live.terminal is not None:
        os.set_blocking(live.terminal, False)
        sources = {b"stdout": os.dup(live.terminal)}
    else:
        sources = {name.encode(): outlet(live, home / name) for name in OUTPUTS}
    log = logs.LogFile(shared.places.log(live.container.stack, live.container.id), rotation(live.container))
    live.pump = Pump(
        sources,
        log,
        lambda: _grown(shared, live),
        None if live.terminal is not None else Moving(home / "moving", len(OUTPUTS)),
        shared.wiring.turns,
    )
    if fresh:
        log.close_lines()
    else:
        live.pump.settle()
    shared.nursery.start_soon(live.pump.run)


def outlet(live: Live, path: Path) -> int:
    """One of its FIFOs. Where somebody has deleted it by name, its first process still has it, if it has not
    led its output elsewhere (proc_pid_fd(5)). Raises OSError.
    """
    try:
        return open_fifo(path)
    except FileNotFoundError:
        run = live.container.run
        if run is None or not run.pid:
            raise
    fd = os.open(f"/proc/{run.pid}/fd/{OUTPUTS.index(path.name) + 1}", os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            make_fifo(path)
            return open_fifo(path)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(fd)


def _grown(shared: Shared, live: Live) -> None:
    if live.lines is not None:
        live.lines.grown()
    shared.table.feed.publish(Changed(kind="grown", container=live.container))


async def finish(live: Live) -> None:
    """What is left goes to the log; nobody writes any more."""
    pump, live.pump = live.pump, None
    if pump is not None:
        await pump.finish()
