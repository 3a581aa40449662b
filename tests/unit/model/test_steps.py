"""What a step of `pre_start` has of its service, and what of its own."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.model import fingerprint, steps
from orchestrator.model.sections import InitContainer
from orchestrator.model.stack import Attachment, ImageRoot, Service
from orchestrator.planner.survey import survey
from tests.kit.stacks import check, service, stack, up
from tests.kit.stacks import nothing as nothing_there

WEB = service(
    image="web",
    after={"db": "healthy!"},
    restart="always",
    ports=("80:80",),
    networks=(Attachment(network="front", aliases=("www",), ipv4_address="10.0.0.9"),),
    volumes=("data:/data", "/own"),
    healthcheck=check(),
    entrypoint=("/enter",),
    command=("serve",),
    user="7",
    environment={"A": "1", "B": "2"},
    working_dir="/srv",
    hostname="www",
    read_only=True,
)


def step(**fields: object) -> Service:
    (found,) = steps.of(replace(WEB, name="web", pre_start=(InitContainer(**fields),)))  # type: ignore[arg-type]
    return found


def test_a_step_is_its_service_but_for_what_it_says() -> None:
    found = step(command=("prepare",), environment={"B": "3"}, user="0")
    assert (found.root, found.entrypoint, found.command) == (WEB.root, ("/enter",), ("prepare",))
    assert (found.user, found.working_dir, found.environment) == ("0", "/srv", {"A": "1", "B": "3"})
    assert (found.mounts, found.read_only, found.resources) == (WEB.mounts, True, WEB.resources)
    assert not found.privileged
    assert step(command=("prepare",), privileged=True).privileged


def test_an_image_of_its_own_has_an_entrypoint_and_a_command_of_its_own() -> None:
    found = step(image="tools")
    assert (found.root, found.entrypoint, found.command) == (ImageRoot(reference="tools"), None, None)


def test_nobody_finds_a_step_under_the_names_and_addresses_of_its_service() -> None:
    found = step(command=("prepare",))
    assert found.networks == (Attachment(network="front"),)
    assert (found.hostname, found.ports, found.oneoff) == (None, (), True)
    assert found.healthcheck is not None
    assert found.healthcheck.disable


def test_a_step_waits_for_what_its_service_needs_and_is_not_restarted_with_it() -> None:
    (need,) = step(command=("prepare",)).depends_on
    assert (need.service, need.condition, need.restart) == ("db", "service_healthy", False)


def test_a_run_of_its_own_has_no_steps() -> None:
    said = (InitContainer(command=("prepare",)),)
    assert steps.of(replace(WEB, name="web-run-1", oneoff=True, pre_start=said)) == ()
    plain = stack(db=service(), web=WEB)
    assert steps.with_steps(plain) is plain


def test_a_step_with_an_image_of_its_own_is_out_of_date_with_the_image_of_its_service() -> None:
    def seen(digest: str) -> str:
        wish = stack(db=service(), web=replace(WEB, pre_start=(InitContainer(image="tools"),)))
        world = nothing_there("web", "tools")
        world = replace(world, images={**world.images, "web": replace(world.images["web"], id=digest)})
        looked = survey(up(wish), world, 1.0, {})
        return looked.fingerprint(looked.desired.stack.services["web:pre_start:1"])

    assert seen("sha256:1") == seen("sha256:1") != seen("sha256:2")
    assert len(fingerprint.joined("a", "b")) == 64
