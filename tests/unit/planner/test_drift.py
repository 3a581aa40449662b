"""What is wanted of a stack against what is there, as the planner sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model.action import CreateContainer
from orchestrator.model.desired import Desired
from orchestrator.model.drift import Difference
from orchestrator.model.observation import Observation
from orchestrator.model.stack import Network, Stack
from orchestrator.planner.drift import differences, moved
from orchestrator.planner.plan import plan
from tests.kit.stacks import (
    check,
    converge,
    down,
    network,
    nothing,
    service,
    stack,
    steps,
    up,
    volume,
    wanting,
)

SHOP = stack(
    "shop", db=service(volumes=("data:/x",), restart="always"), web=service(after="db", healthcheck=check())
)
DESIRED = up(SHOP)
WORLD = converge(DESIRED, nothing())


def rows(desired: Desired, world: Observation) -> list[tuple[str, str, str, str]]:
    found = differences(desired, world, world.at)
    return [(one.target, one.what, one.wanted, one.found) for one in found]


def test_what_has_converged_does_not_differ() -> None:
    """Not even while a probe is due."""
    assert rows(DESIRED, WORLD) == []


def test_what_is_missing() -> None:
    assert rows(DESIRED, nothing()) == [
        ("network:shop_default", "network", "there", "missing"),
        ("volume:shop_data", "volume", "there", "missing"),
        ("container:shop-db-1", "container", "running", "missing"),
        ("container:shop-web-1", "container", "running", "missing"),
    ]


def test_what_has_ended_and_waits_for_its_next_try() -> None:
    ended = tuple(
        replace(one, run=replace(one.run, finished=WORLD.at, exit_code=3))
        if one.service == "db" and one.run is not None
        else one
        for one in WORLD.containers
    )
    (one,) = differences(DESIRED, replace(WORLD, containers=ended), WORLD.at)
    assert (one.target, one.wanted, one.found) == ("container:shop-db-1", "running", "exited (3)")


def test_what_is_under_way_is_not_there_yet() -> None:
    without = replace(WORLD, containers=tuple(one for one in WORLD.containers if one.service == "web"))
    (action,) = plan(DESIRED, without, WORLD.at).actions
    assert isinstance(action, CreateContainer)
    found = differences(DESIRED, without, WORLD.at, {action.target: action})
    assert [(one.target, one.wanted, one.found) for one in found] == [
        ("container:shop-db-1", "running", "missing")
    ]


def test_what_should_have_stopped() -> None:
    found = rows(wanting(DESIRED, "web", wanted="stopped"), WORLD)
    assert found == [("container:shop-web-1", "container", "stopped", "running")]


def test_what_is_out_of_date() -> None:
    changed = stack("shop", db=SHOP.services["db"], web=replace(SHOP.services["web"], command=("x",)))
    (one,) = differences(up(changed), WORLD, WORLD.at)
    assert (one.target, one.wanted, one.because) == (
        "container:shop-web-1",
        "up to date",
        "definition changed: command",
    )


def at(kind: str, name: str, because: str, **fields: Any) -> Difference:
    """A row about something of the stack `shop`."""
    return Difference(target=f"{kind}:{name}", because=because, stack="shop", **{"what": kind, **fields})


def web(**run: object) -> Observation:
    """The world with another run of web, or (nothing) without one."""
    there = tuple(
        replace(one, run=replace(one.run, **run) if run else None)  # type: ignore[type-var]
        if one.service == "web"
        else one
        for one in WORLD.containers
    )
    return replace(WORLD, containers=there)


ID = next(one.id for one in WORLD.containers if one.service == "web")
OURS: dict[str, Any] = {"service": "web", "id": ID}
NAME = "shop-web-1"


@pytest.mark.parametrize(
    ("desired", "world", "row"),
    [
        (
            DESIRED,
            web(),
            at("container", NAME, "db is started", wanted="running", found="created", **OURS),
        ),
        (
            down(SHOP),
            WORLD,
            at("container", NAME, "the stack goes down", wanted="absent", found="running", **OURS),
        ),
        (
            wanting(DESIRED, "web", wanted="absent"),
            WORLD,
            at("container", NAME, "it is not wanted any more", wanted="absent", found="running", **OURS),
        ),
        (
            wanting(DESIRED, "web", wanted="created", generation=1),
            WORLD,
            at(
                "container",
                NAME,
                "a new container was asked for",
                wanted="up to date",
                found="running",
                **OURS,
            ),
        ),
        (
            replace(up(stack("shop", db=SHOP.services["db"])), remove_orphans=True),
            WORLD,
            at(
                "container",
                NAME,
                "orphan: the stack file has no such service",
                wanted="absent",
                found="running",
                **OURS,
            ),
        ),
        (
            DESIRED,
            web(finished=WORLD.at, exit_code=127, error="no such file"),
            at(
                "container",
                NAME,
                "no such file",
                wanted="running",
                found="exited (127)",
                mendable=False,
                **OURS,
            ),
        ),
        (
            DESIRED,
            web(finished=WORLD.at, exit_code=None, error="no such file"),
            at(
                "container",
                NAME,
                "no such file",
                wanted="running",
                found="exited (unknown)",
                mendable=False,
                **OURS,
            ),
        ),
    ],
)
def test_a_row_says_what_is_wanted_what_is_there_and_why(
    desired: Desired, world: Observation, row: Difference
) -> None:
    found = {one.target: one for one in differences(desired, world, WORLD.at)}
    assert found[row.target] == row


def test_what_can_not_be_made_is_missing_and_nobody_but_the_user_can_help() -> None:
    shop = stack(
        "shop", web=service(image="web", pull_policy="never"), networks={"default": network(external=True)}
    )
    (bridge, seat) = differences(up(shop), nothing(), 0.0)
    assert bridge == at(
        "network",
        "shop_default",
        "external network shop_default does not exist",
        wanted="there",
        found="missing",
        mendable=False,
    )
    because = "image not here: web, and pull_policy is never"
    assert seat == at(
        "container", NAME, because, wanted="running", found="missing", mendable=False, service="web"
    )


def test_services_that_nobody_asked_for_are_wanted_absent() -> None:
    """Such as a container that is under way although its service is not wanted any more."""
    action = next(one for one in plan(DESIRED, WORLD_WITHOUT_DB, WORLD.at).actions)
    nobody = replace(DESIRED, intents={"web": DESIRED.intents["web"]})
    found = differences(nobody, WORLD_WITHOUT_DB, WORLD.at, {action.target: action})
    assert [(one.target, one.wanted) for one in found] == [("container:shop-db-1", "absent")]


WORLD_WITHOUT_DB = replace(WORLD, containers=tuple(one for one in WORLD.containers if one.service == "web"))


def test_an_update_is_a_row_and_so_is_each_container_that_it_has_not_reached() -> None:
    def shop(user: str) -> Stack:
        return stack("shop", web=service(user=user, replicas=2, deploy=steps()))

    world = converge(up(shop("1")), nothing())
    desired = up(shop("2"))
    desired = replace(desired, rollouts=plan(desired, world, world.at).rollouts)
    first, update, second = differences(desired, world, world.at)
    assert update == at(
        "service",
        "web",
        "0 of 2 containers are new",
        what="update",
        wanted="done",
        found="under way",
        service="web",
    )
    assert (first.target, first.found, first.mendable) == ("container:shop-web-1", "running", True)
    assert (second.target, second.wanted, second.mendable) == ("container:shop-web-2", "up to date", True)
    paused = replace(desired.rollouts["web"], outcome="paused", because="x failed")
    found = differences(replace(desired, rollouts={"web": paused}), world, world.at)
    assert {(one.what, one.found, one.mendable) for one in found} == {
        ("update", "paused", False),
        ("container", "running", False),
    }


def test_in_what_networks_and_volumes_have_changed_since() -> None:
    def shop(**networks: Network) -> Stack:
        return stack("shop", web=service(networks=()), networks=networks)

    one, two = network("172.30.0.0/24"), network("172.31.0.0/24")
    assert moved(shop(a=one, b=one), shop(a=two, c=one)) == (
        "network a: defined otherwise",
        "network c: new in the file",
    )
    runtime = stack("shop", web=service(networks=(), pull_policy="never"))
    assert moved(runtime, stack("shop", web=service(networks=(), pull_policy="always", runtime="runc"))) == ()
    once = stack("shop", web=service(networks=()), once=service(networks=(), oneoff=True))
    assert moved(once, stack("shop", web=service(networks=()))) == ()


def test_in_what_the_file_has_changed_since() -> None:
    file = stack(
        "shop",
        web=replace(SHOP.services["web"], command=("x",), pull_policy="always"),
        new=service(volumes=("data:/x",)),
        volumes={"data": volume(labels={"a": "b"})},
    )
    assert moved(SHOP, SHOP) == ()
    assert moved(SHOP, file) == (
        "service db: not in the file any more",
        "service new: new in the file",
        "service web: command",
        "volume data: defined otherwise",
    )
