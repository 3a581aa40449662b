"""Which bridge of a network an address belongs to: never more on one than it has ports."""

from __future__ import annotations

import ipaddress
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engines.local import segments

PORTS = 1023
"""Of a bridge: BR_MAX_PORTS is 1 << 10, and number 0 is never given (net/bridge/br_private.h)."""


@pytest.mark.parametrize(
    ("subnet", "address", "segment"),
    [
        ("10.0.0.0/24", "10.0.0.255", 0),
        ("10.0.0.0/23", "10.0.1.255", 0),
        ("10.0.0.0/16", "10.0.0.5", 0),
        ("10.0.0.0/16", "10.0.1.255", 0),
        ("10.0.0.0/16", "10.0.2.0", 1),
        ("10.0.0.0/16", "10.0.8.5", 4),
        ("10.0.0.0/16", "10.0.255.254", 127),
        ("172.28.16.0/20", "172.28.31.254", 7),
        ("10.0.0.0/8", "10.255.255.254", 32767),
        ("10.0.0.0/24", "10.0.9.1", 0),  # the network was made anew, with another range
        ("10.0.4.0/22", "10.0.0.1", 0),
    ],
)
def test_the_segment_of_an_address_follows_from_its_place_in_the_range(
    subnet: str, address: str, segment: int
) -> None:
    assert segments.of(subnet, address) == segment


def test_a_network_of_a_23_or_less_needs_no_further_bridge() -> None:
    everyone = [str(address) for address in ipaddress.IPv4Network("10.0.0.0/23").hosts()]
    assert segments.needed("10.0.0.0/23", everyone) == []


def test_each_further_bridge_comes_after_the_one_it_is_joined_to() -> None:
    assert segments.needed("10.0.0.0/16", ["10.0.8.5", "10.0.0.9", "10.0.2.1", "10.0.3.1"]) == [1, 4]
    assert segments.needed("10.0.0.0/8", ["10.255.255.254"]) == [1, 255, 32767]
    assert segments.needed("10.0.0.0/16", []) == []


@given(st.sets(st.integers(1, (1 << 24) - 2), max_size=50))
def test_no_bridge_has_more_ports_than_linux_gives_it(offsets: set[int]) -> None:
    """With every segment full: its containers, those joined to it, and the way up."""
    addresses = [str(ipaddress.IPv4Address((10 << 24) + offset)) for offset in offsets]
    needed = segments.needed("10.0.0.0/8", addresses)
    assert {segments.of("10.0.0.0/8", address) for address in addresses} <= {0, *needed}
    seen = {0}
    for number in needed:
        assert segments.above(number) in seen
        seen.add(number)
    assert all(segments.ADDRESSES + count + 1 <= PORTS for count in below(needed).values())


def below(numbers: list[int]) -> Counter[int]:
    return Counter(segments.above(number) for number in numbers)


def test_the_largest_range_fits_too() -> None:
    assert max(below(list(range(1, (1 << 24) // segments.ADDRESSES))).values()) == segments.BRANCHES
    assert segments.ADDRESSES + segments.BRANCHES + 1 <= PORTS


def test_a_segment_is_known_by_its_first_address() -> None:
    assert segments.first_address("10.0.0.0/16", 4) == "10.0.8.0"
    assert segments.of("10.0.0.0/16", segments.first_address("10.0.0.0/16", 4)) == 4
