"""Rulesets as transactions. What they do to packets is in tests/kernel/test_traffic.py."""

from __future__ import annotations

import socket
import struct

import pytest

from orchestrator.kernel import firewall
from orchestrator.kernel.firewall import Publication, Ruleset, Segment


def publication(**different: object) -> Publication:
    words: dict[str, object] = {
        "host_ip": "",
        "host_port": 8080,
        "protocol": "tcp",
        "address": "10.0.0.2",
        "port": 80,
    }
    return Publication(**(words | different))  # type: ignore[arg-type]


def target(address: str, port: int) -> bytes:
    return socket.inet_aton(address) + struct.pack("!HH", port, 0)


def test_a_port_stands_in_the_map_of_its_protocol_and_address() -> None:
    ports = (
        publication(),
        publication(host_ip="0.0.0.0", host_port=81),
        publication(host_ip="127.0.0.1"),
        publication(protocol="udp", host_port=53),
    )
    maps = firewall._elements(ports)
    key = struct.pack("!H", 8080)
    assert set(maps["tcp_any"]) == {key, struct.pack("!H", 81)}
    assert maps["tcp_any"][key] == target("10.0.0.2", 80)
    assert set(maps["tcp_bound"]) == {socket.inet_aton("127.0.0.1") + key + b"\0\0"}
    assert set(maps["udp_any"]) == {struct.pack("!H", 53)}
    assert maps["udp_bound"] == {}


def test_of_two_containers_on_one_port_the_later_has_it() -> None:
    maps = firewall._elements((publication(), publication(address="10.0.0.3")))
    assert list(maps["tcp_any"].values()) == [target("10.0.0.3", 80)]


def test_ranges_that_touch_or_overlap_are_one() -> None:
    """The kernel would refuse the table."""
    ranges = firewall._intervals(["10.1.0.0/16", "10.0.0.0/16", "10.0.5.0/24", "10.2.0.0/16", "255.0.0.0/8"])
    assert ranges == [(b"\x0a\0\0\0", b"\x0a\3\0\0"), (b"\xff\0\0\0", None)]


@pytest.mark.parametrize(
    "ruleset",
    [
        Ruleset(table="t", networks=(Segment(bridge="an-interface-too-long", subnet="10.0.0.0/24"),)),
        Ruleset(table="t", networks=(Segment(bridge="b", subnet="10.0.0.1/24"),)),
        Ruleset(table="t", ports=(publication(address="web"),)),
        Ruleset(table="t", ports=(publication(host_ip="::1"),)),
    ],
)
def test_what_the_kernel_could_misunderstand_is_refused(ruleset: Ruleset) -> None:
    with pytest.raises(ValueError):
        firewall.encode(ruleset)


def test_the_same_ruleset_is_the_same_transaction() -> None:
    ruleset = Ruleset(
        table="t", networks=(Segment(bridge="b", subnet="10.0.0.0/24"),), ports=(publication(),)
    )
    assert firewall.encode(ruleset) == firewall.encode(ruleset)


def test_a_change_of_networks_is_a_replacement_and_no_change_is_nothing() -> None:
    one = Ruleset(table="t", networks=(Segment(bridge="b", subnet="10.0.0.0/24"),))
    two = Ruleset(table="t", networks=(Segment(bridge="b", subnet="10.0.0.0/24", internal=True),))
    assert firewall.encode_change(one, two) == firewall.encode(two)
    assert firewall.encode_change(one, one) == []
