"""The larger sections of a service, as the Stack carries them."""

from __future__ import annotations

import sys

from orchestrator.model import fingerprint, sections
from orchestrator.model.stack import Service, Stack
from tests.unit.stackfile.given import FOLDER, loaded, web


def service(body: str, rest: str = "", **given: object) -> Service:
    return loaded(web(body, rest), **given).stack.services["web"]  # type: ignore[arg-type]


def test_build() -> None:
    body = """
build:
  context: src
  args: [A=1, HOME, GONE]
  ssh: {default: , key: ./id}
  additional_contexts: {a: ../a, b: docker-image://alpine}
  secrets: [{source: s, mode: 0400}]
  ulimits: {nofile: {soft: 1, hard: 2}, core: 5}
  extra_hosts: ['h:1.1.1.1']
  shm_size: 1k
"""
    build = service(body, "secrets: {s: {file: f}}\n").build
    assert build is not None
    assert (build.context, build.dockerfile) == (f"{FOLDER}/src", "Dockerfile")
    assert build.args == {"A": "1", "HOME": "/root"}
    assert build.ssh == {"default": "", "key": f"{FOLDER}/id"}
    assert build.additional_contexts == {"a": "/home/a", "b": "docker-image://alpine"}
    assert build.secrets == (sections.BuildSecret(source="s", mode=0o400),)
    assert build.ulimits == (("nofile", 1, 2), ("core", 5, 5))
    assert build.extra_hosts == (("h", "1.1.1.1"),)
    assert build.shm_size == 1024


def test_what_is_built_how_is_no_reason_for_a_new_container() -> None:
    one, other = service("build: a"), service("build: {context: b, no_cache: true}")
    assert fingerprint.of_service(one) == fingerprint.of_service(other)
    assert fingerprint.of_service(service("post_start: [{command: a}]")) != fingerprint.of_service(one)


def test_hooks_see_the_variables_of_the_outside() -> None:
    hook = "{command: a 'b c', user: u, environment: [A=1, HOME, GONE]}"
    found = service(
        f"post_start: [{hook}]\npre_stop: [{hook}, {hook}]\npre_start: [{{image: i, command: x}}]"
    )
    (started,) = found.post_start
    assert started.command == ("a", "b c")
    assert started.environment == {"A": "1", "HOME": "/root"}
    assert [hook.user for hook in found.pre_stop] == ["u", "u"]
    assert [init.image for init in found.pre_start] == ["i"]


def test_watches_have_absolute_paths() -> None:
    body = "develop: {watch: [{path: src, action: sync+exec, target: /t, ignore: a, exec: {command: make}}]}"
    (watch,) = service(body).watch
    assert (watch.path, watch.action, watch.target, watch.ignore) == (
        f"{FOLDER}/src",
        "sync+exec",
        "/t",
        ("a",),
    )
    assert watch.exec is not None
    assert watch.exec.command == ("make",)


def test_deploy() -> None:
    found = service(
        "deploy: {update_config: {parallelism: 0, delay: 1m, order: start-first}, mode: global, "
        "placement: {preferences: [{spread: a}]}, resources: {reservations: {cpus: 0.5, "
        "generic_resources: [{discrete_resource_spec: {kind: ssd, value: '2'}}]}}}"
    ).deploy
    assert found == sections.Deploy(
        mode="global",
        update=sections.Update(parallelism=0, delay=60.0, order="start-first"),
        placement=sections.Placement(spread=("a",)),
        reserved_cpus=0.5,
        generic_resources=(("ssd", 2),),
    )


def test_gpus_ask_for_what_can_do_gpu() -> None:
    (one,) = service("gpus: all").device_requests
    assert one == sections.DeviceRequest(capabilities=("gpu",), count=-1)
    (other,) = service("gpus: [{device_ids: ['0'], capabilities: [compute]}]").device_requests
    assert other == sections.DeviceRequest(capabilities=("compute", "gpu"), device_ids=("0",))


def test_models_and_the_variables_that_tell_of_them() -> None:
    text = web(
        "models: {m: {endpoint_var: URL}}", "models: {m: {model: ai/x, context_size: 5}, n: {model: y}}\n"
    )
    stack = loaded(text).stack
    assert stack.services["web"].models == (sections.ModelUse(model="m", endpoint_var="URL"),)
    assert stack.models == {"m": sections.Model(key="m", model="ai/x", context_size=5)}


def test_a_provider_is_on_no_network() -> None:
    stack = loaded("services: {db: {provider: {type: x, options: {a: 1, b: [y, true]}}}}\n").stack
    found = stack.services["db"]
    assert found.provider == sections.Provider(type="x", options={"a": ("1",), "b": ("y", "true")})
    assert found.networks == ()
    assert stack.networks == {}


def test_addresses_of_ipv6_are_kept_apart() -> None:
    body = "networks: {n: {ipv6_address: 'fd00::5'}}"
    rest = (
        "networks: {n: {enable_ipv6: true, ipam: {config: [{subnet: 10.5.0.0/24}, {subnet: 'fd00::/64'}]}}}\n"
    )
    stack = loaded(web(body, rest)).stack
    network = stack.networks["n"]
    assert [subnet.subnet for subnet in network.subnets] == ["10.5.0.0/24"]
    assert [subnet.subnet for subnet in network.subnets6] == ["fd00::/64"]
    assert stack.services["web"].networks[0].ipv6_address == "fd00::5"


def test_what_is_done_anyway_is_no_warning() -> None:
    assert loaded(web("userns_mode: host\ncgroup: private\nruntime: runc")).warnings == ()
    assert len(loaded(web("userns_mode: x\ncgroup: host")).warnings) == 2


def test_a_plain_stack_does_without_these_nouns() -> None:
    """Making them takes milliseconds: no command of a stack that has none pays for them."""
    import subprocess

    code = (
        "import json, sys\n"
        "from orchestrator.model import codec\n"
        "from orchestrator.model.stack import Stack\n"
        "from tests.unit.stackfile.given import loaded, web\n"
        "body = 'ports: [80]\\ndeploy: {replicas: 2, resources: {limits: {pids: 5}}}\\nvolumes: [/a:/a]'\n"
        "stack = loaded(web(body)).stack\n"
        "assert codec.decode(Stack, json.loads(json.dumps(codec.encode(stack)))) == stack\n"
        "print('orchestrator.model.sections' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_noun_of_the_module_is_reached_through_the_stack() -> None:
    assert Stack.__module__ == "orchestrator.model.stack"
    assert sys.modules["orchestrator.model.stack"].Build is sections.Build  # type: ignore[attr-defined]
