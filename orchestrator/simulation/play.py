"""Plays a scenario: the loop that supervises real machines, on a simulated one, by a clock that jumps.

The clock is trio's own for tests: it jumps to the next deadline as soon as every task waits, so a day
takes as long as its decisions do. No thread, process or socket may be used meanwhile.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

import trio
import trio.testing

from orchestrator.api import orders
from orchestrator.engines.guarding import UnsafeError
from orchestrator.engines.simulated import Faults, Program, SimulatedEngine
from orchestrator.model import effects, names
from orchestrator.model.action import Action, RemoveContainer
from orchestrator.model.desired import Desired
from orchestrator.model.errors import PystackError, UserError
from orchestrator.model.frozen import dataclass, field, replace
from orchestrator.model.observation import Container, ImageState, Observation
from orchestrator.model.stack import ImageRoot, Stack
from orchestrator.model.steps import with_steps
from orchestrator.reconciler.history import Event as Happening
from orchestrator.reconciler.history import History
from orchestrator.reconciler.loop import Loop, View
from orchestrator.simulation import laws
from orchestrator.simulation.scenario import (
    Event,
    Fail,
    Kill,
    KillSupervisor,
    Lose,
    NewImage,
    Order,
    PowerCut,
    Scale,
    Scenario,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BOOT = 1000.0
"""Boot time when the play begins."""
KEPT = 200_000
"""Happenings that are kept; of a longer history, the latest."""
ONE_SHOT = 1.0
"""Seconds that a program runs when others wait for its completion."""
LOOKS = 1.0
"""Seconds between two looks whether the stack has converged."""


FAREWELL: Mapping[str, Any] = {"remove_volumes": True, "remove_orphans": True, "timeout": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How it went. Times are seconds since `up`."""

    seed: int
    scenario: Scenario
    happenings: tuple[Happening, ...] = ()
    broken: str = ""
    """The law that was broken, in a sentence; "" when all held."""
    ended: float = 0.0
    converged: float | None = None
    """Seconds from the end of trouble until the stack was as asked for."""
    unquiet: tuple[str, ...] = ()
    """Services of which convergence was not asked: their programs never come to rest."""
    containers: tuple[Container, ...] = ()
    actions: int = 0


class _Ledger(History):
    """A history that forgets nothing that a play is told by."""

    def __init__(self, tell: Callable[[Happening], None]) -> None:
        super().__init__(KEPT)
        self._tell = tell

    def record(self, event: Happening) -> None:
        event = replace(event, at=event.at - BOOT)
        super().record(event)
        self._tell(event)


def play(
    stack: Stack, scenario: Scenario, seed: int, *, tell: Callable[[Happening], None] = lambda _: None
) -> Played:
    """The whole play; `tell` hears of each happening at once. The same arguments give the same play."""
    _repeat(seed)
    stage = Stage(stack, scenario, seed, tell)
    trio.run(stage.run, clock=trio.testing.MockClock(autojump_threshold=0))
    return stage.played()


def _repeat(seed: int) -> None:
    """trio shuffles its tasks by a random source of its own, so that nobody relies on their order; with it
    seeded, a play is the same each time. Its name is private: without it only the fine order varies."""
    runner = trio._core._run
    if hasattr(runner, "_ALLOW_DETERMINISTIC_SCHEDULING") and hasattr(runner, "_r"):
        setattr(runner, "_ALLOW_DETERMINISTIC_SCHEDULING", True)  # noqa: B010 - a constant to type checkers
        runner._r = random.Random(seed)  # noqa: S311 - repeatable on purpose


