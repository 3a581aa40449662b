"""Published ports: which containers hold them, and to which of these connections go.

Where we are in the host's network ourselves the firewall leads them (see `publications`); else they are
carried, one connection at a time.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import trio

from orchestrator.engines.local import proxy
from orchestrator.engines.local.outside import Outside, why
from orchestrator.engines.local.table import Live, Table
from orchestrator.kernel import firewall
from orchestrator.model import rotation
from orchestrator.model.errors import EngineError, ExitCode
from orchestrator.model.observation import Container, PublishedPort, State
from orchestrator.model.rotation import EVERYWHERE, PortKey

COUNT_FRESH_SECONDS = 0.05
_REST = 10.0
"""So much longer than it took a count is good for: a container may have sockets without number. Not one that
found none: what follows from it can't be taken back."""
_OPEN = frozenset(("01", "03", "04", "08", "09", "0B"))
"""Of TCP: established, being opened, or with bytes on their way (include/net/tcp_states.h)."""

_LISTEN = "0A"
_IPV4_DIGITS = 8
_OWN_ADDRESS = f"{'0' * 24}01000000"
"""::1"""

Flows = Mapping[int, frozenset[proxy.Address]]
"""Host port -> where UDP flows to it may go."""


class Publishing:
    """Who holds which host ports. Belongs to the trio thread. `address_of`: where a container is reached."""

    def __init__(
        self,
        table: Table,
        outside: Outside,
        nursery: trio.Nursery,
        address_of: Callable[[Container], str | None],
    ) -> None:
        self._table = table
        self._outside = outside
        self._nursery = nursery
        self._address_of = address_of
        self._holders: dict[PortKey, list[Live]] = {}
        self._carried: dict[PortKey, trio.CancelScope] = {}
        self._counted: dict[str, tuple[float, int]] = {}
        """Container -> until when its number of connections is good enough, and that."""
        self._heard: dict[str, float] = {}
        """Container -> the run of which it is known that it listens, by its start."""

    # --- holding them ------------------------------------------------------------------------------

    def hold(self, live: Live) -> None:
        """Hold the host ports of a container. Raises EngineError when one is in use; then it holds none."""
        try:
            for port in live.container.ports:
                self._hold_one(live, port)
        except EngineError:
            self.release(live)
            raise

    def hold_again(self, live: Live) -> None:
        """After our own restart: those of a running container, as far as they are free."""
        for port in live.container.ports:
            try:
                self._hold_one(live, port)
            except EngineError:
                continue

    def release(self, live: Live) -> None:
        """Give them back; the firewall follows."""
        for key, fd in live.reserved.items():
            os.close(fd)
            self._holders[key].remove(live)
            if not self._holders[key]:
                del self._holders[key]
                carried = self._carried.pop(key, None)
                if carried is not None:
                    carried.cancel()
        live.reserved.clear()

    def is_sharing(self, live: Live) -> bool:
        """Whether others hold one of its ports, too."""
        return any(len(self._holders[key]) > 1 for key in live.reserved)

    def _hold_one(self, live: Live, port: PublishedPort) -> None:
        key = rotation.key_of(port)
        live.reserved[key] = self._shared(key, live) or self._reserve(port, live)
        self._holders.setdefault(key, []).append(live)
        if self._outside.is_elsewhere and key not in self._carried:
            self._carry(key, live.reserved[key])

    def _shared(self, key: PortKey, live: Live) -> int:
        """Another descriptor of the socket by which a container of the same service holds the port; 0: none
        does."""
        mine = live.container
        for other in self._holders.get(key, ()):
            if (other.container.stack, other.container.service) == (mine.stack, mine.service):
                return os.dup(other.reserved[key])
        return 0

    def _reserve(self, port: PublishedPort, live: Live) -> int:
        """A socket bound to the host port: the port is ours, and a clash is noticed here and now."""
        kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
        try:
            return self._outside.listen(kind, port.host_ip or EVERYWHERE, port.host_port)
        except OSError as error:
            name, holder = live.container.name, self._holder(port)
            where = f"{port.host_ip or EVERYWHERE}:{port.host_port}/{port.protocol}"
            if error.errno == errno.EADDRINUSE:
                message = f"container {name}: port {where} is already in use" + (
                    f" by {holder}" if holder else ""
                )
            else:
                message = f"container {name}: port {where}: {why(error)}"
            raise EngineError(message, retryable=False, exit_code=ExitCode.CONFLICT) from error

    def _holder(self, wish: PublishedPort) -> str:
        """The container of ours that holds a host port, in words; "" when it is none of ours."""
        for (_, number, protocol), holders in self._holders.items():
            if (number, protocol) == (wish.host_port, wish.protocol):
                holder = holders[0].container
                return f"container {holder.name} of stack {holder.stack}"
        return ""

    # --- where they lead ---------------------------------------------------------------------------

    def publications(self) -> Iterator[firewall.Publication]:
        """For the firewall: every port, and each container that gets new connections to it."""
        for key, holders in self._holders.items():
            host_ip, host_port, protocol = key
            for address, port in self._targets(key, rotation.takers([one.container for one in holders])):
                yield firewall.Publication(
                    host_ip=host_ip,
                    host_port=host_port,
                    protocol="tcp" if protocol == "tcp" else "udp",
                    address=address,
                    port=port,
                )

    def flows(self) -> Flows:
        """UDP has no connections that end: a flow may go on to whoever holds the port and will go on doing
        so, member of the rotation or not."""
        found: dict[int, set[proxy.Address]] = {}
        for key, holders in self._holders.items():
            if key[2] == "udp":
                found.setdefault(key[1], set()).update(self._targets(key, _staying(holders)))
        return {port: frozenset(targets) for port, targets in found.items()}

    def _targets(self, key: PortKey, containers: Sequence[Container]) -> Iterator[proxy.Address]:
        for one in containers:
            address = self._address_of(one)
            if address is not None:
                yield address, next(port.target for port in one.ports if rotation.key_of(port) == key)

    def _carry(self, key: PortKey, reserved: int) -> None:
        """Where the host's network is not ours: what comes to the port is carried to its containers."""
        self._carried[key] = scope = trio.CancelScope()
        listening = socket.socket(fileno=os.dup(reserved))

        async def run() -> None:
            with scope:
                await proxy.serve(listening, _Lead(self, key))

        self._nursery.start_soon(run)

    def takers(self, key: PortKey) -> list[proxy.Address]:
        holders = [one.container for one in self._holders.get(key, ())]
        return list(self._targets(key, rotation.takers(holders)))

    def may_go_on(self, key: PortKey, target: proxy.Address) -> bool:
        return target in self._targets(key, _staying(self._holders.get(key, [])))

    # --- who still uses them -----------------------------------------------------------------------

    def connections(self, live: Live) -> int:
        """Open TCP connections to what a container publishes. A count of a moment ago may do."""
        began = time.monotonic()
        until, count = self._counted.get(live.container.id, (0.0, 0))
        if began < until:
            return count
        run, targets = live.container.run, _tcp_targets(live.container)
        pid = run.pid if run is not None and targets else 0
        count = sum(port in targets and state in _OPEN for _, port, state in _sockets(pid))
        _forget(self._counted, self._table)
        ended = time.monotonic()
        rest = _REST * (ended - began) if count else 0.0
        self._counted[live.container.id] = ended + max(COUNT_FRESH_SECONDS, rest), count
        return count

    def is_deaf(self, live: Live) -> bool:
        """Whether it runs, shares a TCP port, and does not listen there yet. Once it does that is not asked
        again: what becomes of it then is the business of a health check."""
        run, targets = live.container.run, _tcp_targets(live.container)
        if run is None or not run.pid or not targets or self._heard.get(live.container.id) == run.started:
            return False
        there = _sockets(run.pid, listening=True)
        listening = {port for address, port, state in there if _is_heard(address, state)}
        if not targets <= listening:
            return True
        _forget(self._heard, self._table)
        self._heard[live.container.id] = run.started
        return False


