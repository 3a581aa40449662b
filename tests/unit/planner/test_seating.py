"""What is remembered of the pass before is forgotten as soon as anything it was made from is another."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.desired import Desired
from orchestrator.model.frozen import replace
from orchestrator.model.observation import Failure, HeldPort, ImageState, Observation, PublishedPort
from orchestrator.model.sections import InitContainer
from orchestrator.model.stack import OfService
from orchestrator.planner.layout import layout
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


PORT = PublishedPort(host_ip="", host_port=9, target=9)


@pytest.mark.parametrize(
    "passing",
    [
        {"connections": {"x": 1}},
        {"deaf": frozenset({"x"})},
        {"failures": {"image:x": Failure(target="image:x", count=1, at=1.0, because="x")}},
        {"ports_taken": (PORT,)},
        {"ports_held": (HeldPort(port=PORT, stack="other", container="x"),)},
    ],
)
def test_what_makes_no_container_out_of_date_is_no_reason_to_ask_again(passing: dict[str, Any]) -> None:
    world = settled(WISH)
    memory = survey(WISH, world, 200.0, {}).layout.memory
    before = dict(memory.seatings)
    plan(WISH, replace(world, **passing), 201.0)
    assert all(memory.seatings[name] is before[name] for name in before)


def test_of_two_services_one_that_has_changed_is_asked_again_and_the_other_is_not() -> None:
    world = settled(WISH)
    memory = survey(WISH, world, 200.0, {}).layout.memory
    before = dict(memory.seatings)
    plan(WISH, replace(world, containers=world.containers[1:]), 201.0)
    asked = [name for name in before if memory.seatings[name] is not before[name]]
    assert asked == [world.containers[0].service]


def test_who_shares_a_namespace_is_asked_each_time() -> None:
    """Whether it is out of date hangs on another service's container."""
    wish = up(stack(db=service(), web=service(network_mode=OfService(service="db"))))
    world = settled(wish)
    assert survey(wish, world, 200.0, {}).layout.memory.seatings.keys() == {"db"}


def test_so_many_layouts_are_kept_and_no_more() -> None:
    one = stack(web=service())
    assert layout(one) is layout(one)
    others = [stack(web=service()) for _ in range(64)]
    kept = [layout(other) for other in others]
    assert all(layout(other) is found for other, found in zip(others, kept, strict=True))
    first = layout(one)
    assert layout(one) is first
    layouts = [layout(stack(web=service())) for _ in range(64)]
    assert layout(one) is not first
    assert len(layouts) == 64


def test_steps_are_judged_after_all_services() -> None:
    step = InitContainer(command=("x",))
    wish = stack(a=replace(service(), pre_start=(step,)), b=service(after="a"))
    found = layout(wish)
    assert found.steps.keys() == {"a"}
    assert found.order.index(found.steps["a"][0]) < found.order.index("a")
    assert found.judged == ("a", "b", *found.steps["a"])
    assert layout(stack(a=service())).steps == {}
