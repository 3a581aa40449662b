"""The part of a tree that nothing is said against, so that one look tells what is wrong in the rest, too."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.stackfile.check import fits
from orchestrator.stackfile.problem import Mark, Problem
from orchestrator.stackfile.tree import Map, Node, Seq

Spot = tuple[str, int, int]


def sift(tree: Map, problems: Sequence[Problem]) -> Map:
    """The tree without the values and keys where the problems are, and without the keys of services
    and sections that the schemas don't allow without them.
    """
    places = [problem.place for problem in problems]
    wrong = {(place.file, place.line, place.column) for place in places if place is not None}
    left = _map(tree, wrong)
    if fits(left):
        return left
    services = left.get("services")
    if isinstance(services, Map):
        fresh = Map()
        for name, body in services.items():
            fresh.take(name, services)
            if isinstance(body, Map):
                fresh[name] = body.without(*(key for key in body if not _fits(name, key, body)))
        left["services"] = fresh
    return left.without(*(key for key in left if not fits({key: left[key]})))


def _fits(name: str, key: str, body: Map) -> bool:
    return fits({"services": {name: {key: body[key]}}})


def _map(node: Map, wrong: set[Spot]) -> Map:
    fresh = Map()
    for key, value in node.items():
        if not (_in(node.key_at.get(key), wrong) or _is_wrong(value, node.at.get(key), wrong)):
            fresh.take(key, node)
            fresh[key] = _below(value, wrong)
    return fresh


def _below(node: Node, wrong: set[Spot]) -> Node:
    if isinstance(node, Map):
        return _map(node, wrong)
    if not isinstance(node, Seq):
        return node
    fresh = Seq()
    for index, value in enumerate(node):
        if not _is_wrong(value, node.mark(index), wrong):
            fresh.add(_below(value, wrong), node.mark(index))
    return fresh


def _is_wrong(value: Node, mark: Mark | None, wrong: set[Spot]) -> bool:
    """A block mapping stands where its first key does: it is that key which is wrong then."""
    first = next(iter(value.key_at.values()), None) if isinstance(value, Map) else None
    first = value.mark(0) if isinstance(value, Seq) else first
    return _in(mark, wrong) and not (first is not None and mark is not None and first[:3] == mark[:3])


def _in(mark: Mark | None, wrong: set[Spot]) -> bool:
    return mark is not None and mark[:3] in wrong
