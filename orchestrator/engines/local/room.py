"""Whether there is room on this machine for what a stack asks for: found, and named, before anything is done.

Some limits of the kernel would end a start half-way, with an error that names no limit ("Exchange full",
"Resource temporarily unavailable"), or would not end it but spoil what runs already (the neighbour table).
The table for readers is in docs/limits.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from orchestrator.kernel.ceilings import Ceilings
from orchestrator.model.frozen import dataclass
from orchestrator.model.observation import Container, NetworkState
from orchestrator.model.ranges import room
from orchestrator.model.stack import Network, Private, Service, Stack

PROCESSES_FREE = 100
"""So many are left to others, to health checks and to ourselves."""
DESCRIPTORS_EACH = 8
"""That the supervisor holds of a running container; the keeper holds 6."""
DESCRIPTORS_FREE = 200
WATCHES_EACH = 6
"""Of its directories and its control group: one on v2, on v1 one more for each kind of limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """`fatal`: it can't be done; else it may, but not well."""

    because: str
    hint: str
    fatal: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """How many containers there will be on this machine, how many of them are new, and how many each network
    of the stack will have."""

    containers: int
    new: int
    endpoints: int
    """On all networks of all stacks."""
    networks: Mapping[str, int]
    """By name on the machine."""


def demand(
    stack: Stack,
    services: Iterable[str],
    containers: Iterable[Container],
    networks: Mapping[str, NetworkState],
) -> Demand:
    """What there will be when `services` of the stack have all their containers. `containers` and `networks`
    are what is there, of all stacks."""
    wanted = {name: stack.services[name] for name in services if name in stack.services}
    staying = [c for c in containers if not (c.stack == stack.name and c.service in wanted)]
    going = {c.id for c in containers if c.stack == stack.name and c.service in wanted}
    on: dict[str, int] = {
        name: sum(user not in going for user in state.users) for name, state in networks.items()
    }
    total = 0
    for service in wanted.values():
        count = _count(service)
        total += count
        for key in _networks(service):
            name = stack.networks[key].name
            on[name] = on.get(name, 0) + count
    mine = {network.name for network in stack.networks.values()}
    return Demand(
        containers=len(staying) + total,
        new=max(total - len(going), 0),
        endpoints=sum(on.values()),
        networks={name: count for name, count in on.items() if name in mine},
    )


def shortages(
    stack: Stack, asked: Demand, there: Ceilings, networks: Mapping[str, NetworkState]
) -> list[Shortage]:
    """In order of what would be met first."""
    return [*_networks_full(stack, asked, networks), *_machine_full(asked, there)]


def _networks_full(stack: Stack, asked: Demand, networks: Mapping[str, NetworkState]) -> Iterator[Shortage]:
    for network in stack.networks.values():
        count = asked.networks.get(network.name, 0)
        most = _addresses(stack, network, networks.get(network.name))
        if count > most:
            yield Shortage(
                because=f"network {network.name} would have {count:,} containers, and its range has "
                f"{most:,} addresses for them",
                hint="give it a larger `ipam` subnet",
            )


def _machine_full(asked: Demand, there: Ceilings) -> Iterator[Shortage]:
    new = asked.new
    if there.processes is not None and there.processes_now + new + PROCESSES_FREE > there.processes:
        yield Shortage(
            because=f"{new:,} more containers need as many processes at least; {there.processes_now:,} of "
            f"{there.processes:,} are there",
            hint="sysctl kernel.pid_max and kernel.threads-max set how many there may be",
        )
    if there.group is not None and there.group_now + new + PROCESSES_FREE > there.group:
        yield Shortage(
            because=f"{new:,} more containers need as many processes at least; {there.group_now:,} of the "
            f"{there.group:,} that the control group may have are there",
            hint="pids.max of the group sets it; under systemd, TasksMax= of the unit",
        )
    if there.namespaces is not None and asked.containers > there.namespaces:
        yield Shortage(
            because=f"{asked.containers:,} containers need as many namespaces of each kind, and a user may "
            f"have {there.namespaces:,}",
            hint="sysctl user.max_net_namespaces and its likes set how many",
        )
    descriptors = asked.containers * DESCRIPTORS_EACH + DESCRIPTORS_FREE
    if there.descriptors is not None and descriptors > there.descriptors:
        yield Shortage(
            because=f"{asked.containers:,} containers need {descriptors:,} open files, and the supervisor "
            f"may have {there.descriptors:,}",
            hint="`ulimit -Hn` shows it, `LimitNOFILE=` of the unit or limits.conf(5) sets it",
        )
    if there.neighbours is not None and asked.endpoints > there.neighbours:
        yield Shortage(
            because=f"{asked.endpoints:,} containers on networks share a neighbour table of "
            f"{there.neighbours:,} entries: connections between them may fail at times",
            hint="sysctl net.ipv4.neigh.default.gc_thresh3 sets its size",
            fatal=False,
        )
    watches = asked.containers * WATCHES_EACH
    if there.watches is not None and watches > there.watches:
        yield Shortage(
            because=f"{asked.containers:,} containers need {watches:,} inotify watches, and a user may have "
            f"{there.watches:,}: changes behind our back are noticed later, by looking",
            hint="sysctl fs.inotify.max_user_watches sets how many",
            fatal=False,
        )


def _count(service: Service) -> int:
    return 1 if service.oneoff else service.replicas


def _networks(service: Service) -> tuple[str, ...]:
    if not isinstance(service.network_mode, Private):
        return ()
    return tuple(attachment.network for attachment in service.networks)


def _addresses(stack: Stack, network: Network, state: NetworkState | None) -> int:
    """How many containers its range has addresses for: without the network's own, broadcast and gateway."""
    configured = next((found for found in network.subnets if ":" not in found.subnet), None)
    if configured is None:
        return room(state.subnet if state is not None else "", gateway=state.gateway if state else None)
    ip_range = None if _has_fixed(stack, network) else configured.ip_range
    if state is None:
        return room(configured.subnet, gateway=configured.gateway, ip_range=ip_range)
    return room(state.subnet, gateway=state.gateway, ip_range=ip_range)


def _has_fixed(stack: Stack, network: Network) -> bool:
    """Whether a service asks for an address of it by number, which `ip_range` does not bind."""
    return any(
        attachment.network == network.key and attachment.ipv4_address
        for service in stack.services.values()
        for attachment in service.networks
    )
