"""The loop on its own terms; what it does to a stack is played in tests/simulation."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from orchestrator.engines.simulated import Faults, Program, SimulatedEngine
from orchestrator.model.action import Action
from orchestrator.model.errors import EngineError
from orchestrator.model.observation import Observation
from orchestrator.reconciler.loop import Loop
from tests.kit.stacks import check, down, service, stack, up


@dataclass
class Broken(SimulatedEngine):
    """Fails as told: `bugs` are raised by apply, one each; `blind` looks fail."""

    bugs: list[Exception] = field(default_factory=list)
    blind: int = 0

    async def apply(self, action: Action) -> None:
        if self.bugs:
            raise self.bugs.pop(0)
        await SimulatedEngine.apply(self, action)

    async def observe(self) -> Observation:
        if self.blind:
            self.blind -= 1
            raise EngineError("can't see")
        return await SimulatedEngine.observe(self)


WISH = up(stack(web=service()))


async def settled(loop: Loop, revision: int = 0) -> None:
    with trio.fail_after(60):
        await loop.until(lambda view: view.plan.settled, revision=revision)


async def test_a_bug_in_an_action_is_told_and_the_action_tried_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bugs: list[BaseException] = []
    engine = Broken(now=trio.current_time, bugs=[KeyError("oops"), ValueError("again")])
    loop = Loop(engine, WISH, now=trio.current_time, on_bug=bugs.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        await settled(loop)
        nursery.cancel_scope.cancel()
    assert [type(bug) for bug in bugs] == [KeyError, ValueError]
    failed = [event.because for event in loop.history if event.outcome == "failed"]
    assert failed == ["internal error: KeyError: 'oops'", "internal error: ValueError: again"]
    assert loop.failures == {}


async def test_an_engine_that_cannot_see_is_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    bugs: list[BaseException] = []
    engine = Broken(now=trio.current_time, blind=3)
    loop = Loop(engine, WISH, now=trio.current_time, on_bug=bugs.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        await settled(loop)
        nursery.cancel_scope.cancel()
    assert bugs == []
    assert [e.because for e in loop.history if e.verb == "observe"] == ["can't see"] * 3


async def test_a_failure_that_is_for_good_is_forgotten_with_the_next_wish(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = Broken(now=trio.current_time, bugs=[EngineError("no", retryable=False, exit_code=7)])  # type: ignore[arg-type]
    loop = Loop(engine, WISH, now=trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        await settled(loop)
        assert loop.view is not None
        waits = [(wait.because, wait.failed, wait.exit_code) for wait in loop.view.plan.waits]
        assert ("no", True, 7) in waits
        await settled(loop, loop.want(WISH))
        nursery.cancel_scope.cancel()
    assert len(engine.world.containers) == 1


async def test_health_checks_that_end_one_after_the_other_cost_one_look(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """An engine without news: only what the loop itself begins and ends wakes it."""

    @dataclass
    class Calm(SimulatedEngine):
        looks: list[float] = field(default_factory=list)

        async def observe(self) -> Observation:
            self.looks.append(self.now())
            return await SimulatedEngine.observe(self)

        async def changed(self) -> None:
            await trio.sleep_forever()

    services = {f"s{n}": service(healthcheck=check(interval=30.0, timeout=10.0)) for n in range(8)}
    programs = {f"s{n}": Program(probe_takes=0.05 * (n + 1)) for n in range(8)}
    engine = Calm(now=trio.current_time, programs=programs)
    loop = Loop(engine, up(stack(**services)), now=trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        await trio.sleep(60)
        del engine.looks[:]
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert len(engine.looks) <= 2, "two rounds of checks, each begun by a look; nobody looks when they end"
    probes = [len(one.run.health.results) for one in engine.world.containers if one.run and one.run.health]
    assert probes == [3] * 8


async def test_until_answers_only_with_a_view_of_the_new_wish(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = SimulatedEngine(now=trio.current_time)
    loop = Loop(engine, WISH, now=trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        await settled(loop)
        revision = loop.want(down(WISH.stack))
        found = await loop.until(lambda view: view, revision=revision)
        assert found.desired.down
        assert found.revision == revision
        nursery.cancel_scope.cancel()


async def test_actions_under_way_are_finished_when_the_loop_is_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = SimulatedEngine(now=trio.current_time, faults=Faults(delay=(1.0, 1.0)))
    loop = Loop(engine, WISH, now=trio.current_time, patience=5.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        await trio.sleep(0.001)
        assert list(loop.in_flight) == ["network:shop_default"]
        nursery.cancel_scope.cancel()
    assert engine.world.networks.keys() == {"shop_default"}
    assert loop.in_flight == {}
    assert engine.world.containers == ()


async def test_patience_has_an_end(autojump_clock: trio.testing.MockClock) -> None:
    engine = SimulatedEngine(now=trio.current_time, faults=Faults(delay=(1000.0, 1000.0)))
    loop = Loop(engine, WISH, now=trio.current_time, patience=5.0)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == pytest.approx(5.5, abs=0.01)


async def test_no_more_actions_at_once_than_allowed(autojump_clock: trio.testing.MockClock) -> None:
    engine = SimulatedEngine(now=trio.current_time, faults=Faults(delay=(0.1, 0.1)))
    wish = up(stack(**{f"s{number}": service(networks=()) for number in range(30)}))
    loop = Loop(engine, wish, now=trio.current_time, concurrency=4)
    most = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        for _ in range(200):
            await trio.sleep(0.01)
            most = max(most, len(loop.in_flight))
        await settled(loop)
        nursery.cancel_scope.cancel()
    assert most == 4
    assert len(engine.applied) == 60
