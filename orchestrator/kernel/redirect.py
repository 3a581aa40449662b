"""A container's way to its name server: 127.0.0.11:53 leads to the ports it really listens on.

The resolver can't bind port 53 itself: a container that serves DNS on 0.0.0.0:53 would be refused.
"""

from __future__ import annotations

import errno
import socket
import struct

from orchestrator.kernel import netns
from orchestrator.kernel import nftables as nft
from orchestrator.kernel.netlink import EXCL, NETFILTER, Netlink, Request

_TABLE, _CHAIN = "pystack-dns", "output"
_RESOLVER = socket.inet_aton("127.0.0.11")
_PORT = 53
_SOURCE, _DESTINATION = 12, 16  # in the IPv4 header
_SOURCE_PORT, _DESTINATION_PORT = 0, 2  # in the TCP and the UDP header
_TCP, _UDP = (6, 16), (17, 6)
"""Number, offset of the checksum in the header."""


def lay(namespace: int, udp_port: int, tcp_port: int) -> None:
    """In this network namespace, let 127.0.0.11:53 lead to these ports of 127.0.0.11.

    Ports are rewritten in both directions as packets leave; both ends are in this namespace, so no
    connection tracking is needed, and none is switched on for the container's other traffic.
    """
    opened = netns.socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
    with Netlink(NETFILTER, opened) as inside:
        try:
            inside.transact(encode(udp_port, tcp_port))
        except FileExistsError:
            # Only now: after a deletion, closing the socket waits 5-15 ms for the kernel to clean up.
            inside.transact(nft.transaction([nft.delete_table(_TABLE, (errno.ENOENT,))]))
            inside.transact(encode(udp_port, tcp_port))


def is_laid(namespace: int) -> bool:
    """Whether the rules of `lay` are there, by their number. Raises OSError."""
    opened = netns.socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
    with Netlink(NETFILTER, opened) as inside:
        return len(inside.dump(*nft.list_rules(_TABLE))) >= 4


def encode(udp_port: int, tcp_port: int) -> list[Request]:
    """The transaction that makes the table; EEXIST if it is there."""
    output = ("filter", nft.OUTPUT, nft.RAW)
    requests = [nft.new_table(_TABLE, EXCL), nft.new_chain(_TABLE, _CHAIN, output)]
    for (number, checksum_at), served in ((_TCP, tcp_port), (_UDP, udp_port)):
        for side, port_at, seen, written in (
            (_DESTINATION, _DESTINATION_PORT, _PORT, served),
            (_SOURCE, _SOURCE_PORT, served, _PORT),
        ):
            expressions = (
                nft.load_payload(nft.NETWORK, side, 4, nft.register(0)),
                nft.compare(nft.register(0), nft.EQUAL, _RESOLVER),
                *nft.protocol(number),
                nft.load_payload(nft.TRANSPORT, port_at, 2, nft.register(0)),
                nft.compare(nft.register(0), nft.EQUAL, struct.pack("!H", seen)),
                nft.load_value(struct.pack("!H", written), nft.register(0)),
                nft.store_payload(
                    nft.TRANSPORT, port_at, 2, value_in=nft.register(0), checksum_at=checksum_at
                ),
            )
            requests.append(nft.new_rule(_TABLE, _CHAIN, *expressions))
    return nft.transaction(requests)