class _Lead:
    """One port that is carried: its containers in turn."""

    def __init__(self, publishing: Publishing, key: PortKey) -> None:
        self._publishing = publishing
        self._key = key
        self._turn = 0

    def choose(self) -> list[proxy.Address]:
        found = self._publishing.takers(self._key)
        self._turn += 1
        first = self._turn % len(found) if found else 0
        return found[first:] + found[:first]

    def may_go_on(self, target: proxy.Address) -> bool:
        return self._publishing.may_go_on(self._key, target)


def _staying(holders: Sequence[Live]) -> Sequence[Container]:
    """Those of them that run and were not told to stop; all when there is no choice."""
    containers = [one.container for one in holders]
    if len(containers) < 2:
        return containers
    staying = [one for one in containers if one.state is State.RUNNING and one.run and not one.run.stopping]
    return staying or containers


def _tcp_targets(container: Container) -> set[str]:
    """The ports of a container that are published, as the kernel prints them."""
    return {f"{port.target:04X}" for port in container.ports if port.protocol == "tcp"}


def _sockets(pid: int, *, listening: bool = False) -> Iterator[tuple[str, str, str]]:
    """Address, port and state of the TCP sockets in a process's network namespace (proc_net(5)); or of those
    that listen, which the kernel prints first (tcp_get_idx in net/ipv4/tcp_ipv4.c): others may be many."""
    for name in ("tcp", "tcp6") if pid else ():
        try:
            with open(f"/proc/{pid}/net/{name}", encoding="ascii") as lines:
                next(lines, None)
                for line in lines:
                    local, _, state = line.split(None, 4)[1:4]
                    if listening and state != _LISTEN:
                        break
                    address, _, port = local.rpartition(":")
                    yield address, port, state
        except OSError:
            continue


def _is_heard(address: str, state: str) -> bool:
    """It listens, and not to itself alone. Words are in host byte order: 127.0.0.1 is 0100007F here."""
    own = address.endswith("7F") if len(address) == _IPV4_DIGITS else address == _OWN_ADDRESS
    return state == _LISTEN and not own


def _forget(known: dict[str, Any], table: Table) -> None:
    """Containers come and go."""
    if len(known) > 2 * len(table.containers):
        for gone in known.keys() - table.containers.keys():
            del known[gone]
