"""A play of an update: one stack is brought up, then another one, while somebody counts who serves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from orchestrator.api import orders
from orchestrator.engines.simulated import Program
from orchestrator.model.desired import Desired, Rollout
from orchestrator.model.observation import Container
from orchestrator.model.stack import Service, Stack
from orchestrator.planner.rollouts import serves
from tests.kit.stacks import check, service, stack, steps
from tests.simulation.stage import Stage, play

CHECK = check(interval=0.5, retries=2, start_interval=0.5)
BROKEN = Program(probes=(1,))
CRASHES = Program(exits_after=0.3, exit_codes=(7,))

FAILING = {
    "never healthy": BROKEN,
    "crashes": CRASHES,
    "can't be executed": Program(refuses=(127, "no such file")),
}


def web(user: str = "1", /, replicas: int = 4, checked: bool = True, **fields: Any) -> Service:
    said = {name: fields.pop(name) for name in list(fields) if name in COURSE}
    deploy = fields.pop("deploy", steps(**said))
    return service(
        user=user,
        replicas=replicas,
        deploy=deploy,
        healthcheck=CHECK if checked else None,
        restart="always",
        **fields,
    )


COURSE = ("parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order", "rollback")


def up(previous: Desired | None, wish: Stack, stage: Stage | None = None, **options: Any) -> Desired:
    found = orders.up(previous, wish, orders.UpOptions(**options))
    there = stage.engine.world.containers if stage is not None else ()
    return orders.acknowledge(previous, found, there, stage.now() if stage is not None else 1000.0)


def of(stage: Stage, name: str = "web") -> list[Container]:
    return [one for one in stage.engine.world.containers if one.service == name]


def serving(stage: Stage, name: str = "web") -> int:
    return sum(serves(one) for one in of(stage, name))


def users(stage: Stage, name: str = "web") -> list[str | None]:
    return sorted(str(one.definition.user) for one in of(stage, name))


def slots(stage: Stage) -> list[int]:
    return sorted(one.slot for one in of(stage))


@dataclass
class Watched:
    """The fewest that served, and the most that were on their way, at any moment of an update."""

    stage: Stage
    user: str = "2"
    fewest: int = 1000
    most: int = 0
    most_there: int = 0

    async def watch(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            there = of(self.stage)
            self.fewest = min(self.fewest, sum(serves(one) for one in there))
            new = [one for one in there if one.definition.user == self.user]
            self.most = max(self.most, sum(not serves(one) for one in new))
            self.most_there = max(self.most_there, len(there))
            await trio.sleep(0.01)


@dataclass
class Play:
    """`before` is brought up, then `after`, whose programs may behave otherwise. `took`: seconds of that."""

    before: Stack
    after: Stack
    programs: dict[str, Program] = field(default_factory=dict)
    """By the user that a definition names."""
    crash_every: float | None = None
    then: Callable[[Stage], Awaitable[None]] | None = None
    within: float = 100.0
    seed: int = 0
    images: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    behaves: Callable[[Container], Program | None] | None = None
    prepare: Callable[[Stage], None] = lambda _: None
    """Done before `after` is ordered."""
    alone: bool = False
    """`then` has no supervisor beside it."""
    unsettled: bool = False
    """It is not waited for: `then` begins after `within` seconds."""
    stage: Stage = field(init=False)
    watched: Watched = field(init=False)
    took: float = 0.0

    def __post_init__(self) -> None:
        play(self._scene, self.seed)

    async def _scene(self) -> None:
        stage = self.stage = Stage(desired=up(None, self.before), seed=self.seed, images=self.images)
        async with stage.supervisor() as loop:
            await loop.until(lambda view: all(serves(one) for one in of(stage)) and view.plan.settled)
        self.watched = Watched(stage)
        by_user = self.programs
        stage.engine.behaves = self.behaves or (lambda one: by_user.get(str(one.definition.user)))
        self.prepare(stage)
        stage.desired = up(stage.desired, self.after, stage, **self.options)
        began = stage.now()
        async with trio.open_nursery() as nursery:
            await nursery.start(self.watched.watch)
            for _ in range(20 if self.crash_every else 0):
                async with stage.supervisor():
                    await trio.sleep(self.crash_every or 0)
            async with stage.supervisor():
                await trio.sleep(self.within if self.unsettled else 0.01)
                if not self.unsettled:
                    await stage.settled(within=self.within)
                self.took = stage.now() - began
                if self.then is not None and not self.alone:
                    await self.then(stage)
            if self.then is not None and self.alone:
                await self.then(stage)
            nursery.cancel_scope.cancel()
        stage.check()

    @property
    def rollout(self) -> Rollout:
        return self.stage.desired.rollouts["web"]


def user(number: str, **fields: Any) -> Stack:
    return stack(web=web(number, **fields))
