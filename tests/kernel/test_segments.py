"""A network of several bridges is one network: whoever is on it can't tell."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.kernel import firewall, interfaces, links, netns
from orchestrator.kernel.firewall import Publication, Ruleset, Segment
from orchestrator.kernel.netlink import NETFILTER, Netlink
from tests.kit.wires import GROUP, HOST_ON_LAN, SOON, TAG, World, connects, run, world

pytestmark = pytest.mark.kernel

FILTERED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
GATEWAY = "10.81.0.1"
NEAR, FAR, BESIDE, FARTHER = "10.81.0.5", "10.81.8.5", "10.81.8.6", "10.81.9.5"
MAC = links.segment_mac("10.81.8.0")


class Town(World):
    filtered: bool
    near: int
    far: int
    beside: int
    farther: int
    rules: Netlink
    wanted: Ruleset


@pytest.fixture(params=["plain", "filtered"])
def town(request: pytest.FixtureRequest) -> Iterator[Town]:
    """Filtered: br_netfilter shows the firewall what bridges pass on, as on a machine with Docker."""
    if request.param == "filtered" and not FILTERED.exists():
        pytest.skip("this kernel has no br_netfilter")
    with world() as made:
        made.__class__ = Town
        assert isinstance(made, Town)
        made.filtered = request.param == "filtered"
        if FILTERED.exists():
            run(made.host, "sysctl", "-qw", f"net.bridge.{FILTERED.name}={int(made.filtered)}")
        bridge = made.network("front", f"{GATEWAY}/16")
        above = made.bridges["front"][0]
        for number, first in ((1, "10.81.8.0"), (2, "10.81.9.0")):
            name = interfaces.bridge(TAG, "front", number)
            for _ in range(2):  # repeatable
                index = links.create_segment(made.route, name, links.segment_mac(first), GROUP)
                links.join(made.route, interfaces.trunk(TAG, "front", number), (above, index), GROUP)
            made.bridges[f"front{number}"] = index, f"{GATEWAY}/16"
        made.near, made.farther = made.container(front=NEAR), made.container(front2=FARTHER)
        made.far, made.beside = made.container(front1=FAR), made.container(front1=BESIDE)
        opened = netns.socket_in(made.host, socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
        made.rules = made.stack.enter_context(Netlink(NETFILTER, opened))
        made.wanted = Ruleset(
            table="pystack-test",
            networks=(Segment(bridge=bridge, subnet="10.81.0.0/16"),),
            ports=tuple(
                Publication(host_ip="", host_port=port, protocol="tcp", address=address, port=80)
                for port, address in ((8080, FAR), (8081, NEAR))
            ),
            segments=interfaces.segments(TAG),
        )
        firewall.replace(made.rules, made.wanted)
        for namespace in (made.near, made.far, made.beside, made.farther):
            made.listen(namespace, 80)
        yield made


def test_all_reach_each_other_and_the_host(town: Town) -> None:
    made = {NEAR: town.near, FAR: town.far, BESIDE: town.beside, FARTHER: town.farther}
    town.listen(town.host, 7000)
    for address in made:
        for namespace in (*made.values(), town.host):
            assert connects(namespace, address, 80)
    for namespace in made.values():
        assert connects(namespace, GATEWAY, 7000)


def test_the_way_out_and_the_way_in_are_those_of_the_first_bridge(town: Town) -> None:
    """And whoever calls from outside is seen as who he is; a container that goes out, as the host."""
    listening = town.listen(town.lan, 9000)
    for namespace in (town.near, town.far, town.farther):
        assert connects(namespace, "192.0.2.2", 9000)
        accepted, peer = listening.accept()
        accepted.close()
        assert peer[0] == HOST_ON_LAN
    for port in (8080, 8081):
        assert connects(town.lan, HOST_ON_LAN, port)
        assert connects(town.host, "127.0.0.1", port)
    assert not connects(town.lan, FAR, 80)


def test_a_published_port_leads_there_and_back(town: Town) -> None:
    for namespace in (town.near, town.farther):
        assert connects(namespace, GATEWAY, 8080)
    for namespace in (town.near, town.far, town.farther):
        assert connects(namespace, HOST_ON_LAN, 8081)


def test_also_to_one_on_the_same_further_bridge_if_bridges_are_not_filtered(town: Town) -> None:
    """With br_netfilter the kernel leads it there as a frame, which can't leave a bridge where it came in."""
    assert connects(town.beside, GATEWAY, 8080) is not town.filtered
    assert connects(town.far, GATEWAY, 8080) is not town.filtered
    assert connects(town.beside, FAR, 80)


