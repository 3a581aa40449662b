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


def test_containers_that_share_a_port_have_equal_parts_of_its_lots() -> None:
    ports = tuple(publication(address=f"10.0.0.{number}") for number in (2, 3, 4))
    maps = firewall._elements(
        (*ports, publication(host_ip="127.0.0.1", host_port=81), publication(host_port=82))
    )
    shared = maps["tcp_shared_any"]
    assert len(shared) == 120
    assert {key[:4] for key in shared} == {struct.pack("!HH", 8080, 0)}
    assert sorted(struct.unpack("=I", key[4:])[0] for key in shared) == list(range(120))
    assert [list(shared.values()).count(target(port.address, 80)) for port in ports] == [40, 40, 40]
    assert maps["tcp_any"] == {struct.pack("!H", 82): target("10.0.0.2", 80)}
    assert maps["tcp_shared_bound"] == {}


def test_a_port_of_one_address_is_shared_apart_from_that_of_all() -> None:
    ports = [
        publication(host_ip=ip, protocol="udp", address=f"10.0.0.{number}")
        for number in (2, 3)
        for ip in ("127.0.0.1", "")
    ]
    maps = firewall._elements(ports)
    assert len(maps["udp_shared_any"]) == len(maps["udp_shared_bound"]) == 120
    assert {key[:8] for key in maps["udp_shared_bound"]} == {
        socket.inet_aton("127.0.0.1") + struct.pack("!HH", 8080, 0)
    }


@pytest.mark.parametrize(("containers", "lots"), [(1, 120), (30, 120), (31, 1200), (300, 1200), (301, 12000)])
def test_nobody_is_left_without_a_lot_however_many_share(containers: int, lots: int) -> None:
    ports = [publication(address=f"10.0.{n // 250}.{n % 250 + 1}") for n in range(containers)]
    assert firewall._lots(ports) == lots
    if containers > 1:
        assert len(set(firewall._elements(ports)["tcp_shared_any"].values())) == containers


def test_more_lots_are_a_new_table_and_another_container_is_not() -> None:
    few, more, many = (
        Ruleset(table="t", ports=tuple(publication(address=f"10.0.0.{n + 1}") for n in range(count)))
        for count in (2, 3, 31)
    )
    assert 0 < len(firewall.encode_change(few, more)) < 6
    assert firewall.encode_change(few, many) == firewall.encode(many)


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
