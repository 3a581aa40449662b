"""Several files, documents of one file, or a service and what it extends -> one tree; what comes later wins.

Compose Specification "Merge". The table names the keys with a rule of their own; everywhere else mappings are
merged key by key, lists are appended, and other values are replaced (nothing at all keeps what was there).
Only a mapping can be merged onto a mapping, and a list onto a list (docker compose 2.40.3, observed).
Lists end up with repetitions; `shorthand` removes them, by the same keys for one file as for several.

A value with !reset goes, together with what it would have been merged with; one with !override stays alone.
No tag is left in what comes out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from orchestrator.stackfile.forms import entries
from orchestrator.stackfile.problem import LIMIT, Mark, reject
from orchestrator.stackfile.scalar import text_of
from orchestrator.stackfile.tree import Map, Node, Seq, Tagged, plain, size

Path = tuple[str, ...]
Combiner = Callable[[Node, Node, Path], Node]

MAX_COPIED = 16_000_000
"""Values of services and the like that are copied because several documents change them."""
_HOST_END = re.compile("[=:]")


class Clash(Exception):
    """Two values that can't be merged, at `path`; the later one stands at `mark`."""

    def __init__(self, below: Node, above: Node, path: Path) -> None:
        self.below = below
        self.above = above
        self.path = path
        self.mark: Mark | None = None


def combine(trees: Sequence[Map]) -> Map:
    """One tree of several; an empty one of none. Raises Clash; StackfileError when it would take too long."""
    if len(trees) < 2:
        return bare_map(trees[0]) if trees else Map()
    stack = Layers(bare_map(trees[0]))
    for tree in trees[1:]:
        stack.lay(tree)
    if stack.clashes:
        raise stack.clashes[0]
    return stack.result


def pile(trees: Sequence[Map]) -> Map:
    """As `combine`, but with the tags of the last tree: they count for what its services extend."""
    if len(trees) < 2:
        return trees[0] if trees else Map()
    return _retag(_maps(combine(trees[:-1]), trees[-1], ()), trees[-1])


class Layers:
    """A tree in the making. Its sections are copied once, not for each of ten thousand small documents; what
    is copied over and over, the list or mapping that every document adds to, is counted.
    """

    def __init__(self, lowest: Map) -> None:
        self.result = lowest.copy()
        self.own: set[str] = set()
        self.sizes: dict[tuple[str, ...], int] = {}
        self.copied = 0
        self.clashes: list[Clash] = []
        """What could not be merged: the earlier value is still there."""

    def lay(self, above: Map) -> None:
        """Put a tree on top. Raises StackfileError when it would take too long."""
        for key, value in above.items():
            below = self.result.get(key)
            if not (isinstance(below, Map) and isinstance(value, Map)):
                self._put(self.result, above, key, ())
                self.own.discard(key)
                continue
            if key not in self.own:
                self.own.add(key)
                below = below.copy()
            self.result.put(key, below, above.mark(key), above.key_at.get(key))
            for name in value:
                self._put(below, value, name, (key,))

    def changed_by(self, above: Map) -> Map:
        """Of the result, what a tree that was laid last has changed: whole services and the like."""
        changed = Map()
        for key, value in above.items():
            merged = self.result.get(key)
            if isinstance(merged, Map) and isinstance(value, Map):
                part = Map()
                for name in value:
                    if name in merged:
                        part.take(name, merged)
                changed.put(key, part, self.result.at.get(key), self.result.key_at.get(key))
            elif key in self.result:
                changed.take(key, self.result)
        return changed

    def _put(self, result: Map, above: Map, key: str, path: Path) -> None:
        here = (*path, key)
        if key in result:
            before = self.sizes[here] if here in self.sizes else size(result[key])
            self.copied += before
            if self.copied > MAX_COPIED:
                raise reject(
                    f"too many documents change {'.'.join(here):.80}", code=LIMIT, mark=above.key_mark(key)
                )
            self.sizes[here] = before + size(above[key])
        try:
            _put(result, above, key, above[key], path)
        except Clash as clash:
            self.clashes.append(clash)


