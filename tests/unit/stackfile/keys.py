"""A small stack for every key of the schemas: merged onto BASE, it uses that key."""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]

BASE: Tree = {
    "services": {
        "web": {"image": "x", "stop_grace_period": "1s"},
        "db": {"image": "y", "hostname": "h", "volumes": ["data:/lent"]},
    },
    "networks": {"front": {"ipam": {"config": [{"subnet": "10.5.0.0/24"}]}}, "back": {}},
    "volumes": {"data": {}},
    "configs": {"c": {"file": "c.txt"}},
    "secrets": {"s": {"file": "s.txt"}},
}
FILES = {
    "a.env": "A=1 # c\n",
    "b.env": "B=2\n",
    "part.yml": "services: {part: {image: 'y:${A-0}', user: '7', volumes: ['./d:/d']}}\n",
}


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
    addresses = {"config": [{"subnet": "10.6.0.0/24", **keys}]}
    return {"networks": {"back": {"ipam": addresses}}, **service(networks=["back"])}


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


def built(**keys: Any) -> Tree:
    return {"secrets": {"n": {"file": "f"}}, **service(build={"context": "src", **keys})}


def build_secret(**keys: Any) -> Tree:
    return built(secrets=[{"source": "n", **keys}])


def deployed(key: str, **keys: Any) -> Tree:
    return service(deploy={key: keys})


def requested(**keys: Any) -> Tree:
    return reserved(devices=[{"capabilities": ["gpu"], **keys}])


def graphics(**keys: Any) -> Tree:
    return listed("gpus", **keys)


def watch(**keys: Any) -> Tree:
    return service(develop={"watch": [{"path": "src", "action": "sync", "target": "/t", **keys}]})


def blkio(key: str, **keys: Any) -> Tree:
    return service(blkio_config={key: [keys]})


def llm(**keys: Any) -> Tree:
    return {"models": {"m": {"model": "x", **keys}}, **service(models=["m"])}


def use(**keys: Any) -> Tree:
    return {"models": {"m": {"model": "x"}}, **service(models={"m": keys})}


