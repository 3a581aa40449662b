"""Forgetting UDP flows whose port has moved (linux/netfilter/nfnetlink_conntrack.h).

The kernel decides where a flow goes at its first packet. UDP has no end, so a client that sends steadily
(syslog, statsd, QUIC) would go on to reach the container that was there before, or nobody, for ever.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection

from orchestrator.kernel.netlink import Netlink, Request, attribute, attributes

_SUBSYSTEM = 1 << 8
_GET, _DELETE = 1, 2
_HEAD = struct.pack("!BBH", socket.AF_INET, 0, 0)
_ORIGINAL, _STATUS, _ID, _ZONE = 1, 3, 12, 18
_PROTOCOL, _NUMBER, _DESTINATION_PORT = 2, 1, 3
_SEEN_REPLY, _SOURCE_NAT, _DESTINATION_NAT = 1 << 1, 1 << 4, 1 << 5


def forget_udp(firewall: Netlink, ports: Collection[int]) -> int:
    """Forget the IPv4 UDP flows to these host ports; how many there were.

    Forgotten are flows that a publication had led somewhere, and unanswered ones that none had. Call it
    after the firewall has changed. Reads the whole table of flows: 10 us a flow.
    """
    if not ports:
        return 0
    requests = []
    for _, data in firewall.dump(_SUBSYSTEM | _GET, _HEAD):
        parts = attributes(data, 4)
        if _stale(parts, ports):
            named = b"".join(attribute(key, parts[key]) for key in (_ORIGINAL, _ID, _ZONE) if key in parts)
            gone = (errno.ENOENT,)
            requests.append(Request(_SUBSYSTEM | _DELETE, 0, _HEAD + named, "forget a UDP flow", gone))
    firewall.batch(requests)
    return len(requests)


def _stale(parts: dict[int, bytes], ports: Collection[int]) -> bool:
    original = attributes(parts.get(_ORIGINAL, b""))
    protocol = attributes(original.get(_PROTOCOL, b""))
    if protocol.get(_NUMBER) != bytes((socket.IPPROTO_UDP,)):
        return False
    if int.from_bytes(protocol.get(_DESTINATION_PORT, b""), "big") not in ports:
        return False
    status = int.from_bytes(parts.get(_STATUS, b""), "big")
    return bool(status & _DESTINATION_NAT) or not status & (_SOURCE_NAT | _SEEN_REPLY)
