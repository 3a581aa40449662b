"""Bridges, veths, addresses and routes (rtnetlink(7)).

Every function takes the Netlink of the namespace it works in: the host's for bridges and for the outer
end of a veth, the container's for what happens inside. The inner end is born in its namespace, named: a
veth that is moved costs an RCU grace period of about 20 ms.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from orchestrator.kernel import netns
from orchestrator.kernel.netlink import (
    CREATE,
    EXCL,
    REPLACE,
    ROUTE,
    Netlink,
    Request,
    attribute,
    attributes,
    nested,
    subscribe,
    text,
    u32,
)

# linux/rtnetlink.h
_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _GETADDR = 20, 22
_NEWROUTE, _GETROUTE = 24, 26
_GETNSID = 90
_GROUP_LINK, _GROUP_ADDRESS, _GROUP_ROUTE = 1, 5, 7
ROUTES = frozenset((24, 25))
"""RTM_NEWROUTE, RTM_DELROUTE: kinds of message."""
_NETNSA_NSID, _NETNSA_FD = 1, 3  # linux/net_namespace.h

# linux/if_link.h
_ADDRESS, _IFNAME, _MTU, _MASTER, _LINKINFO, _AF_SPEC, _GROUP, _NETNS_FD = 1, 3, 4, 10, 18, 26, 27, 28
_TX_QUEUES, _RX_QUEUES, _EXT_MASK = 31, 32, 29
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_PEER = 1
_BRIDGE_MCAST_SNOOPING = 23
_PORT_HAIRPIN = 4
_INET_CONF = 1
_INET6_ADDR_GEN_MODE = 8
_ADDR_GEN_NONE = 1
_SKIP_STATS = 1 << 3

# linux/ip.h: per-interface settings, which netlink can set without /proc
_RP_FILTER, _ROUTE_LOCALNET = 8, 26

_IFF_UP, _IFF_NOARP = 1, 1 << 7
_LOOPBACK_INDEX = 1
_TABLE_MAIN, _TABLE_LOCAL = 254, 255
_UNIVERSE = 0
_UNICAST = 1
_PROTOCOL_STATIC = 4

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDR = struct.Struct("=BBBBi")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # struct rtmsg

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface as the kernel lists it. `addresses` are IPv4, in CIDR form."""

    name: str
    index: int
    kind: str
    """"bridge", "veth"...; "" for hardware and loopback."""
    master: int
    group: int
    up: bool
    mac: str
    addresses: tuple[str, ...] = ()


def open_route() -> Netlink:
    """For the namespace of the calling thread."""
    return Netlink(ROUTE)


def open_route_in(namespace: int) -> Netlink:
    """For the network namespace with this descriptor."""
    opened = netns.socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, ROUTE)
    return Netlink(ROUTE, opened)


def events() -> socket.socket:
    """A non-blocking socket, readable when a link, an IPv4 address or a route has changed: in this namespace,
    or in one that a veth leads into from here."""
    return subscribe(ROUTE, _GROUP_LINK, _GROUP_ADDRESS, _GROUP_ROUTE, everywhere=True)


def number_of(route: Netlink, namespace: int) -> int | None:
    """The number that `events` of a network namespace (a descriptor) come with; None: it has none yet."""
    body = b"\0" * 4 + u32(_NETNSA_FD, namespace)  # struct rtgenmsg, padded
    answer = route.ask(Request(_GETNSID, 0, body, "number a network namespace"))
    packed = attributes(answer or b"", 4).get(_NETNSA_NSID, b"")
    number = int.from_bytes(packed, sys.byteorder, signed=True) if packed else -1
    return None if number < 0 else number


# --- bridges ---------------------------------------------------------------------------------------


