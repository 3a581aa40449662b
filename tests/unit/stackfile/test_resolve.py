"""Text -> the values of model.Stack."""

from __future__ import annotations

import hashlib
import sys
from subprocess import run

import pytest

from orchestrator.model import codec
from orchestrator.model import stack as model
from orchestrator.model.stack import Stack
from tests.unit.stackfile.given import loaded, refused, unrunnable, web


def only(body: str, rest: str = "", **given: object) -> model.Service:
    return loaded(web(body, rest), **given).stack.services["web"]  # type: ignore[arg-type]


def test_an_empty_service_has_the_defaults() -> None:
    service = only("")
    assert service == model.Service(
        name="web", root=model.ImageRoot(reference="x"), networks=(model.Attachment(network="default"),)
    )


def test_roots() -> None:
    services = loaded(
        "services: {a: {image: 'x:1'}, b: {x-rootfs: host}, c: {x-rootfs: {path: ./root}}}"
    ).stack.services
    assert services["a"].root == model.ImageRoot(reference="x:1")
    assert services["b"].root == model.HostRoot()
    assert services["c"].root == model.DirectoryRoot(path="/home/proj/root")


def test_image_and_root_exclude_each_other() -> None:
    assert refused(web("x-rootfs: host"))[0].code == "E015"


def test_mounts() -> None:
    service = only(
        "volumes: ['data:/data:ro', './src:/src', /cache, {type: tmpfs, target: /t, tmpfs: {size: 1m}}]\n"
        "tmpfs: ['/u:size=2k,mode=1777,uid=5,ro']\n"
        "configs: [{source: c, target: etc/c, mode: 0400}]\nsecrets: [s]\n",
        "volumes: {data: }\nconfigs: {c: {content: 'hi ${NAME}'}}\nsecrets: {s: {file: ./s.txt}}\n",
        env={"NAME": "you"},
        files={"s.txt": "hush"},
    )
    assert service.mounts == (
        model.VolumeMount(source="data", target="/data", read_only=True),
        model.BindMount(source="/home/proj/src", target="/src"),
        model.VolumeMount(source=None, target="/cache"),
        model.TmpfsMount(target="/t", size=1 << 20),
        model.TmpfsMount(target="/u", size=2048, mode=0o1777, options=("uid=5",), read_only=True),
        model.FileMount(kind="config", name="c", target="/etc/c", content="hi you", mode=0o400),
        model.FileMount(
            kind="secret",
            name="s",
            target="/run/secrets/s",
            path="/home/proj/s.txt",
            digest=hashlib.sha256(b"hush").hexdigest(),
        ),
    )


def test_a_secret_from_a_variable_is_its_content() -> None:
    text = web("secrets: [s]", "secrets: {s: {environment: TOKEN}}\n")
    (mount,) = loaded(text, env={"TOKEN": "abc"}).stack.services["web"].mounts
    assert mount == model.FileMount(kind="secret", name="s", target="/run/secrets/s", content="abc")
    assert unrunnable(text)[0].code == "E010"


def test_commands_that_take_away_need_neither_secrets_nor_env_files() -> None:
    text = web("secrets: [s]\nenv_file: gone.env", "secrets: {s: {environment: TOKEN}}\n")
    assert "web" in loaded(text, strict=False).stack.services
    assert loaded(text, strict=False).refusals == ()
    assert [problem.code for problem in refused(text)] == ["E021"]
    assert [problem.code for problem in unrunnable(text, files={"gone.env": ""})] == ["E010"]


def test_ports() -> None:
    service = only("ports: ['8000-8001:80-81', '127.0.0.1::53/udp', '9000-9009:90', 3000]")
    assert service.ports == (
        model.Port(target=80, published=(8000, 8000)),
        model.Port(target=81, published=(8001, 8001)),
        model.Port(target=53, host_ip="127.0.0.1", protocol="udp"),
        model.Port(target=90, published=(9000, 9009)),
        model.Port(target=3000),
    )


