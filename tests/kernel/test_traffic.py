"""The firewall, judged by the packets that arrive (real bridges, real namespaces, real nftables)."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from orchestrator.kernel import conntrack, firewall, netns, nftables
from orchestrator.kernel.firewall import Publication, Ruleset, Segment
from orchestrator.kernel.netlink import NETFILTER, Netlink
from tests.kit.wires import HOST_ON_LAN, NEIGHBOUR, World, connects, run, world

pytestmark = pytest.mark.kernel

WEB, DB, BOTH, ALONE = "10.81.0.2", "10.82.0.2", "10.81.0.3", "10.83.0.2"


class Town(World):
    web: int
    db: int
    both: int
    alone: int
    rules: Netlink
    segments: tuple[Segment, ...]


def publication(host_ip: str, host_port: int, address: str, port: int, protocol: str = "tcp") -> Publication:
    assert protocol in ("tcp", "udp")
    return Publication(
        host_ip=host_ip,
        host_port=host_port,
        protocol="tcp" if protocol == "tcp" else "udp",
        address=address,
        port=port,
    )


PORTS = (
    publication("", 8080, WEB, 80),
    publication("127.0.0.1", 8081, WEB, 80),
    publication(HOST_ON_LAN, 8082, WEB, 80),
    publication("", 8083, DB, 80),
    publication("", 8084, ALONE, 80),
    publication("", 5353, WEB, 53, "udp"),
    publication("127.0.0.1", 5354, WEB, 53, "udp"),
)


@pytest.fixture
def town() -> Iterator[Town]:
    with world() as made:
        made.__class__ = Town
        assert isinstance(made, Town)
        made.segments = (
            Segment(bridge=made.network("front", "10.81.0.1/24"), subnet="10.81.0.0/24"),
            Segment(bridge=made.network("back", "10.82.0.1/24"), subnet="10.82.0.0/24"),
            Segment(bridge=made.network("island", "10.83.0.1/24"), subnet="10.83.0.0/24", internal=True),
        )
        made.web = made.container(front=WEB)
        made.db = made.container(back=DB)
        made.both = made.container(front=BOTH, back="10.82.0.3")
        made.alone = made.container(island=ALONE)
        opened = netns.socket_in(made.host, socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
        made.rules = made.stack.enter_context(Netlink(NETFILTER, opened))
        firewall.replace(made.rules, Ruleset(table="pystack-test", networks=made.segments, ports=PORTS))
        for container in (made.web, made.db, made.alone):
            made.listen(container, 80)
            made.listen(container, 81)
        yield made


def test_a_published_port_answers_on_every_address_of_the_host(town: Town) -> None:
    assert connects(town.lan, HOST_ON_LAN, 8080)
    assert connects(town.host, HOST_ON_LAN, 8080)
    assert connects(town.host, "127.0.0.1", 8080)
    assert connects(town.host, "127.9.9.9", 8080)
    assert not connects(town.lan, HOST_ON_LAN, 8079)


def test_a_container_sees_who_calls_from_outside(town: Town) -> None:
    listening = town.listen(town.web, 82)
    firewall.replace(
        town.rules,
        Ruleset(
            table="pystack-test",
            networks=town.segments,
            ports=(publication("", 9000, WEB, 82),),
        ),
    )
    assert connects(town.lan, HOST_ON_LAN, 9000)
    accepted, peer = listening.accept()
    accepted.close()
    assert peer[0] == NEIGHBOUR


def test_a_port_published_on_loopback_is_for_this_machine_alone(town: Town) -> None:
    """Also against a neighbour who sends packets for 127.0.0.1 over the wire (CVE-2020-8558)."""
    assert connects(town.host, "127.0.0.1", 8081)
    assert not connects(town.lan, HOST_ON_LAN, 8081)
    assert not connects(town.web, "10.81.0.1", 8081)
    for namespace, device, via in ((town.lan, "lan0", HOST_ON_LAN), (town.db, "eth0", "10.82.0.1")):
        run(namespace, "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
        run(namespace, "sysctl", "-qw", f"net.ipv4.conf.{device}.route_localnet=1")
        run(namespace, "ip", "route", "flush", "table", "local", "127.0.0.0/8")
        run(namespace, "ip", "route", "add", "127.0.0.0/8", "via", via, "dev", device)
        assert not connects(namespace, "127.0.0.1", 8081)
        assert not connects(namespace, "127.0.0.1", 8080)


def test_the_attack_of_the_loopback_test_works_without_the_guard(town: Town) -> None:
    """Else the test before would prove nothing."""
    run(town.host, "nft", "flush", "chain", "ip", "pystack-test", "guard")
    run(town.lan, "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    run(town.lan, "sysctl", "-qw", "net.ipv4.conf.lan0.route_localnet=1")
    run(town.lan, "ip", "route", "flush", "table", "local", "127.0.0.0/8")
    run(town.lan, "ip", "route", "add", "127.0.0.0/8", "via", HOST_ON_LAN, "dev", "lan0")
    assert connects(town.lan, "127.0.0.1", 8081)


def test_a_container_does_not_reach_what_listens_on_the_hosts_loopback(town: Town) -> None:
    """`route_localnet` on the bridge alone would let it."""
    town.listen(town.host, 7000, "127.0.0.1")
    run(town.web, "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    run(town.web, "sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1")
    run(town.web, "ip", "route", "flush", "table", "local", "127.0.0.0/8")
    run(town.web, "ip", "route", "add", "127.0.0.0/8", "via", "10.81.0.1", "dev", "eth0")
    assert not connects(town.web, "127.0.0.1", 7000)
    run(town.host, "nft", "flush", "chain", "ip", "pystack-test", "guard")
    assert connects(town.web, "127.0.0.1", 7000)


def test_nobody_pretends_to_be_loopback(town: Town) -> None:
    """`route_localnet` does not make the host believe a container that calls itself 127.5.5.5."""
    listening = town.datagrams(town.host, 7001)
    run(town.web, "ip", "addr", "add", "127.5.5.5/32", "dev", "eth0")
    run(town.web, "ip", "addr", "add", "8.8.8.8/32", "dev", "eth0")
    run(town.web, "sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1")
    for forged in ("127.5.5.5", "8.8.8.8"):
        forging = town.datagrams(town.web, 0, forged)
        forging.sendto(b"root", ("10.81.0.1", 7001))
        with pytest.raises(TimeoutError):
            listening.recvfrom(10)
    town.datagrams(town.web, 0, WEB).sendto(b"me", ("10.81.0.1", 7001))
    assert listening.recvfrom(10)[0] == b"me"


def test_a_port_published_on_one_address_answers_there_only(town: Town) -> None:
    assert connects(town.lan, HOST_ON_LAN, 8082)
    assert not connects(town.host, "127.0.0.1", 8082)
    assert not connects(town.web, "10.81.0.1", 8082)


def test_containers_use_published_ports_of_others_and_of_themselves(town: Town) -> None:
    assert connects(town.db, "10.82.0.1", 8080), "another network's, through its own gateway"
    assert connects(town.db, HOST_ON_LAN, 8080), "through the host's address"
    assert connects(town.web, "10.81.0.1", 8080), "its own"
    assert connects(town.both, "10.81.0.1", 8080), "a neighbour's on the same network"
    assert connects(town.both, "10.81.0.1", 8083), "one that shares another network with it"


def test_udp_is_published_too(town: Town) -> None:
    serving = town.datagrams(town.web, 53)
    for namespace, address, port in (
        (town.lan, HOST_ON_LAN, 5353),
        (town.host, "127.0.0.1", 5353),
        (town.host, "127.0.0.1", 5354),
        (town.web, "10.81.0.1", 5353),
    ):
        asking = town.datagrams(namespace)
        asking.sendto(b"question", (address, port))
        heard, sender = serving.recvfrom(100)
        assert heard == b"question"
        serving.sendto(b"answer", sender)
        assert asking.recvfrom(100) == (b"answer", (address, port))
    blocked = town.datagrams(town.lan)
    blocked.sendto(b"question", (HOST_ON_LAN, 5354))
    with pytest.raises(TimeoutError):
        serving.recvfrom(100)


def test_containers_reach_the_outside_as_the_host(town: Town) -> None:
    listening = town.listen(town.lan, 443)
    assert connects(town.web, NEIGHBOUR, 443)
    accepted, peer = listening.accept()
    accepted.close()
    assert peer[0] == HOST_ON_LAN


def test_networks_are_closed_to_one_another_and_to_the_outside(town: Town) -> None:
    assert connects(town.both, WEB, 81), "within a network everything goes"
    assert not connects(town.db, WEB, 81)
    assert not connects(town.db, WEB, 80), "published or not: not by its own address"
    assert not connects(town.lan, WEB, 80)
    assert connects(town.host, WEB, 81), "the host may look"


def test_an_internal_network_is_an_island(town: Town) -> None:
    town.listen(town.lan, 443)
    town.listen(town.host, 7000)
    beside = town.container(island="10.83.0.3")
    assert connects(beside, ALONE, 80)
    assert connects(town.host, ALONE, 80), "the host may look"
    assert not connects(town.alone, NEIGHBOUR, 443)
    assert not connects(town.alone, "10.83.0.1", 7000), "not the host itself"
    assert not connects(town.alone, "10.83.0.1", 8080), "not by a published port"
    assert not connects(town.alone, WEB, 80)
    assert not connects(town.web, ALONE, 80)
    assert not connects(town.lan, ALONE, 80)
    assert not connects(town.lan, HOST_ON_LAN, 8084), "it can't be published"


def test_the_first_packet_of_a_new_container_is_not_lost(town: Town) -> None:
    """TCP repeats a lost one only after a second; without `links.settle` about one of 100 is."""
    listening = town.listen(town.alone, 90)
    for number in range(10, 250):
        assert connects(town.container(island=f"10.83.0.{number}"), ALONE, 90), number
        listening.accept()[0].close()


def test_replacing_is_complete_and_removing_leaves_nothing(town: Town) -> None:
    firewall.replace(town.rules, Ruleset(table="pystack-test"))
    assert "8080" not in run(town.host, "nft", "list", "ruleset")
    firewall.delete(town.rules, "pystack-test")
    firewall.delete(town.rules, "pystack-test")
    assert run(town.host, "nft", "list", "ruleset") == ""


def test_a_refused_replacement_leaves_the_old_table_standing(town: Town) -> None:
    before = run(town.host, "nft", "list", "ruleset")
    broken = firewall.encode(Ruleset(table="pystack-test"))
    broken.insert(-1, nftables.new_rule("pystack-test", "nowhere", nftables.masquerade()))
    with pytest.raises(FileNotFoundError, match="pystack-test nowhere"):
        town.rules.transact(broken)
    assert run(town.host, "nft", "list", "ruleset") == before


def test_other_tables_are_left_alone(town: Town) -> None:
    run(town.host, "nft", "add", "table", "ip", "foreign")
    firewall.replace(town.rules, Ruleset(table="pystack-test"))
    firewall.delete(town.rules, "pystack-test")
    assert run(town.host, "nft", "list", "tables").strip() == "table ip foreign"


def test_a_thousand_ports_and_a_hundred_networks_fit_one_transaction(town: Town) -> None:
    networks = tuple(
        Segment(bridge=f"pstestb{number}", subnet=f"10.{100 + number}.0.0/16", internal=number % 2 == 0)
        for number in range(100)
    )
    ports = tuple(publication("", 10_000 + number, "10.101.0.2", 80) for number in range(1000))
    firewall.replace(town.rules, Ruleset(table="pystack-test", networks=networks, ports=ports))
    listed = json.loads(run(town.host, "nft", "-j", "list", "map", "ip", "pystack-test", "tcp_any"))
    assert len(listed["nftables"][-1]["map"]["elem"]) == 1000


def test_a_change_of_ports_touches_only_those_ports(town: Town) -> None:
    """And the result is what a replacement would have made."""
    table = "pystack-test"
    before = Ruleset(table=table, networks=town.segments, ports=PORTS)
    after = Ruleset(table=table, networks=town.segments, ports=(publication("", 8080, DB, 80), *PORTS[1:4]))
    assert len(firewall.encode_change(before, after)) < 8
    assert firewall.encode_change(after, after) == []
    firewall.change(town.rules, before, after)
    changed = run(town.host, "nft", "list", "ruleset")
    assert not connects(town.lan, HOST_ON_LAN, 5353)
    assert connects(town.lan, HOST_ON_LAN, 8080)
    firewall.replace(town.rules, after)
    assert run(town.host, "nft", "list", "ruleset") == changed


def test_a_change_rebuilds_a_table_that_somebody_has_flushed(town: Town) -> None:
    before = Ruleset(table="pystack-test", networks=town.segments, ports=PORTS)
    run(town.host, "nft", "flush", "ruleset")
    firewall.change(
        town.rules, before, Ruleset(table="pystack-test", networks=town.segments, ports=PORTS[1:])
    )
    assert connects(town.lan, HOST_ON_LAN, 8082)
    assert not connects(town.lan, HOST_ON_LAN, 8080)


def test_a_steady_udp_sender_follows_its_port_to_the_next_container(town: Town) -> None:
    """Its flow was decided at its first packet, before the port was published at all."""
    table = "pystack-test"
    old, new = town.datagrams(town.web, 53), town.datagrams(town.db, 53)
    sender = town.datagrams(town.lan)

    def publish(address: str | None) -> int:
        ports = () if address is None else (publication("", 5353, address, 53, "udp"),)
        firewall.replace(town.rules, Ruleset(table=table, networks=town.segments, ports=ports))
        return conntrack.forget_udp(town.rules, {5353: [] if address is None else [(address, 53)]})

    publish(None)
    sender.sendto(b"to nobody", (HOST_ON_LAN, 5353))
    assert publish(WEB) == 1
    sender.sendto(b"first", (HOST_ON_LAN, 5353))
    assert old.recv(10) == b"first"
    assert publish(DB) == 1
    sender.sendto(b"second", (HOST_ON_LAN, 5353))
    assert new.recv(10) == b"second"
    assert conntrack.forget_udp(town.rules, {1: []}) == 0
    assert conntrack.forget_udp(town.rules, {5353: [(DB, 53), (WEB, 53)]}) == 0, "it may go on"


def test_a_shared_port_is_answered_by_all_and_a_connection_stays_where_it_is(town: Town) -> None:
    """From outside, from loopback and from a container; one container less disturbs nobody who is served."""
    serving = {
        address: town.listen(namespace, 82)
        for address, namespace in ((WEB, town.web), (DB, town.db), (BOTH, town.both))
    }

    def sharing(*addresses: str) -> Ruleset:
        ports = tuple(publication(ip, 8080, at, 82) for ip in ("", "127.0.0.1") for at in addresses)
        return Ruleset(table="pystack-test", networks=town.segments, ports=ports)

    three, two = sharing(WEB, DB, BOTH), sharing(WEB, DB)
    firewall.replace(town.rules, three)
    for origin, address in ((town.lan, HOST_ON_LAN), (town.host, "127.0.0.1"), (town.web, "10.81.0.1")):
        assert all(connects(origin, address, 8080) for _ in range(40))
        assert all(taken(one) > 2 for one in serving.values()), address
    client, served = talk(town, serving[BOTH])
    with closing(client), served:
        firewall.change(town.rules, three, two)
        client.sendall(b"question")
        assert served.recv(100) == b"question"
        served.sendall(b"answer")
        assert client.recv(100) == b"answer"
    for one in serving.values():
        taken(one)
    assert all(connects(town.lan, HOST_ON_LAN, 8080) for _ in range(40))
    assert [taken(one) > 0 for one in serving.values()] == [True, True, False]
    assert firewall.is_whole(town.rules, two)
    run(town.host, "nft", "flush", "map", "ip", "pystack-test", "tcp_shared_any")
    assert not firewall.is_whole(town.rules, two)


def talk(town: Town, listening: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection to a shared port that has come to this container."""
    while True:
        client = netns.socket_in(town.lan, socket.AF_INET, socket.SOCK_STREAM)
        client.connect((HOST_ON_LAN, 8080))
        if select.select([listening], [], [], 0.05)[0]:
            return client, listening.accept()[0]
        client.close()


def taken(listening: socket.socket) -> int:
    """Connections that wait to be accepted; now they don't any more."""
    count = 0
    while select.select([listening], [], [], 0)[0]:
        listening.accept()[0].close()
        count += 1
    return count


def test_a_table_that_somebody_deletes_is_announced(town: Town) -> None:
    with netns.inside(town.host):
        announced = firewall.events()
    with announced:
        assert select.select([announced], [], [], 0)[0] == []
        run(town.host, "nft", "delete", "table", "ip", "pystack-test")
        assert select.select([announced], [], [], 2)[0] == [announced]
