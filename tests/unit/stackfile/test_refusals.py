"""What is well said and can't be run: loading and `config` go on, commands that run it stop, with the place."""

from __future__ import annotations

import pytest

from orchestrator.stackfile.load import demand_runnable
from orchestrator.stackfile.problem import StackfileError
from tests.unit.stackfile.given import loaded, unrunnable, web

TWO = "services:\n  a: {image: x, gpus: all}\n  b: {image: x, restart: sometimes}\n  c: {image: x}\n"


def test_a_refusal_stops_only_the_service_it_is_about() -> None:
    found = loaded(TWO)
    demand_runnable(found, {"c"})
    with pytest.raises(StackfileError) as caught:
        demand_runnable(found, {"b", "c"})
    assert [problem.path for problem in caught.value.problems] == ["services.b.restart"]


def test_all_refusals_are_told_at_once_with_their_places() -> None:
    with pytest.raises(StackfileError) as caught:
        demand_runnable(loaded(TWO))
    assert [str(problem.place) for problem in caught.value.problems] == ["stack.yml:2:17", "stack.yml:3:26"]


def test_what_is_no_service_concerns_every_service() -> None:
    found = loaded(web("networks: [n]", "networks: {n: {driver: macvlan}}\n"))
    with pytest.raises(StackfileError, match="'macvlan' is not supported yet"):
        demand_runnable(found, {"web"})


def test_a_refusal_can_be_told_as_a_warning() -> None:
    (refusal,) = unrunnable(web("gpus: all"))
    assert str(refusal.as_warning()) == (
        "stack.yml:4:5: warning: services.web.gpus is not supported yet (`up` refuses it)"
    )


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("deploy: {update_config: {max_failure_ratio: 1.5}}", "1.5 is no share of failures"),
        ("deploy: {rollback_config: {max_failure_ratio: -0.5}}", "-0.5 is no share of failures"),
        ("deploy: {rollback_config: {failure_action: rollback}}", "'rollback' is none of pause, continue"),
        ("deploy: {update_config: {failure_action: foo}}", "'foo' is none of pause, continue, rollback"),
        ("deploy: {update_config: {monitor: -5s}}", "a duration here can't be negative"),
        ("deploy: {update_config: {delay: -5s}}", "a duration here can't be negative"),
        ("x-drain: -1s", "a duration here can't be negative"),
    ],
)
def test_an_update_that_can_not_go_as_it_says(said: str, words: str) -> None:
    (refusal,) = unrunnable(web(said))
    assert words in str(refusal)


def test_what_is_off_or_unused_is_not_refused() -> None:
    rest = "  off: {image: x, gpus: all, profiles: [p]}\nvolumes: {v: {driver: other}}\n"
    assert unrunnable(web("", rest)) == ()


def test_a_service_that_is_only_built_has_the_image_that_docker_compose_would_make() -> None:
    found = loaded("services: {web: {build: .}}\n")
    assert found.stack.services["web"].root.reference == "proj-web"  # type: ignore[union-attr]
    assert found.refusals == ()
    assert "the image must be in the local store" in found.warnings[0].message


NEVER_STARTED = {
    "container_name: /cc": "services.web.container_name: /cc can't be a name on this machine",
    "mem_limit: 1.5": "services.web.mem_limit: 1.5 is not a whole number of bytes",
    "mem_limit: -5": "services.web.mem_limit: a size can't be negative",
    "pull_policy: always!": "services.web.pull_policy: 'always!' is not a policy",
    "scale: 20000": "services.web.scale: 20000 containers of one service are more than 10000",
    "devices: ['/dev/a:/dev/b:x']": "services.web.devices[0].permissions: 'x' is not made of r, w and m",
    "devices: ['/dev/a:b']": "services.web.devices[0].target: 'b' must be an absolute path in the container",
    "deploy: {restart_policy: {condition: x}}": (
        "services.web.deploy.restart_policy.condition: 'x' is none of any, on-failure, none"
    ),
    "volumes: [{type: bind, source: /a, target: /b, bind: {propagation: x}}]": (
        "services.web.volumes[0].bind.propagation: "
        "'x' is none of private, rprivate, shared, rshared, slave, rslave"
    ),
    "volumes: [{type: image, source: a, target: /b}]": (
        "services.web.volumes[0].type: mounts of the type image are not supported"
    ),
    "tmpfs: a": "services.web.tmpfs[0]: 'a' must be an absolute path",
    "ports: [{target: 80, published: 70000}]": "services.web.ports[0].published: host port 70000 is above 65535",
    "healthcheck: {test: x, interval: -1s}": (
        "services.web.healthcheck.interval: a duration here can't be negative"
    ),
    "volumes_from: ['container:a']": (
        "services.web.volumes_from[0]: a container that is not of this stack can't lend its mounts"
    ),
}


@pytest.mark.parametrize("body", NEVER_STARTED)
def test_what_no_container_can_be_started_with_is_refused(body: str) -> None:
    (problem,) = unrunnable(web(body))
    assert problem.message == NEVER_STARTED[body]
    assert problem.service == "web"
    assert problem.place is not None
    assert problem.place.line == 4
