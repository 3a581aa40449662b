"""What is remembered of the pass before is forgotten as soon as anything it was made from is another."""

from __future__ import annotations

import pytest

from orchestrator.model.desired import Desired
from orchestrator.model.frozen import replace
from orchestrator.model.observation import ImageState, Observation
from orchestrator.planner.plan import plan
from orchestrator.planner.survey import survey
from tests.kit.stacks import converge, nothing, service, stack, up, wanting

WISH = up(stack(web=service(image="web", replicas=2, volumes=("data:/data",)), db=service()))


def settled(wish: Desired) -> Observation:
    world = converge(wish, nothing("web"))
    assert plan(wish, world, 200.0).actions == ()
    return world


def test_containers_that_have_not_changed_are_not_asked_again() -> None:
    world = settled(WISH)
    memory = survey(WISH, world, 200.0, {}).layout.memory
    before = dict(memory.seatings)
    plan(WISH, replace(world, at=201.0), 201.0)
    assert memory.seatings.keys() == {"web", "db"}
    assert all(memory.seatings[name] is before[name] for name in before)


@pytest.mark.parametrize(
    "after",
    [
        lambda world: replace(world, networks={}),
        lambda world: replace(world, volumes={}),
        lambda world: replace(world, images={"web": ImageState(id="sha256:another")}),
        lambda world: replace(
            world, networks={name: replace(n, subnet="10.0.0.0/24") for name, n in world.networks.items()}
        ),
        lambda world: replace(
            world, containers=(replace(world.containers[0], fingerprint="old"), *world.containers[1:])
        ),
        lambda world: replace(world, containers=world.containers[1:]),
    ],
)
def test_a_plan_is_as_if_nothing_were_remembered(after) -> None:
    world = settled(WISH)
    plan(WISH, world, 200.0)
    found = plan(WISH, after(world), 201.0)
    fresh = plan(replace(WISH, stack=replace(WISH.stack)), after(world), 201.0)
    assert found == fresh
    assert found.actions


def test_another_wish_for_the_same_stack_is_heard() -> None:
    world = settled(WISH)
    plan(WISH, world, 200.0)
    assert plan(wanting(WISH, "web", generation=1), world, 201.0).actions
