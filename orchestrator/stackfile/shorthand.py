"""Short forms -> the long, canonical ones: what `pystack config` prints and `resolve` reads.

One table a noun says which rule each key follows.
"""

from __future__ import annotations

from orchestrator.stackfile import long
from orchestrator.stackfile.forms import (
    Rule,
    Spot,
    boolean,
    command,
    duration,
    each,
    environment,
    fields,
    integer,
    mapping,
    number,
    size,
    text,
    unique,
    values,
)
from orchestrator.stackfile.tree import Map, Node

_HEALTHCHECK: dict[str, Rule] = {
    "test": long.test,
    "interval": duration,
    "timeout": duration,
    "start_period": duration,
    "start_interval": duration,
    "retries": integer,
    "disable": boolean,
}

_DEPLOY: dict[str, Rule] = {
    "replicas": integer,
    "labels": mapping,
    "resources": fields(
        {
            "limits": fields({"cpus": number, "memory": size, "pids": integer}),
            "reservations": fields({"cpus": number, "memory": size}),
        }
    ),
    "restart_policy": fields({"delay": duration, "window": duration, "max_attempts": integer}),
}

SERVICE: dict[str, Rule] = {
    "annotations": mapping,
    "attach": boolean,
    "cap_add": unique(),
    "cap_drop": unique(),
    "command": command,
    "configs": long.file_list("/"),
    "cpu_period": integer,
    "cpu_quota": integer,
    "cpu_shares": integer,
    "cpus": number,
    "cpuset": text,
    "depends_on": long.depends_on,
    "deploy": fields(_DEPLOY),
    "devices": long.device_list,
    "dns": unique(),
    "dns_opt": unique(),
    "dns_search": unique(),
    "entrypoint": command,
    "env_file": long.env_file_list,
    "environment": environment,
    "expose": unique(),
    "extra_hosts": long.extra_hosts,
    "group_add": unique(),
    "healthcheck": fields(_HEALTHCHECK),
    "init": boolean,
    "label_file": each(text),
    "labels": mapping,
    "links": unique(),
    "logging": fields({"options": values(text)}),
    "mem_limit": size,
    "mem_reservation": size,
    "memswap_limit": size,
    "networks": long.attachments,
    "oom_score_adj": integer,
    "pids_limit": integer,
    "ports": long.port_list,
    "privileged": boolean,
    "pull_policy": lambda node, _spot: "missing" if node == "if_not_present" else node,
    "profiles": unique(),
    "read_only": boolean,
    "scale": integer,
    "secrets": long.file_list("/run/secrets"),
    "security_opt": unique(),
    "shm_size": size,
    "stdin_open": boolean,
    "stop_grace_period": duration,
    "sysctls": mapping,
    "tmpfs": unique(key=lambda entry: entry.partition("=")[0]),
    "tty": boolean,
    "ulimits": values(long.ulimit),
    "volumes": long.mount_list,
}

_SUBNET: dict[str, Rule] = {"subnet": text, "gateway": text, "ip_range": text}
_NETWORK: dict[str, Rule] = {
    "attachable": boolean,
    "driver_opts": mapping,
    "enable_ipv4": boolean,
    "enable_ipv6": boolean,
    "external": boolean,
    "internal": boolean,
    "ipam": fields({"config": each(fields(_SUBNET))}),
    "labels": mapping,
}
_VOLUME: dict[str, Rule] = {"driver_opts": mapping, "external": boolean, "labels": mapping}
_FILE: dict[str, Rule] = {"external": boolean, "labels": mapping, "driver_opts": mapping, "content": text}


def _noun(rules: dict[str, Rule]) -> Rule:
    """A top-level network, volume, config or secret; an absent one is empty."""
    rule = fields(rules)

    def apply(node: Node, spot: Spot) -> Node:
        return rule(_without_old_name(node, spot), spot) if isinstance(node, Map) else Map()

    return values(apply)


def _without_old_name(node: Map, spot: Spot) -> Map:
    """`external: {name: x}` is how file format 2 said `external: true` and `name: x`."""
    old = node.get("external")
    if not isinstance(old, Map):
        return node
    spot.warn("external.name is obsolete: write `external: true` and `name:`")
    fresh = node.copy()
    fresh["external"] = True
    if "name" in old:
        fresh.take("name", old)
    return fresh


STACK: dict[str, Rule] = {
    "services": values(fields(SERVICE)),
    "networks": _noun(_NETWORK),
    "volumes": _noun(_VOLUME),
    "configs": _noun(_FILE),
    "secrets": _noun(_FILE),
}


def lengthen(tree: Map, spot: Spot) -> Map:
    """The tree with every short form written out; what can't be goes to the spot's report."""
    result = fields(STACK)(tree, spot)
    assert isinstance(result, Map)
    return result
