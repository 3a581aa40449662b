"""The engine's memory: who uses what, who is woken, who is told."""

from __future__ import annotations

import pytest
import trio

from orchestrator.engines.local.records import Built, Mounted
from orchestrator.engines.local.table import FEED_LIMIT, Changed, Feed, Live, Table
from orchestrator.model.observation import Container, NetworkState, VolumeState
from tests.kit.stacks import service


def live(number: int, stack: str = "shop") -> Live:
    container = Container(
        id=f"{number:x}" * 64,
        name=f"{stack}-web-{number}",
        stack=stack,
        service="web",
        slot=number,
        definition=service(),
        fingerprint="",
        generation=0,
        image_id="",
        created=0,
        addresses={"net": f"10.0.0.{number}"},
    )
    return Live(
        built=Built(container=container, volumes=(Mounted(target="/d", volume="vol"),)), container=container
    )


def test_what_a_container_uses_is_in_use_from_its_record_to_its_removal() -> None:
    table = Table()
    table.networks["net"] = NetworkState(name="net", subnet="", gateway="", fingerprint="")
    table.volumes["vol"] = VolumeState(name="vol", path="", fingerprint="")
    one, two = live(1), live(2)
    table.add(one)
    table.add(two)
    table.settle()
    assert table.networks["net"].users == (one.container.id, two.container.id)
    assert table.networks["net"].addresses == ("10.0.0.1", "10.0.0.2")
    assert table.volumes["vol"].users == (one.container.id, two.container.id)
    table.remove(one)
    assert table.networks["net"].addresses == ("10.0.0.2",)
    assert table.volumes["vol"].users == (two.container.id,)


def test_things_that_come_later_find_their_users() -> None:
    table = Table()
    one = live(1)
    table.add(one)
    table.networks["net"] = NetworkState(name="net", subnet="", gateway="", fingerprint="")
    table.settle()
    assert table.networks["net"].users == (one.container.id,)


async def test_a_change_rings_for_its_own_stack_and_a_shared_one_for_all() -> None:
    table = Table()
    ours, theirs = table.bell("shop"), table.bell("other")
    table.add(live(1))
    assert (ours.is_set(), theirs.is_set()) == (True, False)
    again = table.bell("shop")
    assert not again.is_set()
    table.ring()
    assert (again.is_set(), theirs.is_set()) == (True, True)


async def test_growth_is_said_once_until_it_was_heard() -> None:
    feed = Feed()
    follower = feed.follow()
    one = live(1).container
    for _ in range(FEED_LIMIT * 2):
        feed.publish(Changed(kind="grown", container=one))
    feed.publish(Changed(kind="exited", container=one))
    heard = [await anext(follower) for _ in range(2)]
    assert [change.kind for change in heard] == ["grown", "exited"]
    feed.publish(Changed(kind="grown", container=one))
    assert (await anext(follower)).kind == "grown"
    follower.close()


async def test_who_does_not_keep_up_is_cut_off_and_the_others_are_not() -> None:
    feed = Feed()
    slow, quick = feed.follow(), feed.follow()
    one = live(1).container
    for _ in range(FEED_LIMIT + 1):
        feed.publish(Changed(kind="exited", container=one))
        await anext(quick)
    heard = [change async for change in slow]
    assert len(heard) == FEED_LIMIT
    with trio.move_on_after(0.01) as waited:
        await anext(quick)
    assert waited.cancelled_caught
    slow.close()
    quick.close()


async def test_a_closed_follower_is_forgotten() -> None:
    feed = Feed()
    feed.follow().close()
    feed.publish(Changed(kind="exited", container=live(1).container))
    follower = feed.follow()
    follower.cut_off()
    with pytest.raises(StopAsyncIteration):
        await anext(follower)
    follower.close()
