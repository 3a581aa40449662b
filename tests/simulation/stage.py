"""Where histories are played: a machine that outlives its loops, a clock that jumps, watched laws."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
import trio.testing

from orchestrator.engines.simulated import Faults, Program, SimulatedEngine
from orchestrator.model.action import Action
from orchestrator.model.desired import Desired
from orchestrator.model.observation import ImageState
from orchestrator.planner.plan import finished
from orchestrator.reconciler.loop import Loop, View
from orchestrator.simulation.laws import demand_safe


def repeatable_trio() -> None:
    """trio shuffles its tasks with a private random source; seeded, a history is the same each time."""
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[attr-defined]


@dataclass(slots=True, kw_only=True)
class Stage:
    """`desired` is what the daemon would have on disk: a new loop begins with it."""

    seed: int = 0
    programs: dict[str, Program] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    images: tuple[str, ...] = ()
    desired: Desired
    patience: float = 0.0
    engine: SimulatedEngine = field(init=False)
    bugs: list[BaseException] = field(default_factory=list)
    loop: Loop = field(init=False)

    def __post_init__(self) -> None:
        self.engine = SimulatedEngine(
            now=self.now,
            seed=self.seed,
            programs=self.programs,
            faults=self.faults,
            images={name: ImageState(id=f"sha256:{name}") for name in self.images},
            watch=self._watch,
        )

    def _watch(self, action: Action) -> None:
        """A gate is judged by what was known and wanted when the start was decided."""
        view = self.loop.view
        if view is not None and action in view.plan.actions:
            demand_safe(view.desired, view.observation, action, self.now())

    def now(self) -> float:
        """Boot time of the machine: the virtual clock begins at 0."""
        return trio.current_time() + 1000.0

    @asynccontextmanager
    async def supervisor(self) -> AsyncIterator[Loop]:
        """A loop that works until the block ends, and is then killed (its actions with it)."""
        self.loop = Loop(
            self.engine,
            self.desired,
            now=self.now,
            on_bug=self.bugs.append,
            write=self._write,
            patience=self.patience,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.loop.run)
            yield self.loop
            nursery.cancel_scope.cancel()

    async def _write(self, base: Desired, noted: Desired) -> None:
        """As the daemon does it."""
        if self.desired is base:
            self.desired = noted
        await trio.sleep(0.001)

    def want(self, desired: Desired) -> int:
        self.desired = desired
        return self.loop.want(desired)

    async def settled(self, revision: int = 0, within: float = 600.0) -> float:
        """Seconds until nothing is left to do. Fails when that takes longer than `within`."""
        began = self.now()
        with trio.fail_after(within):
            await self.loop.until(_settled, revision=revision)
        return self.now() - began

    def check(self) -> None:
        """No law was broken, no exception was swallowed."""
        assert not self.engine.violations, self.engine.violations
        for bug in self.bugs:
            raise bug


def _settled(view: View) -> bool:
    if view.desired.down:
        return finished(view.desired, view.observation)
    return view.plan.settled


def play(scene: Callable[[], Awaitable[None]], seed: int = 0) -> None:
    """Run `scene` under a clock that jumps, with trio's scheduler seeded."""
    repeatable_trio()
    trio._core._run._r = random.Random(seed)  # type: ignore[attr-defined]
    trio.run(scene, clock=trio.testing.MockClock(autojump_threshold=0))
