"""Text -> what `config --no-...` prints: some steps of loading left out, so that no Stack can come of it."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.stackfile.check import check, check_literal
from orchestrator.stackfile.complete import complete, unattached
from orchestrator.stackfile.forms import Spot
from orchestrator.stackfile.load import Given, begin
from orchestrator.stackfile.paths import move
from orchestrator.stackfile.problem import Mark, Report
from orchestrator.stackfile.read import Source
from orchestrator.stackfile.shorthand import SERVICE, lengthen
from orchestrator.stackfile.switches import Switches
from orchestrator.stackfile.tree import Map, Node, Plain, Seq, plain

_STRUCTURE = (
    "build",
    "configs",
    "depends_on",
    "devices",
    "dns",
    "dns_search",
    "env_file",
    "gpus",
    "models",
    "networks",
    "ports",
    "secrets",
    "volumes",
)
"""Keys of a service whose short forms are written out even where variables are not filled in."""


def outline(sources: Sequence[Source], given: Given, switches: Switches) -> dict[str, Plain]:
    """The canonical form less some steps. Raises StackfileError."""
    begun = begin(sources, given, switches=switches)
    report = begun.report
    ask = check if switches.interpolate else check_literal
    ask(begun.tree, report)
    report.settle()
    tree = lengthen(begun.tree, Spot(report)) if switches.interpolate else _lengthen_literal(begun.tree)
    report.settle()
    if switches.paths:
        tree = move(tree, given.working_dir, given.files.home)
    completed = complete(tree, begun.setting, report)
    report.settle()
    escape = (lambda text: text.replace("$", "$$")) if switches.interpolate else str
    found = plain(completed.tree.without("version"), escape)
    assert isinstance(found, dict)
    return unattached(found)


def _lengthen_literal(tree: Map) -> Map:
    services = tree.get("services")
    if not isinstance(services, Map):
        return tree
    fresh = services.alike()
    for name, service in services.items():
        fresh[name] = _service(service) if isinstance(service, Map) else service
    result = tree.copy()
    result["services"] = fresh
    return result


def _service(service: Map) -> Map:
    fresh = service.copy()
    for key in _STRUCTURE:
        if key in service:
            fresh[key] = _long(key, service[key], service.mark(key))
    return fresh


def _long(key: str, node: Node, mark: Mark | None) -> Node:
    """The long form of a value. A short form with a variable in it can't be taken apart before the variable
    has a value: of mounts it stays alone, of other things it keeps the whole list as it is (as with docker).
    """
    if isinstance(node, Seq) and key == "volumes":
        mounts = Seq()
        for index, entry in enumerate(node):
            one = Seq()
            one.add(entry, node.mark(index))
            long = one if _has_variable(one) else _ruled(key, one, mark)
            for inside, value in enumerate(long if isinstance(long, Seq) else ()):
                mounts.add(value, one.mark(inside))
        return mounts
    return node if _has_variable(node) else _ruled(key, node, mark)


def _ruled(key: str, node: Node, mark: Mark | None) -> Node:
    told = Report()
    long = SERVICE[key](node, Spot(told, key, mark))
    return node if told.problems else long


def _has_variable(node: Node) -> bool:
    if isinstance(node, Seq):
        return any(isinstance(entry, str) and "$" in entry for entry in node)
    return isinstance(node, str) and "$" in node
