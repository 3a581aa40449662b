"""Create, start, signal and remove containers; and what happens when one exits.

The order of steps is the order of records: what is about to be true is written down before it is made true,
so that a supervisor killed at any point finds in the records what it must look for in the kernel.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import trio

from orchestrator.engines.local import alive, bundle, clock, creating, lending, output, records, storage
from orchestrator.engines.local.gathering import Gathering, handled
from orchestrator.engines.local.ground import look_up
from orchestrator.engines.local.joining import joined, network_owner
from orchestrator.engines.local.keeper import AlreadyRunsError, Exited, KeeperLost, Started
from orchestrator.engines.local.ooms import Ooms
from orchestrator.engines.local.output import OUTPUTS
from orchestrator.engines.local.pump import make_fifo
from orchestrator.engines.local.readiness import Readiness
from orchestrator.engines.local.records import RunRecord
from orchestrator.engines.local.shared import Shared
from orchestrator.engines.local.swapping import swap_files
from orchestrator.engines.local.table import Changed, Live
from orchestrator.engines.local.trouble import of_file, report
from orchestrator.engines.local.turns import Lanes
from orchestrator.kernel import cgroups, pins, syscalls
from orchestrator.model import health
from orchestrator.model.action import (
    CreateContainer,
    RemoveContainer,
    SignalContainer,
    StartContainer,
    SwapFiles,
)
from orchestrator.model.errors import EngineError
from orchestrator.model.frozen import replace
from orchestrator.model.observation import Container, Health, ProbeResult, Run, State, Stopping
from orchestrator.model.stack import Healthcheck

T = TypeVar("T")
THREADS = 2
ABANDON_SECONDS = 2.0
"""How long the end of processes that may or may not have been started is waited for."""


class Containers:
    """The life of containers. One task at a time acts on one container (the loop's busy book)."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._places = shared.places
        self._table = shared.table
        self.keeper = shared.wiring.keeper
        self._lanes = Lanes()
        self.ooms = Ooms(shared, self.note_run)
        self.gathering = Gathering(shared)
        self.watching = shared.watching
        self.readiness = Readiness(shared, self.note_run)
        self.files = shared.files
        self.stdin: dict[tuple[str, str], int] = {}
        """(stack, service) -> what a one-off reads, while its client is there."""

    async def create(self, action: CreateContainer) -> None:
        await creating.create(self._shared, action)

    # --- start -------------------------------------------------------------------------------------

    async def start(self, action: StartContainer) -> None:
        live = self._live(action.id)
        before = live.container.run
        if live.container.state is State.RUNNING:
            return
        if before is not None:
            await live.finished.wait()  # its output, its ports and whoever it left behind come first
        await lending.returned(live)
        live.finished, live.early = trio.Event(), None
        try:
            async with self._lanes.of(live.container.stack):
                # Not before its lane is free: a wait that counts as running would begin the back-off anew.
                run = Run(
                    turn=action.turn,
                    started=clock.now(),
                    attempt=action.attempt,
                    restarts=action.restarts,
                    health=Health() if live.container.healthcheck else None,
                )
                await self._prepare(live, run, action.peers)
                self._expect_line(live)
                await self._shared.wiring.publish(live)
                if not live.container.definition.tty:
                    # Before the process: what it writes is gone with it unless somebody holds the FIFOs.
                    output.follow(self._shared, live, fresh=True)
                started = await self._begin(live, run, action.peers)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._undo(live, before)
            raise
        live.pidfd, live.terminal = started.pidfd, started.terminal
        # The record is not written again for the pid: the keeper has put it into pid.json.
        self._table.update(live, replace(run, pid=started.pid))
        self.watch(live)
        self.gathering.accept(live)
        self.readiness.follow(live)
        if live.terminal is not None:
            output.follow(self._shared, live, fresh=True)
            with contextlib.suppress(KeeperLost):  # the next keeper is lent it with the rest
                await self.keeper.store(f"terminal:{action.id}", [live.terminal])
        self._table.ring()
        self._table.feed.publish(Changed(kind="container", container=live.container))
        self._catch_up(live)

    def watch(self, live: Live) -> None:
        """Hear of it when its memory is used up, and when somebody changes what it runs on."""
        self.ooms.watch(live)
        self.watching.follow_run(live)

    def _expect_line(self, live: Live) -> None:
        try:
            self.readiness.expect(live)
        except OSError as error:
            raise of_file(error, f"container {live.container.name}") from error

    def _catch_up(self, live: Live) -> None:
        """It may have ended before its start was known here: then its exit has found no run."""
        found = records.exit_of(self._places.bundle(live.container.id))
        if live.early is not None:
            self.exited(live.early)
        elif found is not None:
            self.exited(Exited(id=live.container.id, exit_code=found[0], at=found[1]))

    async def _begin(self, live: Live, run: Run, peers: Mapping[str, str]) -> Started:
        """The process itself. A program that can't be run has had its run, which `ps` and the planner see."""
        container_id = live.container.id
        found = joined(self._table, live, peers)
        stdin = self.stdin.get((live.container.stack, live.container.service))
        if stdin is not None:
            found["stdin"] = stdin
        try:
            with contextlib.nullcontext() if live.kept else self._held(live) as held:
                keep = None if held is None else (_held_key(live), held)
                started = await self.keeper.start(
                    container_id, self._places.bundle(container_id), found, keep
                )
            live.kept = True
            return started
        except (KeeperLost, AlreadyRunsError):
            # Nobody knows how far it came. What may run all the same ends, and is begun anew.
            await self._abandon(live)
            raise
        except EngineError as error:
            if not error.retryable:
                await self._failed_start(live, run, error)
            raise

    async def _abandon(self, live: Live) -> None:
        hierarchies, group = self._shared.hierarchies, self.cgroup(live.container)
        with trio.move_on_after(ABANDON_SECONDS), contextlib.suppress(cgroups.CgroupError):
            while True:
                cgroups.kill(hierarchies, group)
                left = cgroups.populated(hierarchies, group)
                if hierarchies.mode == "none":
                    left = alive.kill(self._places.bundle(live.container.id))
                if not left:
                    return
                await trio.sleep(0.01)

    async def _undo(self, live: Live, before: Run | None) -> None:
        """A start that came to nothing: its run never was, unless it was written down as failed."""
        if live.container.run is not before:
            return
        await output.finish(live)
        self._shared.wiring.release(live)
        try:
            if before is not None:
                self.write_run(live.container, before)
            else:
                (self._places.bundle(live.container.id) / "run.json").unlink(missing_ok=True)
        except EngineError as error:
            report(error)
        live.finished.set()

    async def _prepare(self, live: Live, run: Run, peers: Mapping[str, str]) -> None:
        peer = network_owner(self._table, live.container, peers)
        await self._release(live)
        await self._shared.in_thread(functools.partial(self._lay_out, live, run, peer, peers))
        self._shared.wiring.serve_names(live)

    async def _release(self, live: Live) -> None:
        """Another runtime forgets its last run. If it can't: its records go with the bundle all the same."""
        home = self._places.bundle(live.container.id)
        if (home / "runtime" / home.name).is_dir():
            try:
                await self.keeper.release(home.name, home)
            except EngineError as error:
                report(error)

    async def keep(self, live: Live) -> None:
        """Lend the keeper what must outlive us, and serve the container's names. Repeatable."""
        if not live.kept:
            await self.lend(live)
            live.kept = True
            self._shared.wiring.serve_names(live)

    async def lend(self, live: Live) -> None:
        """Store what `keep` is about with the keeper. A start brings it along, which spares a request."""
        with self._held(live) as held:
            await self.keeper.store(_held_key(live), held)

    @contextlib.contextmanager
    def _held(self, live: Live) -> Iterator[list[int]]:
        """Its FIFOs (what stands in one that nobody holds is gone), its network and its names."""
        home, wires = self._places.bundle(live.container.id), live.wires
        fifos: list[int] = []
        try:
            fifos.extend(output.outlet(live, home / name) for name in OUTPUTS)
            yield [*fifos, *((wires.namespace, *wires.resolver) if wires else ())]
        finally:
            for fd in fifos:
                os.close(fd)

    def _lay_out(self, live: Live, run: Run, peer: Live | None, peers: Mapping[str, str]) -> None:
        """Everything on disk and in the kernel that must be there before the process (in a thread)."""
        container, places = live.container, self._places
        home = places.bundle(container.id)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if live.container.run is not None:
            pins.unpin(str(home))
            for name in ("exit.json", "pid.json"):
                (home / name).unlink(missing_ok=True)
        self.write_run(container, run)
        for name in OUTPUTS:
            make_fifo(home / name)
        if container.definition.stdin_open and not container.definition.tty:
            make_fifo(home / "stdin")
        self._shared.wiring.connect(live)
        group = self.cgroup(container)
        shares = joined(self._table, live, peers).keys()
        ground = look_up(self._shared, live, group, peer.container if peer else None, shares)
        for name, text in bundle.texts(container, ground).items():
            records.write_plain(home / f"{name}.json", text.encode())

    def cgroup(self, container: Container) -> str:
        return f"{self._places.cgroup}/{container.stack}/{container.id}"

    def _remove_groups(self, container: Container) -> None:
        foreign = bool(container.definition.runtime)
        with contextlib.suppress(cgroups.CgroupError):
            if foreign:  # it may have been killed in the middle of making a process
                cgroups.kill(self._shared.hierarchies, self.cgroup(container))
            cgroups.remove(self._shared.hierarchies, self.cgroup(container), whole=foreign)

    async def drain(self, live: Live) -> None:
        """Take the output that a run has left in its FIFOs while nobody was reading, if there was a run."""
        home = self._places.bundle(live.container.id)
        if not all((home / name).exists() for name in OUTPUTS):
            return  # it never ran, or was being removed
        output.follow(self._shared, live)
        await output.finish(live)
        await self.readiness.finish(live)

    def log_path(self, container: Container) -> Path:
        return self._places.log(container.stack, container.id)

    async def _failed_start(self, live: Live, run: Run, error: EngineError) -> None:
        """A start that failed is a run that ended at once, so that `ps` and the planner can see why."""
        # 125 says that the program was never reached, as with `docker run`.
        code = int(error.exit_code) if error.exit_code in (126, 127) else 125
        ended = replace(run, finished=clock.now(), exit_code=code, error=error.message, log_ready=False)
        await output.finish(live)
        self._note_run(live.container, ended)
        self._remove_groups(live.container)
        try:
            await self._shared.wiring.withdraw(live)
        except EngineError as problem:
            report(problem)
        # Last, and without a pause before the action itself has failed: nobody may see one without the other.
        self._table.update(live, ended)
        live.finished.set()
        self._table.feed.publish(Changed(kind="exited", container=live.container))

    def write_run(self, container: Container, run: Run) -> None:
        """Raises EngineError when it can't be written."""
        record = RunRecord(run=run, boot_id=clock.boot_id())
        try:
            records.write(self._places.bundle(container.id) / "run.json", record)
            if (
                run.pid == 0 or run.finished is not None
            ):  # begins or has ended: what a restart of the machine must not make us forget
                records.write(self._places.container(container.stack, container.id) / "run.json", record)
        except OSError as error:
            raise of_file(error, f"container {container.name}") from error

    def _note_run(self, container: Container, run: Run) -> None:
        """Write down what has happened already. A full disk does not undo it, and must not hold up a stop."""
        try:
            self.write_run(container, run)
        except EngineError as error:
            report(error)

    def probed(self, live: Live, run_started: float, result: ProbeResult, check: Healthcheck) -> None:
        """A health check has ended. One of an earlier run does not count. What says the same as the last one
        is neither written down nor announced: whoever comes after us asks again."""
        run = live.container.run
        if run is None or run.finished is not None or run.started != run_started:
            return
        before = run.health or Health()
        after = health.advance(before, result, run, check)
        run = replace(run, health=after)
        same = bool(before.results) and replace(after, results=()) == replace(before, results=())
        if not same:
            self._note_run(live.container, run)
        self._table.update(live, run, quietly=same)

    # --- signal and exit ---------------------------------------------------------------------------

    async def signal(self, action: SignalContainer) -> None:
        live = self._live(action.id)
        run = live.container.run
        if run is None or run.finished is not None or live.pidfd is None:
            return
        if action.stopping:
            by = run.stopping.by if run.stopping else action.by
            killed = action.signal == signal.SIGKILL
            stopping = Stopping(since=clock.now(), signal=action.signal, by=by, killed=killed, sent=False)
            self.note_run(live, replace(run, stopping=stopping))
            await self._hand_over(live)
            self.send_stopping(live)
        else:
            self._send(live, action.signal)
        if action.stopping and action.signal == signal.SIGKILL:
            with trio.move_on_after(2):
                await live.finished.wait()

    def send_stopping(self, live: Live) -> None:
        """Send the signal that stands in the record, unless it is known to be sent."""
        run = live.container.run
        if run is None or run.finished is not None or run.stopping is None or run.stopping.sent:
            return
        if run.stopping.killed:
            with contextlib.suppress(cgroups.CgroupError):
                cgroups.kill(self._shared.hierarchies, self.cgroup(live.container))
        self._send(live, run.stopping.signal)
        self.note_run(live, replace(run, stopping=replace(run.stopping, sent=True)))
        if run.paused:
            self.thaw(live)  # or it would never hear of it

    def _send(self, live: Live, number: int) -> None:
        if live.pidfd is not None:  # else it has ended meanwhile
            with contextlib.suppress(ProcessLookupError):
                syscalls.pidfd_send_signal(live.pidfd, number)

    async def _hand_over(self, live: Live) -> None:
        try:
            await self._shared.wiring.hand_over(live)
        except EngineError as error:
            report(error)

    def thaw(self, live: Live) -> None:
        """Let a paused container go on."""
        run = live.container.run
        with contextlib.suppress(cgroups.CgroupError):
            cgroups.freeze(self._shared.hierarchies, self.cgroup(live.container), frozen=False)
        if run is not None:
            self.note_run(live, replace(run, paused=False))

    def note_run(self, live: Live, run: Run) -> None:
        """A run that goes on, otherwise than before."""
        self._note_run(live.container, run)
        self._table.update(live, run)

    def exited(self, exited: Exited) -> None:
        """A first process has ended. Called from the keeper's reader, so it never waits."""
        live = self._table.containers.get(exited.id)
        if live is None:
            return
        run = live.container.run
        if run is None or run.finished is not None:
            live.early = exited  # of a run that is just being started
            return
        if live.pidfd is None or exited.at < run.started:
            return
        oom = run.oom_killed or cgroups.oom_killed(self._shared.hierarchies, self.cgroup(live.container))
        self.ooms.forget(live)
        self.watching.leave_run(live)
        ended = replace(run, finished=exited.at, exit_code=exited.exit_code, oom_killed=oom, paused=False)
        self._note_run(live.container, ended)
        trio.lowlevel.notify_closing(live.pidfd)
        os.close(live.pidfd)
        live.pidfd = None
        self._table.update(live, ended)
        self._table.ring()
        self._shared.nursery.start_soon(self._tidy, live)

    async def _tidy(self, live: Live) -> None:
        """After an exit. The next run waits for it, so that neither takes anything from the other."""
        finished = live.finished
        try:
            await self._put_away(live)
        except EngineError as error:
            report(error)
        finally:
            finished.set()
            self._table.ring(live.container.stack)

    async def _put_away(self, live: Live) -> None:
        """Processes left in its cgroup (first: they could print for ever), the output, the ports. What it
        shares with others goes to them at once."""
        await self._hand_over(live)
        with contextlib.suppress(cgroups.CgroupError):
            cgroups.kill(self._shared.hierarchies, self.cgroup(live.container))
        await output.finish(live)
        await self.readiness.finish(live)
        self._table.feed.publish(Changed(kind="exited", container=live.container))
        if live.terminal is not None:
            os.close(live.terminal)
            live.terminal = None
            await self.keeper.discard(f"terminal:{live.container.id}")
        await self._shared.wiring.withdraw(live)

    async def swap(self, action: SwapFiles) -> None:
        await swap_files(self._shared, self._live(action.id), action)

    # --- remove ------------------------------------------------------------------------------------

    async def remove(self, action: RemoveContainer) -> None:
        live = self._table.containers.get(action.id)
        if live is None:
            return
        if live.container.state is State.RUNNING:
            raise EngineError(f"container {action.name} is running")
        with handled(live):
            await self._take_away(live, anonymous_volumes=action.anonymous_volumes)

    async def _take_away(self, live: Live, *, anonymous_volumes: bool) -> None:
        if live.container.run is not None:
            await live.finished.wait()
        await self._shared.wiring.disconnect(live)
        container = live.container
        await self.keeper.discard(f"held:{container.id}", f"terminal:{container.id}")
        live.kept = False
        await self._release(live)
        anonymous = [one.volume for one in live.built.volumes if one.anonymous and anonymous_volumes]

        def erase() -> None:
            self._remove_groups(container)
            storage.remove_layers(self._places.bundle(container.id))
            storage.remove_layers(self._places.container(container.stack, container.id))
            for name in anonymous:
                storage.remove_volume(self._places, name)

        self._table.going.update(anonymous)
        try:
            await self._shared.in_thread(erase)
        finally:
            self._table.going.difference_update(anonymous)
        for name in anonymous:
            self._table.volumes.pop(name, None)
            self.watching.leave_volume(name)
        self._table.remove(live)
        self.watching.leave_home(live)
        self.files.leave(container)
        self.gathering.accepted.pop(container.id, None)
        self._table.feed.publish(Changed(kind="removed", container=container))

    def _live(self, container_id: str) -> Live:
        live = self._table.containers.get(container_id)
        if live is None:
            raise EngineError(f"container {container_id[:12]} is not there")
        return live


# --- computed ----------------------------------------------------------------------------------------


def _held_key(live: Live) -> str:
    """Under which the keeper stores what `keep` lends it."""
    return f"held:{live.container.id}"
