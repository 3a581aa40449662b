"""What can't be merged: told in the words that fit best, or left out where docker compose leaves it out."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.stackfile import problem
from orchestrator.stackfile.check import check
from orchestrator.stackfile.combine import Clash, bare_map
from orchestrator.stackfile.forms import entries
from orchestrator.stackfile.problem import MAX_PROBLEMS, Report
from orchestrator.stackfile.scalar import text_of
from orchestrator.stackfile.tree import Map, Node, Seq, dotted


def tell(clash: Clash, report: Report) -> None:
    """The later value may be wrong on its own: that is the better thing to say."""
    before = len(report.problems)
    if before < MAX_PROBLEMS:
        check(_alone(clash), report)
    if len(report.problems) == before:
        where = dotted(clash.path)
        report.error(
            clash.mark,
            problem.WRONG_VALUE,
            f"{where}: {_kind(clash.above)} can't be merged onto {_kind(clash.below)} of before",
            hint="write it as before, or with !override in place of what was there",
            path=where,
        )


def _alone(clash: Clash) -> Map:
    node: Node = clash.above
    for key in reversed(clash.path):
        outer = Map()
        outer.put(key, node, clash.mark)
        node = outer
    assert isinstance(node, Map)
    return bare_map(node)


def _kind(node: Node) -> str:
    return "a mapping" if isinstance(node, Map) else "a list" if isinstance(node, Seq) else "a single value"


_NUMBERS = (bool, int, float)
_FORGOTTEN: Mapping[tuple[str, ...], tuple[type, ...]] = {
    **{
        tuple(path.split(".")): _NUMBERS
        for path in (
            "environment labels annotations sysctls dns dns_search dns_opt tmpfs env_file label_file"
            " extra_hosts build.args build.labels build.additional_contexts build.extra_hosts deploy.labels"
        ).split()
    },
    **{(key,): (*_NUMBERS, str) for key in ("depends_on", "networks", "models")},
    ("build",): (*_NUMBERS, Seq),
}
"""Keys of a service, and the kinds of values that docker compose 2.40.3 drops when they come on top of
others."""
_TEXTS = ("dns", "dns_search", "dns_opt", "tmpfs")
"""Lists of texts: a mapping on top becomes texts as well."""


def forget(below: Map, above: Map, report: Report) -> Map:
    """What comes on top, as docker compose reads it. What it loses, commands that run something refuse."""
    lower, upper = below.get("services"), above.get("services")
    if not (isinstance(lower, Map) and isinstance(upper, Map)):
        return above
    fresh: Map | None = None
    for name, service in upper.items():
        base = lower.get(name)
        if not (isinstance(service, Map) and isinstance(base, Map)):
            continue
        kept = _without_lost(base, service, ("services", name), report)
        if kept is not service:
            fresh = fresh or upper.copy()
            fresh[name] = kept
    if fresh is None:
        return above
    result = above.copy()
    result["services"] = fresh
    return result


def _without_lost(base: Map, service: Map, path: tuple[str, ...], report: Report) -> Map:
    for (key, *inner), kinds in _FORGOTTEN.items():
        if key not in service or base.get(key) is None:
            continue
        value, before = service[key], base[key]
        if inner:
            if isinstance(value, Map) and isinstance(before, Map):
                less = _one(before, value, inner[0], kinds, (*path, key), report)
                service = service if less is value else _with(service, key, less)
        else:
            service = _one(base, service, key, kinds, path, report)
    return service


def _one(
    base: Map, over: Map, key: str, kinds: tuple[type, ...], path: tuple[str, ...], report: Report
) -> Map:
    value = over.get(key)
    lines = isinstance(value, Map) and key in _TEXTS
    if base.get(key) is None or not (isinstance(value, kinds) or lines):
        return over
    where = dotted((*path, key))
    said = _kind(value) if isinstance(value, Map | Seq) else repr(text_of(value))
    message = f"{where}: {said} means nothing on top of what was there"
    report.refuse(over.mark(key), problem.WRONG_VALUE, message, path=where, service=path[1])
    if not isinstance(value, Map):
        return over.without(key)
    texts = Seq()
    for name, one in value.items():
        for _, part, mark in entries(one, value.mark(name)):
            texts.add(f"{name}={text_of(part) if not isinstance(part, Map | Seq) else ''}", mark)
    return _with(over, key, texts)


def _with(tree: Map, key: str, value: Node) -> Map:
    fresh = tree.copy()
    fresh[key] = value
    return fresh