@dataclass(slots=True, eq=False)
class Stage:
    """One play under way."""

    stack: Stack
    scenario: Scenario
    seed: int
    tell: Callable[[Happening], None]
    engine: SimulatedEngine = field(init=False)
    desired: Desired = field(init=False)
    broken: str = field(init=False, default="")
    converged: float | None = field(init=False, default=None)
    unquiet: frozenset[str] = field(init=False, default=frozenset())
    loop: Loop | None = field(init=False, default=None)
    _judged: View | None = field(init=False, default=None)
    _decided: set[int] = field(init=False, default_factory=set)
    """The identities of the actions that `_judged` has decided on."""
    _history: _Ledger = field(init=False)
    _ended: float = field(init=False, default=0.0)
    _programs: Mapping[str, Program] = field(init=False)
    _over: trio.CancelScope = field(init=False)
    _life: trio.CancelScope | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._programs = {**_one_shots(self.stack), **self.scenario.programs}
        self.engine = SimulatedEngine(
            now=self.now,
            seed=self.seed,
            programs=self._programs,
            faults=self.scenario.faults,
            pulls=self.scenario.images,
            images=self._images(),
            begins=Observation(at=BOOT),
            watch=self._watch,
        )
        self.desired = orders.acknowledge(None, orders.up(None, self.stack, orders.UpOptions()), (), BOOT)
        self._history = _Ledger(self.tell)

    def _images(self) -> dict[str, ImageState]:
        """Here are all that any file of the play names, but for those that the scenario has pulled."""
        files = [event.stack for event in self.scenario.events if isinstance(event, Order) and event.stack]
        return {
            one.root.reference: ImageState(id=f"sha256:{one.root.reference}")
            for stack in (self.stack, *files)
            for one in with_steps(stack).services.values()
            if isinstance(one.root, ImageRoot) and one.root.reference not in self.scenario.images
        }

    def now(self) -> float:
        return trio.current_time() + BOOT

    def played(self) -> Played:
        return Played(
            seed=self.seed,
            scenario=self.scenario,
            happenings=tuple(self._history),
            broken=self.broken,
            ended=self._ended,
            converged=self.converged,
            unquiet=tuple(sorted(self.unquiet)),
            containers=self.engine.world.containers,
            actions=len(self.engine.applied),
        )

    async def run(self) -> None:
        self._over = trio.CancelScope()
        with self._over:
            async with trio.open_nursery() as nursery:
                await self._live(nursery)
                for event in self.scenario.events:
                    if event.at >= self.scenario.lasts:
                        break
                    await trio.sleep_until(event.at)
                    self._say(event)
                    await self._happen(event, nursery)
                await trio.sleep_until(self.scenario.lasts)
                await self._heal()
                if self.scenario.farewell:
                    self._want(orders.down(self.desired, **FAREWELL))
                    await self._calm()
                nursery.cancel_scope.cancel()
        self._ended = trio.current_time()

    # --- the supervisor -----------------------------------------------------------------------------

    async def _live(self, nursery: trio.Nursery) -> None:
        self.loop = Loop(
            self.engine,
            self.desired,
            now=self.now,
            history=self._history,
            on_bug=self._bug,
            write=self._write,
            patience=0.0,
        )
        await nursery.start(self._supervise, self.loop)

    async def _supervise(
        self, loop: Loop, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.CancelScope() as self._life:
            task_status.started()
            await loop.run()

    async def _die(self, absent: float, nursery: trio.Nursery) -> None:
        if self._life is not None:
            self._life.cancel()
        self.loop = None
        await trio.sleep(absent)
        await self._live(nursery)

    async def _write(self, base: Desired, noted: Desired) -> None:
        """What the planner has decided of an update outlives the supervisor, as on disk."""
        if self.desired is base:
            self.desired = noted

    def _want(self, desired: Desired) -> None:
        """Written down as the supervisor does it: what runs at this moment has had its turn."""
        desired = orders.acknowledge(self.desired, desired, self.engine.world.containers, self.now())
        self.desired = desired
        if self.loop is not None:
            self.loop.want(desired)

    # --- what happens -------------------------------------------------------------------------------

    def _say(self, event: Event) -> None:
        service = event.service if isinstance(event, Kill | Lose) else ""
        self._note("event", str(event), "seen", service)

    def _note(self, word: str, because: str, outcome: str, service: str = "") -> None:
        self._history.record(
            Happening(
                at=self.now(),
                target="scenario",
                verb=word,
                because=because,
                outcome=outcome,
                stack=self.stack.name,
                service=service,
            )
        )

    async def _happen(self, event: Event, nursery: trio.Nursery) -> None:
        match event:
            case KillSupervisor(absent=absent):
                await self._die(absent, nursery)
            case PowerCut(absent=absent):
                self.engine.power_cut(boot=True)
                self.desired = orders.after_boot(self.desired)
                await self._die(absent, nursery)
            case Order() | Scale():
                self._obey(event)
            case _:
                self._break_something(event)

    def _break_something(self, event: Event) -> None:
        match event:
            case Kill():
                for container in self._occupants(event.service, event.slot):
                    self.engine.kill(container.name, event.exit_code, oom=event.oom)
            case Lose():
                self._lose(event)
            case NewImage():
                images = dict(self.engine.world.images)
                if event.image in images:
                    images[event.image] = replace(images[event.image], id=f"sha256:{event.image}@{event.at}")
                self.engine.disturb(replace(self.engine.world, images=images))
            case Fail():
                self.engine.failing[event.verb] = self.now() + event.lasts
            case _:
                raise PystackError(f"nobody knows how {event} happens")

    def _obey(self, event: Order | Scale) -> None:
        """A stack that has gone down is forgotten: there is nothing left to stop, start or restart."""
        if isinstance(event, Scale):
            services = dict(self.stack.services)
            for name, count in event.replicas.items():
                if name in services:
                    services[name] = replace(services[name], replicas=count)
                else:
                    self._note("refuse", f"no such service: {name}", "refused")
            self.stack = replace(self.stack, services=services)
            self._want(orders.up(self.desired, self.stack, orders.UpOptions()))
            return
        if event.command == "kill":
            for name in event.services or tuple(self.stack.services):
                for container in self._occupants(name, None):
                    self.engine.kill_by_user(container.name)
            return
        gone = self.desired.down and not laws.left_over(self.desired, self.engine.world)
        if gone and event.command not in ("up", "down"):
            return
        if event.stack is not None:
            self.stack = event.stack
            self._programs = self.engine.programs = {**_one_shots(self.stack), **self.scenario.programs}
        try:
            self._want(_ordered(self.desired, self.stack, event))
        except UserError as error:
            self._note("refuse", error.message, "refused")

    def _occupants(self, service: str, slot: int | None) -> Iterator[Container]:
        for container in self.engine.world.containers:
            if container.service == service and slot in (None, container.slot):
                yield container

    def _lose(self, event: Lose) -> None:
        world = self.engine.world
        if event.network:
            name = names.scoped_name(self.stack.name, event.network)
            if event.network in self.stack.networks:
                name = self.stack.networks[event.network].name
            state = world.networks.get(name)
            left = {key: one for key, one in world.networks.items() if key != name}
            ranges = tuple(one for one in world.subnets_taken if state is None or one != state.subnet)
            self.engine.disturb(replace(world, networks=left, subnets_taken=ranges))
            return
        if event.volume:
            name = names.scoped_name(self.stack.name, event.volume)
            if event.volume in self.stack.volumes:
                name = self.stack.volumes[event.volume].name
            kept = {key: state for key, state in world.volumes.items() if key != name}
            self.engine.disturb(replace(world, volumes=kept))
            return
        if event.image:
            here = {key: state for key, state in world.images.items() if key != event.image}
            self.engine.disturb(replace(world, images=here))
            return
        for container in tuple(self._occupants(event.service, None)):
            self.engine.kill(container.name)
            action = RemoveContainer(id=container.id, name=container.name)
            self.engine.disturb(effects.expect(self.engine.world, action, self.now()))

    # --- the laws -----------------------------------------------------------------------------------

    def _watch(self, action: Action) -> None:
        """An action is judged by what was known and wanted when it was decided."""
        view = self.loop.view if self.loop is not None else None
        if view is None:
            return
        if view is not self._judged:
            self._judged, self._decided = view, {id(one) for one in view.plan.actions}
        if id(action) in self._decided:
            laws.demand_safe(view.desired, view.observation, action, self.now())

    def _bug(self, error: BaseException) -> None:
        self._break(str(error) if isinstance(error, UnsafeError) else f"{type(error).__name__}: {error}")

    def _break(self, law: str) -> None:
        if not self.broken:
            self.broken = law
            self._over.cancel()

    async def _heal(self) -> None:
        """Nothing breaks any more: by the end of its time the stack is what was asked for."""
        self.engine.faults = Faults(delay=self.scenario.faults.delay)
        self.engine.failing.clear()
        if self.scenario.cured:
            self._programs = _one_shots(self.stack)
            self.engine.cure(self._programs)
        self.unquiet = frozenset(laws.restless(self.desired, self._programs))
        self.converged = await self._calm()

    async def _calm(self) -> float | None:
        """The seconds until the stack is as it was asked for; None when that takes too long."""
        began = trio.current_time()
        left: tuple[str, ...] = ("nothing has been looked at",)
        while trio.current_time() - began < self.scenario.healing:
            await trio.sleep(LOOKS)
            view = self.loop.view if self.loop is not None else None
            if view is None or (self.loop is not None and view.revision < self.loop.revision):
                continue
            left = laws.unconverged(view.desired, self.engine.world, view.plan, self.unquiet)
            if not left:
                return trio.current_time() - began
        self._break(f"not converged {self.scenario.healing:g} s after the last trouble: {left[0]}")
        return None


def _one_shots(stack: Stack) -> dict[str, Program]:
    """Programs that others wait for to complete do so, unless the scenario knows better."""
    return {
        dependency.service: Program(exits_after=ONE_SHOT)
        for service in stack.services.values()
        for dependency in service.depends_on
        if dependency.condition == "service_completed_successfully"
    }


def _ordered(desired: Desired, stack: Stack, order: Order) -> Desired:
    match order.command:
        case "up":
            options = orders.UpOptions(
                services=order.services,
                force_recreate=order.force_recreate,
                no_recreate=order.no_recreate,
                no_deps=order.no_deps,
                remove_orphans=order.remove_orphans,
                timeout=order.timeout,
            )
            return orders.up(desired, stack, options)
        case "down":
            return orders.down(
                desired, remove_volumes=order.volumes, remove_orphans=True, timeout=order.timeout
            )
        case "stop":
            return orders.stop(desired, order.services, order.timeout)
        case "rm":
            return orders.remove(desired, order.services, volumes=order.volumes)
        case "start":
            return orders.start(desired, order.services, insists=bool(order.services))
        case "restart":
            return orders.restart(desired, order.services, timeout=order.timeout, no_deps=order.no_deps)
    raise PystackError(f"nobody can order {order.command}")
