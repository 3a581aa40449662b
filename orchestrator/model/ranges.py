"""How many containers a network's range of addresses has room for."""

from __future__ import annotations

import ipaddress

DEFAULT_PREFIX = 20
"""Of ranges that are given to networks that name none."""


def room(subnet: str, *, gateway: str | None = None, ip_range: str | None = None) -> int:
    """Of an IPv4 range in CIDR form ("": one that is given), without the network's own address, its broadcast
    address and the gateway's (None: the first one). Raises ValueError for a bad address."""
    whole = ipaddress.IPv4Network(subnet or f"10.0.0.0/{DEFAULT_PREFIX}", strict=False)
    part = ipaddress.IPv4Network(ip_range, strict=False) if ip_range else whole
    first = max(int(whole.network_address) + 1, int(part.network_address))
    last = min(int(whole.broadcast_address) - 1, int(part.broadcast_address))
    way_out = int(ipaddress.IPv4Address(gateway)) if gateway else int(whole.network_address) + 1
    return max(last - first + 1 - (first <= way_out <= last), 0)
