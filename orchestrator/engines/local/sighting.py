"""Looks up how the kernel's objects stand, as facts. Plain, synchronous; nothing is changed here.

What could not be looked at is left out: a container that ends at this very moment has lost nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Mapping

from orchestrator.engines.local import segments
from orchestrator.engines.local.facts import (
    ATTACHED,
    CLOSED,
    DOWN,
    FROZEN,
    INSIDE,
    LISTENING,
    LOOSE,
    MISSING,
    NONE,
    OUTSIDE,
    RUNNING,
    THERE,
    UP,
    Fact,
    target_of,
)
from orchestrator.engines.local.table import Wires
from orchestrator.kernel import cgroups, interfaces, links, redirect
from orchestrator.kernel.links import Link
from orchestrator.model.observation import Container, NetworkState, VolumeState


def network(state: NetworkState, bridge: Link | None) -> dict[Fact, str]:
    target = f"network:{state.name}"
    if bridge is None:
        return {Fact(target, "bridge"): MISSING}
    length = state.subnet.rpartition("/")[2]
    return {
        Fact(target, "bridge"): THERE,
        Fact(target, "bridge state"): UP if bridge.up else DOWN,
        Fact(target, "bridge address"): _one_of(bridge.addresses, f"{state.gateway}/{length}"),
    }


def segment(state: NetworkState, number: int, there: Mapping[str, Link], tag: str) -> dict[Fact, str]:
    """A further bridge of a network, and its link to the one above it."""
    target, of = f"network:{state.name}", str(number)
    own = there.get(interfaces.bridge(tag, state.name, number))
    if own is None:
        return {Fact(target, "segment", of): MISSING}
    found = {Fact(target, "segment", of): UP if own.up else DOWN}
    above = there.get(interfaces.bridge(tag, state.name, segments.above(number)))
    if above is not None:
        upper, lower = map(there.get, interfaces.trunk(tag, state.name, number))
        joined = MISSING if upper is None or lower is None else LOOSE
        if upper is not None and lower is not None and upper.up and lower.up:
            masters = upper.master, lower.master
            joined = ATTACHED if masters == (above.index, own.index) else LOOSE
        found[Fact(target, "trunk", of)] = joined
    return found


def link(container: Container, name: str, port: Link | None, bridge: Link | None) -> dict[Fact, str]:
    """The host's end of a container's link to network `name`."""
    target = target_of(container)
    if port is None:
        return {Fact(target, "link", name): MISSING}
    if bridge is None:
        return {}
    attached = port.master == bridge.index and port.up
    return {
        Fact(target, "link", name): THERE,
        Fact(target, "port", name): ATTACHED if attached else LOOSE,
    }


def inside(container: Container, wires: Wires, wanted: Mapping[Fact, str]) -> dict[Fact, str]:
    """In the container's network namespace, of what is `wanted` there. Raises OSError."""
    if not wanted:
        return {}
    target = target_of(container)
    with links.open_route_in(wires.namespace) as route:
        there = {one.name: one for one in links.list_links(route)}
        gateways = links.default_gateways(route)
    found = {Fact(target, "loopback"): UP if there["lo"].up else DOWN}
    for number, name in enumerate(container.addresses):
        own = there.get(f"eth{number}")
        found[Fact(target, "interface", name)] = MISSING if own is None else UP if own.up else DOWN
        if own is not None and own.up:
            address = Fact(target, "address", name)
            found[address] = _one_of(own.addresses, wanted.get(address, ""))
    up = all(found.get(fact) == UP for fact in wanted if fact.kind == "interface")
    route_fact, resolver = Fact(target, "route"), Fact(target, "resolver")
    if route_fact in wanted and up:
        found[route_fact] = _one_of(gateways, wanted[route_fact])
    if resolver in wanted:
        found[resolver] = LISTENING if listens(wires) else CLOSED
        if found[resolver] == LISTENING:
            there_are = redirect.is_laid(wires.namespace)
            found[Fact(target, "redirect")] = THERE if there_are else MISSING
    return found


def listens(wires: Wires) -> bool:
    """Whether both sockets of its name server can still be reached: who may administer a namespace can close
    other people's sockets (ss -K), which then have neither a port nor a queue."""
    if len(wires.resolver) != 2:
        return False
    udp, tcp = (socket.socket(fileno=os.dup(fd)) for fd in wires.resolver)
    with udp, tcp:
        accepts = tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return bool(accepts and udp.getsockname()[1] and tcp.getsockname()[1])


def processes(
    container: Container, hierarchies: cgroups.Hierarchies, group: str, directories: Iterable[str]
) -> dict[Fact, str]:
    """Whether they may go on, and are where their limits are."""
    target, run = target_of(container), container.run
    if hierarchies.mode == "none" or run is None:
        return {}
    found: dict[Fact, str] = {}
    with contextlib.suppress(OSError):
        strayed = cgroups.strayed(hierarchies, group, directories, run.pid)
        for directory in directories:
            lost = OUTSIDE if os.path.isdir(directory) else MISSING
            found[Fact(target, "group", directory)] = lost if directory in strayed else INSIDE
        frozen = cgroups.told_to_freeze(hierarchies, group) or cgroups.frozen(hierarchies, group)
        found[Fact(target, "state")] = FROZEN if frozen else RUNNING
    return found


def existing(container: Container, paths: Iterable[str]) -> dict[Fact, str]:
    target = target_of(container)
    return {Fact(target, "directory", path): THERE if os.path.isdir(path) else MISSING for path in paths}


def volume(state: VolumeState) -> dict[Fact, str]:
    there = THERE if os.path.isdir(state.path) else MISSING
    return {Fact(f"volume:{state.name}", "volume", state.path): there}


def _one_of(found: tuple[str, ...], wanted: str) -> str:
    """What is wanted, if it is among what was found; else all that was."""
    return wanted if wanted in found else ", ".join(found) or NONE
