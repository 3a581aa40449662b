"""A small world of network namespaces: a host with our bridges and containers, and a LAN beside it.

Nothing of it is in the machine's own namespace; all of it goes when the descriptors are closed. The LAN is
wired with ip(8), so that not everything a test sees was made by the code it tests.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field

from orchestrator.kernel import interfaces, links, netns
from orchestrator.kernel.netlink import Netlink
from tests.kit.patience import patient

TAG = "test"
HOST_ON_LAN = "192.0.2.1"
NEIGHBOUR = "192.0.2.2"
GROUP = 77_777
SOON = min(patient(0.4), 0.9)
"""Seconds within which a packet that is let through has long arrived (one that was lost: not before one)."""


def run(namespace: int, *command: str) -> str:
    """What a program prints that runs in the namespace."""
    with netns.inside(namespace):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=patient(20))
    return done.stdout


@dataclass
class World:
    host: int
    lan: int
    route: Netlink
    stack: ExitStack
    bridges: dict[str, tuple[int, str]] = field(default_factory=dict)

    def network(self, name: str, gateway: str) -> str:
        """A bridge with this gateway address (CIDR); returns its interface name."""
        bridge = interfaces.bridge(TAG, name)
        self.bridges[name] = (links.create_bridge(self.route, bridge, gateway, GROUP), gateway)
        return bridge

    def container(self, **addresses: str) -> int:
        """A namespace attached to the networks: name=address. The first gives the default route."""
        namespace = netns.create()
        self.stack.callback(os.close, namespace)
        configured, ports = [], []
        for number, (network, address) in enumerate(addresses.items()):
            index, gateway = self.bridges[network]
            ports.append(interfaces.port(TAG, address, network))
            links.attach(
                self.route,
                host_name=ports[-1],
                bridge_index=index,
                namespace=namespace,
                peer_name=f"eth{number}",
                mac=links.mac(address),
                group=GROUP,
            )
            configured.append((f"eth{number}", f"{address}/{gateway.split('/')[1]}"))
        first = self.bridges[next(iter(addresses))][1].split("/")[0] if addresses else None
        links.configure(namespace, configured, first)
        for port in ports:
            links.settle(self.route, port)
        return namespace

    def listen(self, namespace: int, port: int, address: str = "0.0.0.0") -> socket.socket:
        listening = self.stack.enter_context(
            closing(netns.socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM))
        )
        listening.settimeout(SOON)
        listening.bind((address, port))
        listening.listen()
        return listening

    def datagrams(self, namespace: int, port: int = 0, address: str = "0.0.0.0") -> socket.socket:
        receiving = self.stack.enter_context(
            closing(netns.socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM))
        )
        receiving.settimeout(SOON)
        receiving.bind((address, port))
        return receiving


def connects(namespace: int, address: str, port: int, source: str | None = None) -> bool:
    """Whether a TCP connection from the namespace is taken up."""
    with closing(netns.socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM)) as trying:
        trying.settimeout(SOON)
        if source is not None:
            trying.bind((source, 0))
        try:
            trying.connect((address, port))
        except OSError:
            return False
        return True


@contextmanager
def world() -> Iterator[World]:
    """A host, forwarding, and a LAN with one neighbour who knows the host as its router."""
    with ExitStack() as stack:
        host, lan = netns.create(), netns.create()
        stack.callback(os.close, host)
        stack.callback(os.close, lan)
        route = stack.enter_context(links.open_route_in(host))
        where = f"/proc/{os.getpid()}/fd/{lan}"
        run(host, "ip", "link", "set", "lo", "up")
        run(lan, "ip", "link", "set", "lo", "up")
        run(host, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "lan0", "netns", where)
        run(host, "ip", "addr", "add", f"{HOST_ON_LAN}/24", "dev", "up0")
        run(host, "ip", "link", "set", "up0", "up")
        run(lan, "ip", "addr", "add", f"{NEIGHBOUR}/24", "dev", "lan0")
        run(lan, "ip", "link", "set", "lan0", "up")
        run(lan, "ip", "route", "add", "default", "via", HOST_ON_LAN)
        with netns.inside(host):
            links.enable_forwarding()
        yield World(host, lan, route, stack)
