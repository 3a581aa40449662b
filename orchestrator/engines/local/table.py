"""What the supervisor knows of every container of this machine, kept current by events.

The table is the engine's memory of the kernel's truth: it can always be rebuilt from records, the keeper
and pidfds (see recovery), so losing it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Self

import trio

from orchestrator.engines.local.dns import Zone
from orchestrator.engines.local.keeper import Exited
from orchestrator.engines.local.lines import Lines
from orchestrator.engines.local.pump import Pump
from orchestrator.engines.local.records import Built
from orchestrator.model.frozen import dataclass, field, replace
from orchestrator.model.observation import Container, NetworkState, Run, VolumeState
from orchestrator.model.rotation import PortKey

FEED_LIMIT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """Something to tell those who follow: kind is container, grown, exited or removed."""

    kind: str
    container: Container


@dataclass(slots=True)
class Wires:
    """The network of one container, as descriptors of ours (copies are in the keeper's store)."""

    namespace: int
    resolver: tuple[int, ...] = ()
    """UDP and TCP socket of the name service inside, where there is one."""
    serving: trio.CancelScope | None = None
    number: int | None = None
    """By which the kernel names the namespace to us when something changes in it."""
    zone: tuple[int, Zone] | None = None
    """The names it sees, with the version of the table they were computed from."""


@dataclass(slots=True)
class Live:
    """One container: its record, and what we hold of it."""

    built: Built
    container: Container
    pidfd: int | None = None
    wires: Wires | None = None
    pump: Pump | None = None
    lines: Lines | None = None
    """Looks for the line that says that it is ready, where its service has one."""
    kept: bool = False
    """The keeper holds copies of its wires and FIFOs, and its names are served."""
    terminal: int | None = None
    early: Exited | None = None
    """The end of a run of which the start was not yet known to have succeeded."""
    reserved: dict[PortKey, int] = field(default_factory=dict)
    """Sockets bound to its published host ports, so that nobody else takes them."""
    finished: trio.Event = field(default_factory=trio.Event)
    """Set when the current run has ended and its output is in the log."""
    loans: int = 0
    """So many commands have its files at the moment (see lending)."""
    returned: trio.Event = field(default_factory=trio.Event)
    handled: int = 0
    """So many commands are changing it or taking it away: what comes of that is no drift."""


class Follower:
    """What one client has still to hear. Growth of a log is said once, however much it grows meanwhile."""

    def __init__(self, leave: Callable[[Follower], None]) -> None:
        self._leave = leave
        self._send, self._receive = trio.open_memory_channel[Changed](FEED_LIMIT)
        self._grown: set[str] = set()

    def tell(self, change: Changed) -> None:
        """Raises trio.WouldBlock when it is too far behind."""
        container_id = change.container.id
        if change.kind == "grown":
            if container_id in self._grown:
                return
            self._grown.add(container_id)
        self._send.send_nowait(change)

    def cut_off(self) -> None:
        self._send.close()

    def close(self) -> None:
        self._leave(self)
        self._send.close()
        self._receive.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Changed:
        try:
            change = await self._receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        if change.kind == "grown":
            self._grown.discard(change.container.id)
        return change


class Feed:
    """Tells any number of followers what happens; one that does not keep up is cut off."""

    def __init__(self) -> None:
        self._followers: set[Follower] = set()

    def publish(self, change: Changed) -> None:
        for follower in list(self._followers):
            try:
                follower.tell(change)
            except trio.WouldBlock:
                self._followers.discard(follower)
                follower.cut_off()

    def follow(self) -> Follower:
        """Everything from now on. Close it when done."""
        follower = Follower(self._followers.discard)
        self._followers.add(follower)
        return follower


class Table:
    """Containers by id; networks and volumes by name. Every change wakes those who wait for one."""

    def __init__(self) -> None:
        self.containers: dict[str, Live] = {}
        self.networks: dict[str, NetworkState] = {}
        self.volumes: dict[str, VolumeState] = {}
        self.going: set[str] = set()
        """Volumes that are being removed."""
        self.feed = Feed()
        self.version = 0
        self._bells: dict[str, trio.Event] = {}

    # --- the bell ----------------------------------------------------------------------------------

    def bell(self, stack: str) -> trio.Event:
        """Set at the next change that may matter to `stack`."""
        return self._bells.setdefault(stack, trio.Event())

    def ring(self, stack: str | None = None) -> None:
        """Wake one stack, or all of them (a shared thing has changed)."""
        self.version += 1
        for name in [stack] if stack is not None else list(self._bells):
            event = self._bells.pop(name, None)
            if event is not None:
                event.set()

    # --- containers --------------------------------------------------------------------------------

    def of_stack(self, stack: str) -> Iterator[Live]:
        return (live for live in self.containers.values() if live.container.stack == stack)

    def add(self, live: Live) -> None:
        self.containers[live.container.id] = live
        self._occupy(live.container)
        self.ring(live.container.stack)

    def update(self, live: Live, run: Run | None, *, quietly: bool = False) -> None:
        """Replace the run of a container. Quietly: nobody has to look because of it."""
        live.container = replace(live.container, run=run)
        if quietly:
            self.version += 1
        else:
            self.ring(live.container.stack)

    def remove(self, live: Live) -> None:
        container = live.container
        self.containers.pop(container.id, None)
        for name, state in list(self.networks.items()):
            if container.id in state.users:
                gone = container.addresses.get(name)
                self.networks[name] = replace(
                    state,
                    users=tuple(user for user in state.users if user != container.id),
                    addresses=tuple(address for address in state.addresses if address != gone),
                )
        for mounted in live.built.volumes:
            volume = self.volumes.get(mounted.volume)
            if volume is not None:
                users = tuple(user for user in volume.users if user != container.id)
                self.volumes[mounted.volume] = replace(volume, users=users)
        self.ring()

    def _occupy(self, container: Container) -> None:
        """Its addresses and volumes are in use from the moment it is written down."""
        for name, address in container.addresses.items():
            state = self.networks.get(name)
            if state is not None and container.id not in state.users:
                self.networks[name] = replace(
                    state, users=(*state.users, container.id), addresses=(*state.addresses, address)
                )
        for mounted in self.containers[container.id].built.volumes:
            volume = self.volumes.get(mounted.volume)
            if volume is not None and container.id not in volume.users:
                self.volumes[mounted.volume] = replace(volume, users=(*volume.users, container.id))

    def settle(self) -> None:
        """Recompute who uses what, after networks or volumes have been added."""
        for live in self.containers.values():
            self._occupy(live.container)