def extend(below: Map, above: Map, name: str) -> Map:
    """The service `name` on top of the one that it extends, which has no tags any more. Raises Clash.

    The tags of `above` stand in the result, too: what a file says of a service counts for the files before
    it as well as for the service that it extends.
    """
    return _retag(_maps(below, above, ("services", name)), above)


def bare_map(tree: Map) -> Map:
    """A mapping alone: what is reset is not there, what overrides is there without its tag."""
    fresh: Map | None = None
    for key, value in tree.items():
        if isinstance(value, Tagged):
            fresh = fresh or tree.copy()
            if _resets(value):
                del fresh[key]
            else:
                fresh[key] = _bare(value)
        elif isinstance(value, Map | Seq):
            clean = _bare(value)
            if clean is not value:
                fresh = fresh or tree.copy()
                fresh[key] = clean
    return tree if fresh is None else fresh


def _bare(node: Node) -> Node:
    if isinstance(node, Map):
        return bare_map(node)
    if isinstance(node, Tagged):
        return None if node.tag == "reset" else _bare(node.value)
    if not isinstance(node, Seq):
        return node
    clean = [_bare(entry) for entry in node]
    if all(new is old for new, old in zip(clean, node, strict=True)):
        return node
    fresh = Seq()
    for index, entry in enumerate(node):
        if not (isinstance(entry, Tagged) and _resets(entry)):
            fresh.add(clean[index], node.mark(index))
    return fresh


def _resets(node: Tagged) -> bool:
    """To put nothing in the place of something is to take it away."""
    return node.tag == "reset" or node.value is None


def _retag(merged: Map, above: Map) -> Map:
    fresh: Map | None = None
    for key, value in above.items():
        if isinstance(value, Tagged):
            tagged: Node = value if _resets(value) else Tagged(value.tag, merged.get(key))
        elif isinstance(value, Map):
            found = merged.get(key)
            tagged = _retag(found, value) if isinstance(found, Map) else found
            if tagged is found:
                continue
        else:
            continue
        fresh = fresh or merged.copy()
        fresh.put(key, tagged, above.mark(key), above.key_at.get(key))
    return merged if fresh is None else fresh


def _merge(below: Node, above: Node, path: Path) -> Node:
    rule = TABLE.get((*path[:1], "*", *path[2:]) if len(path) > 1 else path)
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
    if isinstance(below, Map | Seq):
        raise Clash(below, above, path)
    return _bare(above)


def _maps(below: Map, above: Map, path: Path) -> Map:
    result = below.copy()
    for key, value in above.items():
        _put(result, above, key, value, path)
    return result


def _put(result: Map, above: Map, key: str, value: Node, path: Path) -> None:
    """One key of `above` onto what `result` has there."""
    if isinstance(value, Tagged):
        result.pop(key, None)
        if not _resets(value):
            result.put(key, _bare(value), above.mark(key), above.key_at.get(key))
    elif key not in result:
        result.put(key, _bare(value), above.at.get(key), above.key_at.get(key))
    else:
        try:
            merged = _merge(result[key], value, (*path, key))
        except Clash as clash:
            clash.mark = clash.mark or above.mark(key)
            raise
        if merged is not result[key]:
            result.put(key, merged, above.mark(key), above.key_at.get(key))


# --- rules -----------------------------------------------------------------------------------------


def _replace(_below: Node, above: Node, _path: Path) -> Node:
    return _bare(above)


def _append(below: Node, above: Node, _path: Path) -> Node:
    """Both as lists, one after the other; a single text is a list of one. !reset removes an equal entry."""
    if above is None:
        return below
    if isinstance(below, Map) or isinstance(above, Map):
        return _bare(above)
    over = entries(above, None)
    gone = [plain(value) for _, value, _ in over if isinstance(value, Tagged) and value.tag == "reset"]
    result = Seq()
    if isinstance(below, Seq) and not gone:
        result.extend(below)
        result.at.extend(below.at)
    else:
        for _, value, mark in entries(below, None) if below is not None else ():
            if plain(value) not in gone:
                result.add(value, mark)
    for _, value, mark in over:
        if not (isinstance(value, Tagged) and _resets(value)):
            result.add(_bare(value), mark)
    return result


