"""Updates by steps under a virtual clock: what serves meanwhile, what follows a failure, what a crash changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
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


def web(user: str = "1", /, replicas: int = 4, checked: bool = True, **fields: Any) -> Service:
    deploy = fields.pop(
        "deploy", steps(**{name: fields.pop(name) for name in list(fields) if name in COURSE})
    )
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
            await trio.sleep(0.005)


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
        stage.engine.behaves = lambda one: self.programs.get(str(one.definition.user))
        stage.desired = up(stage.desired, self.after, stage, **self.options)
        began = stage.now()
        async with trio.open_nursery() as nursery:
            await nursery.start(self.watched.watch)
            for _ in range(20 if self.crash_every else 0):
                async with stage.supervisor():
                    await trio.sleep(self.crash_every or 0)
            async with stage.supervisor():
                await trio.sleep(0.01)
                await stage.settled(within=self.within)
                self.took = stage.now() - began
                if self.then is not None:
                    await self.then(stage)
            nursery.cancel_scope.cancel()
        stage.check()

    @property
    def rollout(self) -> Rollout:
        return self.stage.desired.rollouts["web"]


def user(number: str, **fields: Any) -> Stack:
    return stack(web=web(number, **fields))


def test_start_first_never_has_fewer_than_before() -> None:
    found = Play(user("1", order="start-first"), user("2", order="start-first"))
    assert users(found.stage) == ["2"] * 4
    assert (found.watched.fewest, found.watched.most) == (4, 1)
    assert found.watched.most_there <= 6  # one that comes, one that goes
    assert found.rollout.outcome == "done"


@pytest.mark.parametrize(("parallelism", "fewest"), [(1, 3), (2, 2), (3, 1), (0, 0)])
def test_stop_first_never_has_more_under_way_than_it_may(parallelism: int, fewest: int) -> None:
    found = Play(user("1", parallelism=parallelism), user("2", parallelism=parallelism))
    assert (users(found.stage), slots(found.stage)) == (["2"] * 4, [1, 2, 3, 4])
    assert (found.watched.fewest, found.watched.most_there) == (fewest, 4)


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_the_delay_lies_between_two_steps_and_outlives_crashes(order: str) -> None:
    fields = {"order": order, "delay": 20.0, "parallelism": 2, "monitor": 1.0}
    quiet = Play(user("1", **fields), user("2", **fields))
    assert 20 < quiet.took < 24  # two steps, one delay
    crashing = Play(user("1", **fields), user("2", **fields), crash_every=1.3)
    assert users(crashing.stage) == ["2"] * 4
    assert crashing.took < 30


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_who_has_no_health_check_is_good_when_it_has_run_for_the_time_it_is_watched(order: str) -> None:
    fields = {"order": order, "monitor": 3.0, "checked": False}
    found = Play(user("1", **fields), user("2", **fields))
    assert users(found.stage) == ["2"] * 4
    assert 12 < found.took < 13.5
    assert found.watched.fewest == (4 if order == "start-first" else 3)


FAILING = {
    "never healthy": BROKEN,
    "crashes": CRASHES,
    "can't be executed": Program(refuses=(127, "no such file")),
}


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
@pytest.mark.parametrize("fault", FAILING)
def test_pause_stops_at_the_first_failure(fault: str, order: str) -> None:
    found = Play(user("1", order=order), user("2", order=order), programs={"2": FAILING[fault]})
    assert found.rollout.outcome == "paused"
    assert users(found.stage).count("1") == (4 if order == "start-first" else 3)
    assert users(found.stage).count("2") == 1
    assert found.watched.fewest == (4 if order == "start-first" else 3)


@pytest.mark.parametrize("crash_every", [None, 0.05, 0.7])
@pytest.mark.parametrize("order", ["start-first", "stop-first"])
@pytest.mark.parametrize("fault", FAILING)
def test_rollback_ends_with_all_old_ones(fault: str, order: str, crash_every: float | None) -> None:
    fields = {"order": order, "failure_action": "rollback"}
    found = Play(
        user("1", **fields),
        user("2", **fields),
        programs={"2": FAILING[fault]},
        crash_every=crash_every,
    )
    assert users(found.stage) == ["1"] * 4
    assert (found.rollout.kind, found.rollout.outcome) == ("rollback", "done")
