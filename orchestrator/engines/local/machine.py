"""This machine under one state root: everything that its stacks share, and an Engine for each of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import trio

from orchestrator.engines.local import clock, ends, records, recovery
from orchestrator.engines.local.containers import THREADS, Containers
from orchestrator.engines.local.engine import LocalEngine
from orchestrator.engines.local.execs import PREFIX, Execs, Execution
from orchestrator.engines.local.hostfiles import HostFiles
from orchestrator.engines.local.keeper import Exited, Keeper, KeeperLost, connect
from orchestrator.engines.local.mending import Mending
from orchestrator.engines.local.outside import Outside, open_outside
from orchestrator.engines.local.places import Places
from orchestrator.engines.local.pulls import Pulls
from orchestrator.engines.local.records import Boot
from orchestrator.engines.local.refusals import Rights, refusals
from orchestrator.engines.local.room import Shortage, demand, shortages
from orchestrator.engines.local.shared import Shared
from orchestrator.engines.local.table import Live, Table
from orchestrator.engines.local.trouble import report
from orchestrator.engines.local.watching import Watching
from orchestrator.engines.local.wiring import Wiring
from orchestrator.images.store.content import Store
from orchestrator.kernel import ceilings, cgroups, pins
from orchestrator.model.errors import EngineError
from orchestrator.model.observation import State
from orchestrator.model.stack import Service, Stack

KEEPERS = 3
"""So many are tried at the start."""
KEEPER_SECONDS = 1.0
"""Until the next try to get a keeper."""


class Machine:
    """Use `open_machine`. All methods belong to the trio thread."""

    def __init__(self, shared: Shared, execs: Execs, respawn: tuple[str, ...]) -> None:
        self.shared = shared
        self.places = shared.places
        self.table = shared.table
        self.store = shared.store
        self.containers = Containers(shared)
        self.mending = Mending(shared, self.containers.gathering, self._lend_later)
        self.execs = execs
        self._respawn = respawn
        self.pulls = Pulls(str(shared.places.images), shared.nursery)
        self._engines: dict[str, LocalEngine] = {}
        self._leaving = False
        self._advice = ""
        self._advised: set[str] = set()

    def _lend_later(self, live: Live) -> None:
        async def lend() -> None:
            try:
                await self.containers.lend(live)
            except (EngineError, OSError) as error:  # the next keeper is lent it with the rest
                report(error)

        self.shared.nursery.start_soon(lend)

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
            stack,
            self.table,
            self.containers,
            self.shared.wiring,
            self.execs,
            self.store,
            self.places,
            self.pulls,
        )

    def look(self, desired: Stack, pins: Iterable[str] = ()) -> LocalEngine:
        """An engine to observe what matters to `desired`, whatever the stack's own engine watches."""
        engine = self._new_engine(desired.name)
        engine.watch(desired, pins)
        return engine

    def give_stdin(self, stack: str, service: str, fds: list[int]) -> None:
        """What the next run of the service's container reads; none: /dev/null. The fds stay the caller's."""
        self.containers.stdin.pop((stack, service), None)
        if fds:
            self.containers.stdin[stack, service] = fds[0]

    def refusals(self, services: Iterable[Service]) -> list[str]:
        """What an ordinary user's services ask for in vain. Root's are asked nothing here."""
        if not self.shared.wiring.outside.is_elsewhere:
            return []
        first_port, self._advice = self.shared.wiring.outside.look()
        score = int(Path("/proc/self/oom_score_adj").read_text())
        rights = Rights(hierarchies=self.shared.hierarchies, first_port=first_port, score=score)
        return refusals(services, rights)

    def shortages(self, stack: Stack, services: Iterable[str]) -> list[Shortage]:
        """What this machine has too little of for all containers of `services`."""
        hierarchies = self.shared.hierarchies
        groups = [f"{base}/{self.places.cgroup}" for base in hierarchies.bases]
        groups += ceilings.own_groups(hierarchies.v1.get("pids"))
        containers = (live.container for live in self.table.containers.values())
        asked = demand(stack, services, containers, self.table.networks)
        return shortages(stack, asked, ceilings.look(groups), self.table.networks)

    def advice(self) -> str:
        """What the user should know once about what their stacks can do here; "" when there is nothing."""
        advice, self._advice = self._advice, ""
        if advice in self._advised:
            return ""
        self._advised.add(advice)
        return advice

    def was_restarted(self) -> bool:
        """Whether a supervisor was here last in an earlier life of the machine."""
        last = records.read_or_none(self.places.boot, Boot)
        if last is None:
            self.note_boot(durable=False)
        return last is not None and last.id != clock.boot_id()

    def note_boot(self, *, durable: bool = True) -> None:
        """From now on this life of the machine is known."""
        try:
            records.write(self.places.boot, Boot(id=clock.boot_id()), durable=durable)
        except OSError as error:
            report(error)

    def note_shutdown(self) -> None:
        """We are told to go, and with us perhaps the machine. Taken back by who comes next in its life."""
        try:
            records.write(self.places.shutdown, Boot(id=clock.boot_id()), durable=True)
        except OSError as error:
            report(error)

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
            self._watch_executions()
            try:
                await self._replace_keeper()
            except EngineError as error:
                report(error)
                await trio.sleep(KEEPER_SECONDS)

    async def _replace_keeper(self) -> None:
        keeper = await connect(self.places, self.on_exit)
        self.shared.nursery.start_soon(keeper.serve)
        self._use(keeper)
        await keeper.hello(self._respawn, respawn_environment())
        self.adopt(keeper)
        for live in list(self.table.containers.values()):
            if live.kept:
                await self.containers.lend(live)
            if live.terminal is not None:
                await keeper.store(f"terminal:{live.container.id}", [live.terminal])

    def _use(self, keeper: Keeper) -> None:
        self.shared.wiring.keeper = keeper
        self.execs.keeper = keeper
        self.containers.keeper = keeper

    def adopt(self, keeper: Keeper) -> None:
        """Use `keeper` from now on; containers that are not its children are watched by pidfd."""
        self._use(keeper)
        for live in self.table.containers.values():
            if live.container.state is State.RUNNING and live.container.id not in keeper.runs:
                self.shared.nursery.start_soon(self.watch, live)

    def is_awaited(self, pid: int) -> bool:
        """Whether the end of a process is somebody's business here."""
        runs = (live.container.run for live in self.table.containers.values())
        return any(run and run.pid == pid for run in runs) or any(
            execution.pid == pid for execution in self.execs.running()
        )

    def _watch_executions(self) -> None:
        """Nobody tells us any more how what the dead keeper had started ends."""
        for execution in self.execs.running():
            if execution.pidfd is None:
                continue  # not begun: its successor is asked
            self.shared.nursery.start_soon(self._watch_execution, execution)

    async def _watch_execution(self, execution: Execution) -> None:
        code: int | None = None
        if execution.pidfd is not None:
            code = await ends.end_of(execution.pidfd, execution.pid)
        self.execs.exited(Exited(id=execution.id, exit_code=255 if code is None else code, at=clock.now()))

    async def watch(self, live: Live) -> None:
        """Wait for the end of a process that is nobody's child of ours."""
        run, pidfd = live.container.run, live.pidfd
        if run is None or pidfd is None:
            return
        code = await ends.end_of(pidfd, run.pid)
        if live.container.run is not None and live.container.run.started == run.started:
            self.containers.exited(Exited(id=live.container.id, exit_code=code, at=clock.now()))

    # --- the end -----------------------------------------------------------------------------------

    async def clear(self) -> None:
        """Nothing is left to look after: take away what stacks share, and dismiss the keeper. What can't be
        taken away is said, and does not keep us here."""
        self._leaving = True
        for take_away in (self._clear_network, self._clear_cgroups, self._dismiss_keeper):
            try:
                await take_away()
            except (EngineError, cgroups.CgroupError) as error:
                report(error)
        self.shared.wiring.close()
        self.shared.wiring.outside.leave()
        self._sweep()

    async def _clear_network(self) -> None:
        await self.shared.wiring.clear()

    async def _clear_cgroups(self) -> None:
        cgroups.remove_root(self.shared.hierarchies, self.places.tag)

    async def _dismiss_keeper(self) -> None:
        keeper = self.keeper
        await keeper.goodbye()
        with trio.move_on_after(2):
            await keeper.lost.wait()

    def _sweep(self) -> None:
        """The run directory as it was before us; what somebody else has put there stays."""
        for bundle in self.places.bundles.glob("*"):
            pins.unpin(str(bundle))
        for name in ("networks", "containers"):
            shutil.rmtree(self.places.run / name, ignore_errors=True)
        for name in ("keeper.log", "keeper.lock", "keeper.sock", "supervisor.log", "supervisor.lock"):
            (self.places.run / name).unlink(missing_ok=True)
        for directory in (self.places.run, self.places.stacks):
            with contextlib.suppress(OSError):
                directory.rmdir()


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

    keeper = await _greet(places, on_exit, nursery)
    # No pause until `machine` is there: an exit that is told now would be told to nobody.
    hierarchies = cgroups.detect()
    with contextlib.suppress(cgroups.CgroupError):  # a limit that is asked for will say it
        cgroups.settle(hierarchies)
    shared = Shared(
        places=places,
        table=table,
        store=Store(places.images),
        hierarchies=hierarchies,
        wiring=Wiring(places, table, keeper, nursery, _open_outside(places)),
        nursery=nursery,
        files=HostFiles(table),
        threads=trio.CapacityLimiter(THREADS),
        watching=_watch(hierarchies, places),
    )
    machine = Machine(shared, Execs(keeper, places), respawn_command(places))
    await recovery.recover(machine.containers, shared, keeper)
    machine.adopt(keeper)
    nursery.start_soon(machine.keep_keeper)
    nursery.start_soon(machine.mending.run)
    nursery.start_soon(machine.containers.ooms.run)
    nursery.start_soon(machine.containers.files.run)
    if ends.adopt_orphans():
        nursery.start_soon(ends.bury, machine.is_awaited)
    return machine


def _watch(hierarchies: cgroups.Hierarchies, places: Places) -> Watching:
    try:
        return Watching(hierarchies, places)
    except OSError as error:
        raise EngineError(
            f"can't watch files: {error.strerror}", hint="fs.inotify.max_user_instances may be used up"
        ) from error


def _open_outside(places: Places) -> Outside:
    try:
        return open_outside(places)
    except OSError as error:
        raise EngineError(
            f"the porter process, which reaches the host's network for us, is not there: {error.strerror}",
            hint="say the command again, which starts another",
        ) from error


async def _greet(places: Places, on_exit: Callable[[Exited], None], nursery: trio.Nursery) -> Keeper:
    """A keeper that has answered. One that dies just then is followed by another."""
    for _ in range(KEEPERS):
        keeper = await connect(places, on_exit)
        nursery.start_soon(keeper.serve)
        with contextlib.suppress(KeeperLost):
            await keeper.hello(respawn_command(places), respawn_environment())
            return keeper
    raise EngineError(f"no keeper stays; see {places.run / 'keeper.log'}")
