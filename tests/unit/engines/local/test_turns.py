"""Floods share a part of the time, and starts of one stack leave room for those of another."""

from __future__ import annotations

import trio
import trio.testing

from orchestrator.engines.local.turns import WIDTH, Lanes, Turns


async def test_all_floods_together_get_a_fifth_of_the_time_and_each_as_much(
    autojump_clock: trio.testing.MockClock,
) -> None:
    turns, worked = Turns(), [0.0] * 5

    async def flood(number: int) -> None:
        while True:
            worked[number] += 0.002  # of the thread that all share: the virtual clock stands still
            await turns.rest(0.002)

    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(flood, number)
    assert 2.3 < sum(worked) < 2.6  # a quarter of the rests, which is a fifth of all
    assert max(worked) - min(worked) < 0.01


async def test_a_start_waits_for_some_of_its_own_stack_and_for_none_of_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lanes, began = Lanes(), dict[str, float]()

    async def start(stack: str, name: str) -> None:
        async with lanes.of(stack):
            began[name] = trio.current_time()
            await trio.sleep(1)

    zero = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(3 * WIDTH):
            nursery.start_soon(start, "crowd", str(number))
        await trio.sleep(0.5)
        nursery.start_soon(start, "other", "other")
    assert began["other"] - zero == 0.5
    assert sorted(round(at - zero) for name, at in began.items() if name != "other") == sorted(
        [*[0] * WIDTH, *[1] * WIDTH, *[2] * WIDTH]
    )
