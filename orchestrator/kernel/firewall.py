"""What may reach what: one nftables table of our own for a state root, replaced as a whole.

The table is a function of a `Ruleset`, so it can be rebuilt at any time, in about a millisecond, without
a moment in which only half of it holds. Nobody else's table is touched. Needs CAP_NET_ADMIN.

- Containers of a network that is not internal reach the outside, as the host (masquerade).
- From outside, or from another of our networks, a container is reached through published ports alone.
- A host port that several publications name leads each new connection to one of them, by lot. Where a
  connection goes stays as it is (conntrack), whatever becomes of the publication.
- An internal network is an island: nothing enters or leaves, the host's own requests into it excepted.
- A network's further bridges (see `engines.local.segments`) only pass frames on within it. Where br_netfilter
  has what is bridged come by here, it comes by again at the first bridge, and that time counts.
- A port published on 127.0.0.1 is for this machine alone, although `route_localnet` is on for our bridges:
  no packet to 127.0.0.0/8 comes in by any other link than loopback (CVE-2020-8558, -13401).
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from dataclasses import replace as replaced
from functools import lru_cache
from typing import Literal

from orchestrator.kernel import nftables as nft
from orchestrator.kernel.netlink import NETFILTER, Netlink, Request, attributes, subscribe

_GROUP_NFTABLES = 7
_IFNAME_SIZE = 16
_LOOPBACK = b"lo".ljust(_IFNAME_SIZE, b"\0")
_LOCAL = struct.pack("=I", 2)  # RTN_LOCAL
_PROTOCOLS = {"tcp": 6, "udp": 17}
_SOURCE, _DESTINATION = 12, 16  # in the IPv4 header
_DESTINATION_PORT = 2  # in the TCP and the UDP header
_LOTS = 120
"""The lots that are drawn for a shared port, for so many or fewer to a container evenly: exactly for 2, 3, 4,
5, 6, 8, 10 and 12 of them. Ten times as many when there are more to share it."""
_ENOUGH_LOTS = 4
"""At least so many for each container."""
_EVERYWHERE, _ANY_HOST = "0.0.0.0", bytes(4)  # noqa: S104 (compared, not bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A network as the firewall sees it: its bridge and its range (CIDR)."""

    bridge: str
    subnet: str
    internal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A host port that leads to a container. `host_ip` "" or 0.0.0.0: every address of the host.

    `address` should be the container's on the network of its default route: its answers leave there.
    """

    host_ip: str
    host_port: int
    protocol: Literal["tcp", "udp"]
    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """Everything the table says. Publications of one host port share it."""

    table: str
    networks: tuple[Segment, ...] = ()
    ports: tuple[Publication, ...] = ()
    segments: str = ""
    """What the names of further bridges begin with; "": there are none."""


def table_name(tag: str) -> str:
    """The table of the state root with this tag (see `interfaces.tag`)."""
    return f"pystack-{tag}"


def open_firewall() -> Netlink:
    """For the namespace of the calling thread."""
    return Netlink(NETFILTER)


def events() -> socket.socket:
    """A non-blocking socket, readable when somebody (we, too) has changed an nftables object, here or in a
    namespace that a veth leads into from here."""
    return subscribe(NETFILTER, _GROUP_NFTABLES, everywhere=True)


def replace(firewall: Netlink, ruleset: Ruleset) -> None:
    """Make the table be exactly this. Raises OSError; then the old one stands."""
    firewall.transact(encode(ruleset))


def is_whole(firewall: Netlink, ruleset: Ruleset) -> bool:
    """Whether the table is there with as many rules in each chain, and elements in each map, as it should.

    Not rule by rule: what is announced to us are mostly others' changes to tables of their own.
    """
    wanted = Counter(attributes(request.body, 4)[2] for request in encode(ruleset) if nft.adds_rule(request))
    found: Counter[bytes] = Counter()
    for _, data in firewall.dump(*nft.list_rules(ruleset.table)):
        found[attributes(data, 4)[2]] += 1
    if found != wanted:
        return False
    for name, elements in _elements(ruleset.ports).items():
        held = 0
        try:
            for _, data in firewall.dump(*nft.list_elements(ruleset.table, name)):
                held += nft.count_elements(data)
        except FileNotFoundError:
            return False
        if held != len(elements):
            return False
    return True


def change(firewall: Netlink, before: Ruleset, after: Ruleset) -> None:
    """Go from one ruleset to the next: where only ports differ, 30 us a port instead of a new table.

    If the table is not as `before` says (somebody flushed it), it is replaced. Raises OSError.
    """
    try:
        requests = encode_change(before, after)
        if requests:
            firewall.transact(requests)
    except (FileNotFoundError, FileExistsError):
        replace(firewall, after)


def encode_change(before: Ruleset, after: Ruleset) -> list[Request]:
    """The transaction from one to the other; empty when there is nothing to do."""
    if replaced(before, ports=()) != replaced(after, ports=()):
        return encode(after)
    if _lots(before.ports) != _lots(after.ports):
        return encode(after)
    old, new = _elements(before.ports), _elements(after.ports)
    requests = []
    for name in new:
        gone = [key for key, target in old[name].items() if new[name].get(key) != target]
        fresh = [(key, target) for key, target in new[name].items() if old[name].get(key) != target]
        requests += nft.delete_elements(after.table, name, gone)
        requests += nft.add_elements(after.table, name, fresh)
    return nft.transaction(requests) if requests else []


def delete(firewall: Netlink, table: str) -> None:
    """Take the table away if it is there."""
    firewall.transact(nft.transaction([nft.delete_table(table, (errno.ENOENT,))]))


def encode(ruleset: Ruleset) -> list[Request]:
    """The transaction that replaces the table, whatever stood before. Raises ValueError for a bad address."""
    table = ruleset.table
    return nft.transaction(
        [
            nft.new_table(table),
            nft.delete_table(table),
            nft.new_table(table),
            *_sets(table, ruleset.networks),
            *_maps(table, ruleset.ports),
            *_chains(table, _lots(ruleset.ports), ruleset.segments),
        ]
    )


# --- sets and maps ---------------------------------------------------------------------------------


def _sets(table: str, networks: Iterable[Segment]) -> list[Request]:
    bridges = {_ifname(network.bridge): network.internal for network in networks}
    name = (nft.TYPE_INTERFACE, _IFNAME_SIZE)
    pair = (nft.concatenation(nft.TYPE_INTERFACE, nft.TYPE_INTERFACE), 2 * _IFNAME_SIZE)
    open_ranges = [network.subnet for network in networks if not network.internal]
    return [
        nft.new_set(table, "bridges", number=1, key=name),
        nft.new_set(table, "islands", number=2, key=name),
        nft.new_set(table, "loops", number=3, key=pair),
        nft.new_set(table, "ranges", number=4, key=(nft.TYPE_ADDRESS, 4), interval=True),
        *nft.add_elements(table, "bridges", [(bridge, None) for bridge in bridges]),
        *nft.add_elements(table, "islands", [(bridge, None) for bridge in bridges if bridges[bridge]]),
        *nft.add_elements(table, "loops", [(bridge + bridge, None) for bridge in bridges]),
        *nft.add_intervals(table, "ranges", _intervals(open_ranges)),
    ]


def _intervals(subnets: Iterable[str]) -> list[tuple[bytes, bytes | None]]:
    """Sorted and merged: the kernel refuses overlapping or touching ends of intervals."""
    networks = ipaddress.collapse_addresses(ipaddress.IPv4Network(subnet) for subnet in subnets)
    merged: list[tuple[int, int]] = []
    for network in networks:
        first, beyond = int(network.network_address), int(network.broadcast_address) + 1
        if merged and merged[-1][1] == first:
            merged[-1] = (merged[-1][0], beyond)
        else:
            merged.append((first, beyond))
    return [
        (first.to_bytes(4, "big"), beyond.to_bytes(4, "big") if beyond < 1 << 32 else None)
        for first, beyond in merged
    ]


def _maps(table: str, ports: Collection[Publication]) -> list[Request]:
    target = (nft.concatenation(nft.TYPE_ADDRESS, nft.TYPE_PORT), 8)
    requests = []
    for number, (name, pairs) in enumerate(_elements(ports).items(), 10):
        key = _KEYS[name.partition("_")[2]]
        requests.append(nft.new_set(table, name, number=number, key=key, data=target))
        requests += nft.add_elements(table, name, pairs.items())
    return requests


_KEYS = {
    "any": (nft.TYPE_PORT, 2),
    "bound": (nft.concatenation(nft.TYPE_ADDRESS, nft.TYPE_PORT), 8),
    "shared_any": (nft.concatenation(nft.TYPE_PORT, nft.TYPE_MARK), 8),
    "shared_bound": (nft.concatenation(nft.TYPE_ADDRESS, nft.TYPE_PORT, nft.TYPE_MARK), 12),
}
"""What the maps are about: a port of every address, one of one address, and the same with a lot drawn."""


def _elements(ports: Collection[Publication]) -> dict[str, dict[bytes, bytes]]:
    """What stands in each of the maps. Parts of a concatenation begin at multiples of four bytes."""
    found: dict[str, dict[bytes, bytes]] = {f"{name}_{kind}": {} for name in _PROTOCOLS for kind in _KEYS}
    lots = _lots(ports)
    for (protocol, host, number), targets in _led(ports).items():
        bound = "any" if host == _ANY_HOST else "bound"
        key = (b"" if host == _ANY_HOST else host) + struct.pack("!H", number)
        if len(targets) == 1:
            found[f"{protocol}_{bound}"][key if host == _ANY_HOST else key + b"\0\0"] = targets[0]
            continue
        shared = found[f"{protocol}_shared_{bound}"]
        for lot in range(lots):
            shared[key + b"\0\0" + lot.to_bytes(4, sys.byteorder)] = targets[lot % len(targets)]
    return found


def _led(ports: Iterable[Publication]) -> dict[tuple[str, bytes, int], list[bytes]]:
    """Protocol, address and host port -> where it leads to, in the map's form."""
    led: dict[tuple[str, bytes, int], list[bytes]] = {}
    for port in ports:
        place = port.protocol, _packed(port.host_ip or _EVERYWHERE), port.host_port
        led.setdefault(place, []).append(_packed(port.address) + struct.pack("!Hxx", port.port))
    return led


