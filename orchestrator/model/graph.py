"""Who needs whom: order of services, and cycles explained.

The hot path (`order`, `needs`) stands on graphlib. networkx takes 150 ms to import, so it is loaded only to
explain a cycle or to draw.
"""

from __future__ import annotations

import graphlib
from collections.abc import Mapping

from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import replace
from orchestrator.model.stack import Dependency, OfService, Service, Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    import networkx as nx

_EFFORT = 500_000
"""Nodes and edges that may be looked at to find a short cycle."""
_SHOWN = 40


def shares(service: Service) -> dict[str, str]:
    """Services whose namespaces it joins -> the word for what is shared."""
    found: dict[str, str] = {}
    for word, sharing in (
        ("network", service.network_mode),
        ("pid namespace", service.pid),
        ("ipc namespace", service.ipc),
        ("uts namespace", service.uts),
    ):
        if isinstance(sharing, OfService):
            found.setdefault(sharing.service, word)
    return found


def needs(service: Service) -> tuple[Dependency, ...]:
    """Dependencies as written, and those implied by shared namespaces (started, restart, required)."""
    found = {dependency.service: dependency for dependency in service.depends_on}
    for name in shares(service):
        written = found.get(name)
        if written is None:
            found[name] = Dependency(service=name, restart=True, place=service.place)
        else:
            found[name] = replace(written, restart=True, required=True)
    return tuple(found.values())


def order(stack: Stack) -> tuple[str, ...]:
    """Every service after all it depends on; by name where that leaves a choice.

    Raises UserError that prints the path of a cycle. Dependencies on services that are not in the stack
    (optional ones of inactive profiles) do not count.
    """
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for name, service in stack.services.items():
        sorter.add(name, *(d.service for d in needs(service) if d.service in stack.services))
    try:
        sorter.prepare()
    except graphlib.CycleError:
        raise cycle_error(stack) from None
    found: list[str] = []
    while sorter.is_active():
        level = sorted(sorter.get_ready())
        found.extend(level)
        sorter.done(*level)
    return tuple(found)


def dependents(stack: Stack) -> Mapping[str, tuple[str, ...]]:
    """Service -> those that depend on it directly, by name."""
    found: dict[str, list[str]] = {name: [] for name in stack.services}
    for name in sorted(stack.services):
        for dependency in needs(stack.services[name]):
            if dependency.service in found:
                found[dependency.service].append(name)
    return {name: tuple(names) for name, names in found.items()}


def draw(stack: Stack) -> nx.DiGraph[str]:
    """The stack as a graph; an edge runs from a service to what it depends on and carries `dependency`."""
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(sorted(stack.services))
    for name in sorted(stack.services):
        for dependency in needs(stack.services[name]):
            if dependency.service in stack.services:
                graph.add_edge(name, dependency.service, dependency=dependency)
    return graph


def cycle_error(stack: Stack) -> UserError:
    """The message for a stack that has a cycle: the shortest one, from its first service by name."""
    graph = draw(stack)
    cycle = _shortest_cycle(graph)
    first = cycle.index(min(cycle))
    path = [*cycle[first:], *cycle[:first]]
    path.append(path[0])
    place = graph.edges[path[0], path[1]]["dependency"].place
    where = f"{place}: " if place else ""
    return UserError(
        f"{where}services depend on each other in a circle: {' -> '.join(_shown(path))}",
        exit_code=ExitCode.INVALID_STACK,
        hint="take out one of these dependencies",
    )


def _shown(path: list[str]) -> list[str]:
    """A circle of thousands is cut short."""
    if len(path) <= _SHOWN:
        return path
    half = _SHOWN // 2
    return [*path[:half], f"... {len(path) - _SHOWN} more ...", *path[-half:]]


def _shortest_cycle(graph: nx.DiGraph[str]) -> list[str]:
    """Listing all cycles can take forever (there may be factorially many), shortest paths do not; and of a
    graph of thousands only so many paths are tried as a second allows."""
    import networkx as nx

    parts = nx.strongly_connected_components(graph)
    inside = {name: number for number, part in enumerate(parts) for name in part}
    edges = [(name, target) for name, target in graph.edges if inside[name] == inside[target]]
    tries = max(1, _EFFORT // (len(graph) + len(edges)))
    found = [[name, *nx.shortest_path(graph, target, name)[:-1]] for name, target in edges[:tries]]
    return min(found, key=lambda path: (len(path), sorted(path)))
