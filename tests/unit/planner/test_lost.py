"""A volume that has lost its directory, a container that has lost its files."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model.desired import Desired
from orchestrator.model.observation import Observation
from orchestrator.planner.plan import plan
from tests.kit.stacks import converge, nothing, service, stack, up

DATABASE = stack("shop", db=service(volumes=("data:/var/lib/db",)), web=service())
GONE = "volume shop_data: its directory /volumes/data is gone; it is not made anew empty"


def lose(world: Observation) -> Observation:
    state = replace(world.volumes["shop_data"], lost="its directory /volumes/data is gone")
    return replace(world, volumes={**world.volumes, "shop_data": state})


@pytest.fixture
def desired() -> Desired:
    return up(DATABASE)


@pytest.fixture
def world(desired: Desired) -> Observation:
    return converge(desired, nothing())


def test_who_runs_goes_on_and_it_is_said(desired: Desired, world: Observation) -> None:
    decided = plan(desired, lose(world), world.at)
    assert decided.actions == ()
    assert [(wait.target, wait.because, wait.failed) for wait in decided.waits] == [
        ("volume:shop_data", GONE, True)
    ]


def test_nobody_starts_or_is_made_on_it(desired: Desired, world: Observation) -> None:
    """Neither a container that has ended, nor another in its place; and the volume is not made anew."""
    ended = tuple(
        replace(one, run=replace(one.run, finished=world.at, exit_code=1)) if one.run else one
        for one in world.containers
    )
    asked_again = replace(
        desired, intents={name: replace(one, turn=one.turn + 1) for name, one in desired.intents.items()}
    )
    without = replace(lose(world), containers=tuple(one for one in world.containers if one.service == "web"))
    for seen in (replace(lose(world), containers=ended), without):
        decided = plan(asked_again, seen, world.at)
        assert {action.target for action in decided.actions} <= {"container:shop-web-1"}
        refused = {wait.target: wait.because for wait in decided.waits if wait.failed}
        assert refused["container:shop-db-1"] == GONE


def test_who_runs_is_not_given_up_for_a_new_definition(world: Observation) -> None:
    changed = stack("shop", db=service(volumes=("data:/var/lib/db",), command=("x",)))
    decided = plan(up(changed), lose(world), world.at)
    assert decided.actions == ()
    refused = {wait.target: wait.because for wait in decided.waits if wait.failed}
    assert refused["container:shop-db-1"] == f"definition changed: command, but {GONE}"


def test_it_goes_on_when_it_is_back(desired: Desired, world: Observation) -> None:
    assert plan(desired, world, world.at).waits == ()


def broken(world: Observation) -> Observation:
    found = tuple(
        replace(one, broken="its directory /x was deleted") if one.service == "web" else one
        for one in world.containers
    )
    return replace(world, containers=found)


def test_a_container_without_its_files_is_replaced(desired: Desired, world: Observation) -> None:
    (stop,) = plan(desired, broken(world), world.at).actions
    assert (stop.target, stop.because) == ("container:shop-web-1", "its directory /x was deleted")


def test_without_repair_it_is_left(desired: Desired, world: Observation) -> None:
    assert plan(replace(desired, repair=False), broken(world), world.at).actions == ()
