"""A world that changes in place: tables by name, from which an Observation is taken when somebody looks.

`effects` writes to it. One change touches what it is about and nothing else, however many containers there
are; an Observation, which is never edited, would have to be written anew for each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from orchestrator.model.frozen import replace
from orchestrator.model.observation import (
    Container,
    ImageState,
    NetworkState,
    Observation,
    PublishedPort,
    State,
    VolumeState,
)

T = TypeVar("T", NetworkState, VolumeState)


class Row(Generic[T]):
    """A network or a volume. What of it grows with the containers (`users`, `addresses`) is kept apart, in
    order, until somebody asks for the whole."""

    __slots__ = ("_lists", "_stale", "_state")

    def __init__(self, state: T, *lists: str) -> None:
        self._state: T = state
        self._lists: dict[str, dict[str, None]] = {
            name: dict.fromkeys(getattr(state, name)) for name in lists
        }
        self._stale = False

    def add(self, name: str, entry: str) -> None:
        self._lists[name][entry] = None
        self._stale = True

    def drop(self, name: str, entry: str) -> None:
        self._lists[name].pop(entry, None)
        self._stale = True

    def has(self, name: str, entry: str) -> bool:
        return entry in self._lists[name]

    @property
    def plain(self) -> T:
        """Without those lists, which may be out of date in it."""
        return self._state

    @property
    def state(self) -> T:
        if self._stale:
            grown: dict[str, Any] = {name: tuple(held) for name, held in self._lists.items()}
            self._state = replace(self._state, **grown)
            self._stale = False
        return self._state


class World:
    """The tables of one stack's machine. `version` grows with every change."""

    def __init__(self, seen: Observation) -> None:
        self.version = 0
        self._seen = seen
        self._seen_version = 0
        self._rest = seen
        self.containers: dict[str, Container] = {container.id: container for container in seen.containers}
        self.names: dict[str, str] = {container.name: container.id for container in seen.containers}
        """Name -> id."""
        self.networks: dict[str, Row[NetworkState]] = {
            name: Row(state, "users", "addresses") for name, state in seen.networks.items()
        }
        self.volumes: dict[str, Row[VolumeState]] = {
            name: Row(state, "users") for name, state in seen.volumes.items()
        }
        self.images: dict[str, ImageState] = dict(seen.images)
        self.ports_taken: dict[PublishedPort, int] = dict.fromkeys(seen.ports_taken, 0)
        """How many running containers hold it; 0: some other program, or somebody else's container."""
        for container in seen.containers:
            if container.ports and container.state is State.RUNNING:
                self._count_ports(container.ports)
        self._mounted: dict[str, list[str]] = {}
        for name, volume in seen.volumes.items():
            for user in volume.users:
                self._mounted.setdefault(user, []).append(name)

    @property
    def rest(self) -> Observation:
        """What has no table here. Set it to `replace(world.rest, field=...)` to change one of its fields."""
        return self._rest

    @rest.setter
    def rest(self, changed: Observation) -> None:
        self._rest = changed
        self.version += 1

    def put(self, container: Container) -> None:
        """Add it, or have it take the place of the one with its id."""
        self.containers[container.id] = container
        self.names[container.name] = container.id
        self.version += 1

    def remove(self, container_id: str) -> None:
        gone = self.containers.pop(container_id)
        if self.names.get(gone.name) == container_id:
            del self.names[gone.name]
        for name in self._mounted.pop(container_id, ()):
            if name in self.volumes:
                self.volumes[name].drop("users", container_id)
        self.version += 1

    def attach(self, container_id: str, network: str, address: str) -> None:
        self.networks[network].add("users", container_id)
        self.networks[network].add("addresses", address)
        self.version += 1

    def detach(self, container_id: str, network: str, address: str) -> None:
        if network in self.networks:
            self.networks[network].drop("users", container_id)
            self.networks[network].drop("addresses", address)
            self.version += 1

    def mount(self, container_id: str, volume: str) -> None:
        self.volumes[volume].add("users", container_id)
        self._mounted.setdefault(container_id, []).append(volume)
        self.version += 1

    def put_network(self, state: NetworkState) -> None:
        self.networks[state.name] = Row(state, "users", "addresses")
        self.version += 1

    def drop_network(self, name: str) -> None:
        del self.networks[name]
        self.version += 1

    def put_volume(self, state: VolumeState) -> None:
        self.volumes[state.name] = Row(state, "users")
        self.version += 1

    def drop_volume(self, name: str) -> None:
        del self.volumes[name]
        self.version += 1

    def put_image(self, reference: str, state: ImageState) -> None:
        self.images[reference] = state
        self.version += 1

    def take_ports(self, ports: Iterable[PublishedPort]) -> None:
        self._count_ports(ports)
        self.version += 1

    def _count_ports(self, ports: Iterable[PublishedPort]) -> None:
        for port in ports:
            self.ports_taken[port] = self.ports_taken.get(port, 0) + 1

    def free_ports(self, ports: Iterable[PublishedPort]) -> None:
        """They are free when nobody shares them."""
        for port in ports:
            left = self.ports_taken.get(port, 0) - 1
            if left > 0:
                self.ports_taken[port] = left
            else:
                self.ports_taken.pop(port, None)
        self.version += 1

    def observation(self) -> Observation:
        """The world as it is now: the very same value until something changes."""
        if self._seen_version != self.version:
            self._seen = replace(
                self._rest,
                containers=tuple(self.containers.values()),
                networks={name: row.state for name, row in self.networks.items()},
                volumes={name: row.state for name, row in self.volumes.items()},
                images=dict(self.images),
                ports_taken=tuple(self.ports_taken),
            )
            self._seen_version = self.version
        return self._seen
