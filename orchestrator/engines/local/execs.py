"""Further processes in a running container: for `exec`, and for health checks.

The process gets the caller's descriptors themselves, so no byte of its input or output passes through us.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from orchestrator.engines.local.keeper import START_SECONDS, Exited, Keeper, KeeperLost, Started
from orchestrator.engines.local.places import Places
from orchestrator.engines.local.table import Live
from orchestrator.kernel import syscalls
from orchestrator.model.errors import EngineError

PREFIX = "exec-"
KEEPER_SECONDS = START_SECONDS
"""How long a successor of a dead keeper is waited for: as long as a keeper may take to start."""


@dataclass(slots=True)
class Execution:
    """One such process. `terminal` is the caller's to close."""

    id: str
    pid: int = 0
    pidfd: int | None = None
    terminal: int | None = None
    exit_code: int | None = None
    ended: trio.Event = field(default_factory=trio.Event)

    async def wait(self) -> int:
        await self.ended.wait()
        return 255 if self.exit_code is None else self.exit_code

    def signal(self, number: int) -> None:
        """To the process; a process that has ended is not an error."""
        if self.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                syscalls.pidfd_send_signal(self.pidfd, number)

    def kill(self) -> None:
        """SIGKILL to its whole session: what it has started ends with it."""
        if self.pidfd is None or self.ended.is_set():
            return
        # Stopped first, so that it can't fork while we look for those that it has started.
        self.signal(signal.SIGSTOP)
        for pid in _session(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.signal(signal.SIGKILL)


def _session(leader: int) -> list[int]:
    """The processes of a session but its leader (field 6 of proc_pid_stat(5)), wherever it has spread to."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != leader:
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader:
                found.append(int(name))
    return found


class Execs:
    """All executions under way. The keeper tells of their ends through `exited`."""

    def __init__(self, keeper: Keeper, places: Places) -> None:
        self.keeper = keeper
        self._places = places
        self._numbers = itertools.count(1)
        self._running: dict[str, Execution] = {}

    async def begin(self, live: Live, process: Mapping[str, Any], stdio: Sequence[int]) -> Execution:
        """Start a process. Raises EngineError: not running, command not found (127), not executable (126)."""
        run = live.container.run
        if run is None or run.finished is not None or live.pidfd is None:
            raise EngineError(f"container {live.container.name} is not running", retryable=False)
        if run.paused:
            raise EngineError(
                f"container {live.container.name} is paused", retryable=False, hint="`pystack unpause` first"
            )
        execution = Execution(id=f"{PREFIX}{os.getpid()}-{next(self._numbers)}")
        self._running[execution.id] = execution
        try:
            started = await self._execute(execution.id, live, process, stdio)
        except BaseException:
            self._running.pop(execution.id, None)
            raise
        execution.pid, execution.pidfd = started.pid, started.pidfd
        execution.terminal = started.terminal
        if execution.ended.is_set():
            self._close(execution)
        return execution

    async def _execute(
        self, exec_id: str, live: Live, process: Mapping[str, Any], stdio: Sequence[int]
    ) -> Started:
        """When the keeper has just died, its successor is asked; but nothing is begun twice."""
        deadline = trio.current_time() + KEEPER_SECONDS
        while True:
            keeper = self.keeper
            try:
                return await keeper.execute(exec_id, self._places.bundle(live.container.id), process, stdio)
            except KeeperLost as error:
                if error.heard or trio.current_time() >= deadline:
                    raise
            with trio.move_on_at(deadline):
                while self.keeper is keeper:  # noqa: ASYNC110 (there is a new one within some 50 ms)
                    await trio.sleep(0.01)

    def running(self) -> list[Execution]:
        return list(self._running.values())

    def exited(self, exited: Exited) -> None:
        execution = self._running.pop(exited.id, None)
        if execution is not None:
            execution.exit_code = exited.exit_code
            execution.ended.set()
            self._close(execution)

    @staticmethod
    def _close(execution: Execution) -> None:
        if execution.pidfd is not None:
            os.close(execution.pidfd)
            execution.pidfd = None
