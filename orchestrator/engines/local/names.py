"""Who answers to which name: pure functions of the table (Compose networking; docker's embedded DNS).

On each network a container is known by its service's name, its own name, its short id and its aliases of
that network. A one-off has no service name. A service may have names of its own for others (`links`).
Only containers that run are answered.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.engines.local.dns import Upstream, Zone
from orchestrator.engines.local.records import Built
from orchestrator.engines.local.table import Live, Table
from orchestrator.model.observation import Container, State
from orchestrator.model.stack import Attachment


def attachment(built: Built, network: str) -> Attachment | None:
    """How the container's service is attached to the network with this name on the machine."""
    for wanted in built.container.definition.networks:
        if built.networks.get(wanted.network) == network:
            return wanted
    return None


def known_as(live: Live, network: str) -> list[str]:
    """The names of a container on a network, in lower case."""
    container = live.container
    names = [container.name, container.id[:12]]
    if not container.definition.oneoff:
        names.append(container.service)
    wanted = attachment(live.built, network)
    if wanted is not None:
        names += wanted.aliases
    if container.definition.hostname:
        names.append(container.definition.hostname)
    return [name.lower() for name in names]


def zone_of(live: Live, table: Table, host: Callable[[], tuple[Upstream, ...]]) -> Zone:
    """What this container may ask for; computed anew only when the table has changed. `host`: the host's
    own name servers, asked unless the service has its own."""
    wires = live.wires
    if wires is not None and wires.zone is not None and wires.zone[0] == table.version:
        return wires.zone[1]
    zone = _compute(live, table, host())
    if wires is not None:
        wires.zone = (table.version, zone)
    return zone


def _compute(live: Live, table: Table, host: tuple[Upstream, ...]) -> Zone:
    service = live.container.definition
    networks = list(live.container.addresses)
    segments = [_segment(table, network) for network in networks]
    for network, (scope, _) in zip(networks, segments, strict=True):
        scope.update(_linked(live.container, table, network))
    states = [table.networks[name] for name in networks if name in table.networks]
    own = tuple(Upstream(address, inside=True) for address in service.dns)
    return Zone(
        scopes=tuple(scope for scope, _ in segments),
        reverse=tuple(reverse for _, reverse in segments),
        upstreams=own or host,
        forward=any(not state.internal for state in states),
        single_labels=any(option.startswith("ndots:") for option in service.dns_opt),
    )


def _linked(container: Container, table: Table, network: str) -> dict[str, tuple[str, ...]]:
    """The names that this container alone has for others on a network (Compose `links`)."""
    found: dict[str, tuple[str, ...]] = {}
    for service, alias in container.definition.links:
        addresses = tuple(
            other.container.addresses[network]
            for other in table.of_stack(container.stack)
            if other.container.service == service
            and other.container.state is State.RUNNING
            and network in other.container.addresses
        )
        if addresses:
            found[alias.lower()] = addresses
    return found


def _segment(table: Table, network: str) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Names -> addresses, and the reverse, of one network."""
    names: dict[str, list[str]] = {}
    reverse: dict[str, str] = {}
    for other in table.containers.values():
        address = other.container.addresses.get(network)
        if address is None or other.container.state is not State.RUNNING:
            continue
        reverse[address] = f"{other.container.name}.{network}"
        for name in known_as(other, network):
            for spelling in (name, f"{name}.{network.lower()}"):
                found = names.setdefault(spelling, [])
                if address not in found:
                    found.append(address)
    return {name: tuple(addresses) for name, addresses in names.items()}, reverse
