"""Which bridge of a network an address belongs to: never more on one than it has ports."""

from __future__ import annotations

import ipaddress
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engines.local import facts, segments, sighting
from orchestrator.engines.local.facts import Fact
from orchestrator.kernel import interfaces
from orchestrator.kernel.links import Link
from orchestrator.model.observation import NetworkState

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


# --- as they are found -------------------------------------------------------------------------------

NETWORK = NetworkState(name="wide", subnet="10.0.0.0/16", gateway="10.0.0.1", fingerprint="")
UPPER, LOWER = interfaces.trunk("test", "wide", 1)


def link(name: str, index: int, *, master: int = 0, up: bool = True) -> Link:
    return Link(name=name, index=index, kind="", master=master, group=0, up=up, mac="")


WHOLE = (
    link(interfaces.bridge("test", "wide"), 1),
    link(interfaces.bridge("test", "wide", 1), 2),
    link(UPPER, 3, master=1),
    link(LOWER, 4, master=2),
)


@pytest.mark.parametrize(
    ("changed", "because"),
    [
        ({}, []),
        ({1: None}, ["its further bridge 1 was deleted"]),
        ({1: link(interfaces.bridge("test", "wide", 1), 2, up=False)}, ["its further bridge 1 was set down"]),
        ({2: None, 3: None}, ["the link to its further bridge 1 was deleted"]),
        ({2: None}, ["the link to its further bridge 1 was deleted"]),  # into another namespace
        ({2: link(UPPER, 3)}, ["the link to its further bridge 1 was taken off a bridge"]),
        ({3: link(LOWER, 4, master=1)}, ["the link to its further bridge 1 was taken off a bridge"]),
        (
            {3: link(LOWER, 4, master=2, up=False)},
            ["the link to its further bridge 1 was taken off a bridge"],
        ),
        ({0: None, 2: link(UPPER, 3)}, []),  # told as the first bridge's
    ],
)
def test_what_is_wrong_with_a_further_bridge_is_said(
    changed: dict[int, Link | None], because: list[str]
) -> None:
    rows = [changed.get(place, one) for place, one in enumerate(WHOLE)]
    there = {one.name: one for one in rows if one is not None}
    found = sighting.segment(NETWORK, 1, there, "test")
    wanted = {fact: value for fact, value in facts.of_network(NETWORK, [1]).items() if fact.of == "1"}
    assert set(wanted) == {Fact("network:wide", kind, "1") for kind in ("segment", "trunk")}
    assert [one.because for one in facts.differences(wanted, found, {}).values()] == because