@lru_cache(maxsize=4096)
def _packed(address: str) -> bytes:
    """Raises ValueError for a bad one."""
    return ipaddress.IPv4Address(address).packed


def _lots(ports: Iterable[Publication]) -> int:
    """How many lots there are to draw."""
    shares = Counter((port.protocol, port.host_ip or _EVERYWHERE, port.host_port) for port in ports)
    most, lots = max(shares.values(), default=0), _LOTS
    while lots < most * _ENOUGH_LOTS:
        lots *= 10
    return lots


def _ifname(name: str) -> bytes:
    raw = name.encode()
    if not 0 < len(raw) < _IFNAME_SIZE:
        raise ValueError(f"{name!r} is no name for an interface")
    return raw.ljust(_IFNAME_SIZE, b"\0")


# --- chains ----------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _chains(table: str, lots: int, segments: str) -> tuple[Request, ...]:
    """They speak of sets and maps only, so they are the same whatever the networks and ports are."""
    return (
        *(nft.new_chain(table, name, hook) for name, hook in _HOOKS.items()),
        *(_segments(table, segments) if segments else ()),
        *_guard(table),
        *_publish(table, lots),
        *_masquerade(table),
        *_forward(table),
        *_input(table),
    )


_HOOKS = {
    "guard": ("filter", nft.PREROUTING, nft.RAW),
    "published": None,
    "incoming": ("nat", nft.PREROUTING, nft.DNAT),
    "local": ("nat", nft.OUTPUT, nft.DNAT),
    "outgoing": ("nat", nft.POSTROUTING, nft.SNAT),
    "forward": ("filter", nft.FORWARD, nft.FILTER),
    "input": ("filter", nft.INPUT, nft.FILTER),
}
"""Chains: where packets enter them."""