def create_bridge(route: Netlink, name: str, address: str, group: int, mtu: int = 1500) -> int:
    """Make a bridge that has `address` (CIDR) and is up, or accept it if it is there; return its index.

    Its MAC address is fixed, else it would follow the lowest of its ports' and containers would send to an
    address that is gone. Strict reverse-path filtering keeps containers from forging senders;
    `route_localnet` lets a port published on 127.0.0.1 lead into it (the firewall drops the rest).
    Raises OSError EEXIST when the name belongs to a link of another kind or address.
    """
    interface = ipaddress.IPv4Interface(address)
    link = _make_bridge(route, name, mac(interface.ip), group, mtu)
    foreign = set(_addresses(route).get(link.index, ())) - {interface.with_prefixlen}
    if foreign:
        raise OSError(errno.EEXIST, f"make bridge {name}: it is there with {', '.join(sorted(foreign))}")
    settings = nested(
        _AF_SPEC,
        *_quiet_inet6(),
        nested(socket.AF_INET, nested(_INET_CONF, u32(_RP_FILTER, 1), u32(_ROUTE_LOCALNET, 1))),
    )
    doing = f"set up bridge {name}"
    route.batch(
        [
            Request(_SETLINK, 0, _LINK.pack(0, 0, link.index, 0, 0) + settings, doing),
            _new_address(link.index, interface, doing),
            _up(link.index, doing),
        ]
    )
    return link.index


def create_segment(route: Netlink, name: str, mac: str, group: int, mtu: int = 1500) -> int:
    """Make a bridge that only passes frames on, or accept it if it is there; return its index. It answers no
    ARP (it would, for any address of the host's): the bridge that it is joined to does."""
    link = _make_bridge(route, name, mac, group, mtu)
    flags = _IFF_UP | _IFF_NOARP
    body = _LINK.pack(0, 0, link.index, flags, flags) + nested(_AF_SPEC, *_quiet_inet6())
    route.batch([Request(_SETLINK, 0, body, f"set up bridge {name}")])
    return link.index


def _make_bridge(route: Netlink, name: str, mac: str, group: int, mtu: int) -> Link:
    made = [
        _LINK.pack(0, 0, 0, 0, 0),
        text(_IFNAME, name),
        u32(_GROUP, group),
        u32(_MTU, mtu),
        attribute(_ADDRESS, _mac_bytes(mac)),
        nested(_LINKINFO, text(_INFO_KIND, "bridge"), nested(_INFO_DATA, _u8(_BRIDGE_MCAST_SNOOPING, 0))),
    ]
    doing = f"make bridge {name}"
    route.batch([Request(_NEWLINK, CREATE | EXCL, b"".join(made), doing, (errno.EEXIST,))])
    link = find_link(route, name)
    if link is None:
        raise OSError(errno.ENODEV, f"{doing}: it vanished")
    if link.kind != "bridge":
        raise OSError(errno.EEXIST, f"{doing}: a link of kind {link.kind!r} has this name")
    return link


def join(
    route: Netlink, ends: tuple[str, str], bridges: tuple[int, int], group: int, mtu: int = 1500
) -> None:
    """Have a veth lead from one bridge (by index) to another. Repeatable: what is there is put right.

    Without the hairpin mode of containers' ports: what one bridge sends to all would come back to it, and it
    would look for the sender on the wrong side.
    """
    doing = f"join two bridges by {ends[0]} and {ends[1]}"
    found = [find_link(route, name) for name in ends]
    if any(link is not None and link.kind != "veth" for link in found):
        raise OSError(errno.EEXIST, f"{doing}: a link of another kind has such a name")
    if None in found:
        for name in ends:
            delete_link(route, name)  # its other end may be in a place we can't see
        head, shape = _LINK.pack(0, 0, 0, 0, 0), _veth_shape(mtu, group)
        peer = nested(_VETH_PEER, head, text(_IFNAME, ends[1]), *shape)
        kind = nested(_LINKINFO, text(_INFO_KIND, "veth"), nested(_INFO_DATA, peer))
        body = b"".join((head, text(_IFNAME, ends[0]), *shape, kind))
        route.batch([Request(_NEWLINK, CREATE | EXCL, body, doing)])
    quiet = nested(_AF_SPEC, *_quiet_inet6())
    up = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP)
    route.batch(
        [
            Request(_SETLINK, 0, up + text(_IFNAME, name) + u32(_MASTER, index) + quiet, doing)
            for name, index in zip(ends, bridges, strict=True)
        ]
    )
    for name in ends:
        settle(route, name)


