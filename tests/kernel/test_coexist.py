"""Beside a firewall that drops what it does not know, made with iptables as Docker and ufw make theirs."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from orchestrator.kernel import coexist, firewall, interfaces, netns
from orchestrator.kernel.firewall import Publication, Ruleset, Segment
from orchestrator.kernel.netlink import NETFILTER, Netlink
from tests.kit.wires import HOST_ON_LAN, NEIGHBOUR, TAG, World, connects, run, world

pytestmark = pytest.mark.kernel

TABLE = firewall.table_name(TAG)
PREFIX = interfaces.prefix(TAG)
WEB = "10.81.0.2"


@pytest.fixture
def town() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture
def rules(town: World) -> Netlink:
    bridge = town.network("front", "10.81.0.1/24")
    opened = netns.socket_in(town.host, socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
    made = town.stack.enter_context(Netlink(NETFILTER, opened))
    segment = Segment(bridge=bridge, subnet="10.81.0.0/24")
    port = Publication(host_ip="", host_port=8080, protocol="tcp", address=WEB, port=80)
    firewall.replace(made, Ruleset(table=TABLE, networks=(segment,), ports=(port,)))
    return made


def forward(town: World) -> list[str]:
    return run(town.host, "iptables", "-S", "FORWARD").splitlines()


def test_packets_pass_a_foreign_policy_of_drop(town: World, rules: Netlink) -> None:
    web = town.container(front=WEB)
    town.listen(web, 80)
    town.listen(web, 81)
    town.listen(town.lan, 443)
    run(town.host, "iptables", "-P", "FORWARD", "DROP")
    assert not connects(town.lan, HOST_ON_LAN, 8080)
    assert coexist.admit(rules, TABLE, PREFIX) is True
    assert connects(town.lan, HOST_ON_LAN, 8080)
    assert connects(web, NEIGHBOUR, 443)
    assert not connects(town.lan, WEB, 81), "our own table still has its say"


def test_it_is_done_once_at_the_end_and_taken_back(town: World, rules: Netlink) -> None:
    run(town.host, "iptables", "-P", "FORWARD", "DROP")
    run(town.host, "iptables", "-A", "FORWARD", "-s", "203.0.113.1", "-j", "DROP")
    before = forward(town)
    assert coexist.admit(rules, TABLE, PREFIX) is True
    assert coexist.admit(rules, TABLE, PREFIX) is False
    after = forward(town)
    assert after[:2] == before
    assert [f"-i {PREFIX}+" in after[2], f"-o {PREFIX}+" in after[3], len(after)] == [True, True, 4]
    coexist.withdraw(rules, TABLE)
    coexist.withdraw(rules, TABLE)
    assert forward(town) == before


def test_nothing_is_added_where_nothing_is_dropped_by_policy(town: World, rules: Netlink) -> None:
    assert coexist.admit(rules, TABLE, PREFIX) is False, "no such chain"
    coexist.withdraw(rules, TABLE)
    run(town.host, "iptables", "-P", "FORWARD", "ACCEPT")
    run(town.host, "iptables", "-A", "FORWARD", "-s", "203.0.113.1", "-j", "DROP")
    before = forward(town)
    assert coexist.admit(rules, TABLE, PREFIX) is False
    assert forward(town) == before