def _united(below: Node, above: Node, path: Path) -> Node:
    """As `_append`, without what the earlier list has already. One list alone may not repeat itself."""
    if not (isinstance(below, Seq) and isinstance(above, Seq)):
        return _usual(below, above, path)
    known = _texts(below, above)
    fresh, dropped = Seq(), set[str | int]()
    for index, entry in enumerate(above):
        if isinstance(entry, str | int) and entry in known and entry not in dropped:
            dropped.add(entry)
        else:
            fresh.add(entry, above.mark(index))
    return _append(below, fresh, path)


def _texts(below: Seq, above: Seq) -> Collection[Node]:
    """Where to look whether a list has something: a set is worth its making only when that is asked often."""
    return below if len(above) < _FEW else {entry for entry in below if isinstance(entry, str | int)}


_FEW = 8


def _by_key(below: Node, above: Node, _path: Path) -> Node:
    """Mappings of texts in either form; an empty value replaces, too."""
    if above is None:
        return below
    if not _has_pairs(above):
        # wrong, and not to be lost on the way: the check comes later
        return above
    result = _pairs(below).copy()
    over = _pairs(above)
    for key, value in over.items():
        if isinstance(value, Tagged) and _resets(value):
            result.pop(key, None)
        else:
            result.put(key, _bare(value), over.at.get(key), over.key_at.get(key))
    return result


def _has_pairs(node: Node) -> bool:
    if isinstance(node, Seq):
        return all(isinstance(_value(entry), str | None) for entry in node)
    return isinstance(node, Map | str)


def _value(node: Node) -> Node:
    return node.value if isinstance(node, Tagged) else node


def _pairs(node: Node) -> Map:
    """A list of key=value as a mapping."""
    if isinstance(node, Map):
        return node
    result = Map()
    for _, entry, mark in entries(node, None) if node is not None else ():
        said = _value(entry)
        if not isinstance(said, Map | Seq):
            key, equals, text = text_of(said).partition("=")
            value = text if equals else None
            reset = isinstance(entry, Tagged) and entry.tag == "reset"
            result.put(key, Tagged("reset", value) if reset else value, mark)
    return result


def _by_name(**fill: Node) -> Combiner:
    """A list of names is a mapping of names to nothing, or to what a bare name means."""

    def long(node: Node) -> Node:
        if not isinstance(node, Seq):
            return node
        result = Map()
        for index, said in enumerate(node):
            reset = isinstance(said, Tagged) and said.tag == "reset"
            name = said.value if isinstance(said, Tagged) else said
            entry: Map | None = None
            if fill:
                entry = Map()
                entry.update(fill)
            key = text_of(name) if not isinstance(name, Map | Seq) else ""
            result.put(key, Tagged("reset", None) if reset else entry, node.mark(index))
        return result

    return lambda below, above, path: _usual(long(below), long(above), path)


def _hosts(below: Node, above: Node, path: Path) -> Node:
    """Lists of host=address. A host that is reset or overridden has no address of before."""
    gone: set[str] = set()
    if isinstance(above, Map):
        gone = {host for host, address in above.items() if isinstance(address, Tagged)}
        above = bare_map(above)
    if not gone:
        return _united_lines(below, above, path)
    kept = Seq()
    for _, line, mark in entries(_lines(below), None) if below is not None else ():
        if not (isinstance(line, str) and _HOST_END.split(line, maxsplit=1)[0] in gone):
            kept.add(line, mark)
    return _united_lines(kept, above, path)


def _united_lines(below: Node, above: Node, path: Path) -> Node:
    """Lines that are written alike are one, wherever they stand: so docker compose has it for hosts alone."""
    lower, upper = _lines(below), _lines(above)
    if not (isinstance(lower, Seq) and isinstance(upper, Seq)):
        return _append(lower, upper, path)
    known, added, fresh = _texts(lower, upper), set[str](), Seq()
    for index, line in enumerate(upper):
        if not isinstance(line, str):
            fresh.add(line, upper.mark(index))
        elif line not in known and line not in added:
            fresh.add(line, upper.mark(index))
            added.add(line)
    return _append(lower, fresh, path)


