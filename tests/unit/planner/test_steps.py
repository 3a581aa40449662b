"""A rehearsal as steps that can be kept: what makes two the same, and what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model import codec
from orchestrator.model.action import CreateContainer
from orchestrator.model.observation import ImageState, Observation, PublishedPort
from orchestrator.model.stack import Stack
from orchestrator.planner.rehearse import rehearse
from orchestrator.planner.steps import Step, base, departure, steps
from tests.kit.stacks import check, nothing, service, stack, up

SHOP = stack(
    "shop",
    db=service(image="db", volumes=("/anonymous", "data:/x"), healthcheck=check()),
    web=service(image="web", after={"db": "healthy"}, ports=(":80",)),
)
WORLD = nothing("db", "web")


def rehearsed(wish: Stack = SHOP, world: Observation = WORLD, now: float = 100.0) -> tuple[Step, ...]:
    return steps(rehearse(replace(up(wish), began=now), replace(world, at=now), now))


def test_the_same_at_another_time() -> None:
    """Ids are made of the time, and do not count."""
    assert departure(rehearsed(), rehearsed(now=5000.0)) == ""


def test_who_shares_a_port_is_the_same_at_another_time() -> None:
    """Containers that are still to be made join a rotation by ids of this moment: their names count."""
    shared = stack("shop", web=service(image="web", replicas=3, ports=("8080:80",), healthcheck=check()))
    assert any(step.verb == "route" for step in rehearsed(shared))
    assert departure(rehearsed(shared), rehearsed(shared, now=5000.0)) == ""


def test_it_survives_the_file() -> None:
    kept = [codec.decode(Step, codec.encode(step)) for step in rehearsed()]
    assert departure(kept, rehearsed()) == ""


def picked() -> tuple[PublishedPort, ...]:
    """The host port that is planned for web."""
    made = [line.action for line in rehearse(up(SHOP), WORLD, 100.0)]
    return next(one.ports for one in made if isinstance(one, CreateContainer) and one.ports)


@pytest.mark.parametrize(
    ("world", "said"),
    [
        (
            replace(WORLD, images={**WORLD.images, "web": ImageState(id="sha256:other")}),
            "step 4, create container:shop-web-1 (missing), would be another one now (missing)",
        ),
        (
            replace(WORLD, ports_taken=picked()),
            "step 4, create container:shop-web-1 (missing), would be another one now (missing)",
        ),
        (
            replace(WORLD, subnets_taken=("172.16.0.0/12",)),
            "step 1, create network:shop_default (missing), would be another one now (missing)",
        ),
    ],
    ids=["another image", "a port is taken", "a range is taken"],
)
def test_what_has_moved_is_named(world: Observation, said: str) -> None:
    assert departure(rehearsed(), rehearsed(world=world)) == said


def test_another_definition_counts() -> None:
    changed = stack("shop", db=SHOP.services["db"], web=replace(SHOP.services["web"], command=("x",)))
    assert departure(rehearsed(), rehearsed(changed)).startswith("step 4, create container:shop-web-1")


def test_more_and_less_to_do() -> None:
    every = rehearsed()
    assert departure(every, every[:-1]) == f"step {len(every)}, {every[-1]}, is not needed any more"
    assert departure(every[:-1], every) == f"another step would follow: {every[-1]}"


def test_what_is_refused_is_so_for_the_same_reason() -> None:
    wish = stack("shop", web=service(image="web", pull_policy="never"))
    refused = rehearsed(wish, nothing())
    assert [step.verb for step in refused if step.target == "container:shop-web-1"] == ["refuse"]
    assert departure(refused, rehearsed(wish, nothing())) == ""
    other = tuple(replace(step, digest="x") if step.verb == "refuse" else step for step in refused)
    assert departure(refused, other)


def test_the_base_is_what_was_wanted() -> None:
    assert base(None) == ""
    assert base(up(SHOP)) == base(up(SHOP))
    assert base(up(SHOP)) != base(up(SHOP, turn=2))