def test_it_is_one_broadcast_domain_and_nothing_comes_twice(town: Town) -> None:
    receiving = [town.datagrams(namespace, 7001) for namespace in (town.near, town.beside, town.farther)]
    calling = town.datagrams(town.far)
    calling.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    calling.sendto(b"who is there?", ("10.81.255.255", 7001))
    for one in receiving:
        assert one.recv(20) == b"who is there?"
        one.settimeout(SOON / 4)
        with pytest.raises(TimeoutError):
            one.recv(20)


def test_the_first_bridge_alone_answers_for_the_host(town: Town) -> None:
    """Also for addresses that it has elsewhere, which Linux does on every link."""
    town.listen(town.host, 7000)
    run(town.far, "ip", "route", "add", f"{HOST_ON_LAN}/32", "dev", "eth0")
    for address in (GATEWAY, HOST_ON_LAN):
        for _ in range(5):
            run(town.far, "ip", "neigh", "flush", "dev", "eth0")
            assert connects(town.far, address, 7000)
            assert links.mac(GATEWAY) in run(town.far, "ip", "neigh", "show", "to", address)


@pytest.mark.parametrize("internal", [False, True])
def test_a_further_bridge_is_no_way_past_the_rules(town: Town, internal: bool) -> None:
    """Who sends to its own MAC address would not be seen to come from the network."""
    networks = tuple(replace(one, internal=internal) for one in town.wanted.networks)
    firewall.replace(town.rules, replace(town.wanted, networks=networks, ports=()))
    town.listen(town.lan, 9000)
    town.listen(town.host, 7000)
    run(town.far, "ip", "neigh", "replace", GATEWAY, "lladdr", MAC, "dev", "eth0", "nud", "permanent")
    run(town.lan, "ip", "route", "replace", "10.81.0.0/16", "via", HOST_ON_LAN)
    assert not connects(town.far, "192.0.2.2", 9000)
    assert not connects(town.far, GATEWAY, 7000)
    run(town.host, "nft", "flush", "chain", "ip", "pystack-test", "guard")
    run(town.host, "nft", "flush", "chain", "ip", "pystack-test", "forward")
    run(town.host, "nft", "flush", "chain", "ip", "pystack-test", "input")
    assert connects(town.far, "192.0.2.2", 9000)
    assert connects(town.far, GATEWAY, 7000)


def test_what_was_taken_off_or_carried_off_is_joined_again(town: Town) -> None:
    upper, lower = ends = interfaces.trunk(TAG, "front", 1)
    bridges = town.bridges["front"][0], town.bridges["front1"][0]
    for command in (
        ("ip", "link", "set", upper, "nomaster"),
        ("ip", "link", "set", lower, "down"),
        ("ip", "link", "delete", lower),
        ("ip", "link", "set", lower, "netns", f"/proc/{os.getpid()}/fd/{town.lan}"),
    ):
        run(town.host, *command)
        assert not connects(town.far, NEAR, 80)
        links.join(town.route, ends, bridges, GROUP)
        run(town.far, "ip", "neigh", "flush", "dev", "eth0")  # it would wait a second before it asks again
        assert connects(town.far, NEAR, 80)