def test_ports_have_no_effect_in_the_host_network() -> None:
    found = loaded(web("network_mode: host\nports: [80]"))
    assert found.stack.services["web"].ports == ()
    assert "ports" in found.warnings[0].message


def test_ports_belong_to_the_service_whose_network_is_shared() -> None:
    text = "services: {a: {image: x, network_mode: 'service:b', ports: [80]}, b: {image: x}}"
    assert "publish them on 'b'" in loaded(text).refusals[0].hint


def test_dependencies_with_their_places() -> None:
    text = web("depends_on:\n  db: {condition: service_healthy}", "  db: {image: x}\n")
    (need,) = loaded(text).stack.services["web"].depends_on
    assert need == model.Dependency(service="db", condition="service_healthy")
    assert str(need.place) == "stack.yml:5:7"


def test_sharing_a_namespace_is_a_dependency_that_restarts_along() -> None:
    service = loaded("services: {a: {image: x, pid: 'service:b'}, b: {image: x}}").stack.services["a"]
    assert service.pid == model.OfService(service="b")
    assert service.depends_on == (model.Dependency(service="b", restart=True),)


def test_a_link_with_another_name_is_a_name_that_the_linking_service_has_for_the_target() -> None:
    stack = loaded("services: {a: {image: x, links: ['b:store', b]}, b: {image: x}}").stack
    assert stack.services["b"].networks[0].aliases == ()
    assert stack.services["a"].links == (("b", "store"),)
    assert stack.services["a"].depends_on == (model.Dependency(service="b", restart=True),)


@pytest.mark.parametrize(
    ("said", "policy"),
    [
        ("restart: always", model.RestartPolicy(condition="always")),
        ("restart: on-failure:3", model.RestartPolicy(condition="on-failure", max_attempts=3)),
        (
            """deploy: {restart_policy: {condition: on-failure, delay: 5s, max_attempts: 2, window: 1m}}
restart: always""",
            model.RestartPolicy(condition="on-failure", max_attempts=2, delay=5.0, window=60.0),
        ),
        ("deploy: {restart_policy: {condition: none}}", model.RestartPolicy(condition="no")),
        ("deploy: {restart_policy: {delay: 1s}}", model.RestartPolicy(condition="always", delay=1.0)),
    ],
)
def test_restart_policies(said: str, policy: model.RestartPolicy) -> None:
    assert only(said).restart == policy


@pytest.mark.parametrize(
    ("said", "check"),
    [
        ("test: curl -f http://x", model.Healthcheck(test=("CMD-SHELL", "curl -f http://x"))),
        (
            "test: [CMD, a], interval: 1m30s, retries: 2",
            model.Healthcheck(test=("CMD", "a"), interval=90.0, retries=2),
        ),
        ("interval: 500ms", model.Healthcheck(interval=0.5)),
        ("disable: true", model.Healthcheck(disable=True)),
        ("test: [NONE]", model.Healthcheck(disable=True)),
    ],
)
def test_health_checks(said: str, check: model.Healthcheck) -> None:
    assert only(f"healthcheck: {{{said}}}").healthcheck == check


def test_limits() -> None:
    service = only(
        "mem_reservation: 32m\nmemswap_limit: -1\ncpuset: '0-1'\n"
        "deploy: {resources: {limits: {memory: 64m, cpus: '1.5'}, reservations: {memory: 32m}}}"
    )
    assert service.resources == model.Resources(
        memory=64 << 20, memory_reservation=32 << 20, memory_swap=-1, cpus=1.5, cpuset="0-1"
    )


def test_minus_one_is_no_limit() -> None:
    assert only("pids_limit: -1\nmem_limit: -1").resources == model.Resources()


def test_the_older_way_to_limit_the_cpu() -> None:
    assert only("cpu_quota: 50000").resources.cpus == 0.5
    assert only("cpu_quota: 50000\ncpu_period: 25000").resources.cpus == 2.0