def link_index(route: Netlink, name: str) -> int | None:
    """The index of a link, None when there is none of this name."""
    answer = _ask_link(route, name)
    return None if answer is None else int(_LINK.unpack_from(answer)[2])


def bridge_exists(route: Netlink, name: str) -> bool:
    link = find_link(route, name)
    return link is not None and link.kind == "bridge"


def delete_link(route: Netlink, name: str) -> None:
    """Take a link away if it is there. A veth takes 13-22 ms: better close its namespace, or delete_group."""
    body = _LINK.pack(0, 0, 0, 0, 0) + text(_IFNAME, name)
    route.batch([Request(_DELLINK, 0, body, f"delete link {name}", (errno.ENODEV,))])


def delete_group(route: Netlink, group: int) -> None:
    """Take away every link of the group in one go, which costs as much as three. Never group 0."""
    if group <= 0:
        raise ValueError("group 0 holds the machine's own links")
    body = _LINK.pack(0, 0, 0, 0, 0) + u32(_GROUP, group)
    route.batch([Request(_DELLINK, 0, body, f"delete links of group {group}", (errno.ENODEV,))])


# --- a container's connection ----------------------------------------------------------------------


def attach(
    route: Netlink,
    *,
    host_name: str,
    bridge_index: int,
    namespace: int,
    peer_name: str,
    mac: str,
    group: int,
    mtu: int = 1500,
) -> None:
    """Make a veth: one end a port of the bridge and up, the other in `namespace` (a descriptor), down.

    The port is in hairpin mode, so that a container reaches itself through a port it publishes.
    A veth of our group with this name is a leftover, whose namespace is on its way out, and makes room.
    Raises OSError EEXIST when either name is taken by anything else.
    """
    shape = _veth_shape(mtu, group)
    peer = [
        _LINK.pack(0, 0, 0, 0, 0),
        text(_IFNAME, peer_name),
        attribute(_ADDRESS, _mac_bytes(mac)),
        u32(_NETNS_FD, namespace),
        *shape,
    ]
    body = [
        _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP),
        text(_IFNAME, host_name),
        u32(_MASTER, bridge_index),
        *shape,
        nested(_LINKINFO, text(_INFO_KIND, "veth"), nested(_INFO_DATA, nested(_VETH_PEER, *peer))),
    ]
    doing = f"connect {peer_name} by {host_name}"
    requests = [Request(_NEWLINK, CREATE | EXCL, b"".join(body), doing), _as_port(host_name, doing)]
    try:
        route.batch(requests)
    except FileExistsError:
        stale = find_link(route, host_name)
        if stale is None or stale.kind != "veth" or stale.group != group:
            raise
        delete_link(route, host_name)
        route.batch(requests)


def _veth_shape(mtu: int, group: int) -> tuple[bytes, ...]:
    """One queue an end: the kernel's one a processor costs memory and time, and buys nothing without XDP."""
    return u32(_MTU, mtu), u32(_GROUP, group), u32(_TX_QUEUES, 1), u32(_RX_QUEUES, 1)


def _as_port(host_name: str, doing: str) -> Request:
    """Port settings are heeded in RTM_NEWLINK alone (rtnl_changelink in net/core/rtnetlink.c)."""
    settings = nested(_INFO_SLAVE_DATA, _u8(_PORT_HAIRPIN, 1))
    body = [
        _LINK.pack(0, 0, 0, 0, 0),
        text(_IFNAME, host_name),
        nested(_LINKINFO, text(_INFO_SLAVE_KIND, "bridge"), settings),
        nested(_AF_SPEC, *_quiet_inet6()),
    ]
    return Request(_NEWLINK, 0, b"".join(body), doing)


