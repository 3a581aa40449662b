"""This machine under one state root: everything that its stacks share, and an Engine for each of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import trio

from orchestrator.engines.local import clock, recovery
from orchestrator.engines.local.containers import THREADS, Containers, Shared
from orchestrator.engines.local.engine import LocalEngine
from orchestrator.engines.local.execs import PREFIX, Execs
from orchestrator.engines.local.keeper import Exited, Keeper, KeeperLost, connect
from orchestrator.engines.local.places import Places
from orchestrator.engines.local.table import Live, Table
from orchestrator.engines.local.wiring import Wiring
from orchestrator.images.store import Store
from orchestrator.kernel import cgroups, syscalls
from orchestrator.model.observation import State
from orchestrator.model.stack import Stack


class Machine:
    """Use `open_machine`. All methods belong to the trio thread."""

    def __init__(self, shared: Shared, execs: Execs, respawn: tuple[str, ...]) -> None:
        self.shared = shared
        self.places = shared.places
        self.table = shared.table
        self.store = shared.store
        self.containers = Containers(shared)
        self.execs = execs
        self._respawn = respawn
        self._engines: dict[str, LocalEngine] = {}
        self._leaving = False

    @property
    def keeper(self) -> Keeper:
        return self.shared.wiring.keeper

    def engine(self, stack: str) -> LocalEngine:
        """The engine port for one stack."""
        if stack not in self._engines:
            self._engines[stack] = self._new_engine(stack)
        return self._engines[stack]

    def _new_engine(self, stack: str) -> LocalEngine:
        return LocalEngine(
            stack, self.table, self.containers, self.shared.wiring, self.execs, self.store, self.places
        )

    def look(self, desired: Stack) -> LocalEngine:
        """An engine to observe what matters to `desired`, whatever the stack's own engine watches."""
        engine = self._new_engine(desired.name)
        engine.watch(desired)
        return engine

    def give_stdin(self, stack: str, service: str, fds: list[int]) -> None:
        """What the next run of the service's container reads; none: /dev/null. The fds stay the caller's."""
        self.containers.stdin.pop((stack, service), None)
        if fds:
            self.containers.stdin[stack, service] = fds[0]

    def forget(self, stack: str) -> None:
        """A stack of which nothing is left."""
        self._engines.pop(stack, None)
        for directory in (self.places.stack(stack) / "containers", self.places.stack(stack)):
            with contextlib.suppress(OSError):
                directory.rmdir()

    # --- what the keeper tells ---------------------------------------------------------------------

    def on_exit(self, exited: Exited) -> None:
        if exited.id.startswith(PREFIX):
            self.execs.exited(exited)
        else:
            self.containers.exited(exited)

    async def keep_keeper(self) -> None:
        """Replace a keeper that has died. Containers don't notice: we hold pidfds and sockets of them all."""
        while True:
            await self.keeper.lost.wait()
            if self._leaving:
                return
            self.execs.lose()
            keeper = await connect(self.places, self.on_exit)
            self.shared.nursery.start_soon(keeper.serve)
            await keeper.hello(self._respawn, respawn_environment())
            self.adopt(keeper)
            for live in self.table.containers.values():
                if live.wires is not None:
                    await keeper.store(
                        f"wires:{live.container.id}", [live.wires.namespace, *live.wires.resolver]
                    )

    def adopt(self, keeper: Keeper) -> None:
        """Use `keeper` from now on; containers that are not its children are watched by pidfd."""
        self.shared.wiring.keeper = keeper
        self.execs.keeper = keeper
        self.containers.keeper = keeper
        for live in self.table.containers.values():
            if live.container.state is State.RUNNING and live.container.id not in keeper.runs:
                self.shared.nursery.start_soon(self.watch, live)

    async def watch(self, live: Live) -> None:
        """Wait for the end of a process that is nobody's child of ours (pidfd_open(2): readable at exit)."""
        run, pidfd = live.container.run, live.pidfd
        if run is None or pidfd is None:
            return
        own = os.dup(pidfd)
        try:
            await trio.lowlevel.wait_readable(own)
            status = await _exit_status(own, run.pid)
        finally:
            trio.lowlevel.notify_closing(own)
            os.close(own)
        if live.pidfd == pidfd:
            code = os.waitstatus_to_exitcode(status) if status is not None else 255
            code = 128 - code if code < 0 else code
            self.containers.exited(Exited(id=live.container.id, exit_code=code, at=clock.now()))

    # --- the end -----------------------------------------------------------------------------------

    async def clear(self) -> None:
        """Nothing is left to look after: take away what stacks share, and dismiss the keeper."""
        await self.shared.wiring.clear()
        with contextlib.suppress(cgroups.CgroupError):
            cgroups.remove_root(self.shared.hierarchies, self.places.tag)
        self._leaving = True
        keeper = self.keeper
        with contextlib.suppress(KeeperLost):
            await keeper.goodbye()
        with trio.move_on_after(2):
            await keeper.lost.wait()
        self._sweep()

    def _sweep(self) -> None:
        """The run directory as it was before us; what somebody else has put there stays."""
        for name in ("seccomp", "networks", "containers"):
            shutil.rmtree(self.places.run / name, ignore_errors=True)
        for name in ("keeper.log", "keeper.lock", "keeper.sock", "supervisor.log", "supervisor.lock"):
            (self.places.run / name).unlink(missing_ok=True)
        for directory in (self.places.run, self.places.stacks):
            with contextlib.suppress(OSError):
                directory.rmdir()