def _lines(node: Node) -> Node:
    if not isinstance(node, Map):
        return node
    result = Seq()
    for host, address in node.items():
        for _, one, mark in entries(address, node.mark(host)):
            result.add(f"{host}={one}", mark)
    return result


def _limits(below: Node, above: Node, path: Path) -> Node:
    """By name; a limit replaces the other as a whole, in whichever form either is."""
    if not (isinstance(below, Map) and isinstance(above, Map)):
        return _usual(below, above, path)
    return _maps(below.without(*above), above, path)


def _gpus(below: Node, above: Node, path: Path) -> Node:
    """`all` is a request for any number of them."""
    if isinstance(below, str):
        every, requests = Map(), Seq()
        every["count"] = below
        requests.add(every, None)
        below = requests
    return _usual(below, above, path)


def _named(below: Node, above: Node, path: Path) -> Node:
    """The old `external: {name: x}` of an earlier file says no more than `external: true` and `name: x`."""
    old = below.get("external") if isinstance(below, Map) else None
    if isinstance(below, Map) and isinstance(old, Map) and ("name" in old) != ("name" in below):
        fresh = below.copy()
        fresh["external"] = True
        if "name" in old:
            fresh.take("name", old)
        below = fresh
    return _usual(below, above, path)


def _build(below: Node, above: Node, path: Path) -> Node:
    def long(node: Node) -> Node:
        if not isinstance(node, str):
            return node
        result = Map()
        result["context"] = node
        return result

    return _usual(long(below), long(above), path)


def _keys(below: Node, above: Node, path: Path) -> Node:
    """A list of names is a mapping; onto which no list can be merged (docker compose 2.40.3, observed)."""
    return _usual(_pairs(below) if isinstance(below, Seq) else below, above, path)


def _logging(below: Node, above: Node, path: Path) -> Node:
    """Options of another driver mean nothing to this one."""
    if isinstance(below, Map) and isinstance(above, Map):
        drivers = {side.get("driver") for side in (below, above)} - {None}
        if len(drivers) > 1:
            return _bare(above)
    return _usual(below, above, path)


def _subnets(below: Node, above: Node, path: Path) -> Node:
    """The later list counts; a subnet that stands in both keeps what the later one does not say."""
    if not (isinstance(below, Seq) and isinstance(above, Seq)):
        return _usual(below, above, path)
    known = {_subnet(row): row for row in below}
    result = Seq()
    for index, row in enumerate(above):
        same = known.get(_subnet(row)) if _subnet(row) is not None else None
        result.add(_bare(row) if same is None else _usual(same, row, path), above.mark(index))
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
    "build": _build,
    "build.args": _by_key,
    "build.additional_contexts": _by_key,
    "build.labels": _by_key,
    "build.ssh": _keys,
    "build.extra_hosts": _hosts,
    "deploy.labels": _by_key,
    "depends_on": _by_name(condition="service_started", required=True),
    "networks": _by_name(),
    "models": _by_name(),
    "extra_hosts": _hosts,
    "logging": _logging,
    "dns": _append,
    "dns_search": _append,
    "dns_opt": _append,
    "env_file": _append,
    "label_file": _append,
    "tmpfs": _append,
    "security_opt": _united,
    "group_add": _united,
    "device_cgroup_rules": _united,
    "external_links": _united,
    "ulimits": _limits,
    "gpus": _gpus,
}

TABLE: Mapping[Path, Combiner] = {
    ("version",): _replace,
    **{("services", "*", *key.split(".")): rule for key, rule in _SERVICE.items()},
    **{(section, "*"): _named for section in ("networks", "volumes", "configs", "secrets")},
    ("networks", "*", "labels"): _by_key,
    ("networks", "*", "ipam", "config"): _subnets,
    ("volumes", "*", "labels"): _by_key,
}
"""The keys with a rule of their own; * stands for a name the user chose."""
