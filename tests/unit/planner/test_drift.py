"""What is wanted of a stack against what is there, as the planner sees it."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.model.action import CreateContainer
from orchestrator.model.desired import Desired
from orchestrator.model.observation import Observation
from orchestrator.planner.drift import differences, moved
from orchestrator.planner.plan import plan
from tests.kit.stacks import check, converge, nothing, service, stack, up, volume, wanting

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
