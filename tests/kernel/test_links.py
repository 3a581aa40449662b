"""Bridges and veths, checked with ip(8) and pyroute2: readers that share no code with us."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from orchestrator.kernel import interfaces, links, netns
from tests.kit.wires import GROUP, TAG, World, run, world

pytestmark = pytest.mark.kernel


@pytest.fixture
def town() -> Iterator[World]:
    with world() as made:
        yield made


def shown(namespace: int, name: str) -> Any:
    return json.loads(run(namespace, "ip", "-j", "-d", "addr", "show", "dev", name))[0]


def test_a_bridge_is_up_quiet_and_has_its_address(town: World) -> None:
    name = town.network("front", "10.81.0.1/24")
    link = shown(town.host, name)
    assert link["linkinfo"]["info_kind"] == "bridge"
    assert "UP" in link["flags"]
    assert [(a["local"], a["prefixlen"]) for a in link["addr_info"]] == [("10.81.0.1", 24)]
    assert link["address"] == "02:70:0a:51:00:01"
    assert link["group"] == str(GROUP)
    settings = run(
        town.host, "sysctl", "-n", f"net.ipv4.conf.{name}.route_localnet", f"net.ipv4.conf.{name}.rp_filter"
    )
    assert settings.split() == ["1", "1"]


def test_making_a_bridge_again_changes_nothing(town: World) -> None:
    name = town.network("front", "10.81.0.1/24")
    before = shown(town.host, name)
    assert links.create_bridge(town.route, name, "10.81.0.1/24", GROUP) == before["ifindex"]
    after = shown(town.host, name)
    del before["linkinfo"], after["linkinfo"]  # it has timers
    assert after == before


def test_a_half_made_bridge_is_completed(town: World) -> None:
    """A crash between the two steps of making it."""
    run(town.host, "ip", "link", "add", "half", "type", "bridge")
    links.create_bridge(town.route, "half", "10.81.0.1/24", GROUP)
    link = shown(town.host, "half")
    assert "UP" in link["flags"]
    assert link["addr_info"][0]["local"] == "10.81.0.1"


def test_a_name_that_another_link_has_is_refused(town: World) -> None:
    with pytest.raises(FileExistsError, match="veth"):
        links.create_bridge(town.route, "up0", "10.81.0.1/24", GROUP)
    name = town.network("front", "10.81.0.1/24")
    with pytest.raises(FileExistsError, match="it is there with 10"):
        links.create_bridge(town.route, name, "10.99.0.1/24", GROUP)


def test_a_container_has_its_interface_address_route_and_loopback(town: World) -> None:
    town.network("front", "10.81.0.1/24")
    container = town.container(front="10.81.0.2")
    inner = shown(container, "eth0")
    assert "UP" in inner["flags"]
    assert inner["address"] == "02:70:0a:51:00:02"
    assert [(a["local"], a["prefixlen"]) for a in inner["addr_info"]] == [("10.81.0.2", 24)]
    assert "UP" in shown(container, "lo")["flags"]
    assert "default via 10.81.0.1 dev eth0" in run(container, "ip", "route")
    outer = shown(town.host, interfaces.port(TAG, "10.81.0.2", "front"))
    assert outer["master"] == interfaces.bridge(TAG, "front")
    assert outer["linkinfo"]["info_slave_data"]["hairpin"] is True
    assert outer["addr_info"] == [], "no IPv6 noise on the host's side"


def test_configuring_twice_is_no_error(town: World) -> None:
    town.network("front", "10.81.0.1/24")
    container = town.container(front="10.81.0.2")
    links.configure(container, [("eth0", "10.81.0.2/24")], "10.81.0.1")
    assert len(shown(container, "eth0")["addr_info"]) == 1


def test_several_networks_give_several_interfaces_and_one_default_route(town: World) -> None:
    town.network("front", "10.81.0.1/24")
    town.network("back", "10.82.0.1/24")
    container = town.container(front="10.81.0.2", back="10.82.0.2")
    assert shown(container, "eth1")["addr_info"][0]["local"] == "10.82.0.2"
    routes = json.loads(run(container, "ip", "-j", "route"))
    assert [route["gateway"] for route in routes if route["dst"] == "default"] == ["10.81.0.1"]


def test_a_taken_name_is_an_error_that_says_what_was_tried(town: World) -> None:
    index = links.create_bridge(town.route, "br", "10.81.0.1/24", GROUP)
    container = netns.create()
    try:
        with pytest.raises(FileExistsError, match="connect eth0 by up0"):
            links.attach(
                town.route,
                host_name="up0",
                bridge_index=index,
                namespace=container,
                peer_name="eth0",
                mac=links.mac("10.81.0.2"),
                group=GROUP,
            )
        with pytest.raises(OSError, match="no such interface"):
            links.configure(container, [("eth9", "10.81.0.2/24")], None)
    finally:
        os.close(container)


def test_a_leftover_of_ours_makes_room(town: World) -> None:
    """The former namespace of a container that is connected again may still be on its way out."""
    town.network("front", "10.81.0.1/24")
    former, latter = town.container(front="10.81.0.2"), town.container(front="10.81.0.2")
    assert "eth0" not in run(former, "ip", "link")
    assert shown(latter, "eth0")["addr_info"][0]["local"] == "10.81.0.2"


def test_the_kernels_own_sentence_is_in_the_error(town: World) -> None:
    index = links.create_bridge(town.route, "br", "10.81.0.1/24", GROUP)
    container = netns.create()
    try:
        with pytest.raises(OSError, match=r"Nexthop has invalid gateway|[Nn]etwork is unreachable \("):
            links.configure(container, [], "10.81.0.1")
    finally:
        os.close(container)
    assert index


def test_a_group_goes_as_a_whole_and_takes_nothing_else(town: World) -> None:
    town.network("front", "10.81.0.1/24")
    for place in range(2, 12):
        town.container(front=f"10.81.0.{place}")
    assert len(links.list_links(town.route)) == 2 + 1 + 10
    links.delete_group(town.route, GROUP)
    links.delete_group(town.route, GROUP)
    assert [link.name for link in links.list_links(town.route)] == ["lo", "up0"]
    with pytest.raises(ValueError):
        links.delete_group(town.route, 0)


def test_one_link_can_be_looked_for_and_deleted(town: World) -> None:
    name = town.network("front", "10.81.0.1/24")
    assert links.bridge_exists(town.route, name)
    assert not links.bridge_exists(town.route, "up0")
    assert links.link_index(town.route, "nothing") is None
    links.delete_link(town.route, name)
    links.delete_link(town.route, name)
    assert not links.bridge_exists(town.route, name)


def test_our_list_is_that_of_pyroute2(town: World) -> None:
    from pyroute2 import IPRoute

    town.network("front", "10.81.0.1/24")
    town.container(front="10.81.0.2")
    ours = {
        (link.name, link.index, link.master, link.group, link.up) for link in links.list_links(town.route)
    }
    with netns.inside(town.host), IPRoute() as reader:
        theirs = {
            (
                link.get_attr("IFLA_IFNAME"),
                link["index"],
                link.get_attr("IFLA_MASTER") or 0,
                link.get_attr("IFLA_GROUP"),
                link["flags"] & 1 == 1,
            )
            for link in reader.get_links()
        }
    assert ours == theirs


def test_ranges_in_use_are_those_of_addresses_and_of_all_routes(town: World) -> None:
    town.network("front", "10.81.0.1/24")
    run(town.host, "ip", "route", "add", "10.50.0.0/16", "via", "192.0.2.2")
    run(town.host, "ip", "route", "add", "10.60.0.0/16", "via", "192.0.2.2", "table", "51820")
    run(town.host, "ip", "route", "add", "default", "via", "192.0.2.2")
    assert links.ranges_in_use(town.route) == [
        "10.50.0.0/16",
        "10.60.0.0/16",
        "10.81.0.0/24",
        "127.0.0.0/8",
        "192.0.2.0/24",
    ]


def test_a_change_made_by_others_is_announced(town: World) -> None:
    name = town.network("front", "10.81.0.1/24")
    with netns.inside(town.host):
        announced = links.events()
    with announced:
        assert select.select([announced], [], [], 0)[0] == []
        run(town.host, "ip", "link", "del", name)
        assert select.select([announced], [], [], 2)[0] == [announced]


def test_one_socket_serves_many_threads(town: World) -> None:
    index = links.create_bridge(town.route, "br", "10.81.0.1/16", GROUP)

    def connect(place: int) -> None:
        container = netns.create()
        town.stack.callback(os.close, container)
        address = f"10.81.1.{place}"
        links.attach(
            town.route,
            host_name=interfaces.port(TAG, address, "br"),
            bridge_index=index,
            namespace=container,
            peer_name="eth0",
            mac=links.mac(address),
            group=GROUP,
        )
        links.configure(container, [("eth0", f"{address}/16")], "10.81.0.1")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(connect, range(2, 42)))
    ports = [link for link in links.list_links(town.route) if link.master == index]
    assert len({port.index for port in ports}) == 40


def test_forwarding_is_switched_on_once() -> None:
    fresh = netns.create()
    try:
        run(fresh, "sysctl", "-qw", "net.ipv4.ip_forward=0")
        with netns.inside(fresh):
            assert links.enable_forwarding() is True
            assert links.enable_forwarding() is False
        assert run(fresh, "sysctl", "-n", "net.ipv4.ip_forward") == "1\n"
    finally:
        os.close(fresh)
