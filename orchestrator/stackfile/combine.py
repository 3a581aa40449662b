"""Several files, or documents of one file -> one tree; what comes later wins.

Compose Specification "Merge". The table names the keys with a rule of their own; everywhere else mappings are
merged key by key, lists are appended, and other values are replaced (nothing at all keeps what was there).
Lists end up with repetitions; `shorthand` removes them, by the same keys for one file as for several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from orchestrator.stackfile.forms import entries
from orchestrator.stackfile.scalar import text_of
from orchestrator.stackfile.tree import Map, Node, Seq

Path = tuple[str, ...]
Combiner = Callable[[Node, Node, Path], Node]


def combine(trees: Sequence[Map]) -> Map:
    """One tree of several; an empty one of none."""
    result = Map()
    for index, tree in enumerate(trees):
        result = tree if index == 0 else _maps(result, tree, ())
    return result


def _merge(below: Node, above: Node, path: Path) -> Node:
    rule = _TABLE.get((*path[:1], "*", *path[2:])) if len(path) > 1 else None
    if rule is not None:
        return rule(below, above, path)
    return _usual(below, above, path)


def _usual(below: Node, above: Node, path: Path) -> Node:
    if above is None:
        return below
    if isinstance(below, Map) and isinstance(above, Map):
        return _maps(below, above, path)
    if isinstance(below, Seq) and isinstance(above, Seq):
        return _append(below, above, path)
    return above


def _maps(below: Map, above: Map, path: Path) -> Map:
    result = below.copy()
    for key, value in above.items():
        if key not in below:
            result.take(key, above)
            continue
        merged = _merge(below[key], value, (*path, key))
        if merged is not below[key]:
            result.put(key, merged, above.mark(key), above.key_at.get(key))
    return result


# --- rules -----------------------------------------------------------------------------------------


def _replace(_below: Node, above: Node, _path: Path) -> Node:
    return above


def _append(below: Node, above: Node, _path: Path) -> Node:
    """Both as lists, one after the other; a single text is a list of one."""
    if above is None:
        return below
    if isinstance(below, Map) or isinstance(above, Map):
        return above
    result = Seq()
    for side in (below, above):
        for _, value, mark in entries(side, None) if side is not None else ():
            result.add(value, mark)
    return result


def _by_key(below: Node, above: Node, _path: Path) -> Node:
    """Mappings of texts in either form; an empty value replaces, too."""
    if above is None:
        return below
    result = _pairs(below).copy()
    over = _pairs(above)
    for key in over:
        result.take(key, over)
    return result


def _pairs(node: Node) -> Map:
    """A list of key=value as a mapping."""
    if isinstance(node, Map):
        return node
    result = Map()
    for _, entry, mark in entries(node, None) if node is not None else ():
        if not isinstance(entry, Map | Seq):
            key, equals, value = text_of(entry).partition("=")
            result.put(key, value if equals else None, mark)
    return result


def _by_name(**fill: Node) -> Combiner:
    """A list of names is a mapping of names to nothing, or to what a bare name means."""

    def long(node: Node) -> Node:
        if not isinstance(node, Seq):
            return node
        result = Map()
        for index, name in enumerate(node):
            entry: Map | None = None
            if fill:
                entry = Map()
                entry.update(fill)
            result.put(text_of(name) if not isinstance(name, Map | Seq) else "", entry, node.mark(index))
        return result

    return lambda below, above, path: _usual(long(below), long(above), path)


def _hosts(below: Node, above: Node, path: Path) -> Node:
    def listed(node: Node) -> Node:
        if not isinstance(node, Map):
            return node
        result = Seq()
        for host, address in node.items():
            for _, one, mark in entries(address, node.mark(host)):
                result.add(f"{host}={one}", mark)
        return result

    return _append(listed(below), listed(above), path)


def _build(below: Node, above: Node, path: Path) -> Node:
    def long(node: Node) -> Node:
        if not isinstance(node, str):
            return node
        result = Map()
        result["context"] = node
        return result

    return _usual(long(below), long(above), path)


def _logging(below: Node, above: Node, path: Path) -> Node:
    """Options of another driver mean nothing to this one."""
    if isinstance(below, Map) and isinstance(above, Map):
        drivers = {side.get("driver") for side in (below, above)} - {None}
        if len(drivers) > 1:
            return above
    return _usual(below, above, path)


def _subnets(below: Node, above: Node, path: Path) -> Node:
    """The later list counts; a subnet that stands in both keeps what the later one does not say."""
    if not (isinstance(below, Seq) and isinstance(above, Seq)):
        return _usual(below, above, path)
    known = {_subnet(row): row for row in below}
    result = Seq()
    for index, row in enumerate(above):
        same = known.get(_subnet(row)) if _subnet(row) is not None else None
        result.add(row if same is None else _usual(same, row, path), above.mark(index))
    return result


def _subnet(row: Node) -> str | None:
    subnet = row.get("subnet") if isinstance(row, Map) else None
    return subnet if isinstance(subnet, str) else None


_SERVICE: Mapping[str, Combiner] = {
    "command": _replace,
    "entrypoint": _replace,
    "healthcheck.test": _replace,
    "environment": _by_key,
    "labels": _by_key,
    "annotations": _by_key,
    "sysctls": _by_key,
    "storage_opt": _by_key,
    "build.args": _by_key,
    "build.labels": _by_key,
    "deploy.labels": _by_key,
    "build": _build,
    "depends_on": _by_name(condition="service_started", required=True),
    "networks": _by_name(),
    "extra_hosts": _hosts,
    "logging": _logging,
    "dns": _append,
    "dns_search": _append,
    "env_file": _append,
    "label_file": _append,
    "tmpfs": _append,
}

_TABLE: Mapping[Path, Combiner] = {
    **{("services", "*", *key.split(".")): rule for key, rule in _SERVICE.items()},
    ("networks", "*", "driver_opts"): _by_key,
    ("networks", "*", "labels"): _by_key,
    ("networks", "*", "ipam", "config"): _subnets,
    ("volumes", "*", "driver_opts"): _by_key,
    ("volumes", "*", "labels"): _by_key,
    ("configs", "*", "labels"): _by_key,
    ("secrets", "*", "labels"): _by_key,
}
