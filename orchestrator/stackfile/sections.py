"""The long forms of a service's larger sections: build, deploy, develop, hooks, models, device requests."""

from __future__ import annotations

from orchestrator.stackfile import long, problem
from orchestrator.stackfile.forms import (
    Rule,
    Spot,
    between,
    boolean,
    command,
    duration,
    each,
    entries,
    environment,
    integer,
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
from orchestrator.stackfile.scalar import text_of
from orchestrator.stackfile.tree import Map, Node, Seq

_COPIES = ("sync", "sync+restart", "sync+exec")


def _filled(rule: Rule, **defaults: Node) -> Rule:
    """What is not said in a mapping is written out."""

    def apply(node: Node, spot: Spot) -> Node:
        result = rule(node, spot)
        if isinstance(result, Map):
            for key, value in defaults.items():
                result.setdefault(key, value)
        return result

    return apply


# --- build -----------------------------------------------------------------------------------------


def _keys(node: Node, spot: Spot) -> Node:
    """SSH keys: `default`, the agent, or name=path; a mapping becomes a list."""
    result = Seq()
    if isinstance(node, Map):
        pairs = [(key, node[key], spot.inside(key, node.mark(key))) for key in node]
        rows = [
            (key if value is None else f"{key}={text_of(_scalar(value))}", here) for key, value, here in pairs
        ]
    else:
        rows = [
            (text_of(_scalar(one)), spot.inside(index, at)) for index, one, at in entries(node, spot.mark)
        ]
    for row, here in rows:
        if row != "default" and not row.partition("=")[2]:
            here.wrong(f"{row!r} names no key", hint="write `default`, or name=path")
        result.add(row, here.mark)
    return result


def _scalar(node: Node) -> str | int | float | bool | None:
    return node if isinstance(node, str | int | float | bool) else None


def _contexts(node: Node, spot: Spot) -> Node:
    result = mapping(node, spot)
    assert isinstance(result, Map)
    for key in result:
        written = node.get(key) if isinstance(node, Map) else result[key]
        if not isinstance(written, str) or not written:
            spot.inside(key, result.mark(key)).wrong(
                "a context is a directory, an URL or service:NAME", hint="name=directory"
            )
    return result


_BUILD = section(
    {
        "args": environment,
        "ssh": _keys,
        "labels": mapping,
        "additional_contexts": _contexts,
        "no_cache": boolean,
        "no_cache_filter": each(text),
        "pull": boolean,
        "privileged": boolean,
        "secrets": long.file_list("/", united=False),
        "shm_size": size,
        "ulimits": values(long.ulimit),
        "extra_hosts": long.extra_hosts,
        "tags": named,
        "provenance": text,
        "sbom": text,
    },
    kept=("context", "dockerfile", "dockerfile_inline"),
)


def build(node: Node, spot: Spot) -> Node:
    """A text is the context. Defaults come in the next phase, which knows the project directory."""
    if isinstance(node, str):
        short = Map()
        short.put("context", node, spot.mark)
        return short
    return _BUILD(node, spot)


# --- deploy ----------------------------------------------------------------------------------------


def _count(node: Node, spot: Spot) -> Node:
    """How many devices: a number, or all of them, which is -1."""
    if isinstance(node, str):
        if node == "all":
            return -1
        if not node.lstrip("-").isdecimal() or len(node) > 18:
            spot.wrong(f"expected a number or all, found {node!r}")
            return node
        return int(node)
    return node


_REQUEST_KEYS = ("capabilities", "count", "device_ids", "driver", "options")
_REQUEST = section({"capabilities": unique(), "device_ids": unique(), "count": _count, "options": mapping})


def request(node: Node, spot: Spot) -> Node:
    """Devices by what they can do: all of them, unless it says how many or which."""
    if not isinstance(node, Map):
        return node
    if "count" in node and "device_ids" in node:
        spot.wrong("count and device_ids exclude each other", code=problem.CONFLICT)
    result = _REQUEST(node, spot)
    if isinstance(result, Map) and "count" not in node and "device_ids" not in node:
        result["count"] = -1
    return result


def gpus(node: Node, spot: Spot) -> Node:
    if isinstance(node, str):
        everything = Map()
        everything["count"] = -1
        result = Seq()
        result.add(everything, spot.mark)
        return result
    return each(_known_request)(node, spot)


def _known_request(node: Node, spot: Spot) -> Node:
    """Docker compose takes other keys as well and reads none of them; the check has told of them."""
    result = request(node, spot)
    if not isinstance(result, Map):
        return result
    return result.without(*(key for key in result if key not in _REQUEST_KEYS and not key.startswith("x-")))


_UPDATE = section(
    {"parallelism": between(0), "delay": duration, "monitor": duration, "max_failure_ratio": single},
    kept=("parallelism",),
)
_RESOURCES: dict[str, Rule] = {
    "limits": section({"cpus": single, "memory": size, "pids": integer}),
    "reservations": section(
        {
            "cpus": single,
            "memory": size,
            "devices": each(request),
            "generic_resources": each(
                section(
                    {"discrete_resource_spec": _filled(section({"value": whole}), kind="", value=0)},
                    kept=("discrete_resource_spec",),
                )
            ),
        }
    ),
}

deploy = section(
    {
        "replicas": between(0),
        "labels": mapping,
        "resources": section(_RESOURCES, kept=("limits", "reservations")),
        "restart_policy": section(
            {"delay": duration, "window": duration, "max_attempts": between(0)},
            kept=("delay", "window", "max_attempts"),
        ),
        "update_config": _UPDATE,
        "rollback_config": _UPDATE,
        "placement": section({"preferences": each(section({})), "max_replicas_per_node": between(0)}),
    },
    kept=("replicas", "restart_policy", "update_config", "rollback_config"),
)

# --- hooks and develop -----------------------------------------------------------------------------

_HOOK: dict[str, Rule] = {"command": command, "privileged": boolean, "environment": environment}
hook = section(_HOOK, kept=("command",))
init = section({**_HOOK, "per_replica": boolean}, kept=("command",))
_WATCH = section({"ignore": each(text), "include": each(text), "exec": hook})


def watch(node: Node, spot: Spot) -> Node:
    result = _WATCH(node, spot)
    if isinstance(result, Map):
        if not result.get("path"):
            spot.wrong("path can't be empty", code=problem.MISSING_KEY)
        if result.get("action") in _COPIES and not result.get("target"):
            spot.wrong(
                f"{result['action']} needs a target",
                code=problem.MISSING_KEY,
                hint="where in the container the files are copied to",
            )
    return result


develop = section({"watch": each(watch)})

# --- the rest --------------------------------------------------------------------------------------


def models(node: Node, spot: Spot) -> Node:
    """A list of names is a mapping of names to nothing."""
    if isinstance(node, Seq):
        result = Map()
        for _, name, mark in entries(node, spot.mark):
            if isinstance(name, str):
                result.put(name, None, mark)
        return result
    return values(section({}))(node, spot)


provider = section({"options": values(each(text))})
credential = section({})


def _per_device(key: str, rule: Rule, nothing: Node) -> Rule:
    return each(_filled(section({key: rule}), path="", **{key: nothing}))


def _weight(node: Node, spot: Spot) -> Node:
    """Docker compose keeps 16 bits of it."""
    if isinstance(node, int) and node > _MAX_WEIGHT:
        spot.refuse(f"must be at most {_MAX_WEIGHT}, not {node}")
        return node & _MAX_WEIGHT
    return integer(node, spot)


_MAX_WEIGHT = 0xFFFF
_RATES = _per_device("rate", size, "0")
blkio = section(
    {
        "weight": _weight,
        "weight_device": _per_device("weight", _weight, 0),
        "device_read_bps": _RATES,
        "device_read_iops": _RATES,
        "device_write_bps": _RATES,
        "device_write_iops": _RATES,
    }
)