S = "services.*."
HOOK = {"command": "a", "user": "u", "privileged": True, "working_dir": "/w", "environment": {"A": "b"}}
UPDATE = {
    "parallelism": 2,
    "delay": "5s",
    "failure_action": "pause",
    "monitor": "5s",
    "max_failure_ratio": 0.5,
    "order": "start-first",
}
REQUEST = {"capabilities": ["tpu"], "count": 2, "device_ids": ["0"], "driver": "d", "options": {"a": "b"}}
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
            "develop": {"watch": [{"path": "src", "action": "rebuild"}]},
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
            "external_links": ["a"],
            "extra_hosts": ["a:1.1.1.1"],
            "gpus": "all",
            "group_add": ["1"],
            "healthcheck": {"test": "true"},
            "hostname": "h",
            "image": "other",
            "init": True,
            "ipc": "host",
            "isolation": "hyperv",
            "label_file": "a.env",
            "labels": {"a": "b"},
            "links": ["db"],
            "logging": {"driver": "none"},
            "mac_address": "02:00:00:00:00:01",
            "mem_limit": "64m",
            "mem_reservation": "32m",
            "mem_swappiness": 1,
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
            "userns_mode": "other",
            "uts": "host",
            "volumes": ["data:/m"],
            "volumes_from": ["db"],
            "working_dir": "/w",
        }.items()
    },
    S + "extends": {"services": {"web": {"extends": "part"}, "part": {"image": "y", "user": "7"}}},
    S + "extends.service": service(extends={"service": "part", "file": "part.yml"}),
    S + "extends.file": service(extends={"service": "part", "file": "part.yml"}),
    S + "models": use(),
    S + "models.*.endpoint_var": use(endpoint_var="A"),
    S + "models.*.model_var": use(model_var="A"),
    S + "provider.type": service(provider={"type": "x"}),
    S + "provider.options": service(provider={"type": "x", "options": {"a": 1}}),
    **{
        f"{S}credential_spec.{key}": service(credential_spec={key: "c"})
        for key in ("config", "file", "registry")
    },
    **{
        f"{S}build.{key}": built(**{key: value})
        for key, value in {
            "context": "other",
            "dockerfile": "D",
            "dockerfile_inline": "FROM x",
            "args": {"A": "b"},
            "ssh": ["default"],
            "labels": {"a": "b"},
            "cache_from": ["a"],
            "cache_to": ["a"],
            "additional_contexts": {"a": "other"},
            "no_cache": True,
            "no_cache_filter": ["a"],
            "pull": True,
            "network": "host",
            "target": "t",
            "secrets": ["n"],
            "shm_size": "64m",
            "tags": ["a"],
            "ulimits": {"nofile": 5},
            "platforms": ["linux/amd64"],
            "privileged": True,
            "extra_hosts": ["a=1.1.1.1"],
            "isolation": "x",
            "entitlements": ["a"],
            "provenance": True,
            "sbom": True,
        }.items()
    },
    S + "build.ulimits.*.soft": built(ulimits={"nofile": {"soft": 5, "hard": 6}}),
    S + "build.ulimits.*.hard": built(ulimits={"nofile": {"soft": 5, "hard": 6}}),
    S + "build.secrets.*.source": build_secret(),
    S + "build.secrets.*.target": build_secret(target="t"),
    S + "build.secrets.*.uid": build_secret(uid="1"),
    S + "build.secrets.*.gid": build_secret(gid="1"),
    S + "build.secrets.*.mode": build_secret(mode=0o400),
    **{
        f"{S}{hook}.*.{key}": listed(hook, command="x")
        if key == "command"
        else listed(hook, command="x", **{key: value})
        for hook in ("post_start", "pre_start", "pre_stop")
        for key, value in HOOK.items()
    },
    S + "pre_start.*.image": listed("pre_start", command="x", image="i"),
    S + "pre_start.*.per_replica": listed("pre_start", command="x", per_replica=True),
    S + "develop.watch": watch(),
    S + "develop.watch.*.path": watch(path="other"),
    S + "develop.watch.*.action": watch(action="rebuild"),
    S + "develop.watch.*.target": watch(action="rebuild", target="/u"),
    S + "develop.watch.*.ignore": watch(ignore="a"),
    S + "develop.watch.*.include": watch(include=["a"]),
    S + "develop.watch.*.exec": watch(exec={"command": "a"}),
    S + "develop.watch.*.initial_sync": watch(initial_sync=True),
    **{
        f"{S}develop.watch.*.exec.{key}": watch(exec={"command": "x", key: value})
        for key, value in HOOK.items()
    },
    S + "blkio_config.weight": service(blkio_config={"weight": 5}),
    S + "blkio_config.weight_device": blkio("weight_device", path="/dev/a", weight=5),
    S + "blkio_config.weight_device.*.path": blkio("weight_device", path="/dev/a", weight=5),
    S + "blkio_config.weight_device.*.weight": blkio("weight_device", path="/dev/a", weight=5),
    **{
        f"{S}blkio_config.device_{way}{part}": blkio(f"device_{way}", path="/dev/a", rate="5k")
        for way in ("read_bps", "write_bps", "read_iops", "write_iops")
        for part in ("", ".*.path", ".*.rate")
    },
    **{f"{S}gpus.*.{key}": graphics(**{key: value}) for key, value in REQUEST.items()},
    **{
        f"{S}deploy.resources.reservations.devices.*.{key}": requested(**{key: value})
        for key, value in REQUEST.items()
    },
    S + "deploy.resources.reservations.generic_resources.*.discrete_resource_spec": reserved(
        generic_resources=[{"discrete_resource_spec": {"kind": "a", "value": 1}}]
    ),
    S + "deploy.resources.reservations.generic_resources.*.discrete_resource_spec.kind": reserved(
        generic_resources=[{"discrete_resource_spec": {"kind": "a", "value": 1}}]
    ),
    S + "deploy.resources.reservations.generic_resources.*.discrete_resource_spec.value": reserved(
        generic_resources=[{"discrete_resource_spec": {"kind": "a", "value": 1}}]
    ),
    **{
        f"{S}deploy.{config}.{key}": deployed(config, **{key: value})
        for config in ("update_config", "rollback_config")
        for key, value in UPDATE.items()
    },
    S + "deploy.placement.constraints": deployed("placement", constraints=["a"]),
    S + "deploy.placement.preferences": deployed("placement", preferences=[{"spread": "a"}]),
    S + "deploy.placement.preferences.*.spread": deployed("placement", preferences=[{"spread": "a"}]),
    S + "deploy.placement.max_replicas_per_node": deployed("placement", max_replicas_per_node=1),
    S + "volumes.*.image.subpath": mount("image", image={"subpath": "a"}),
    S + "cpu_period": service(cpu_quota=50000, cpu_period=200000),
    S + "memswap_limit": service(mem_limit="64m", memswap_limit="128m"),
    S + "ulimits": service(ulimits={"nofile": 5}),
    S + "ulimits.*.soft": service(ulimits={"nofile": {"soft": 5, "hard": 6}}),
    S + "ulimits.*.hard": service(ulimits={"nofile": {"hard": 6, "soft": 5}}),
    S + "x-drain": service(**{"x-drain": "30s"}),
    S + "x-on-unhealthy": service(**{"x-on-unhealthy": "restart"}),
    S + "healthcheck.x-http": service(healthcheck={"x-http": {"port": 80}}),
    **{
        f"{S}healthcheck.x-http.{key}": service(healthcheck={"x-http": {"port": 80, key: value}})
        for key, value in {
            "port": 81,
            "path": "/health",
            "status": "204",
            "scheme": "https",
            "host": "example.org",
        }.items()
    },
    S + "healthcheck.x-tcp": service(healthcheck={"x-tcp": {"port": 80}}),
    S + "healthcheck.x-tcp.port": service(healthcheck={"x-tcp": {"port": 80}}),
    S + "x-on-change": service(configs=["c"], **{"x-on-change": {"signal": "HUP"}}),
    S + "x-on-change.signal": service(configs=["c"], **{"x-on-change": {"signal": "HUP"}}),
    **{
        f"{S}{noun}.*.x-on-change{key}": service(
            **{noun: [{"source": noun[0], "x-on-change": {"signal": "HUP"}}]}
        )
        for noun in ("configs", "secrets")
        for key in ("", ".signal")
    },
    S + "x-log-ready": service(**{"x-log-ready": "ready"}),
    S + "depends_on.*.x-condition": service(
        depends_on={"db": {"condition": "service_started", "x-condition": "service_healthy"}}
    ),
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
    S + "devices.*.source": listed("devices", source="/dev/null", target="/dev/null"),
    S + "devices.*.target": listed("devices", source="/dev/null", target="/dev/n"),
    S + "devices.*.permissions": listed("devices", source="/dev/null", target="/dev/null", permissions="r"),
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
    S + "volumes.*.image": mount("image", image={"subpath": "a"}),
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
    "networks.*.ipam.config.*.gateway": subnet(gateway="10.6.0.9"),
    "networks.*.ipam.config.*.ip_range": subnet(ip_range="10.6.0.128/25"),
    "networks.*.ipam.config.*.aux_addresses": subnet(aux_addresses={"a": "10.6.0.9"}),
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
    "configs.*.external.name": config(external={"name": "other"}),
    "secrets": secret(file="f"),
    "secrets.*.environment": secret(environment="HOME"),
    "secrets.*.file": secret(file="f"),
    "secrets.*.name": secret(file="f", name="other"),
    "secrets.*.labels": secret(file="f", labels={"a": "b"}),
    "secrets.*.driver": secret(file="f", driver="x"),
    "secrets.*.driver_opts": secret(file="f", driver_opts={"a": "b"}),
    "secrets.*.template_driver": secret(file="f", template_driver="x"),
    "secrets.*.external": secret(external=True),
    "secrets.*.external.name": secret(external={"name": "other"}),
    "version": {"version": "3"},
    "x-check-ignore": {"x-check-ignore": ["C401"]},
    S + "x-check-ignore": service(**{"x-check-ignore": ["C401"]}),
    "include": {"include": ["part.yml"]},
    "include.*.path": {"include": [{"path": "part.yml"}]},
    "include.*.project_directory": {"include": [{"path": "part.yml", "project_directory": "sub"}]},
    "include.*.env_file": {"include": [{"path": "part.yml", "env_file": "a.env"}]},
    "models": llm(),
    "models.*.model": llm(),
    "models.*.name": llm(name="n"),
    "models.*.context_size": llm(context_size=5),
    "models.*.runtime_flags": llm(runtime_flags=["-a"]),
}
NOT_CARRIED = {
    "version",
    S + "pull_refresh_after",
    "networks.*.ipam.options",
    "x-check-ignore",
    S + "x-check-ignore",
}
"""Keys that nobody could ever read, which the table names; and what only `check` reads (test_findings)."""
REFUSED_VALUES = ("networks.*.driver", "volumes.*.driver")
"""Keys that are honoured in one value only; with any other nothing is run."""
KEPT = (
    "source",
    "target",
    "path",
    "type",
    "image",
    "condition",
    "context",
    "model",
    "capabilities",
    "service",
    "file",
)
"""What can't always be left out."""