def attach_again(route: Netlink, host_name: str, bridge_index: int) -> bool:
    """Make a veth that has lost its bridge a port of it once more. False when there is no such link, or it
    is one already."""
    link = find_link(route, host_name)
    if link is None or (link.master == bridge_index and link.up):
        return False
    doing = f"connect {host_name} again"
    header = _LINK.pack(0, 0, link.index, _IFF_UP, _IFF_UP)
    route.batch(
        [Request(_SETLINK, 0, header + u32(_MASTER, bridge_index), doing), _as_port(host_name, doing)]
    )
    return True


def configure(
    namespace: int, addresses: Sequence[tuple[str, str]], gateway: str | None, *, loopback: bool = True
) -> None:
    """Inside `namespace`: loopback up, each (interface name, CIDR) up with its address, the default route.

    Repeatable: an address or a route that is there already is left.
    """
    requests = [_up(_LOOPBACK_INDEX, "bring loopback up")] if loopback else []
    with open_route_in(namespace) as inside:
        for name, address in addresses:
            index = link_index(inside, name)
            if index is None:
                raise OSError(errno.ENODEV, f"configure {name}: no such interface in the container")
            doing = f"configure {name} with {address}"
            quiet = _LINK.pack(0, 0, index, 0, 0) + nested(_AF_SPEC, *_quiet_inet6())
            requests.append(Request(_SETLINK, 0, quiet, doing))
            requests.append(_up(index, doing))
            requests.append(_new_address(index, ipaddress.IPv4Interface(address), doing))
        if gateway is not None:
            requests.append(_default_route(gateway))
        inside.batch(requests)


def settle(route: Netlink, host_name: str) -> None:
    """Have a veth pass packets from now on, once `configure` has brought its inner end up.

    The first end to be up gets its queue only when the kernel's carrier watch runs, from a work queue, and
    what comes before that is lost: a client's SYN, say, which TCP repeats after a whole second. Looking
    at one link runs the watch for it (linkwatch_sync_dev in rtnl_getlink, since Linux 6.8).
    """
    _ask_link(route, host_name)


def _up(index: int, doing: str) -> Request:
    return Request(_SETLINK, 0, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP), doing)


def _new_address(index: int, interface: ipaddress.IPv4Interface, doing: str) -> Request:
    network = interface.network
    body = [
        _ADDR.pack(socket.AF_INET, network.prefixlen, 0, _UNIVERSE, index),
        attribute(1, interface.ip.packed),  # IFA_ADDRESS
        attribute(2, interface.ip.packed),  # IFA_LOCAL
        attribute(4, network.broadcast_address.packed),  # IFA_BROADCAST
    ]
    return Request(_NEWADDR, CREATE | REPLACE, b"".join(body), doing, (errno.EEXIST,))


def _default_route(gateway: str) -> Request:
    header = _RTMSG.pack(socket.AF_INET, 0, 0, 0, 254, _PROTOCOL_STATIC, _UNIVERSE, _UNICAST, 0)
    body = header + attribute(5, ipaddress.IPv4Address(gateway).packed)  # RTA_GATEWAY
    return Request(_NEWROUTE, CREATE | REPLACE, body, f"route the default to {gateway}")


# --- what the machine has --------------------------------------------------------------------------


def find_link(route: Netlink, name: str) -> Link | None:
    """One link, without its addresses."""
    answer = _ask_link(route, name)
    return None if answer is None else _read_link(answer, {})


def _ask_link(route: Netlink, name: str) -> bytes | None:
    body = _LINK.pack(0, 0, 0, 0, 0) + text(_IFNAME, name) + u32(_EXT_MASK, _SKIP_STATS)
    return route.ask(Request(_GETLINK, 0, body, f"look for link {name}"))


def list_links(route: Netlink) -> list[Link]:
    """Every link of the namespace, with its IPv4 addresses."""
    found = _addresses(route)
    body = _LINK.pack(0, 0, 0, 0, 0) + u32(_EXT_MASK, _SKIP_STATS)
    return [_read_link(data, found) for kind, data in route.dump(_GETLINK, body) if kind == _NEWLINK]