def test_command_and_entrypoint_absent_empty_and_given() -> None:
    assert only("").command is None
    assert only("command: []").command == ()
    assert only("command: sh -c 'a b'\nentrypoint: ''").command == ("sh", "-c", "a b")
    assert only("entrypoint: ''").entrypoint == ()


def test_variables_without_a_value_do_not_reach_the_container() -> None:
    service = only("environment: [A, B, C=]", env={"A": "1"})
    assert service.environment == {"A": "1", "C": ""}


def test_networks_and_volumes_have_scoped_names_and_unused_ones_are_left_out() -> None:
    stack = loaded(
        web(
            "networks: [n, e]\nvolumes: ['vv:/v']",
            "networks: {n: {ipam: {config: [{subnet: 10.1.0.0/24}]}}, e: {external: true}, unused: }\n"
            "volumes: {vv: , unused: }\n",
        ),
        name="other",
    ).stack
    assert stack.networks == {
        "n": model.Network(key="n", name="other_n", subnets=(model.Subnet(subnet="10.1.0.0/24"),)),
        "e": model.Network(key="e", name="e", external=True),
    }
    assert stack.volumes == {"vv": model.Volume(key="vv", name="other_vv")}


def test_services_that_are_off_are_named() -> None:
    stack = loaded("services: {a: {image: x}, b: {image: x, profiles: [p]}}").stack
    assert (list(stack.services), stack.disabled) == (["a"], ("b",))


def test_a_service_named_on_the_command_line_is_on() -> None:
    text = "services: {a: {image: x}, b: {image: x, profiles: [p]}, c: {image: x, profiles: [p]}}"
    assert list(loaded(text, services=["b"]).stack.services) == ["a", "b", "c"]


def test_a_name_from_outside_must_be_proper() -> None:
    assert refused(web(""), name="Bad Name")[0].code == "E019"
    assert loaded(web(""), name="good-1").stack.name == "good-1"


def test_a_stack_survives_the_way_through_json() -> None:
    stack = loaded(
        web(
            "ports: [80]\nvolumes: [/a]\nhealthcheck: {test: x}\nnetwork_mode: none\nulimits: {nofile: 5}\n"
            "configs: [c]\nlogging: {options: {a: 1}}",
            "configs: {c: {content: x}}",
        )
    ).stack
    assert codec.decode(Stack, codec.encode(stack)) == stack


def test_the_canonical_form_loads_to_the_same_stack() -> None:
    """What `config` prints is a stack file, and means the same."""
    text = web(
        "command: echo $$HOME\nports: ['8000-8001:80-81']\nvolumes: ['vv:/v', './d:/d']\nsecrets: [s]\n"
        "environment: {A: 'x$$y'}\nstop_grace_period: 90s\nmem_limit: 1g\nextra_hosts: ['a:::1']\n"
        "healthcheck: {test: x, interval: 1m30s}\ndepends_on: [db]\nulimits: {nofile: 5}\ntmpfs: /t\n",
        "  db: {image: y}\nvolumes: {vv: }\nsecrets: {s: {file: f}}\n",
    )
    import json

    first = loaded(text)
    again = loaded(json.dumps(first.canonical))
    assert again.stack == first.stack
    assert again.canonical == first.canonical


def test_a_stack_that_is_right_costs_no_heavy_import() -> None:
    """jsonschema, networkx and difflib are for stacks that are wrong."""
    code = (
        "import sys\n"
        "from tests.unit.stackfile.given import loaded\n"
        "loaded('services: {a: {image: x, depends_on: [b]}, b: {image: x}}')\n"
        "print(sorted({'jsonschema', 'networkx', 'difflib', 'trio'} & set(sys.modules)))\n"
    )
    code = code.replace("from tests.unit.stackfile.given import loaded", LOADED)
    result = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


LOADED = """
from orchestrator.stackfile.load import Given, Source, load
class Disk:
    home = '/root'
    def read(self, path): raise FileNotFoundError(path)
    def exists(self, path): return False
def loaded(text):
    load([Source(path='s', text=text)], Given(files=Disk(), environment={}, working_dir='/proj'))
"""