def _segments(table: str, start: str) -> list[Request]:
    """By a further bridge, only frames of its network pass. The host is spoken to by way of the first one, so
    what reaches it from a further one went to all, or was sent past our rules.

    Were a connection tracked there (br_netfilter), it would be one that is under way when it comes to where
    published ports are led to containers.
    """
    coming, going = nft.named(nft.IIFNAME, start), nft.named(nft.OIFNAME, start)
    drop = nft.verdict(nft.DROP)
    return [
        nft.new_rule(table, "guard", *coming, nft.untracked()),
        nft.new_rule(table, "forward", *coming, *going, nft.verdict(nft.ACCEPT)),
        nft.new_rule(table, "forward", *coming, drop),
        nft.new_rule(table, "input", *coming, drop),
    ]


def _guard(table: str) -> list[Request]:
    """Before anything else: what is sent to a loopback address belongs on loopback.

    Senders need no rule: an address of our own as a source is refused by routing (fib_validate_source).
    """
    foreign = (
        nft.load_meta(nft.IIFNAME, nft.register(0)),
        nft.compare(nft.register(0), nft.UNEQUAL, _LOOPBACK),
    )
    return [
        nft.new_rule(table, "guard", *foreign, *_in_loopback(_DESTINATION), nft.verdict(nft.DROP)),
    ]


def _publish(table: str, lots: int) -> list[Request]:
    """Ports to containers: for packets that come in and for those the host itself sends."""
    to_us = (
        nft.load_address_type(nft.register(0)),
        nft.compare(nft.register(0), nft.EQUAL, _LOCAL),
        nft.verdict(nft.JUMP, "published"),
    )
    requests = []
    for name, number in _PROTOCOLS.items():
        for bound in (True, False):
            for drawn in (0, lots):
                found = _to_container(name, bound=bound, lots=drawn)
                requests.append(nft.new_rule(table, "published", *nft.protocol(number), *found))
    return [
        *requests,
        nft.new_rule(table, "incoming", *_through("islands", nft.IIFNAME), nft.verdict(nft.RETURN)),
        nft.new_rule(table, "incoming", *to_us),
        nft.new_rule(table, "local", *to_us),
    ]


