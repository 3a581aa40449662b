"""Short forms -> the long, canonical ones: what `pystack config` prints and `resolve` reads.

One table a noun says which rule each key follows.
"""

from __future__ import annotations

from orchestrator.stackfile import long, problem, sections
from orchestrator.stackfile.forms import (
    Rule,
    Spot,
    between,
    boolean,
    command,
    duration,
    each,
    environment,
    fields,
    mapping,
    named,
    section,
    single,
    size,
    text,
    unique,
    values,
    whole,
)
from orchestrator.stackfile.tree import Map, Node, Seq


def _nothing(_node: Node, spot: Spot) -> Node:
    """A key that nobody reads: docker compose takes and drops it."""
    spot.warn("has no effect: nobody reads it")
    return None


def _servers(node: Node, spot: Spot) -> Node:
    """Name servers; docker compose leaves out what is empty."""
    found = named(node, spot)
    result = Seq()
    for index, server in enumerate(found if isinstance(found, Seq) else ()):
        if server:
            result.add(server, found.mark(index) if isinstance(found, Seq) else None)
    return result or None


def _retries(node: Node, spot: Spot) -> Node:
    return between(0)(whole(node, spot), spot)


_TIMES = ("interval", "timeout", "retries", "start_period", "start_interval")
_HEALTHCHECK: dict[str, Rule] = {
    "test": long.test,
    "interval": duration,
    "timeout": duration,
    "start_period": duration,
    "start_interval": duration,
    "retries": _retries,
    "disable": boolean,
    "x-http": fields({"port": whole, "status": text}),
    "x-tcp": fields({"port": whole}),
}

SERVICE: dict[str, Rule] = {
    "annotations": mapping,
    "attach": boolean,
    "blkio_config": sections.blkio,
    "build": sections.build,
    "cap_add": named,
    "cap_drop": named,
    "command": command,
    "configs": long.file_list("/"),
    "cpu_count": between(0),
    "cpu_percent": between(0, 100),
    "cpu_period": whole,
    "cpu_quota": whole,
    "cpu_rt_period": whole,
    "cpu_rt_runtime": whole,
    "cpu_shares": whole,
    "cpus": single,
    "cpuset": text,
    "credential_spec": sections.credential,
    "depends_on": long.depends_on,
    "deploy": sections.deploy,
    "develop": sections.develop,
    "device_cgroup_rules": unique(),
    "devices": long.device_list,
    "dns": _servers,
    "dns_opt": named,
    "dns_search": named,
    "entrypoint": command,
    "env_file": long.env_file_list,
    "environment": environment,
    "expose": unique(),
    "external_links": unique(),
    "extra_hosts": long.extra_hosts,
    "gpus": sections.gpus,
    "group_add": each(text),
    "healthcheck": section(_HEALTHCHECK, kept=_TIMES),
    "init": boolean,
    "label_file": each(text),
    "labels": mapping,
    "links": named,
    "logging": section({"options": mapping}),
    "mem_limit": size,
    "mem_reservation": size,
    "mem_swappiness": size,
    "memswap_limit": size,
    "models": sections.models,
    "networks": long.attachments,
    "oom_kill_disable": boolean,
    "oom_score_adj": between(-1000, 1000),
    "pids_limit": whole,
    "ports": long.port_list,
    "post_start": each(sections.hook),
    "pre_start": each(sections.init),
    "pre_stop": each(sections.hook),
    "privileged": boolean,
    "provider": sections.provider,
    "pull_refresh_after": _nothing,
    "pull_policy": lambda node, _spot: "missing" if node == "if_not_present" else node,
    "profiles": named,
    "read_only": boolean,
    "scale": between(0),
    "secrets": long.file_list("/run/secrets"),
    "security_opt": unique(),
    "shm_size": size,
    "stdin_open": boolean,
    "stop_grace_period": duration,
    "storage_opt": mapping,
    "sysctls": mapping,
    "tmpfs": named,
    "tty": boolean,
    "ulimits": values(long.ulimit),
    "volumes": long.mount_list,
    "volumes_from": unique(),
}


def _addresses(node: Node, spot: Spot) -> Node:
    """Options of the address driver are for nobody: docker compose drops them, too."""
    result = _IPAM(node, spot)
    return result.without("options") if isinstance(result, Map) else result


_IPAM = section({"config": each(section({"aux_addresses": mapping}))})
_NETWORK = section(
    {
        "attachable": boolean,
        "driver_opts": mapping,
        "enable_ipv4": boolean,
        "enable_ipv6": boolean,
        "external": boolean,
        "internal": boolean,
        "ipam": _addresses,
        "labels": mapping,
    },
    kept=("enable_ipv4", "enable_ipv6", "name"),
)
_VOLUME = section(
    {"driver_opts": mapping, "external": boolean, "labels": mapping}, kept=("driver_opts", "name")
)
_FILE = section(
    {"external": boolean, "labels": mapping, "driver_opts": mapping},
    kept=("content", "environment", "external", "file", "name"),
)
_MODEL = section({"runtime_flags": each(text)})


def _noun(rule: Rule) -> Rule:
    """A top-level network, volume, config or secret; an absent one is empty."""

    def apply(node: Node, spot: Spot) -> Node:
        return rule(_without_old_name(node, spot), spot) if isinstance(node, Map) else Map()

    return values(apply)


def _without_old_name(node: Map, spot: Spot) -> Map:
    """`external: {name: x}` is how file format 2 said `external: true` and `name: x`."""
    old = node.get("external")
    if not isinstance(old, Map):
        return node
    fresh = node.copy()
    fresh["external"] = True
    if "name" in old:
        spot.warn("external.name is obsolete: write `external: true` and `name:`")
        if node.get("name") not in (None, old["name"]):
            spot.wrong("name and external.name contradict each other", code=problem.CONFLICT)
        fresh.take("name", old)
    return fresh


STACK: dict[str, Rule] = {
    "services": values(fields(SERVICE)),
    "networks": _noun(_NETWORK),
    "volumes": _noun(_VOLUME),
    "configs": _noun(_FILE),
    "secrets": _noun(_FILE),
    "models": values(_MODEL),
}


def lengthen(tree: Map, spot: Spot) -> Map:
    """The tree with every short form written out; what can't be goes to the spot's report."""
    result = fields(STACK)(tree, spot)
    assert isinstance(result, Map)
    return result
