"""No key is accepted and ignored: each one changes the Stack, or the table of unsupported keys names it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.model import codec
from orchestrator.stackfile import reference
from orchestrator.stackfile.load import Loaded
from orchestrator.stackfile.unsupported import TABLE
from tests.unit.stackfile.given import loaded, refused

Tree = dict[str, Any]
TOP = Path(__file__).parents[3]

BASE: Tree = {
    "services": {"web": {"image": "x", "stop_grace_period": "1s"}, "db": {"image": "y"}},
    "networks": {"front": {"ipam": {"config": [{"subnet": "10.5.0.0/24"}]}}, "back": {}},
    "volumes": {"data": {}},
    "configs": {"c": {"file": "c.txt"}},
    "secrets": {"s": {"file": "s.txt"}},
}
FILES = {"a.env": "A=1 # c\n", "b.env": "B=2\n"}


def service(**keys: Any) -> Tree:
    return {"services": {"web": keys}}


def listed(key: str, **entry: Any) -> Tree:
    return service(**{key: [entry]})


def port(**keys: Any) -> Tree:
    return listed("ports", target=80, **keys)


def mount(kind: str, **keys: Any) -> Tree:
    return listed(
        "volumes", **{"type": kind, "source": "data" if kind == "volume" else "/d", "target": "/m", **keys}
    )


def network(**keys: Any) -> Tree:
    return {"networks": {"front": keys}, **service(networks=["front"])}


def volume(**keys: Any) -> Tree:
    return {"volumes": {"data": keys}, **service(volumes=["data:/m"])}


def subnet(**keys: Any) -> Tree:
    return network(ipam={"config": [{"subnet": "10.5.0.0/24", **keys}]})


def attached(**keys: Any) -> Tree:
    return service(networks={"back": {}, "front": keys})


def limits(**keys: Any) -> Tree:
    return service(deploy={"resources": {"limits": keys}})


def reserved(**keys: Any) -> Tree:
    return service(deploy={"resources": {"reservations": keys}})


def policy(**keys: Any) -> Tree:
    return service(deploy={"restart_policy": {"condition": "on-failure", **keys}})


def config(**keys: Any) -> Tree:
    return {"configs": {"n": keys}, **service(configs=["n"])}


def secret(**keys: Any) -> Tree:
    return {"secrets": {"n": keys}, **service(secrets=["n"])}


S = "services.*."
CASES: dict[str, Tree] = {
    **{
        S + key: service(**{key: value})
        for key, value in {
            "annotations": {"a": "b"},
            "attach": False,
            "blkio_config": {"weight": 1},
            "build": ".",
            "cap_add": ["NET_ADMIN"],
            "cap_drop": ["ALL"],
            "cgroup": "host",
            "cgroup_parent": "x",
            "command": "a b",
            "configs": ["c"],
            "container_name": "own",
            "cpu_count": 1,
            "cpu_percent": 1,
            "cpu_quota": 50000,
            "cpu_rt_period": 1,
            "cpu_rt_runtime": 1,
            "cpu_shares": 512,
            "cpus": 0.5,
            "cpuset": "0",
            "credential_spec": {"file": "x"},
            "depends_on": ["db"],
            "develop": {"watch": []},
            "device_cgroup_rules": ["c 1:3 mr"],
            "devices": ["/dev/null"],
            "dns": "1.1.1.1",
            "dns_opt": ["ndots:1"],
            "dns_search": ["a"],
            "domainname": "d",
            "entrypoint": "e",
            "env_file": "a.env",
            "environment": {"A": "b"},
            "expose": [80],
            "extends": "db",
            "external_links": ["a"],
            "extra_hosts": ["a:1.1.1.1"],
            "gpus": "all",
            "group_add": ["1"],
            "healthcheck": {"test": "true"},
            "hostname": "h",
            "image": "other",
            "init": True,
            "ipc": "host",
            "isolation": "default",
            "label_file": "a.env",
            "labels": {"a": "b"},
            "links": ["db"],
            "logging": {"driver": "none"},
            "mac_address": "02:00:00:00:00:01",
            "mem_limit": "64m",
            "mem_reservation": "32m",
            "mem_swappiness": 1,
            "models": ["m"],
            "network_mode": "none",
            "networks": ["front"],
            "oom_kill_disable": True,
            "oom_score_adj": 5,
            "pid": "host",
            "pids_limit": 10,
            "platform": "linux/amd64",
            "ports": ["80:80"],
            "post_start": [{"command": "x"}],
            "pre_start": [{"command": "x"}],
            "pre_stop": [{"command": "x"}],
            "privileged": True,
            "profiles": ["p"],
            "provider": {"type": "x"},
            "pull_policy": "always",
            "pull_refresh_after": "1h",
            "read_only": True,
            "restart": "always",
            "runtime": "other",
            "scale": 2,
            "secrets": ["s"],
            "security_opt": ["no-new-privileges"],
            "shm_size": "64m",
            "stdin_open": True,
            "stop_grace_period": "3s",
            "stop_signal": "SIGINT",
            "storage_opt": {"size": "1g"},
            "sysctls": {"net.a": "1"},
            "tmpfs": "/t",
            "tty": True,
            "use_api_socket": True,
            "user": "1",
            "userns_mode": "host",
            "uts": "host",
            "volumes": ["data:/m"],
            "volumes_from": ["db"],
            "working_dir": "/w",
        }.items()
    },
    S + "cpu_period": service(cpu_quota=50000, cpu_period=200000),
    S + "memswap_limit": service(mem_limit="64m", memswap_limit="128m"),
    S + "ulimits": service(ulimits={"nofile": 5}),
    S + "ulimits.*.soft": service(ulimits={"nofile": {"soft": 5, "hard": 6}}),
    S + "ulimits.*.hard": service(ulimits={"nofile": {"hard": 6, "soft": 5}}),
    S + "x-rootfs": {"services": {"new": {"x-rootfs": "host"}}},
    S + "x-rootfs.path": {"services": {"new": {"x-rootfs": {"path": "d"}}}},
    S + "deploy": service(deploy={"replicas": 2}),
    S + "deploy.replicas": service(deploy={"replicas": 2}),
    **{
        f"{S}deploy.{key}": service(deploy={key: value})
        for key, value in {
            "mode": "global",
            "endpoint_mode": "vip",
            "labels": {"a": "b"},
            "placement": {"constraints": ["a"]},
            "update_config": {"parallelism": 1},
            "rollback_config": {"parallelism": 1},
            "resources": {"limits": {"pids": 5}},
            "restart_policy": {"condition": "any"},
        }.items()
    },
    S + "deploy.resources.limits": limits(pids=5),
    S + "deploy.resources.limits.cpus": limits(cpus="0.5"),
    S + "deploy.resources.limits.memory": limits(memory="64m"),
    S + "deploy.resources.limits.pids": limits(pids=5),
    S + "deploy.resources.reservations": reserved(memory="32m"),
    S + "deploy.resources.reservations.memory": reserved(memory="32m"),
    S + "deploy.resources.reservations.cpus": reserved(cpus="0.5"),
    S + "deploy.resources.reservations.devices": reserved(devices=[{"capabilities": ["gpu"]}]),
    S + "deploy.resources.reservations.generic_resources": reserved(generic_resources=[{}]),
    S + "deploy.restart_policy.condition": policy(),
    S + "deploy.restart_policy.delay": policy(delay="5s"),
    S + "deploy.restart_policy.max_attempts": policy(max_attempts=3),
    S + "deploy.restart_policy.window": policy(window="5s"),
    S + "depends_on.*.condition": service(depends_on={"db": {"condition": "service_healthy"}}),
    S + "depends_on.*.required": service(
        depends_on={"db": {"condition": "service_started", "required": False}}
    ),
    S + "depends_on.*.restart": service(depends_on={"db": {"condition": "service_started", "restart": True}}),
    S + "devices.*.source": listed("devices", source="/dev/null"),
    S + "devices.*.target": listed("devices", source="/dev/null", target="/dev/n"),
    S + "devices.*.permissions": listed("devices", source="/dev/null", permissions="r"),
    S + "env_file.*.path": listed("env_file", path="a.env"),
    S + "env_file.*.required": listed("env_file", path="nope.env", required=False),
    S + "env_file.*.format": listed("env_file", path="a.env", format="raw"),
    **{
        f"{S}healthcheck.{key}": service(healthcheck={"test": "x", **more, key: value})
        for key, value, more in [
            ("test", "true", {}),
            ("interval", "5s", {}),
            ("timeout", "5s", {}),
            ("retries", 5, {}),
            ("start_period", "5s", {}),
            ("start_interval", "1s", {"start_period": "5s"}),
            ("disable", True, {}),
        ]
    },
    S + "logging.driver": service(logging={"driver": "none"}),
    S + "logging.options": service(logging={"options": {"max-size": "1m"}}),
    S + "networks.*.aliases": attached(aliases=["a"]),
    S + "networks.*.ipv4_address": attached(ipv4_address="10.5.0.9"),
    S + "networks.*.ipv6_address": attached(ipv6_address="::1"),
    S + "networks.*.link_local_ips": attached(link_local_ips=["1.1.1.1"]),
    S + "networks.*.interface_name": attached(interface_name="e"),
    S + "networks.*.mac_address": attached(mac_address="02:00:00:00:00:01"),
    S + "networks.*.driver_opts": attached(driver_opts={"a": "b"}),
    S + "networks.*.priority": attached(priority=5),
    S + "networks.*.gw_priority": attached(gw_priority=5),
    S + "ports.*.target": port(),
    S + "ports.*.published": port(published=80),
    S + "ports.*.host_ip": port(host_ip="127.0.0.1"),
    S + "ports.*.protocol": port(protocol="udp"),
    S + "ports.*.mode": port(mode="host"),
    S + "ports.*.name": port(name="n"),
    S + "ports.*.app_protocol": port(app_protocol="http"),
    S + "volumes.*.type": mount("volume"),
    S + "volumes.*.source": mount("volume"),
    S + "volumes.*.target": mount("volume"),
    S + "volumes.*.read_only": mount("volume", read_only=True),
    S + "volumes.*.consistency": mount("bind", consistency="cached"),
    S + "volumes.*.bind": mount("bind", bind={"propagation": "slave"}),
    S + "volumes.*.bind.propagation": mount("bind", bind={"propagation": "slave"}),
    S + "volumes.*.bind.create_host_path": mount("bind", bind={"create_host_path": False}),
    S + "volumes.*.bind.recursive": mount("bind", bind={"recursive": "disabled"}),
    S + "volumes.*.bind.selinux": mount("bind", bind={"selinux": "z"}),
    S + "volumes.*.volume": mount("volume", volume={"nocopy": True}),
    S + "volumes.*.volume.nocopy": mount("volume", volume={"nocopy": True}),
    S + "volumes.*.volume.subpath": mount("volume", volume={"subpath": "a"}),
    S + "volumes.*.volume.labels": mount("volume", volume={"labels": {"a": "b"}}),
    S + "volumes.*.tmpfs": mount("tmpfs", tmpfs={"size": "1m"}),
    S + "volumes.*.tmpfs.size": mount("tmpfs", tmpfs={"size": "1m"}),
    S + "volumes.*.tmpfs.mode": mount("tmpfs", tmpfs={"mode": 0o700}),
    S + "volumes.*.image": mount("volume", image={"subpath": "a"}),
    **{
        f"{S}{noun}.*.{key}": listed(noun, source=noun[0], **({} if key == "source" else {key: value}))
        for noun in ("configs", "secrets")
        for key, value in {"source": "", "target": "t", "uid": "1", "gid": "1", "mode": "0400"}.items()
    },
    "name": {"name": "other"},
    "services": service(user="1"),
    "networks": network(internal=True),
    "networks.*.name": network(name="other"),
    "networks.*.driver": {"networks": {"back": {"driver": "macvlan"}}, **service(networks=["back"])},
    "networks.*.driver_opts": network(driver_opts={"a": "b"}),
    "networks.*.ipam": subnet(),
    "networks.*.ipam.driver": network(ipam={"driver": "other"}),
    "networks.*.ipam.config": subnet(),
    "networks.*.ipam.config.*.subnet": subnet(),
    "networks.*.ipam.config.*.gateway": subnet(gateway="10.5.0.9"),
    "networks.*.ipam.config.*.ip_range": subnet(ip_range="10.5.0.128/25"),
    "networks.*.ipam.config.*.aux_addresses": subnet(aux_addresses={"a": "10.5.0.9"}),
    "networks.*.ipam.options": network(ipam={"options": {"a": "b"}}),
    "networks.*.external": network(external=True),
    "networks.*.external.name": network(external={"name": "other"}),
    "networks.*.internal": network(internal=True),
    "networks.*.attachable": network(attachable=True),
    "networks.*.enable_ipv4": network(enable_ipv4=True),
    "networks.*.enable_ipv6": network(enable_ipv6=True),
    "networks.*.labels": network(labels={"a": "b"}),
    "volumes": volume(name="other"),
    "volumes.*.name": volume(name="other"),
    "volumes.*.driver": volume(driver="other"),
    "volumes.*.driver_opts": volume(driver_opts={"type": "tmpfs"}),
    "volumes.*.external": volume(external=True),
    "volumes.*.external.name": volume(external={"name": "other"}),
    "volumes.*.labels": volume(labels={"a": "b"}),
    "configs": config(content="x"),
    "configs.*.content": config(content="x"),
    "configs.*.environment": config(environment="HOME"),
    "configs.*.file": config(file="f"),
    "configs.*.name": config(file="f", name="other"),
    "configs.*.labels": config(file="f", labels={"a": "b"}),
    "configs.*.template_driver": config(file="f", template_driver="x"),
    "configs.*.external": config(external=True),
    "secrets": secret(file="f"),
    "secrets.*.environment": secret(environment="HOME"),
    "secrets.*.file": secret(file="f"),
    "secrets.*.name": secret(file="f", name="other"),
    "secrets.*.labels": secret(file="f", labels={"a": "b"}),
    "secrets.*.driver": secret(file="f", driver="x"),
    "secrets.*.driver_opts": secret(file="f", driver_opts={"a": "b"}),
    "secrets.*.template_driver": secret(file="f", template_driver="x"),
    "secrets.*.external": secret(external=True),
    "version": {"version": "3"},
    "include": {"include": ["other.yml"]},
    "models": {"models": {"m": {"model": "x"}}},
}
VERDICTS = {row.path: row.verdict for row in TABLE}
REFUSED_VALUES = ("networks.*.driver", "volumes.*.driver")
"""Keys that are honoured in one value only; any other is refused."""


def without(tree: Tree, path: str) -> Tree:
    """The tree without the key at a path, where that leaves something that still makes sense."""
    fresh = copy.deepcopy(tree)
    *above, last = path.split(".")
    nodes: list[Any] = [fresh]
    for step in above:
        if step == "*":
            nodes = [child for node in nodes for child in (node.values() if isinstance(node, dict) else node)]
        else:
            nodes = [node[step] for node in nodes if isinstance(node, dict) and step in node]
    for node in nodes:
        if (
            isinstance(node, dict)
            and "." in path
            and last not in ("source", "target", "path", "type", "image", "condition")
        ):
            node.pop(last, None)
    return fresh if "." in path else {}


def given(tree: Tree) -> Loaded:
    return loaded(json.dumps(BASE), json.dumps(tree), files=FILES)


def meaning(found: Loaded) -> Any:
    """The Stack as data, without places."""
    return codec.encode(replace(found.stack, files=()))


def stripped(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: stripped(value) for key, value in node.items() if key != "place"}
    return [stripped(value) for value in node] if isinstance(node, list) else node


def test_every_key_of_the_schemas_is_here() -> None:
    known = {key.path for key in reference.every_key()}
    assert known == set(CASES)


def test_every_row_of_the_table_is_a_key_of_the_schemas() -> None:
    assert set(VERDICTS) <= {key.path for key in reference.every_key()}


@pytest.mark.parametrize("path", CASES)
def test_a_key_is_honoured_or_named(path: str) -> None:
    tree = CASES[path]
    name = path.rpartition(".")[2]
    verdict = VERDICTS.get(path)
    if verdict == "refuse" or path in REFUSED_VALUES:
        problems = refused(json.dumps(BASE), json.dumps(tree), files=FILES)
        assert any(problem.code == "E020" and name in problem.message for problem in problems)
        return
    found = given(tree)
    if verdict == "warn" or path == S + "build":
        assert any(name in warned.message and warned.place for warned in found.warnings)
        return
    bare = without(tree, path)
    if path == S + "env_file.*.required":
        assert refused(json.dumps(BASE), json.dumps(bare), files=FILES)[0].code == "E021"
        return
    if path.startswith(S + "x-rootfs"):
        assert "new" in found.stack.services
        return
    if path.startswith("services.*.ulimits."):
        assert [limit.name for limit in found.stack.services["web"].ulimits] == ["nofile"]
        return
    if path.startswith(("configs.*.", "secrets.*.")) and verdict is None:
        assert "n" in {getattr(mounted, "name", "") for mounted in found.stack.services["web"].mounts}
        return
    same = stripped(meaning(found)) == stripped(meaning(given(bare)))
    if same and verdict is None:
        same = stripped(meaning(found)) == stripped(meaning(given({})))
    assert same == (verdict == "inert"), f"{path} changes {'nothing' if same else 'something'}"


def test_the_reference_page_is_made_from_the_schemas() -> None:
    """To write it anew, print(reference.page())."""
    assert (TOP / "docs/compose-support.md").read_text() == reference.page()
