"""Rehearsals as transcripts. `PYSTACK_BLESS=1` rewrites them; read the difference before you commit it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.model import effects
from orchestrator.model.desired import Desired
from orchestrator.model.observation import ImageState, Observation
from orchestrator.model.stack import OfService, Stack
from orchestrator.planner.rehearse import rehearse
from tests.kit.stacks import check, converge, down, network, nothing, service, stack, up, wanting

HERE = Path(__file__).parent
NOW = 1000.0
Scene = Callable[[], tuple[Desired, Observation]]

SHOP = stack(
    proxy=service(image="nginx", after={"web": "healthy"}, ports=("8080:80",), networks=("front",)),
    web=service(
        image="web",
        after={"db": "healthy", "cache": "started", "migrate": "completed"},
        healthcheck=check(interval=2.0),
        networks=("front", "back"),
        replicas=2,
    ),
    migrate=service(image="web", after={"db": "healthy"}, networks=("back",)),
    db=service(
        image="postgres", healthcheck=check(interval=1.0), volumes=("data:/var/lib/pg",), networks=("back",)
    ),
    cache=service(image="redis", networks=("back",)),
)
IMAGES = nothing("nginx", "web", "postgres", "redis")


def shop_from_nothing() -> tuple[Desired, Observation]:
    return up(SHOP), IMAGES


def shop_without_images() -> tuple[Desired, Observation]:
    return up(SHOP), nothing("nginx", "redis")


def shop_that_may_not_pull() -> tuple[Desired, Observation]:
    wish = stack_without_pulls()
    return up(wish), nothing("nginx", "redis")


def stack_without_pulls() -> Stack:
    services = {name: replace(one, pull_policy="never") for name, one in SHOP.services.items()}
    return replace(SHOP, services=services)


def shop_unchanged() -> tuple[Desired, Observation]:
    world = converge(up(SHOP), IMAGES)
    jobs = [c for c in world.containers if c.service == "migrate"]
    for job in jobs:
        world = effects.expect_exit(world, job.id, NOW - 1, 0)
    return up(SHOP), converge(up(SHOP), world)


def shop_goes_down() -> tuple[Desired, Observation]:
    return down(SHOP, remove_volumes=True), shop_unchanged()[1]


def new_database_image() -> tuple[Desired, Observation]:
    desired, world = shop_unchanged()
    return desired, replace(world, images={**world.images, "postgres": ImageState(id="sha256:newer")})


def restart_with_dependents() -> tuple[Desired, Observation]:
    wish = stack(
        db=service(healthcheck=check(interval=1.0)),
        web=service(after={"db": "healthy!"}),
        tool=service(network_mode=OfService(service="db")),
        other=service(after="db"),
    )
    return wanting(up(wish), "db", restart_turn=2), converge(up(wish), nothing())


def replace_with_dependents() -> tuple[Desired, Observation]:
    desired, world = restart_with_dependents()
    return wanting(desired, "db", restart_turn=0, generation=1), world


def network_changed() -> tuple[Desired, Observation]:
    services = {"a": service(), "b": service(after="a"), "c": service(networks=("other",))}
    world = converge(up(stack(**services)), nothing())
    return up(stack(networks={"default": network(internal=True)}, **services)), world


def scale_down_and_orphans() -> tuple[Desired, Observation]:
    world = converge(up(stack(web=service(replicas=3), old=service())), nothing())
    return replace(up(stack(web=service(replicas=1))), remove_orphans=True), world


def more_and_fewer_behind_a_port() -> tuple[Desired, Observation]:
    """Two of three leave first and are drained; another service can not have the port, shared or not."""
    world = converge(up(stack(web=service(ports=("8080:80",), replicas=3))), nothing())
    more = service(ports=("8080:80", "127.0.0.1:9090:90"), replicas=2)
    return up(stack(web=service(ports=("8080:80",)), other=more)), world


def one_after_another() -> tuple[Desired, Observation]:
    """A chain of one-shots, as in a build."""
    names = ["fetch", "compile", "test", "pack"]
    services = {
        name: service(after={names[number - 1]: "completed"} if number else {}, networks=())
        for number, name in enumerate(names)
    }
    return up(stack("build", **services)), nothing()


SCENES: tuple[Scene, ...] = (
    shop_from_nothing,
    shop_without_images,
    shop_that_may_not_pull,
    shop_unchanged,
    shop_goes_down,
    new_database_image,
    restart_with_dependents,
    replace_with_dependents,
    network_changed,
    scale_down_and_orphans,
    more_and_fewer_behind_a_port,
    one_after_another,
)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_rehearsal(scene: Scene) -> None:
    desired, world = scene()
    found = "".join(f"{line}\n" for line in rehearse(desired, world, NOW))
    path = HERE / f"{scene.__name__}.txt"
    if os.environ.get("PYSTACK_BLESS"):
        path.write_text(found)
    assert found == path.read_text()


def test_every_transcript_has_its_scene() -> None:
    assert {path.stem for path in HERE.glob("*.txt")} == {scene.__name__ for scene in SCENES}
