"""The stacks under supervision: for each one what is desired, its engine, and the loop that converges it.

A fault in one stack's loop never touches another's: each runs in a task that is restarted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

import trio

from orchestrator.api import orders
from orchestrator.engines.local import clock, records
from orchestrator.engines.local.engine import LocalEngine
from orchestrator.engines.local.machine import Machine
from orchestrator.engines.local.mending import Outcome
from orchestrator.engines.local.trouble import of_file, report
from orchestrator.model.desired import Desired
from orchestrator.model.drift import Difference
from orchestrator.model.observation import Container
from orchestrator.planner.layout import layout
from orchestrator.planner.leaving import finished
from orchestrator.reconciler.history import Event, History
from orchestrator.reconciler.loop import Loop, View

RESTART_SECONDS = 1.0
OUTCOMES: Mapping[Outcome, tuple[str, str]] = {
    "repaired": ("repair", "ok"),
    "seen": ("drift", "seen"),
    "failed": ("drift", "failed"),
    "back": ("drift", "ok"),
}
"""Verb and outcome of the event that tells of it."""

Change = Callable[[Desired | None], Desired]


@dataclass(slots=True, eq=False)
class Supervised:
    """One stack. `gone` is set when nothing is left of it."""

    name: str
    engine: LocalEngine
    loop: Loop
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    gone: trio.Event = field(default_factory=trio.Event)


class Stacks:
    """All stacks of a state root. Everything here belongs to the trio thread."""

    def __init__(self, machine: Machine, nursery: trio.Nursery) -> None:
        self.machine = machine
        self.history = History()
        self._nursery = nursery
        self._stacks: dict[str, Supervised] = {}
        self._ordering = trio.Lock()
        self.changed = trio.Event()
        machine.mending.told = self._tell
        machine.mending.may_repair = self._may_repair

    def _tell(self, wrong: Difference, outcome: Outcome) -> None:
        """`events` tells of it, in every stack that may have felt it."""
        verb, how = OUTCOMES[outcome]
        for name in [wrong.stack] if wrong.id else list(self._stacks):
            self.history.record(
                Event(
                    at=clock.now(),
                    target=wrong.target,
                    verb=verb,
                    because=wrong.because,
                    outcome=how,
                    stack=name,
                    service=wrong.service,
                    id=wrong.id,
                )
            )

    def _may_repair(self, stack: str) -> bool:
        """What belongs to all is put right as long as one of them would have it so."""
        supervised = self._stacks.get(stack)
        if supervised is not None:
            return supervised.loop.desired.repair
        return not self._stacks or any(one.loop.desired.repair for one in self._stacks.values())

    def __iter__(self) -> Iterator[Supervised]:
        return iter(list(self._stacks.values()))

    def get(self, name: str) -> Supervised | None:
        return self._stacks.get(name)

    def busy(self) -> bool:
        """Whether there is anything to look after. Orphans may outlive their stack."""
        return bool(self._stacks or self.machine.table.containers)

    def resume(self) -> None:
        """After our own restart: go on with every stack that is written down, or has left a trace."""
        written = {desired.stack.name: desired for desired in records.stacks(self.machine.places.stacks)}
        if self.machine.was_restarted():
            written = {name: self._after_boot(desired) for name, desired in written.items()}
            self.machine.note_boot()
        for desired in written.values():
            self._begin(desired)
        traces: dict[str, list[Container]] = {}
        for live in self.machine.table.containers.values():
            traces.setdefault(live.container.stack, []).append(live.container)
        for name, containers in traces.items():
            if name not in written and self.machine.places.desired(name).exists():
                self._begin(orders.found(name, containers))  # its record is damaged

    def _after_boot(self, desired: Desired) -> Desired:
        """Written down before the boot is: if we are killed in between, it is done once more."""
        wanted = orders.after_boot(desired)
        if wanted != desired:
            try:
                records.write(self.machine.places.desired(desired.stack.name), wanted, durable=True)
            except OSError as error:
                report(error)
        return wanted

    def later(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Do something that no client waits for."""

        async def guarded() -> None:
            try:
                await work(*arguments)
            except Exception as error:
                report(error)

        self._nursery.start_soon(guarded)

    async def want(
        self, name: str, change: Change, demand: Callable[[], Awaitable[None]] | None = None
    ) -> tuple[Supervised, int]:
        """Change what is desired of a stack; written down before anybody acts on it. `demand` is asked first,
        when nobody else can change it any more.

        Returns the stack and the revision to wait for. Raises what `demand` and `change` raise, then nothing
        has changed.
        """
        async with self._ordering:
            if demand is not None:
                await demand()
            supervised = self._stacks.get(name)
            previous = supervised.loop.desired if supervised else None
            desired = orders.acknowledge(previous, change(previous), self._containers(name), clock.now())
            orders.demand_names(desired.stack)
            self._demand_free_names(previous, desired)
            layout(desired.stack)  # raises for a circle: it would keep the loop from ever looking
            await self._write(desired)
            if supervised is None:
                supervised = self._begin(desired)
                return supervised, supervised.loop.revision
            if previous is not None and previous.repair != desired.repair:
                self.machine.mending.look_at_all()
            supervised.engine.watch(desired.stack, desired.pins.values())
            return supervised, supervised.loop.want(desired)

    def _demand_free_names(self, previous: Desired | None, desired: Desired) -> None:
        """What is wanted already was judged then; a stop or a restart must not fail for it."""
        if previous is not None and set(orders.bearers(desired)) <= set(orders.bearers(previous)):
            return
        there = (live.container for live in self.machine.table.containers.values())
        orders.demand_free_names(
            desired,
            [orders.Bearer(name=one.name, stack=one.stack, service=one.service) for one in there],
            [
                bearer
                for other in self._stacks.values()
                if other.name != desired.stack.name
                for bearer in orders.bearers(other.loop.desired)
            ],
        )

    def _containers(self, name: str) -> list[Container]:
        return [live.container for live in self.machine.table.of_stack(name)]

    async def _write(self, desired: Desired) -> None:
        path = self.machine.places.desired(desired.stack.name)

        def write() -> None:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            records.write(path, desired, durable=True)

        try:
            await trio.to_thread.run_sync(write)
        except OSError as error:
            named = of_file(error, f"stack {desired.stack.name} can't be written down")
            if not desired.down:
                raise named from error
            report(named)  # a full disk must not keep anybody from taking away what fills it

    async def _note(self, supervised: Supervised, base: Desired, noted: Desired) -> None:
        """Write down what the planner has decided, unless the user has ordered something else meanwhile."""
        async with self._ordering:
            if supervised.loop.desired is not base:
                return
            await self._write(noted)
            if noted.stack is not base.stack:
                supervised.engine.watch(noted.stack, noted.pins.values())

    def _begin(self, desired: Desired) -> Supervised:
        name = desired.stack.name
        engine = self.machine.engine(name)
        engine.watch(desired.stack, desired.pins.values())

        async def write(base: Desired, noted: Desired) -> None:
            await self._note(supervised, base, noted)

        loop = Loop(engine, desired, now=clock.now, history=self.history, on_bug=report, write=write)
        supervised = Supervised(name=name, engine=engine, loop=loop)
        self._stacks[name] = supervised
        self._nursery.start_soon(self._supervise, supervised)
        self._ring()
        return supervised

    async def _supervise(self, supervised: Supervised) -> None:
        with supervised.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_loop, supervised)
                while not supervised.gone.is_set():
                    await supervised.loop.until(_is_finished, revision=supervised.loop.revision)
                    await self._forget(supervised)
                nursery.cancel_scope.cancel()

    async def _run_loop(self, supervised: Supervised) -> None:
        while True:
            try:
                await supervised.loop.run()
            except Exception as error:
                report(error)
            await trio.sleep(RESTART_SECONDS)

    async def _forget(self, supervised: Supervised) -> None:
        async with self._ordering:
            view = supervised.loop.view
            if view is None or view.revision != supervised.loop.revision or not _is_finished(view):
                await trio.lowlevel.checkpoint()
                return
            self._stacks.pop(supervised.name, None)
            try:
                self.machine.places.desired(supervised.name).unlink(missing_ok=True)
                self.machine.forget(supervised.name)
            except OSError as error:
                report(error)
            supervised.gone.set()
            self._ring()

    def _ring(self) -> None:
        event, self.changed = self.changed, trio.Event()
        event.set()


def _is_finished(view: View) -> bool:
    return finished(view.desired, view.observation)