async def _exit_status(pidfd: int, pid: int) -> int | None:
    """The wait status of a dead process that is not our child; None when it is lost (kernels before 6.15).

    While it is a zombie its status stands in /proc, afterwards the pidfd has it.
    """
    for _ in range(100):
        status = _zombie_status(pid)
        if status is not None and _is_there(pidfd):
            return status
        status = syscalls.pidfd_exit_status(pidfd)
        if status is not None:
            return status
        await trio.sleep(0.02)
    return None


def _zombie_status(pid: int) -> int | None:
    """Field 52 of /proc/PID/stat (proc_pid_stat(5)) of a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[49]) if fields[0] == "Z" else None


def _is_there(pidfd: int) -> bool:
    """Whether the pid still belongs to the process of the pidfd: signal 0 reaches zombies, too."""
    try:
        syscalls.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    return True


def respawn_environment() -> Mapping[str, str]:
    kept = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "HOME")
    return {name: os.environ[name] for name in kept if name in os.environ}


def respawn_command(places: Places) -> tuple[str, ...]:
    """How the keeper starts a supervisor that has died."""
    return (sys.executable, "-m", "orchestrator.daemon", "--run", str(places.run), "--data", str(places.data))


async def open_machine(places: Places, nursery: trio.Nursery) -> Machine:
    """Connect to the keeper (starting it), and find again everything that is there.

    Tasks that serve the machine run in `nursery`. Raises EngineError.
    """
    table = Table()
    machine: Machine | None = None

    def on_exit(exited: Exited) -> None:
        if machine is not None:
            machine.on_exit(exited)

    keeper = await connect(places, on_exit)
    nursery.start_soon(keeper.serve)
    shared = Shared(
        places=places,
        table=table,
        store=Store(places.images),
        hierarchies=cgroups.detect(),
        wiring=Wiring(places, table, keeper, nursery),
        nursery=nursery,
        threads=trio.CapacityLimiter(THREADS),
    )
    machine = Machine(shared, Execs(keeper, places), respawn_command(places))
    await keeper.hello(respawn_command(places), respawn_environment())
    await recovery.recover(machine.containers, shared, keeper)
    machine.adopt(keeper)
    nursery.start_soon(machine.keep_keeper)
    return machine
