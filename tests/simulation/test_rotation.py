"""A published port that several containers share, through updates, scaling, crashes and faults of the machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from orchestrator.engines.simulated import Faults, Program
from orchestrator.model import rotation
from orchestrator.model.action import RoutePorts, SignalContainer
from orchestrator.model.observation import Container, State
from orchestrator.planner.rollouts import serves
from tests.simulation.stage import Stage, play
from tests.simulation.updating import of, up, user

PORTS = ("8080:80",)
LINGERS = Program(healthy_after=0.7, connections_last=0.4)


def takers(stage: Stage) -> tuple[Container, ...]:
    return rotation.takers([one for one in of(stage) if one.state is State.RUNNING])


def ready(stage: Stage) -> bool:
    found = takers(stage)
    return len(found) == 4 and all(serves(one) for one in found)


@dataclass
class Clients:
    """What they meet at the port, asked every few milliseconds once it has answered."""

    stage: Stage
    refused: list[str] = field(default_factory=list)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            found = takers(self.stage)
            if not found:
                self.refused.append("nobody is there")
            self.refused += [
                f"{one.name} is not fit"
                for one in found
                if not serves(one) or (one.run is not None and one.run.stopping is not None)
            ]
            await trio.sleep(0.003)


@dataclass
class Change:
    """Four containers behind a port, and then another stack, under load."""

    before: Any
    after: Any
    faults: Faults = field(default_factory=Faults)
    crash_every: float | None = None
    stage: Stage = field(init=False)
    clients: Clients = field(init=False)

    def __post_init__(self) -> None:
        play(self._scene)

    async def _scene(self) -> None:
        stage = self.stage = Stage(
            desired=up(None, self.before), programs={"web": LINGERS}, faults=self.faults, seed=3
        )
        async with stage.supervisor() as loop:
            await loop.until(lambda view: ready(stage) and view.plan.settled)
        self.clients = Clients(stage)
        stage.desired = up(stage.desired, self.after, stage)
        async with trio.open_nursery() as nursery:
            await nursery.start(self.clients.run)
            for _ in range(15 if self.crash_every else 0):
                async with stage.supervisor():
                    await trio.sleep(self.crash_every or 0)
            async with stage.supervisor():
                await trio.sleep(0.01)
                await stage.settled(within=200)
            nursery.cancel_scope.cancel()
        stage.check()

    def told_to_stop(self) -> list[tuple[float, str]]:
        applied = self.stage.engine.applied
        return [(at, one.id) for at, one in applied if isinstance(one, SignalContainer) and one.stopping]


def web(number: str, **fields: Any) -> Any:
    return user(number, ports=PORTS, **fields)


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
@pytest.mark.parametrize("crash_every", [None, 0.37])
def test_an_update_by_steps_is_met_by_no_client(order: str, crash_every: float | None) -> None:
    """Also when the supervisor is killed again and again."""
    found = Change(web("1", order=order), web("2", order=order), crash_every=crash_every)
    assert [one.definition.user for one in of(found.stage)] == ["2"] * 4
    assert len(takers(found.stage)) == 4
    assert found.clients.refused == []
    assert len(found.told_to_stop()) == 4


def test_faults_of_the_machine_are_met_by_no_client_either() -> None:
    faults = Faults(retryable=0.1, late=0.1, delay=(0.001, 0.05))
    found = Change(web("1", order="start-first"), web("2", order="start-first"), faults=faults)
    assert found.clients.refused == []
    assert len(takers(found.stage)) == 4


def test_scaled_down_who_leaves_is_told_to_stop_when_its_connections_have_ended() -> None:
    found = Change(web("1"), web("1", replicas=2))
    assert found.clients.refused == []
    assert [one.slot for one in of(found.stage)] == [1, 2]
    (left,) = [at for at, one in found.stage.engine.applied if isinstance(one, RoutePorts)][-1:]
    assert [at - left for at, _ in found.told_to_stop()] == [pytest.approx(0.45, abs=0.1)] * 2


def test_connections_that_do_not_end_are_waited_for_no_longer_than_the_stack_says() -> None:
    before, after = web("1", drain=3.0), web("1", drain=3.0, replicas=2)

    async def scene() -> None:
        stage = Stage(desired=up(None, before), programs={"web": Program(connections_last=1e9)})
        async with stage.supervisor() as loop:
            await loop.until(lambda view: ready(stage) and view.plan.settled)
            began = stage.now()
            stage.want(up(stage.desired, after, stage))
            await loop.until(lambda _: len(of(stage)) == 2)
            assert 3.0 <= stage.now() - began < 4.0
        stage.check()

    play(scene)


def test_without_a_health_check_who_does_not_listen_yet_gets_nothing() -> None:
    """When there are more of them, and when one is started again."""
    slow = Program(listens_after=1.5, ends_within=0.0)

    async def scene() -> None:
        stage = Stage(desired=up(None, web("1", checked=False, replicas=1)), programs={"web": slow})
        async with stage.supervisor() as loop:
            await trio.sleep(3)
            stage.want(up(stage.desired, web("1", checked=False), stage))
            late = 0.0
            while len(takers(stage)) < 4:
                assert all(stage.now() - one.run.started >= 1.5 for one in takers(stage) if one.run)
                late += 0.01
                await trio.sleep(0.01)
            assert late == pytest.approx(1.6, abs=0.2)
            stage.engine.kill("shop-web-3")
            await loop.until(
                lambda _: len(of(stage)) == 4 and all(one.state == "running" for one in of(stage))
            )
            assert len(takers(stage)) == 3
            await loop.until(lambda _: len(takers(stage)) == 4)
        stage.check()

    play(scene)


def test_who_crashes_gets_nothing_until_it_is_healthy_again() -> None:
    async def scene() -> None:
        stage = Stage(desired=up(None, web("1")), programs={"web": LINGERS})
        clients = Clients(stage)
        async with stage.supervisor() as loop, trio.open_nursery() as nursery:
            await loop.until(lambda view: ready(stage) and view.plan.settled)
            await nursery.start(clients.run)
            for _ in range(3):
                stage.engine.kill("shop-web-2")
                assert len(takers(stage)) == 3
                await loop.until(lambda _: ready(stage))
            nursery.cancel_scope.cancel()
        assert clients.refused == []
        stage.check()

    play(scene)