def _masquerade(table: str) -> list[Request]:
    """Senders that the receiver could not answer, or would answer past us, get the host's address.

    The second rule is for a container that uses a published port: without it a target on a network that
    both share would answer directly, from an address that the client never asked.
    """
    into_ours = _through("bridges", nft.OIFNAME)
    masquerade = nft.masquerade()
    return [
        nft.new_rule(table, "outgoing", *into_ours, *_published(), *_in_loopback(_SOURCE), masquerade),
        nft.new_rule(table, "outgoing", *into_ours, *_published(), *_from_ranges(), masquerade),
        nft.new_rule(
            table,
            "outgoing",
            *_from_ranges(),
            *_through("bridges", nft.OIFNAME, absent=True),
            masquerade,
        ),
    ]


def _forward(table: str) -> list[Request]:
    """In order: within one network, islands, answers, published, the rest. What leaves us goes on.

    Packets within a bridge come by here only where br_netfilter is loaded, or when they return to the
    bridge they came from.
    """
    same = (
        nft.load_meta(nft.IIFNAME, nft.register(0)),
        nft.load_meta(nft.OIFNAME, nft.register(4)),
        nft.lookup("loops", nft.register(0)),
    )
    accept, drop = nft.verdict(nft.ACCEPT), nft.verdict(nft.DROP)
    into_ours = _through("bridges", nft.OIFNAME)
    return [
        nft.new_rule(table, "forward", *same, accept),
        nft.new_rule(table, "forward", *_through("islands", nft.IIFNAME), drop),
        nft.new_rule(table, "forward", *_through("islands", nft.OIFNAME), drop),
        nft.new_rule(table, "forward", *_answers(), accept),
        nft.new_rule(table, "forward", *into_ours, *_published(), accept),
        nft.new_rule(table, "forward", *into_ours, drop),
    ]


def _input(table: str) -> list[Request]:
    """The host is outside, too, for an island; but its own requests into it are answered."""
    from_island = _through("islands", nft.IIFNAME)
    return [
        nft.new_rule(table, "input", *from_island, *_answers(), nft.verdict(nft.ACCEPT)),
        nft.new_rule(table, "input", *from_island, nft.verdict(nft.DROP)),
    ]


# --- conditions ------------------------------------------------------------------------------------


def _in_loopback(offset: int) -> tuple[bytes, ...]:
    return (
        nft.load_payload(nft.NETWORK, offset, 1, nft.register(0)),
        nft.compare(nft.register(0), nft.EQUAL, b"\x7f"),
    )


def _through(name: str, side: int, *, absent: bool = False) -> tuple[bytes, ...]:
    return (nft.load_meta(side, nft.register(0)), nft.lookup(name, nft.register(0), absent=absent))


def _from_ranges() -> tuple[bytes, ...]:
    return (
        nft.load_payload(nft.NETWORK, _SOURCE, 4, nft.register(0)),
        nft.lookup("ranges", nft.register(0)),
    )


def _any_bit(key: int, bits: int) -> tuple[bytes, ...]:
    return (
        nft.load_ct(key, nft.register(0)),
        nft.mask(nft.register(0), bits.to_bytes(4, sys.byteorder)),
        nft.compare(nft.register(0), nft.UNEQUAL, bytes(4)),
    )


def _answers() -> tuple[bytes, ...]:
    return _any_bit(nft.CT_STATE, nft.ESTABLISHED_OR_RELATED)


def _published() -> tuple[bytes, ...]:
    return _any_bit(nft.CT_STATUS, nft.STATUS_DNAT)


def _to_container(protocol: str, *, bound: bool, lots: int) -> tuple[bytes, ...]:
    """Look the destination up, with `lots` one of those drawn; of what stands there the first four bytes are
    the address."""
    parts = [nft.load_payload(nft.NETWORK, _DESTINATION, 4, nft.register(0))] if bound else []
    parts.append(nft.load_payload(nft.TRANSPORT, _DESTINATION_PORT, 2, nft.register(len(parts))))
    if lots:
        parts.append(nft.draw(lots, nft.register(len(parts))))
    name = f"{protocol}_{'shared_' if lots else ''}{'bound' if bound else 'any'}"
    return (
        *parts,
        nft.lookup(name, nft.register(0), into=nft.register(4)),
        nft.dnat(nft.register(4), nft.register(5)),
    )
