"""What has happened."""

from __future__ import annotations

from dataclasses import replace

import trio

from orchestrator.model import effects
from orchestrator.model.observation import Health, HealthStatus
from orchestrator.reconciler.history import FOLLOWER_BACKLOG, Event, History, differences
from tests.kit.stacks import check, converge, nothing, service, stack, up


def event(number: int) -> Event:
    return Event(at=float(number), target="container:x", verb="start", because="why", outcome="ok")


def test_only_the_latest_events_are_kept() -> None:
    history = History(kept=3)
    for number in range(5):
        history.record(event(number))
    assert [found.at for found in history] == [2.0, 3.0, 4.0]


async def test_followers_get_what_happens_from_now_on() -> None:
    history = History()
    history.record(event(1))
    async with history.follow() as one, history.follow() as other:
        history.record(event(2))
        assert (await one.receive()).at == 2.0
        assert (await other.receive()).at == 2.0


async def test_a_follower_that_does_not_keep_up_is_dropped() -> None:
    history = History()
    async with history.follow() as slow:
        for number in range(FOLLOWER_BACKLOG + 10):
            history.record(event(number))
        got = [found.at async for found in slow]
    assert got == [float(number) for number in range(FOLLOWER_BACKLOG)]
    history.record(event(0))


async def test_a_follower_that_left_is_forgotten() -> None:
    history = History()
    async with history.follow():
        await trio.lowlevel.checkpoint()
    history.record(event(1))
    assert len(list(history)) == 1


def test_exits_and_changes_of_health_are_noticed() -> None:
    before = converge(up(stack(web=service(healthcheck=check(interval=1e6)))), nothing())
    (web,) = before.containers
    assert web.run is not None
    healthy = replace(web, run=replace(web.run, health=Health(status=HealthStatus.HEALTHY)))
    after = replace(before, containers=(healthy,))
    gone = effects.expect_exit(after, web.id, 7.0, 137)
    assert [(e.verb, e.because) for e in differences(before, after)] == [("healthy", "its probe succeeded")]
    assert [(e.verb, e.because) for e in differences(after, gone)] == [("exit", "exit 137")]
    starved = replace(healthy, run=replace(web.run, oom_killed=True))
    told = replace(before, containers=(starved,))
    ended = effects.expect_exit(told, web.id, 7.0, 1)
    assert [e.verb for e in differences(before, told)] == ["oom"]
    assert [(e.verb, e.because) for e in differences(told, ended)] == [("exit", "exit 1, out of memory")]
    assert [e.verb for e in differences(before, ended)] == ["oom", "exit"]
    assert differences(gone, gone) == []
    assert differences(None, gone) == []
