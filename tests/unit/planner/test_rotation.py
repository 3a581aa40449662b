"""Host ports that containers of a service share: who gets connections, and who is drained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from orchestrator.model import effects, rotation
from orchestrator.model.action import (
    Action,
    CreateContainer,
    ProbeContainer,
    RoutePorts,
    SignalContainer,
    StartContainer,
)
from orchestrator.model.desired import Desired
from orchestrator.model.observation import (
    Container,
    Failure,
    Health,
    HealthStatus,
    Observation,
    PublishedPort,
    Run,
    Stopping,
)
from orchestrator.model.plan import Plan
from orchestrator.model.stack import Port, Stack
from orchestrator.planner.plan import plan
from tests.kit.stacks import check, converge, down, nothing, service, stack, up, wanting

NOW = 1000.0


def shop(replicas: int = 3, **fields: object) -> Stack:
    return stack(web=service(ports=("8080:80",), replicas=replicas, **fields))  # type: ignore[arg-type]


def standing(wish: Stack) -> Observation:
    """All run and, where they are asked, are healthy."""
    world = converge(up(wish), nothing())
    if any(one.healthcheck is not None for one in world.containers):
        for one in world.containers:
            world = changed(world, one.slot, health=health("healthy"))
        world = after(world, only(RoutePorts, plan(up(wish), world, NOW)))
    return world


def ids(world: Observation, *slots: int) -> tuple[str, ...]:
    return tuple(one.id for slot in slots for one in world.containers if one.slot == slot)


def changed(world: Observation, slot: int, **fields: object) -> Observation:
    """The world with another run of the container in a seat."""
    return replace(
        world,
        containers=tuple(
            replace(one, run=replace(one.run, **fields)) if one.slot == slot and one.run else one  # type: ignore[arg-type]
            for one in world.containers
        ),
    )


def health(status: str) -> Health:
    return Health(status=HealthStatus(status))


def only(kind: type, decided: Plan) -> list[Action]:
    return [action for action in decided.actions if isinstance(action, kind)]


def after(world: Observation, actions: Iterable[Action], now: float = NOW) -> Observation:
    for action in actions:
        world = effects.expect(world, action, now)
    return world


def slots(world: Observation, members: Iterable[str]) -> list[int]:
    return sorted(one.slot for one in world.containers if one.id in members)


def waits(decided: Plan) -> dict[str, str]:
    return {wait.target: wait.because for wait in decided.waits}


def takers(world: Observation) -> list[int]:
    holders = [one for one in world.containers if one.state == "running"]
    return [one.slot for one in rotation.takers(holders)]


# --- who may hold a port --------------------------------------------------------------------------------


def test_containers_of_a_service_share_a_fixed_port() -> None:
    world = standing(shop())
    assert [one.ports[0].host_port for one in world.containers] == [8080] * 3
    assert takers(world) == [1, 2, 3]
    decided = plan(up(shop()), world, NOW)
    assert decided.settled
    assert decided.wake_at is None, "nobody is looked at again for nothing"


@pytest.mark.parametrize("others", ["another service", "mode: host", "another address"])
def test_what_can_not_be_shared_is_a_clash(others: str) -> None:
    if others == "another service":
        wish = stack(a=service(ports=("8080:80",)), web=service(ports=("8080:80",)))
    elif others == "mode: host":
        host = Port(target=80, published=(8080, 8080), mode="host")
        web = shop(2).services["web"]
        wish = replace(shop(2), services={"web": replace(web, ports=(host,))})
    else:
        before = standing(stack(web=service(ports=("127.0.0.1:8080:80",))))
        wish = shop(2)
        decided = plan(wanting(up(wish), "web", keep_stale=True), before, NOW)
        assert [one.because for one in decided.waits if one.failed] == [
            "port 8080/tcp is in use by container shop-web-1"
        ]
        return
    world = standing(wish)
    assert len(world.containers) == 1
    (wait,) = [one for one in plan(up(wish), world, NOW).waits if one.failed]
    assert wait.exit_code == 7
    assert "port 8080/tcp is in use by container" in wait.because


def test_a_stopped_container_starts_again_beside_the_one_that_runs() -> None:
    world = standing(shop(2))
    ended = changed(world, 1, finished=NOW, exit_code=0)
    decided = plan(up(shop(2), turn=2), ended, NOW)
    assert [one.target for one in only(StartContainer, decided)] == ["container:shop-web-1"]


def test_a_port_stays_taken_until_the_last_of_those_who_share_it_has_ended() -> None:
    world = standing(shop(2))
    port = PublishedPort(host_ip="", host_port=8080, target=80)
    assert world.ports_taken == (port,)
    one, two = world.containers
    world = effects.expect_exit(world, one.id, NOW, 0)
    assert world.ports_taken == (port,)
    assert effects.expect_exit(world, two.id, NOW, 0).ports_taken == ()


# --- who gets connections -------------------------------------------------------------------------------


def test_a_container_that_is_alone_costs_no_action() -> None:
    """Nor do those that share nothing, however many there are."""
    for wish in (
        shop(1),
        shop(1, healthcheck=check()),
        stack(web=service(ports=("8000-8009:80",), replicas=4)),
    ):
        desired, world, now = up(wish), nothing(), 100.0
        for _ in range(20):
            decided = plan(desired, world, now)
            assert not only(RoutePorts, decided)
            world, now = after(world, decided.actions, now), now + 0.5
        assert all(one.run is not None and one.run.rotation is None for one in world.containers)


def test_the_first_to_start_has_the_port_until_more_is_said() -> None:
    world = nothing()
    for kind in (CreateContainer, StartContainer):
        for _ in range(3):
            found = plan(up(shop()), world, NOW).actions
            world = after(world, [one for one in found if not isinstance(one, RoutePorts | ProbeContainer)])
        assert kind
    assert len(takers(world)) == 1
    (route,) = only(RoutePorts, plan(up(shop()), world, NOW))
    assert isinstance(route, RoutePorts)
    assert slots(world, route.members) == [1, 2, 3]
    assert "joins" in route.because
    world = after(world, [route])
    assert takers(world) == [1, 2, 3]
    assert after(world, [route], NOW + 1) == world, "saying it again changes nothing"


def test_a_port_of_ones_own_is_no_place_in_the_rotation() -> None:
    """Only the first gets connections to the port that both have; each has one of a range to itself."""
    wish = stack(web=service(ports=("8080:80", "9000-9001:81"), replicas=2))
    world = standing(wish)
    world = replace(
        world, containers=tuple(replace(one, run=replace(one.run, rotation=None)) for one in world.containers)
    )  # type: ignore[type-var]
    (route,) = only(RoutePorts, plan(up(wish), world, NOW))
    assert route.because in ("shop-web-1 joins", "shop-web-2 joins")


def test_who_was_asked_nothing_yet_is_not_healthy_yet() -> None:
    wish = shop(2, healthcheck=check(interval=60.0))
    world = changed(standing(wish), 2, health=None)
    (route,) = only(RoutePorts, plan(up(wish), world, NOW))
    assert route.because == "shop-web-2 leaves: it is not healthy yet"


def test_who_is_stopping_already_leaves_and_that_is_why() -> None:
    """As after a `restart` that was taken back: the stop is carried through all the same."""
    world = changed(standing(shop()), 3, stopping=Stopping(since=NOW, signal=15, by="planner"))
    (route,) = only(RoutePorts, plan(up(shop()), world, NOW))
    assert route.because == "shop-web-3 leaves: it is stopping"


def test_who_is_not_healthy_gets_nothing_while_others_are() -> None:
    wish = shop(healthcheck=check())
    world = changed(standing(wish), 2, health=health("unhealthy"))
    (route,) = only(RoutePorts, plan(up(wish), world, NOW))
    assert isinstance(route, RoutePorts)
    assert slots(world, route.members) == [1, 3]
    assert route.because == "shop-web-2 leaves: it is unhealthy"
    world = after(world, [route])
    assert takers(world) == [1, 3]
    back = changed(world, 2, health=health("healthy"))
    (route,) = only(RoutePorts, plan(up(wish), back, NOW))
    assert route.because == "shop-web-2 joins"


def test_who_does_not_listen_yet_is_looked_at_again_the_later_the_longer() -> None:
    world = standing(shop(2))
    (late,) = ids(world, 2)
    for age, pause in ((0.05, 0.1), (20.0, 2.0), (900.0, 5.0)):
        young = replace(changed(world, 2, started=NOW - age, rotation=None), deaf=frozenset({late}))
        decided = plan(up(shop(2)), young, NOW)
        assert not decided.actions
        assert decided.wake_at == pytest.approx(NOW + pause)
    (route,) = only(RoutePorts, plan(up(shop(2)), replace(young, deaf=frozenset()), NOW))
    assert route.because == "shop-web-2 joins"


def test_when_nobody_is_healthy_all_get_connections() -> None:
    """As a single unhealthy container does, with docker as well."""
    wish = shop(2, healthcheck=check())
    world = standing(wish)
    for slot in (1, 2):
        world = changed(world, slot, health=health("unhealthy"))
        world = after(world, only(RoutePorts, plan(up(wish), world, NOW)))
    assert takers(world) == [1, 2]


def test_a_new_run_joins_when_it_is_healthy_and_a_paused_one_leaves() -> None:
    wish = shop(2, healthcheck=check(), restart="always")
    world = standing(wish)
    ended = effects.expect_exit(world, ids(world, 2)[0], NOW, 1)
    assert takers(ended) == [1], "at once, without any action"
    assert not only(RoutePorts, plan(up(wish), ended, NOW))
    again = after(ended, only(StartContainer, plan(up(wish), ended, NOW + 1)), NOW + 1)
    assert takers(again) == [1]
    assert not only(RoutePorts, plan(up(wish), again, NOW + 1))
    healthy = changed(again, 2, health=health("healthy"))
    assert takers(after(healthy, only(RoutePorts, plan(up(wish), healthy, NOW + 2)))) == [1, 2]
    paused = changed(world, 1, paused=True)
    assert takers(after(paused, only(RoutePorts, plan(up(wish), paused, NOW)))) == [2]


def test_the_one_that_serves_goes_on_while_its_successor_can_not() -> None:
    wish = shop(2, healthcheck=check())
    world = changed(standing(wish), 1, health=health("starting"))
    world = after(world, only(RoutePorts, plan(up(wish), world, NOW)))
    decided = plan(up(shop(1, healthcheck=check())), world, NOW)
    assert takers(world) == [2]
    assert not only(RoutePorts, decided)


# --- who leaves before it is stopped --------------------------------------------------------------------


def leaving(wish: Stack, world: Observation, now: float = NOW) -> tuple[Plan, Observation]:
    """Scaled to two of three: the third has left the rotation."""
    decided = plan(up(replace(wish, services={"web": replace(wish.services["web"], replicas=2)})), world, now)
    return decided, after(world, only(RoutePorts, decided), now)


def two(wish: Stack) -> Desired:
    return up(replace(wish, services={"web": replace(wish.services["web"], replicas=2)}))


def test_scaled_down_it_leaves_first_is_drained_and_then_stopped() -> None:
    wish = shop()
    decided, world = leaving(wish, standing(wish))
    (route,) = decided.actions
    assert route.because == "shop-web-3 leaves: scaled to 2"
    assert waits(decided) == {"container:shop-web-3": "leaves the rotation of its ports first"}
    assert takers(world) == [1, 2]
    just_now = plan(two(wish), world, NOW + 0.05)
    assert (just_now.actions, waits(just_now)) == ((), {"container:shop-web-3": "is drained"})
    assert just_now.wake_at == pytest.approx(NOW + 0.1)
    (third,) = ids(world, 3)
    busy = replace(world, connections={third: 2})
    still = plan(two(wish), busy, NOW + 3)
    assert waits(still) == {"container:shop-web-3": "is drained: 2 connections left"}
    assert still.wake_at == pytest.approx(NOW + 3.1)
    last = plan(two(wish), replace(world, connections={third: 1}), NOW + 4.95)
    assert waits(last) == {"container:shop-web-3": "is drained: 1 connection left"}
    assert last.wake_at == pytest.approx(NOW + 5.0)
    for quiet, now in (
        (world, NOW + 0.1),
        (replace(world, connections={third: 0}), NOW + 1),
        (busy, NOW + 5),
    ):
        (stop,) = plan(two(wish), quiet, now).actions
        assert isinstance(stop, SignalContainer)
        assert (stop.id, stop.signal, stop.because) == (third, 15, "scaled to 2")


def test_the_time_to_drain_is_the_stack_files() -> None:
    for seconds, stopped in ((0.0, True), (30.0, False)):
        wish = shop(drain=seconds)
        _, world = leaving(wish, standing(wish))
        world = replace(world, connections=dict.fromkeys(ids(world, 3), 1))
        assert bool(only(SignalContainer, plan(two(wish), world, NOW + 10))) is stopped


def test_what_the_user_stops_or_replaces_as_a_whole_stops_at_once() -> None:
    wish = shop()
    world = standing(wish)
    for desired in (
        down(wish),
        wanting(up(wish), "web", wanted="stopped"),
        wanting(up(wish), "web", wanted="absent"),
        wanting(up(wish), "web", restart_turn=2),
        wanting(up(wish), "web", generation=1),
        up(shop(0)),
    ):
        decided = plan(desired, world, NOW)
        assert len(only(SignalContainer, decided)) == 3, desired
        assert not only(RoutePorts, decided)


def test_no_grace_means_no_draining() -> None:
    wish = shop()
    desired = two(wish)
    decided = plan(wanting(desired, "web", stop_timeout=0.0), standing(wish), NOW)
    assert [one.signal for one in only(SignalContainer, decided) if isinstance(one, SignalContainer)] == [9]


def test_who_never_got_connections_need_not_be_drained() -> None:
    wish = shop(2, healthcheck=check())
    world = changed(standing(wish), 2, health=health("starting"), rotation=None)
    (stop,) = only(SignalContainer, plan(up(shop(1, healthcheck=check())), world, NOW))
    assert (stop.target) == "container:shop-web-2"


def test_ports_that_can_not_be_led_elsewhere_hold_up_no_stop() -> None:
    wish = shop()
    failed = Failure(target="ports:web", verb="route", count=1, at=NOW, because="firewall: no")
    decided = plan(two(wish), replace(standing(wish), failures={"ports:web": failed}), NOW + 0.1)
    assert [one.target for one in only(SignalContainer, decided)] == ["container:shop-web-3"]


def test_who_is_wanted_again_joins_again() -> None:
    wish = shop()
    _, world = leaving(wish, standing(wish))
    (route,) = plan(up(wish), world, NOW + 1).actions
    assert route.because == "shop-web-3 joins"
    assert takers(after(world, [route])) == [1, 2, 3]


def test_the_last_that_stays_is_not_given_up_for_one_that_dies_meanwhile() -> None:
    """Who is being drained serves again while nobody else can."""
    wish = shop(2, healthcheck=check())
    desired = up(shop(1, healthcheck=check()))
    world = standing(wish)
    world = after(world, only(RoutePorts, plan(desired, world, NOW)))
    assert takers(world) == [1]
    sick = changed(world, 1, health=health("unhealthy"))
    assert takers(after(sick, only(RoutePorts, plan(desired, sick, NOW)))) == [2]
    dead = effects.expect_exit(world, ids(world, 1)[0], NOW, 1)
    assert takers(dead) == [2], "of those that run, somebody gets them in any case"


# --- the rule that engines share ------------------------------------------------------------------------


def holder(slot: int, **run: object) -> Container:
    (made,) = standing(shop(1)).containers
    base = Run(turn=1, started=100.0 - slot, pid=1)
    return replace(made, id=str(slot), slot=slot, run=replace(base, **run) if run else base)  # type: ignore[arg-type]


def test_without_a_word_the_oldest_run_gets_all_and_one_that_starts_nothing() -> None:
    starting = replace(holder(9), run=None)
    assert rotation.takers(()) == ()
    assert rotation.takers([starting]) == (starting,)
    assert [one.slot for one in rotation.takers([starting, holder(1), holder(2)])] == [2]
    assert [one.slot for one in rotation.takers([holder(2, finished=5.0), holder(1)])] == [1]


def test_being_told_to_stop_is_no_reason_for_an_engine_to_choose_otherwise() -> None:
    """It is the planner who says who leaves."""
    member = rotation.routed(holder(1), member=True, now=3.0)
    stopping = replace(member, run=replace(member.run, stopping=Stopping(since=4.0, signal=15, by="user")))  # type: ignore[type-var]
    assert rotation.takers([stopping, holder(2)]) == (stopping,)
