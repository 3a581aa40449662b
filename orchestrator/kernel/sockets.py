"""Host ports: which are in use, and keeping one so that nobody else takes it (sock_diag(7)).

Packets for a published port never reach a socket, the firewall sends them on; but a program that could
bind the port would wait for visitors that never come, and we would not notice that the port is taken.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass
from typing import Literal

from orchestrator.kernel.netlink import Netlink

_SOCK_DIAG = 4
_BY_FAMILY = 20
_LISTENING = 1 << 10  # TCP_LISTEN
_BOUND = 1 << 7  # TCP_CLOSE, which is what an unconnected UDP socket is in
_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2
_ANSWER = struct.Struct("!4xH2x16s")  # struct inet_diag_msg up to the source address
_PROTOCOLS: tuple[tuple[Literal["tcp", "udp"], int, int], ...] = (
    ("tcp", socket.IPPROTO_TCP, _LISTENING),
    ("udp", socket.IPPROTO_UDP, _BOUND),
)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Bound:
    """A local address that a socket waits at. `host_ip` "" is every address."""

    protocol: Literal["tcp", "udp"]
    host_ip: str
    port: int


def open_diag() -> Netlink:
    """For the namespace of the calling thread."""
    return Netlink(_SOCK_DIAG)


def bound(diag: Netlink) -> set[Bound]:
    """Where sockets of this namespace wait for connections (TCP) or datagrams (UDP), ours included."""
    found = set()
    for name, number, states in _PROTOCOLS:
        for family in (socket.AF_INET, socket.AF_INET6):
            for kind, data in diag.dump(_BY_FAMILY, _REQUEST.pack(family, number, 0, states)):
                if kind == _BY_FAMILY:
                    port, address = _ANSWER.unpack_from(data)
                    found.add(Bound(protocol=name, host_ip=_written(family, address), port=port))
    return found


def _written(family: int, raw: bytes) -> str:
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    if family == socket.AF_INET:
        address = ipaddress.IPv4Address(raw[:4])
    else:
        six = ipaddress.IPv6Address(raw)
        address = six.ipv4_mapped or six
    return "" if address.is_unspecified else str(address)


def hold(host_ip: str, port: int, protocol: Literal["tcp", "udp"]) -> socket.socket:
    """Keep a host port until the socket is closed. Raises OSError: EADDRINUSE, EADDRNOTAVAIL, EACCES.

    A TCP socket has to listen: SO_REUSEADDR, needed to get past connections that linger from before,
    makes two sockets that are merely bound no conflict. Port 0 lets the kernel choose.
    """
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    holding = socket.socket(socket.AF_INET, kind)
    try:
        if protocol == "tcp":
            holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            holding.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        holding.bind((host_ip, port))
        if protocol == "tcp":
            holding.listen(0)
    except OSError as error:
        holding.close()
        where = f"{host_ip or '*'}:{port}/{protocol}"
        raise OSError(error.errno, f"hold port {where}: {error.strerror}") from None
    return holding