def default_gateways(route: Netlink) -> tuple[str, ...]:
    """Where the default routes of the main table lead to, IPv4."""
    found = []
    for kind, data in route.dump(_GETROUTE, _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
        _, length, _, _, table, _, _, of_kind, _ = _RTMSG.unpack_from(data)
        gateway = attributes(data, _RTMSG.size).get(5)  # RTA_GATEWAY
        if kind == _NEWROUTE and not length and gateway and table == _TABLE_MAIN and of_kind == _UNICAST:
            found.append(socket.inet_ntoa(gateway))
    return tuple(found)


def ranges_in_use(route: Netlink) -> list[str]:
    """The IPv4 ranges that this machine has addresses in or routes to, in CIDR form, sorted, each once.

    Routes of every table but the local one count: a VPN likes to keep its own. Default routes do not.
    """
    found = {
        ipaddress.IPv4Interface(address).network for many in _addresses(route).values() for address in many
    }
    body = _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
    for kind, data in route.dump(_GETROUTE, body):
        if kind != _NEWROUTE:
            continue
        _, length, _, _, table, _, _, of_kind, _ = _RTMSG.unpack_from(data)
        destination = attributes(data, _RTMSG.size).get(1)  # RTA_DST
        if length and destination and table != _TABLE_LOCAL and of_kind == _UNICAST:
            found.add(ipaddress.IPv4Network((destination, length), strict=False))
    return [str(network) for network in sorted(found)]


def _addresses(route: Netlink) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for kind, data in route.dump(_GETADDR, _ADDR.pack(socket.AF_INET, 0, 0, 0, 0)):
        if kind == _NEWADDR:
            _, length, _, _, index = _ADDR.unpack_from(data)
            parts = attributes(data, _ADDR.size)
            packed = parts.get(2, parts.get(1, b""))
            if len(packed) == 4:
                found[index] = (*found.get(index, ()), f"{socket.inet_ntoa(packed)}/{length}")
    return found


def _read_link(data: bytes, addresses: dict[int, tuple[str, ...]]) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(data)
    parts = attributes(data, _LINK.size)
    described = attributes(parts.get(_LINKINFO, b""))
    return Link(
        name=_string(parts.get(_IFNAME, b"")),
        index=index,
        kind=_string(described.get(_INFO_KIND, b"")),
        master=_number(parts.get(_MASTER, b"")),
        group=_number(parts.get(_GROUP, b"")),
        up=bool(flags & _IFF_UP),
        mac=parts.get(_ADDRESS, b"").hex(":"),
        addresses=addresses.get(index, ()),
    )


def enable_forwarding() -> bool:
    """Let this namespace pass packets on between its links; True if it did not before."""
    if _FORWARDING.read_text().strip() == "1":
        return False
    _FORWARDING.write_text("1")
    return True


# --- names and addresses, computed -----------------------------------------------------------------


def mac(address: ipaddress.IPv4Address | str) -> str:
    """The MAC address of the interface that has this IPv4 address: a successor at the same address then
    needs no new ARP lookup by its neighbours. Locally administered (the 2 of 02, IEEE 802)."""
    return "02:70:" + ipaddress.IPv4Address(address).packed.hex(":")


def segment_mac(address: str) -> str:
    """That of a further bridge, whose containers' addresses begin with this one."""
    return "02:71:" + ipaddress.IPv4Address(address).packed.hex(":")


def _mac_bytes(written: str) -> bytes:
    packed = bytes.fromhex(written.replace(":", "").replace("-", ""))
    if len(packed) != 6:
        raise ValueError(f"{written!r} is not a MAC address")
    return packed


@cache
def _has_inet6() -> bool:
    """With `ipv6.disable=1` the kernel refuses any message about it."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True


def _quiet_inet6() -> Iterable[bytes]:
    """No link-local address: no duplicate address detection, no router solicitations, no announcements."""
    if not _has_inet6():
        return ()
    return (nested(socket.AF_INET6, _u8(_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE)),)


def _u8(kind: int, value: int) -> bytes:
    return attribute(kind, bytes((value,)))


def _string(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder) if len(raw) == 4 else 0
