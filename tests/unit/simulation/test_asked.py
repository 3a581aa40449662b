"""Nothing unasked, nothing lost, nothing ended without a reason: each law, kept and broken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.engines.guarding import UnsafeError
from orchestrator.model import effects
from orchestrator.model.action import (
    Action,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    PullImage,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    SignalContainer,
    StartContainer,
)
from orchestrator.model.desired import Desired
from orchestrator.model.observation import Container, Observation, Run, Stopping
from orchestrator.model.stack import OfService, Stack
from orchestrator.planner.plan import plan
from orchestrator.simulation.laws import demand_safe
from tests.kit.stacks import converge, down, network, nothing, service, stack, up, volume, wanting

NOW = 1000.0


def shop(**fields: object) -> Stack:
    web = service(after={"db": "started!"}, **fields)  # type: ignore[arg-type]
    return stack("shop", db=service(volumes=("data:/d", "/scratch"), stop_grace_period=5.0), web=web)


@pytest.fixture
def world() -> Observation:
    return converge(up(shop()), nothing())


def called(world: Observation, service_name: str) -> Container:
    return next(one for one in world.containers if one.service == service_name)


def stop(container: Container, signal: int = 15) -> SignalContainer:
    return SignalContainer(id=container.id, name=container.name, signal=signal, stopping=True)


def remove(container: Container, *, volumes: bool = False) -> RemoveContainer:
    return RemoveContainer(id=container.id, name=container.name, anonymous_volumes=volumes)


def start(container: Container, attempt: int = 1) -> StartContainer:
    return StartContainer(id=container.id, name=container.name, turn=1, attempt=attempt)


def with_run(world: Observation, name: str, **fields: object) -> Observation:
    run = Run(turn=1, started=NOW - 100, **{"finished": NOW - 90, "exit_code": 1, **fields})  # type: ignore[arg-type]
    changed = tuple(replace(one, run=run) if one.service == name else one for one in world.containers)
    return replace(world, containers=changed)


def breach(desired: Desired, world: Observation, action: Action, now: float = NOW) -> str:
    try:
        demand_safe(desired, world, action, now)
    except UnsafeError as error:
        return str(error)
    return ""


def test_a_container_that_is_as_the_file_says_is_left_alone(world: Observation) -> None:
    for name in ("db", "web"):
        ours = called(world, name)
        assert "is stopped for no reason" in breach(up(shop()), world, stop(ours))
        assert "is removed for no reason" in breach(up(shop()), world, remove(ours))
        assert breach(wanting(up(shop()), name, wanted="stopped"), world, stop(ours)) == ""


@pytest.mark.parametrize(
    ("desired", "may"),
    [
        (up(shop(user="2")), {"web"}),
        (up(shop(networks=("back",))), {"web"}),
        (up(shop(replicas=0)), {"web"}),
        (wanting(up(shop()), "db", generation=1), {"db", "web"}),  # web goes with it
        (wanting(up(shop()), "db", restart_turn=2), {"db", "web"}),
        (wanting(up(shop()), "web", restart_turn=2), {"web"}),
        (wanting(up(shop(user="2")), "web", keep_stale=True), set()),
        (up(stack("shop", db=shop().services["db"])), set()),  # web is an orphan
        (replace(up(stack("shop", db=shop().services["db"])), remove_orphans=True), {"web"}),
        (up(shop(), "db"), set()),
    ],
)
def test_what_is_a_reason_to_end(world: Observation, desired: Desired, may: set[str]) -> None:
    ended = {name for name in ("db", "web") if not breach(desired, world, stop(called(world, name)))}
    assert ended == may


def test_what_is_gone_around_it_is_a_reason(world: Observation) -> None:
    db = called(world, "db")
    assert breach(up(shop()), replace(world, volumes={}), stop(db)) == ""
    assert breach(up(shop()), replace(world, networks={}), stop(db)) == ""
    image = stack("shop", db=service(image="db"))
    before = converge(up(image), nothing("db"))
    other = replace(before, images={"db": replace(before.images["db"], id="sha256:other")})
    assert breach(up(image), before, stop(called(before, "db"))) != ""
    assert breach(up(image), other, stop(called(before, "db"))) == ""


def test_who_shares_a_namespace_goes_with_its_owner() -> None:
    wish = stack("shop", db=service(), web=service(network_mode=OfService(service="db")))
    world = converge(up(wish), nothing())
    assert "no reason" in breach(up(wish), world, stop(called(world, "web")))
    assert breach(wanting(up(wish), "db", generation=1), world, stop(called(world, "web"))) == ""
    moved = replace(called(world, "web"), peers={"db": "f" * 64})
    other = replace(world, containers=(called(world, "db"), moved))
    assert breach(up(wish), other, stop(moved)) == ""


def test_dependents_end_first(world: Observation) -> None:
    gone = down(shop())
    assert breach(gone, world, stop(called(world, "db"))).endswith(
        "shop-db-1 is stopped before shop-web-1, which depends on it"
    )
    assert breach(gone, world, stop(called(world, "web"))) == ""
    assert breach(gone, with_run(world, "web"), stop(called(world, "db"))) == ""


@pytest.mark.parametrize(
    ("desired", "grace"),
    [
        (wanting(up(shop()), "db", wanted="stopped"), 5.0),
        (wanting(up(shop()), "db", wanted="stopped", stop_timeout=2.0), 2.0),
        (down(shop(), stop_timeout=1.0), 1.0),
    ],
)
def test_grace_is_respected(world: Observation, desired: Desired, grace: float) -> None:
    stopping = Stopping(since=NOW, signal=15, by="user")
    ending = with_run(world, "db", finished=None, exit_code=None, stopping=stopping)
    kill = stop(called(ending, "db"), signal=9)
    assert "is killed after" in breach(desired, ending, kill, NOW + grace - 0.1)
    assert breach(desired, ending, kill, NOW + grace) == ""
    assert "in place of" in breach(wanting(desired, "web", wanted="absent"), with_run(world, "web"), kill)


def test_data_goes_only_with_down_and_volumes(world: Observation) -> None:
    data, db = RemoveVolume(name="shop_data"), called(world, "db")
    assert "nobody has said down -v" in breach(up(shop()), world, data)
    assert "nobody has said down -v" in breach(down(shop()), world, data)
    whole = down(shop(), remove_volumes=True)
    assert breach(whole, world, data) == ""
    foreign = {**world.volumes, "shop_data": replace(world.volumes["shop_data"], stack="other")}
    assert "is of stack other" in breach(whole, replace(world, volumes=foreign), data)
    outside = stack("shop", volumes={"data": replace(volume(external=True), name="shop_data")}, db=service())
    assert "is external" in breach(down(outside, remove_volumes=True), world, data)
    absent = wanting(up(shop()), "db", wanted="absent")
    ended = with_run(world, "db")
    assert "with its anonymous volumes" in breach(absent, ended, remove(db, volumes=True))
    assert breach(absent, ended, remove(db)) == ""
    assert breach(wanting(absent, "db", remove_volumes=True), ended, remove(db, volumes=True)) == ""
    assert breach(whole, ended, remove(db, volumes=True)) == ""


def test_nothing_is_made_that_nobody_asked_for() -> None:
    wish = stack("shop", db=service(image="db", volumes=("data:/d",)))
    bare = nothing()
    wanted = up(wish)
    (pull,) = (one for one in plan(wanted, bare, NOW).actions if isinstance(one, PullImage))
    makes = [one for one in plan(wanted, bare, NOW).actions if not isinstance(one, PullImage)]
    assert {type(one) for one in makes} == {CreateNetwork, CreateVolume}
    for made in makes:
        assert breach(wanted, bare, made) == ""
        assert "is made while the stack goes down" in breach(down(wish), bare, made)
    assert breach(wanted, bare, pull) == ""
    assert "nobody needs it" in breach(wanting(wanted, "db", wanted="stopped"), bare, pull)
    shy = up(stack("shop", db=service(image="db", volumes=("data:/d",), pull_policy="never")))
    assert "although that was forbidden" in breach(shy, bare, pull)
    there = bare
    for made in (*makes, pull):
        there = effects.expect(there, made, NOW)
    (create,) = plan(wanted, there, NOW).actions
    assert isinstance(create, CreateContainer)
    assert breach(wanted, there, create) == ""
    for other in (down(wish), wanting(wanted, "db", wanted="stopped"), up(shop(), "web")):
        assert "nobody has asked for it" in breach(other, there, create)
    assert "for an order of before" in breach(wanting(wanted, "db", generation=1), there, create)
    assert "which does not exist" in breach(wanted, replace(there, networks={}), create)
    assert "which does not exist" in breach(wanted, replace(there, volumes={}), create)
    for made in makes:
        away = (
            replace(made, network=replace(made.network, external=True))
            if isinstance(made, CreateNetwork)
            else replace(made, volume=replace(made.volume, external=True))  # type: ignore[union-attr]
        )
        assert "is external" in breach(wanted, bare, away)


@pytest.mark.parametrize(
    ("restart", "run", "attempt", "said"),
    [
        ("no", {}, 1, "its policy is never to"),
        ("no", {}, 1, ""),
        ("always", {}, 1, "as if it were the first time"),
        ("always", {}, 2, ""),
        ("always", {"before_boot": True}, 1, ""),
        ("on-failure", {"exit_code": 0}, 2, "although it has succeeded"),
        ("on-failure", {}, 2, ""),
        ("on-failure:1", {}, 3, "is started again 2 times in place of 1"),
        ("always", {"stopping": Stopping(since=1.0, signal=9, by="user")}, 2, "the user had stopped it"),
        ("no", {"stopping": Stopping(since=1.0, signal=9, by="planner")}, 1, ""),
    ],
)
def test_what_follows_an_end(restart: str, run: dict[str, object], attempt: int, said: str) -> None:
    """Without a word said, the run was not ordered again."""
    ordered = not said and restart == "no" and not run
    desired = up(stack("shop", db=service(restart=restart)))
    world = converge(desired, nothing())
    ended = with_run(world, "db", **run)
    if ordered:
        desired = wanting(desired, "db", turn=2)
    found = breach(desired, ended, start(called(ended, "db"), attempt))
    assert said in found if said else found == ""


def test_nobody_is_started_who_is_not_wanted_running(world: Observation) -> None:
    ended = with_run(world, "db")
    db = start(called(ended, "db"), 2)
    for desired in (down(shop()), wanting(up(shop()), "db", wanted="stopped"), up(shop(), "web")):
        assert "nobody has asked for it" in breach(desired, ended, db)
    beside = replace(start(called(ended, "web")), peers={"db": called(ended, "db").id})
    assert "which does not run" in breach(wanting(up(shop()), "web", turn=2), ended, beside)


def test_a_network_goes_with_the_stack_or_when_it_has_changed(world: Observation) -> None:
    taken = RemoveNetwork(name="shop_default")
    assert "as it was asked for" in breach(up(shop()), world, taken)
    assert breach(down(shop()), world, taken) == ""
    changed = stack("shop", networks={"default": network(internal=True)}, **shop().services)
    assert breach(up(changed), world, taken) == ""
    foreign = {"shop_default": replace(world.networks["shop_default"], stack="other")}
    assert "is of stack other" in breach(down(shop()), replace(world, networks=foreign), taken)
    assert "nobody has asked for that" in breach(up(stack("shop")), world, taken)
    outside = stack("shop", networks={"default": replace(network(external=True), name="shop_default")})
    assert "is external" in breach(up(outside), world, taken)
