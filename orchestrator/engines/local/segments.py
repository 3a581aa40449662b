"""Which of a network's bridges an address belongs to. Pure.

A bridge of Linux has 1,023 ports (BR_MAX_PORTS in net/bridge/br_private.h), so a large network is several
bridges, joined by veths to one broadcast domain. Number 0 is the first one, which has the gateway's address;
the others are further segments, each below another. Everybody computes the number from the address, so it is
chosen and written down nowhere.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

ADDRESSES = 512
"""Of one segment, and its number in order. Far fewer than a bridge has ports: the veth of a container that
has just gone keeps its port until the kernel has cleaned up. A power of two: a /23 or less is one bridge."""
BRANCHES = 128
"""So many segments are directly below another: a /16 is one bridge with all others below it, and no range is
so large that a bridge would run out of ports."""


def of(subnet: str, address: str) -> int:
    """The segment of an address; 0 for one that is not within the subnet."""
    first, last = _span(subnet)
    number = int(ipaddress.IPv4Address(address))
    return (number - first) // ADDRESSES if first <= number <= last else 0


def above(segment: int) -> int:
    """The segment that a further one is joined to."""
    return (segment - 1) // BRANCHES


def needed(subnet: str, addresses: Iterable[str]) -> list[int]:
    """The further segments that there must be for these addresses, each after the one above it."""
    found: set[int] = set()
    wanted = {of(subnet, address) for address in addresses}
    while wanted := wanted - found - {0}:
        found |= wanted
        wanted = {above(number) for number in wanted}
    return sorted(found)


def first_address(subnet: str, segment: int) -> str:
    return str(ipaddress.IPv4Address(_span(subnet)[0] + segment * ADDRESSES))


@lru_cache(maxsize=1024)
def _span(subnet: str) -> tuple[int, int]:
    whole = ipaddress.IPv4Network(subnet, strict=False)
    return int(whole.network_address), int(whole.broadcast_address)
