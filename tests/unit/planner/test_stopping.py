"""Who is told to end, in which order, and who has had long enough."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model import effects
from orchestrator.model.action import RemoveContainer, SignalContainer, StartContainer
from orchestrator.model.observation import Container, Observation
from orchestrator.model.plan import Plan
from orchestrator.model.stack import Stack
from orchestrator.planner.plan import plan
from tests.kit.stacks import converge, down, nothing, service, stack, up, wanting

NOW = 1000.0
CHAIN = stack(web=service(after="api"), api=service(after="db"), db=service())


def signals(decided: Plan) -> list[tuple[str, int]]:
    return [(a.name, a.signal) for a in decided.actions if isinstance(a, SignalContainer)]


def running(wish: Stack) -> Observation:
    return converge(up(wish), nothing())


def ends(world: Observation, name: str, at: float = NOW) -> Observation:
    (found,) = (c for c in world.containers if c.name == name)
    return effects.expect_exit(world, found.id, at, 0)


def test_dependents_are_told_before_what_they_depend_on() -> None:
    world = running(CHAIN)
    told = []
    for name in ("shop-web-1", "shop-api-1", "shop-db-1"):
        decided = plan(down(CHAIN), world, NOW)
        told += signals(decided)
        world = ends(world, name)
    assert told == [("shop-web-1", 15), ("shop-api-1", 15), ("shop-db-1", 15)]


def test_who_waits_to_be_stopped_says_for_whom() -> None:
    waits = {w.target: w.because for w in plan(down(CHAIN), running(CHAIN), NOW).waits}
    assert waits["container:shop-db-1"] == "shop-api-1 must stop first"


def test_an_ended_link_of_the_chain_does_not_break_the_order() -> None:
    world = ends(running(CHAIN), "shop-api-1")
    assert signals(plan(down(CHAIN), world, NOW)) == [("shop-web-1", 15)]


def test_a_dependent_that_is_not_to_stop_holds_nobody() -> None:
    desired = wanting(up(CHAIN), "db", wanted="stopped")
    assert signals(plan(desired, running(CHAIN), NOW)) == [("shop-db-1", 15)]


def test_all_of_a_level_are_told_at_once() -> None:
    wish = stack(a=service(after="db"), b=service(after="db", replicas=2), db=service())
    assert [name for name, _ in signals(plan(down(wish), running(wish), NOW))] == [
        "shop-a-1",
        "shop-b-1",
        "shop-b-2",
    ]


def test_a_start_under_way_counts_as_running() -> None:
    """Else the database would go while the web server comes."""
    world = running(CHAIN)
    world = replace(
        world, containers=tuple(_unborn(c) if c.service == "web" else c for c in world.containers)
    )
    web = next(c for c in world.containers if c.service == "web")
    start = StartContainer(id=web.id, name=web.name, turn=1)
    assert signals(plan(down(CHAIN), world, NOW, {start.target: start})) == []
    assert signals(plan(down(CHAIN), world, NOW)) == [("shop-api-1", 15)]


def test_kill_comes_when_the_grace_is_over_and_not_before() -> None:
    wish = stack(web=service(stop_grace_period=3.0, stop_signal="SIGQUIT"))
    world = running(wish)
    (first,) = plan(down(wish), world, NOW).actions
    assert isinstance(first, SignalContainer)
    assert (first.signal, first.by) == (3, "user")
    world = effects.expect(world, first, NOW)
    assert signals(plan(down(wish), world, NOW + 2.9)) == []
    assert plan(down(wish), world, NOW + 2.9).wake_at == NOW + 3.0
    assert signals(plan(down(wish), world, NOW + 3.0)) == [("shop-web-1", 9)]


def test_kill_is_repeated_slowly_until_it_has_worked() -> None:
    wish = stack(web=service())
    world = running(wish)
    for at in (NOW, NOW + 10):
        (action,) = plan(down(wish), world, at).actions
        world = effects.expect(world, action, at)
    assert signals(plan(down(wish), world, NOW + 14.9)) == []
    assert signals(plan(down(wish), world, NOW + 15)) == [("shop-web-1", 9)]


def test_without_grace_the_first_signal_is_kill() -> None:
    wish = stack(web=service())
    assert signals(plan(down(wish, stop_timeout=0.0), running(wish), NOW)) == [("shop-web-1", 9)]


@pytest.mark.parametrize(
    ("in_file", "for_service", "for_stack", "grace"),
    [
        (10.0, None, None, 10),
        (4.0, None, None, 4),
        (4.0, 2.0, None, 2),
        (4.0, 2.0, 1.0, 1),
        (4.0, None, 1.0, 1),
    ],
)
def test_what_was_said_last_beats_the_file(
    in_file: float, for_service: float | None, for_stack: float | None, grace: float
) -> None:
    wish = stack(web=service(stop_grace_period=in_file))
    desired = replace(down(wish, stop_timeout=for_stack), intents=up(wish, stop_timeout=for_service).intents)
    world = running(wish)
    world = effects.expect(world, plan(desired, world, NOW).actions[0], NOW)
    assert plan(desired, world, NOW).wake_at == NOW + grace


def test_a_stop_that_has_begun_is_carried_through_and_then_undone() -> None:
    """`stop`, then `up` before the program has ended: it ends, and comes back."""
    wish = stack(web=service(stop_grace_period=5.0))
    world = running(wish)
    stop = wanting(up(wish), "web", wanted="stopped")
    world = effects.expect(world, plan(stop, world, NOW).actions[0], NOW)
    again = up(wish, turn=2)
    assert signals(plan(again, world, NOW + 1)) == []
    assert signals(plan(again, world, NOW + 5)) == [("shop-web-1", 9)]
    world = ends(world, "shop-web-1", NOW + 5)
    (start,) = plan(again, world, NOW + 6).actions
    assert isinstance(start, StartContainer)
    assert start.turn == 2


def test_definitions_of_different_times_that_form_a_circle_can_still_be_stopped() -> None:
    one = running(stack(a=service(after="b", networks=()), b=service(networks=())))
    other = running(stack(b=service(after="a", networks=()), a=service(networks=())))
    mixed = replace(one, containers=(*(c for c in one.containers if c.service == "a"),
                                     *(c for c in other.containers if c.service == "b")))  # fmt: skip
    wish = down(stack(), remove_orphans=True)
    for _ in range(2):
        (signal,) = plan(wish, mixed, NOW).actions[:1]
        assert isinstance(signal, SignalContainer)
        mixed = ends(mixed, signal.name)
    assert all(c.run and c.run.finished for c in mixed.containers)


def _unborn(container: Container) -> Container:
    return replace(container, run=None)


def test_what_is_said_while_it_is_stopping_and_when_it_does_not_end() -> None:
    wish = stack(web=service(stop_grace_period=10.0))
    world = running(wish)
    (stop,) = plan(down(wish), world, NOW).actions
    world = effects.expect(world, stop, NOW)
    (wait,) = plan(down(wish), world, NOW + 9).waits[:1]
    assert (wait.because, wait.failed) == ("is stopping", False)
    (kill,) = plan(down(wish), world, NOW + 10).actions
    assert isinstance(kill, SignalContainer)
    assert (kill.signal, kill.because) == (9, "did not end within 10 s")
    world = effects.expect(world, kill, NOW + 10)
    (wait,) = plan(down(wish), world, NOW + 14).waits[:1]
    assert wait.because == "killed"
    (again,) = plan(down(wish), world, NOW + 15).actions
    assert again.because == "still there after SIGKILL"


def test_who_has_told_it_to_stop_stays_who_it_was() -> None:
    """What the user stopped is killed for the user, though it is wanted again since."""
    wish = stack(web=service(restart="always"))
    world = running(wish)
    (stop,) = plan(wanting(up(wish), "web", wanted="stopped"), world, NOW).actions
    world = effects.expect(world, stop, NOW)
    (kill,) = plan(up(wish), world, NOW + 60).actions
    assert isinstance(kill, SignalContainer)
    assert kill.by == "user"


def test_an_orphan_stops_before_what_it_depends_on_directly_or_not() -> None:
    wish = stack(db=service(), api=service(after="db"))
    old = stack(db=service(), api=service(after="db"), old=service(after="api"), older=service(after="old"))
    world = running(old)
    desired = down(wish, remove_orphans=True)
    told = []
    for name in ("shop-older-1", "shop-old-1", "shop-api-1", "shop-db-1"):
        told += signals(plan(desired, world, NOW))
        world = ends(world, name)
    assert [name for name, _ in told] == ["shop-older-1", "shop-old-1", "shop-api-1", "shop-db-1"]


def test_an_orphan_that_depended_the_other_way_round_holds_up_nobody_for_ever() -> None:
    """api needs the orphan now, and the orphan needed db, which needs api: that would be a circle."""
    world = running(stack(db=service(), api=service(), old=service(after="db")))
    now = stack(db=service(after="api"), api=service())
    desired = down(now, remove_orphans=True)
    assert signals(plan(desired, world, NOW)) == [("shop-old-1", 15)]
    world = ends(world, "shop-old-1")
    assert signals(plan(desired, world, NOW)) == [("shop-db-1", 15)]


@pytest.mark.parametrize(
    ("asked", "gone"),
    [({"wanted": "absent"}, False), ({"wanted": "absent", "remove_volumes": True}, True)],
)
def test_anonymous_volumes_go_with_rm_v_only(asked: dict[str, object], gone: bool) -> None:
    wish = stack(web=service(volumes=("/scratch",)))
    world = ends(running(wish), "shop-web-1")
    (remove,) = plan(wanting(up(wish), "web", **asked), world, NOW).actions
    assert isinstance(remove, RemoveContainer)
    assert remove.anonymous_volumes is gone
    replaced = wanting(up(stack(web=service(volumes=("/scratch",), user="1"))), "web", remove_volumes=True)
    (remove,) = plan(replaced, world, NOW).actions
    assert isinstance(remove, RemoveContainer)
    assert not remove.anonymous_volumes, "its successor has them"
