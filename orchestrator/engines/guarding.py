"""What no caller may ask of an engine: the laws of the port, as the simulated engine holds to them."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.model import rotation
from orchestrator.model.action import (
    Action,
    CreateContainer,
    RemoveContainer,
    RemoveNetwork,
    StartContainer,
)
from orchestrator.model.errors import EngineError, ExitCode
from orchestrator.model.observation import Container, PublishedPort, State
from orchestrator.model.world import World


class UnsafeError(AssertionError):
    """The caller broke a law of the port."""


def guard(world: World, action: Action) -> None:
    """Raises UnsafeError for what no caller may ask for, whatever happened before, and EngineError for what
    every engine refuses."""
    match action:
        case CreateContainer():
            _guard_create(world, action)
        case StartContainer():
            _guard_start(world, action)
        case RemoveContainer():
            container = world.containers.get(action.id)
            if container is not None and container.state is State.RUNNING:
                raise UnsafeError(f"{action.name} is removed while it runs")
        case RemoveNetwork():
            row = world.networks.get(action.name)
            if row is not None and row.state.users:
                count = len(row.state.users)
                raise UnsafeError(f"network {action.name} is removed under {count} containers")
        case _:
            pass


def _guard_start(world: World, action: StartContainer) -> None:
    container = world.containers.get(action.id)
    if container is None:
        # It can vanish between the decision and the act; a real engine refuses then.
        raise EngineError(f"container {action.name} is not there")
    if container.state is State.RUNNING:
        raise UnsafeError(f"{action.name} is started while it runs")
    if container.ports:
        taken = {(p.protocol, p.host_port) for p in world.ports_taken}
        clash = [p for p in container.ports if (p.protocol, p.host_port) in taken]
        if clash and not _is_shared(world, container, clash):
            raise EngineError(f"port {clash[0].host_port} is in use", exit_code=ExitCode.CONFLICT)
    for service, peer_id in action.peers.items():
        peer = world.containers.get(peer_id)
        if peer is None or peer.state is not State.RUNNING:
            # It can end between the decision and the act; a real engine refuses then.
            raise EngineError(f"{service} does not run")


def _is_shared(world: World, container: Container, ports: Iterable[PublishedPort]) -> bool:
    """Whether those who hold these ports run for the same service."""
    shared = {
        rotation.key_of(port)
        for other in world.containers.values()
        if other.service == container.service and other.state is State.RUNNING
        for port in other.ports
    }
    return all(rotation.key_of(port) in shared for port in ports)


def _guard_create(world: World, action: CreateContainer) -> None:
    if action.id in world.containers:
        return
    if action.name in world.names:
        raise UnsafeError(f"a second container called {action.name}")
    for name, address in action.addresses.items():
        row = world.networks.get(name)
        if row is None:
            # As above. That the decision was right is for the laws to say.
            raise EngineError(f"network {name} does not exist")
        if row.has("addresses", address) or address == row.plain.gateway:
            raise UnsafeError(f"address {address} on {name} is given twice")
    if action.ports:
        _guard_ports(world.containers.values(), action)


def _guard_ports(containers: Iterable[Container], action: CreateContainer) -> None:
    for container in containers:
        for port in container.ports:
            same = [p for p in action.ports if (p.protocol, p.host_port) == (port.protocol, port.host_port)]
            shared = container.service == action.service.name and all(
                rotation.key_of(p) == rotation.key_of(port) for p in same
            )
            if same and not shared:
                raise UnsafeError(f"port {port.host_port} is given to {action.name} and {container.name}")
