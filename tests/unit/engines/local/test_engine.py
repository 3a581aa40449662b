"""What the kernel says of ports that others hold."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from orchestrator.engines.local import engine
from orchestrator.model.observation import PublishedPort


@pytest.mark.parametrize(
    ("address", "host_ip"),
    [
        ("00000000", ""),
        ("0100007F", "127.0.0.1"),
        ("0200A8C0", "192.168.0.2"),
        ("0" * 32, ""),
    ],
)
def test_addresses_as_the_kernel_prints_them(address: str, host_ip: str) -> None:
    """Words in host byte order: this is what a little-endian machine says (proc_net(5))."""
    assert engine._taken("tcp", address, 80) == PublishedPort(host_ip=host_ip, host_port=80, target=0)


def test_listeners_and_bound_datagram_sockets_are_seen_and_nothing_else() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as bound,
    ):
        for sock in (listening, datagrams, bound):
            sock.bind(("127.0.0.1", 0))
        listening.listen()
        seen = {
            (port.protocol, port.host_ip, port.host_port) for port in engine._listening(Path("/proc/net"))
        }
        assert ("tcp", "127.0.0.1", listening.getsockname()[1]) in seen
        assert ("udp", "127.0.0.1", datagrams.getsockname()[1]) in seen
        assert ("tcp", "127.0.0.1", bound.getsockname()[1]) not in seen
