"""Steps of `pre_start` at the edges: what a start waits for when steps and service are not of one age."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.api import orders
from orchestrator.model import effects
from orchestrator.model.action import Action, PullImage, StartContainer
from orchestrator.model.desired import Desired
from orchestrator.model.observation import Failure, Observation
from orchestrator.model.plan import Plan
from orchestrator.model.sections import InitContainer
from orchestrator.model.stack import Stack
from orchestrator.planner.plan import plan
from tests.kit.stacks import apply_all, converge, nothing, service, stack

NOW = 100.0
STEP = "shop-web-pre_start-1"


def wish(user: str) -> Stack:
    """web itself needs no image, its step needs one that is to be refreshed with each `up`."""
    said = (InitContainer(image="tools", command=("prepare",)),)
    return stack("shop", web=replace(service(user=user, pull_policy="always"), pre_start=said))


def ordered(previous: Desired | None, user: str, world: Observation, at: float) -> Desired:
    wanted = orders.up(previous, wish(user), orders.UpOptions())
    return orders.acknowledge(previous, wanted, world.containers, at)


def changed() -> tuple[Desired, Observation]:
    """web runs after its step, and then the file changes: all is done about it but the pull."""
    first = ordered(None, "1", nothing(), NOW - 50)
    world = converge(first, nothing(), NOW - 50)
    step = next(one for one in world.containers if one.name == STEP)
    world = converge(first, effects.expect_exit(world, step.id, NOW - 40, 0), NOW - 39)
    desired = ordered(first, "2", world, NOW)
    for count in range(10):
        world = apply_all(world, _but_pulls(plan(desired, world, NOW + count)), NOW + count)
    return desired, world


def _but_pulls(decided: Plan) -> list[Action]:
    return [one for one in decided.actions if not isinstance(one, PullImage)]


def test_a_new_container_does_not_start_after_a_step_of_before() -> None:
    desired, world = changed()
    web = next(one for one in world.containers if one.service == "web")
    assert (web.definition.user, web.run) == ("2", None)
    (wait,) = [one for one in plan(desired, world, NOW + 20).waits if one.target == "container:shop-web-1"]
    assert (wait.because, wait.failed) == ("pre_start step 1 of web is about to be replaced", False)
    starts: list[str] = []
    for count in range(20):
        actions = plan(desired, world, NOW + 20 + count).actions
        starts += [one.name for one in actions if isinstance(one, StartContainer)]
        world = apply_all(world, actions, NOW + 20 + count)
        step = next((one for one in world.containers if one.name == STEP), None)
        if step is not None and step.run is not None:
            world = effects.expect_exit(world, step.id, NOW + 20 + count, 0)
    assert starts == [STEP, "shop-web-1"]


@pytest.mark.parametrize("replicas", [0, 1])
def test_an_image_of_a_step_that_can_t_be_had_is_told_of_its_service(replicas: int) -> None:
    desired, world = changed()
    failure = Failure(
        target="image:tools", verb="pull", count=1, at=NOW + 19, because="no such image", retryable=False
    )
    services = {"web": replace(desired.stack.services["web"], replicas=replicas)}
    desired = replace(desired, stack=replace(desired.stack, services=services))
    decided = plan(desired, replace(world, failures={failure.target: failure}), NOW + 20)
    refused = {one.target: one.because for one in decided.waits if one.failed}
    assert ("container:shop-web-1" in refused) == bool(replicas)
    assert "no such image" in refused.get("container:shop-web-1", "no such image")
