"""Networks as the kernel has them: bridges, veths, addresses, published ports, name service.

What stands in the kernel is a function of the table, so the firewall is always replaced as a whole; many
changes in one moment become one replacement.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import trio

from orchestrator.engines.local import dns, names, records, segments
from orchestrator.engines.local.bundle import shares_names
from orchestrator.engines.local.keeper import Keeper
from orchestrator.engines.local.outside import Outside
from orchestrator.engines.local.places import Places
from orchestrator.engines.local.publishing import Flows, Publishing
from orchestrator.engines.local.resolver import Forwarder, open_sockets, serve
from orchestrator.engines.local.table import Live, Table, Wires
from orchestrator.engines.local.trouble import of_file
from orchestrator.engines.local.turns import Turns
from orchestrator.kernel import coexist, conntrack, firewall, interfaces, links, netns
from orchestrator.kernel.netlink import Netlink
from orchestrator.model.action import CreateNetwork
from orchestrator.model.errors import EngineError
from orchestrator.model.observation import Container, NetworkState
from orchestrator.model.stack import Attachment, Isolated, OfHost, OfService


class Wiring:
    """The network side of a state root. Methods without `async` are called from worker threads."""

    def __init__(
        self, places: Places, table: Table, keeper: Keeper, nursery: trio.Nursery, outside: Outside
    ) -> None:
        self._places = places
        self._table = table
        self.keeper = keeper
        self._nursery = nursery
        self.tag = places.tag
        self._route = links.open_route()
        self._filter: Netlink = firewall.open_firewall()
        self._route_lock = threading.RLock()
        self.outside = outside
        self._forwarder = Forwarder(host=outside.open if outside.is_elsewhere else None)
        self.publishing = Publishing(table, outside, nursery, self._address)
        self._installed: firewall.Ruleset | None = None
        self._flows: Flows = {}
        self._installing = trio.Lock()
        self.deaf: Callable[[Live], None] = lambda _: None
        """Told of a container whose name server can't be asked any more."""
        self.turns = Turns()

    # --- networks ----------------------------------------------------------------------------------

    async def create_network(self, action: CreateNetwork) -> None:
        """Repeatable: a bridge that is there with the same address is taken."""
        network = action.network
        state = NetworkState(
            name=network.name,
            subnet=action.subnet,
            gateway=action.gateway,
            fingerprint=action.fingerprint,
            stack=action.stack,
            key=network.key,
            internal=network.internal,
        )
        if network.driver not in ("bridge", "default", ""):
            raise EngineError(
                f"network {network.name}: driver {network.driver} is not honoured", retryable=False
            )
        try:
            await trio.to_thread.run_sync(self.make_bridge, state)
        except OSError as error:
            raise of_file(error, f"network {network.name}") from error
        self._table.networks[network.name] = state
        self._table.settle()
        await self.sync()
        self._table.ring()

    def make_bridge(self, state: NetworkState) -> None:
        """Write the network down and make its bridge. Repeatable. Raises EngineError, OSError."""
        self._places.networks.mkdir(parents=True, exist_ok=True, mode=0o700)
        records.write(self._places.network(state.name), state)
        length = state.subnet.rpartition("/")[2]
        bridge, group = self.bridge_of(state), interfaces.group(self.tag, state.name)
        try:
            with self._route_lock:
                links.create_bridge(self._route, bridge, f"{state.gateway}/{length}", group)
            netns.heed_no_routers(bridge)
            links.enable_forwarding()
        except OSError as error:
            raise of_file(error, f"network {state.name}") from error

    def make_segment(self, state: NetworkState, number: int) -> int:
        """A further bridge of a network and its link to the one above it; returns its index. Repeatable."""
        group = interfaces.group(self.tag, state.name)
        bridge = interfaces.bridge(self.tag, state.name, number)
        mac = links.segment_mac(segments.first_address(state.subnet, number))
        with self._route_lock:
            above = self._bridge(state, segments.above(number))
            index = links.create_segment(self._route, bridge, mac, group)
            links.join(self._route, interfaces.trunk(self.tag, state.name, number), (above, index), group)
        netns.heed_no_routers(bridge)
        return index

    def _bridge(self, state: NetworkState, number: int) -> int:
        """The index of one of a network's bridges. A further one is made when it is not there."""
        with self._route_lock:
            index = links.link_index(self._route, interfaces.bridge(self.tag, state.name, number))
            if index is not None:
                return index
            if not number:
                raise EngineError(f"the bridge of network {state.name} is not there")
            return self.make_segment(state, number)

    async def remove_network(self, name: str) -> None:
        """Every veth that is left of it and its bridges, in one request: one by one they cost 20 ms each."""
        if name in self._table.networks and self._table.networks[name].users:
            raise EngineError(f"network {name} is still in use")
        state = self._table.networks.pop(name, None)

        def erase() -> None:
            with self._route_lock:
                links.delete_group(self._route, interfaces.group(self.tag, name))
                links.delete_link(self._route, interfaces.bridge(self.tag, name))
            self._places.network(name).unlink(missing_ok=True)

        try:
            await self.sync()
            await trio.to_thread.run_sync(erase)
        except (OSError, EngineError) as error:
            if state is not None:
                self._table.networks[name] = state  # what may be left of it has to go at the next try
            raise EngineError(f"network {name}: {error}") from error
        self._table.ring()

    # --- one container -----------------------------------------------------------------------------

    def connect(self, live: Live) -> None:
        """A network namespace with its interfaces and resolver sockets, unless it is there already."""
        service = live.container.definition
        if live.wires is not None or isinstance(service.network_mode, OfHost | OfService):
            return
        namespace = netns.create()
        try:
            if isinstance(service.network_mode, Isolated) or not live.container.addresses:
                links.configure(namespace, [], None)
                live.wires = Wires(namespace=namespace)
                return
            self._plug_in(live.container, namespace)
            resolver = open_sockets(namespace) if shares_names(service) else ()
            live.wires = Wires(namespace=namespace, resolver=tuple(sock.detach() for sock in resolver))
        except EngineError:
            os.close(namespace)
            raise
        except OSError as error:
            os.close(namespace)
            raise of_file(error, f"container {live.container.name}") from error

    def _plug_in(self, container: Container, namespace: int) -> None:
        """One veth a network, in the order of connection; the default route by gw_priority, then order."""
        addresses = [
            self._attach(container, number, name, namespace)
            for number, name in enumerate(container.addresses)
        ]
        links.configure(namespace, addresses, self.gateway(container))
        for name in container.addresses:
            links.settle(self._route, interfaces.port(self.tag, container.id, name))

    def _attach(self, container: Container, number: int, name: str, namespace: int) -> tuple[str, str]:
        """The veth to one network; returns its inner end and the address that belongs there."""
        state = self._table.networks.get(name)
        if state is None:
            raise EngineError(f"network {name} is not there")
        wanted, address = self._attachment(container, name), container.addresses[name]
        with self._route_lock:
            links.attach(
                self._route,
                host_name=interfaces.port(self.tag, container.id, name),
                bridge_index=self._bridge(state, segments.of(state.subnet, address)),
                namespace=namespace,
                peer_name=f"eth{number}",
                mac=(wanted.mac_address if wanted else None) or links.mac(address),
                group=interfaces.group(self.tag, name),
            )
        return f"eth{number}", f"{address}/{state.subnet.rpartition('/')[2]}"

    def plug_in_again(self, live: Live, number: int, name: str) -> None:
        """The link of a running container to one network, which somebody has deleted or carried off."""
        assert live.wires is not None
        namespace = live.wires.namespace
        with links.open_route_in(namespace) as inside:
            links.delete_link(inside, f"eth{number}")  # its other end may be in a place we can't see
        made = self._attach(live.container, number, name, namespace)
        links.configure(namespace, [made], self.gateway(live.container))
        links.settle(self._route, interfaces.port(self.tag, live.container.id, name))

    def number_of(self, live: Live) -> int | None:
        """By which the kernel names its network namespace to us."""
        wires = live.wires
        if wires is not None and wires.number is None:
            with self._route_lock:
                wires.number = links.number_of(self._route, wires.namespace)
        return wires.number if wires is not None else None

    def _attachment(self, container: Container, name: str) -> Attachment | None:
        live = self._table.containers[container.id]
        return names.attachment(live.built, name)

    def gateway(self, container: Container) -> str | None:
        """Where its default route leads to."""
        name = self.default_network(container)
        return self._table.networks[name].gateway if name is not None else None

    def default_network(self, container: Container) -> str | None:
        """The network of the default route: highest gw_priority, then first; never an internal one."""
        best: tuple[int, str] | None = None
        for name in container.addresses:
            state = self._table.networks.get(name)
            if state is None or state.internal:
                continue
            wanted = self._attachment(container, name)
            priority = wanted.gw_priority if wanted else 0
            if best is None or priority > best[0]:
                best = (priority, name)
        return best[1] if best else None

    def connect_again(self, live: Live) -> None:
        """The wires of a running container that both we and the keeper have lost, by its process."""
        run, service = live.container.run, live.container.definition
        if live.wires is not None or run is None or isinstance(service.network_mode, OfHost | OfService):
            return
        namespace = os.open(f"/proc/{run.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            resolver = open_sockets(namespace) if shares_names(service) and live.container.addresses else ()
        except OSError:
            os.close(namespace)
            raise
        live.wires = Wires(namespace=namespace, resolver=tuple(sock.detach() for sock in resolver))

    def attach_again(self, live: Live) -> None:
        """The veths of a running container whose bridge was deleted, and has been made again. Repeatable."""
        for name, address in live.container.addresses.items():
            state = self._table.networks.get(name)
            if state is not None:
                with self._route_lock:
                    bridge = self._bridge(state, segments.of(state.subnet, address))
                    port = interfaces.port(self.tag, live.container.id, name)
                    links.attach_again(self._route, port, bridge)

    def serve_names(self, live: Live) -> None:
        """Answer the container's questions from now on. Repeatable."""
        wires = live.wires
        if wires is None or len(wires.resolver) != 2 or wires.serving is not None:
            return
        udp, tcp = (socket.socket(fileno=os.dup(fd)) for fd in wires.resolver)
        wires.serving = trio.CancelScope()

        async def run(scope: trio.CancelScope) -> None:
            with scope, udp, tcp:
                await serve(
                    udp,
                    tcp,
                    lambda: names.zone_of(live, self._table, host_servers),
                    self._forwarder,
                    wires.namespace,
                    lambda: self.deaf(live),
                    self.turns,
                )

        self._nursery.start_soon(run, wires.serving)

    async def disconnect(self, live: Live) -> None:
        """Give up everything that `connect` and `publish` made. The veths go with the namespace."""
        self.release(live)
        wires, live.wires = live.wires, None
        if wires is None:
            return
        if wires.serving is not None:
            wires.serving.cancel()
        for fd in (wires.namespace, *wires.resolver):
            os.close(fd)

    # --- published ports ---------------------------------------------------------------------------

    async def publish(self, live: Live) -> None:
        """Hold the host ports and lead them to the container. Raises EngineError when one is in use."""
        if not live.container.ports or live.reserved:
            return
        self.publishing.hold(live)
        await self.sync()

    async def withdraw(self, live: Live) -> None:
        if live.reserved:
            self.publishing.release(live)
            await self.sync()

    def release(self, live: Live) -> None:
        """Give the host ports back; the firewall follows with the next `sync`."""
        self.publishing.release(live)

    def resume(self, live: Live) -> None:
        """After our own restart: hold the ports of a running container again, as far as they are free."""
        self.publishing.hold_again(live)

    async def hand_over(self, live: Live) -> None:
        """It ends, or has ended: what it shares with others is theirs from now on. Alone, it keeps all."""
        if self.publishing.is_sharing(live):
            await self.sync()

    def ruleset(self) -> firewall.Ruleset:
        """What the firewall must say, by the table."""
        networks = tuple(
            firewall.Segment(bridge=self.bridge_of(state), subnet=state.subnet, internal=state.internal)
            for state in self._table.networks.values()
        )
        ports = tuple(self.publishing.publications())
        return firewall.Ruleset(
            table=firewall.table_name(self.tag),
            networks=networks,
            ports=ports,
            segments=interfaces.segments(self.tag),
        )

    def _address(self, container: Container) -> str | None:
        """Where its ports are reached: its answers leave by the network of its default route."""
        name = self.default_network(container)
        return container.addresses[name] if name is not None else None

    async def is_whole(self) -> bool:
        """Whether our table of the firewall is as we have left it. Raises OSError."""
        async with self._installing:
            wanted = self._installed
            if wanted is None or not wanted.networks:
                return True
            return await trio.to_thread.run_sync(firewall.is_whole, self._filter, wanted)

    async def restore_firewall(self) -> None:
        """Write our table anew, whatever stands there."""
        async with self._installing:
            self._installed, self._flows = None, {}
        await self.sync()

    async def sync(self) -> None:
        """Bring the firewall in line with the table. Calls that come while one is under way share one."""
        async with self._installing:
            wanted, flows = self.ruleset(), self.publishing.flows()
            if (wanted, flows) == (self._installed, self._flows):
                return
            await trio.to_thread.run_sync(self._install, wanted, flows)
            self._installed, self._flows = wanted, flows

    def _install(self, wanted: firewall.Ruleset, flows: Flows) -> None:
        before = self._installed
        try:
            if not wanted.networks:
                coexist.withdraw(self._filter, wanted.table)
                firewall.delete(self._filter, wanted.table)
                return
            if before is None or not before.networks:
                firewall.replace(self._filter, wanted)
                coexist.admit(self._filter, wanted.table, interfaces.prefix(self.tag))
            else:
                firewall.change(self._filter, before, wanted)
            # A steady sender would otherwise go on talking to the container that was there before.
            changed = {port for port in {*flows, *self._flows} if flows.get(port) != self._flows.get(port)}
            conntrack.forget_udp(self._filter, {port: flows.get(port, frozenset()) for port in changed})
        except OSError as error:
            raise EngineError(f"firewall: {error.strerror or error}") from error

    def ranges_in_use(self) -> list[str]:
        with self._route_lock:
            return links.ranges_in_use(self._route)

    def remove_strangers(self) -> None:
        """Bridges of ours, and what joins them, that no record knows any more: the run directory was lost
        with them. Containers' links go with their namespaces."""
        known = {self.bridge_of(state) for state in self._table.networks.values()}
        groups = {interfaces.group(self.tag, name) for name in self._table.networks}
        for name, link in self.our_links().items():
            if not (name in known or link.group in groups or name.startswith(interfaces.ports(self.tag))):
                with self._route_lock:
                    links.delete_link(self._route, name)

    def our_links(self) -> dict[str, links.Link]:
        """Every interface of this state root on this side, by name."""
        with self._route_lock:
            start = interfaces.prefix(self.tag)
            return {link.name: link for link in links.list_links(self._route) if link.name.startswith(start)}

    def bridge_of(self, network: NetworkState, address: str = "") -> str:
        """The first bridge of a network, or that for an address of it."""
        segment = segments.of(network.subnet, address) if address else 0
        return interfaces.bridge(self.tag, network.name, segment)

    async def clear(self) -> None:
        """Nothing of ours is needed any more; neither are networks that outlived the stack that made them."""
        for name in list(self._table.networks):
            await self.remove_network(name)
        await self.sync()

    def close(self) -> None:
        self._route.close()
        self._filter.close()


_RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
"""systemd-resolved's stub on 127.0.0.53 names itself in the second; the first has the real servers."""


def host_servers() -> tuple[dns.Upstream, ...]:
    """The host's name servers. Called for every change of the table, not for every question."""
    for path in _RESOLVERS:
        try:
            return dns.upstreams(path.read_text())
        except OSError:
            continue
    return ()
