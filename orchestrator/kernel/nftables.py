"""nftables in the kernel's own words: tables, chains, sets, rules and expressions as netlink attributes.

Pure: everything here returns bytes or requests for `Netlink.transact`. The meaning of a ruleset is in
`firewall`. Numbers are from linux/netfilter/nf_tables.h; nf_tables takes 32-bit attributes big-endian, and
register contents as the packet or the kernel has them.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache

from orchestrator.kernel.netlink import CREATE, Request, attribute, attributes, nested, text

_SUBSYSTEM = 10 << 8
_NEWTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN = 0, 2, 3, 4
_NEWRULE, _GETRULE, _DELRULE, _NEWSET, _NEWELEMENTS, _GETSETELEM, _DELELEMENTS = 6, 7, 8, 9, 12, 13, 14
_BATCH_BEGIN, _BATCH_END = 16, 17
_APPEND = 0x800
_IPV4 = 2

# Hooks of the ip family and the priorities that Linux names (linux/netfilter_ipv4.h).
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
RAW, DNAT, FILTER, SNAT = -300, -100, 0, 100

DROP, ACCEPT, JUMP, RETURN = 0, 1, -3, -5

# meta keys, ct keys
IIFNAME, OIFNAME, L4PROTO = 6, 7, 16
CT_STATE, CT_STATUS = 0, 2
ESTABLISHED_OR_RELATED = 2 | 4
STATUS_DNAT = 1 << 5

EQUAL, UNEQUAL = 0, 1
NETWORK, TRANSPORT = 1, 2

# What nft(8) shows a key as; a concatenation holds six bits for each part.
TYPE_ADDRESS, TYPE_PORT, TYPE_MARK, TYPE_INTERFACE = 7, 13, 19, 41
_SET_INTERVAL, _SET_MAP = 0x4, 0x8
_HOST_ORDER = struct.pack("=BBI", 0, 4, 1)
"""User data (the kernel ignores it): without it nft(8) prints interface names as empty strings."""
_INTERVAL_END = 1
_ELEMENTS_A_MESSAGE = 400
"""The elements of one message are one attribute, which ends at 64 KiB."""


def register(number: int) -> int:
    """The 4-byte register `number`; wider values go on into the following ones."""
    return 8 + number


def concatenation(*types: int) -> int:
    value = 0
    for part in types:
        value = value << 6 | part
    return value


# --- objects ---------------------------------------------------------------------------------------


def transaction(requests: Iterable[Request]) -> list[Request]:
    """The requests between the marks that make them one transaction (linux/netfilter/nfnetlink.h)."""
    mark = struct.pack("!BBH", 0, 0, 10)
    return [
        Request(_BATCH_BEGIN, 0, mark, "begin a firewall change"),
        *requests,
        Request(_BATCH_END, 0, mark, "commit a firewall change"),
    ]


def _request(kind: int, flags: int, body: bytes, doing: str, tolerate: tuple[int, ...] = ()) -> Request:
    return Request(_SUBSYSTEM | kind, flags, struct.pack("!BBH", _IPV4, 0, 0) + body, doing, tolerate)


def new_table(table: str, flags: int = 0) -> Request:
    """Make the table unless it is there; with EXCL in `flags`, then fail."""
    return _request(_NEWTABLE, CREATE | flags, text(1, table), f"make firewall table {table}")


def delete_table(table: str, tolerate: tuple[int, ...] = ()) -> Request:
    return _request(_DELTABLE, 0, text(1, table), f"delete firewall table {table}", tolerate)


def new_chain(table: str, chain: str, hook: tuple[str, int, int] | None = None) -> Request:
    """`hook` is (type, hook, priority) for a chain that packets enter by themselves; policy is accept."""
    body = [text(1, table), text(3, chain)]
    if hook is not None:
        kind, number, priority = hook
        place = nested(4, _be32(1, number), attribute(2, struct.pack("!i", priority)))
        body += [place, _be32(5, ACCEPT), text(7, kind)]
    return _request(_NEWCHAIN, CREATE, b"".join(body), f"make firewall chain {table} {chain}")


def get_chain(table: str, chain: str) -> Request:
    return _request(_GETCHAIN, 0, text(1, table) + text(3, chain), f"look at firewall chain {table} {chain}")


def new_rule(table: str, chain: str, *expressions: bytes, comment: str = "") -> Request:
    """A rule at the chain's end."""
    body = text(1, table) + text(2, chain) + nested(4, *expressions)
    if comment:
        body += attribute(7, comment_data(comment))
    return _request(_NEWRULE, CREATE | _APPEND, body, f"add a rule to firewall chain {table} {chain}")


def get_rules(table: str, chain: str) -> Request:
    """For a dump."""
    return _request(_GETRULE, 0, text(1, table) + text(2, chain), f"list firewall chain {table} {chain}")


def adds_rule(request: Request) -> bool:
    return request.kind == _SUBSYSTEM | _NEWRULE


def list_rules(table: str) -> tuple[int, bytes]:
    """Kind and body of a dump of a table's rules, of every chain; none when there is no such table."""
    request = _request(_GETRULE, 0, text(1, table), "")
    return request.kind, request.body


def list_elements(table: str, name: str) -> tuple[int, bytes]:
    """Kind and body of a dump of what a set or map holds."""
    request = _request(_GETSETELEM, 0, text(1, table) + text(2, name), "")
    return request.kind, request.body


def count_elements(data: bytes) -> int:
    """How many elements one message of such a dump has."""
    listed = attributes(data, 4).get(3, b"")  # NFTA_SET_ELEM_LIST_ELEMENTS
    count, at = 0, 0
    while at + 4 <= len(listed):
        length = int.from_bytes(listed[at : at + 2], sys.byteorder)
        count += 1
        at += max((length + 3) & ~3, 4)
    return count


def delete_rule(table: str, chain: str, handle: bytes, tolerate: tuple[int, ...] = ()) -> Request:
    """`handle` as a listing has it."""
    body = text(1, table) + text(2, chain) + attribute(3, handle)
    return _request(_DELRULE, 0, body, f"delete a rule of firewall chain {table} {chain}", tolerate)


def comment_data(comment: str) -> bytes:
    """A comment as user data of a rule, the way nft(8) writes and shows it."""
    raw = comment.encode() + b"\0"
    return struct.pack("=BB", 0, len(raw)) + raw


def new_set(
    table: str,
    name: str,
    *,
    number: int,
    key: tuple[int, int],
    data: tuple[int, int] | None = None,
    interval: bool = False,
) -> Request:
    """A set, or with `data` a map. `key` and `data` are (type, bytes); `number` is the transaction's own."""
    flags = (_SET_MAP if data else 0) | (_SET_INTERVAL if interval else 0)
    body = [text(1, table), text(2, name), _be32(3, flags), _be32(4, key[0]), _be32(5, key[1])]
    if data is not None:
        body += [_be32(6, data[0]), _be32(7, data[1])]
    body.append(_be32(10, number))
    if key[0] == TYPE_INTERFACE:
        body.append(attribute(13, _HOST_ORDER))
    return _request(_NEWSET, CREATE, b"".join(body), f"make firewall set {table} {name}")


def add_elements(table: str, name: str, elements: Iterable[tuple[bytes, bytes | None]]) -> list[Request]:
    """(key, data) pairs into a set (data None) or a map."""
    return _elements(_NEWELEMENTS, CREATE, table, name, [_element(key, data) for key, data in elements])


def delete_elements(table: str, name: str, keys: Iterable[bytes]) -> list[Request]:
    return _elements(_DELELEMENTS, 0, table, name, [_element(key, None) for key in keys])


def add_intervals(table: str, name: str, intervals: Iterable[tuple[bytes, bytes | None]]) -> list[Request]:
    """(first, first beyond) pairs; None when nothing is beyond. They may not overlap."""
    parts = []
    for first, beyond in intervals:
        parts.append(_element(first, None))
        if beyond is not None:
            parts.append(nested(1, nested(1, attribute(1, beyond)), _be32(3, _INTERVAL_END)))
    return _elements(_NEWELEMENTS, CREATE, table, name, parts)


def _element(key: bytes, data: bytes | None) -> bytes:
    parts = [nested(1, attribute(1, key))]
    if data is not None:
        parts.append(nested(2, attribute(1, data)))
    return nested(1, *parts)


def _elements(kind: int, flags: int, table: str, name: str, parts: Sequence[bytes]) -> list[Request]:
    head = text(1, table) + text(2, name)
    return [
        _request(
            kind,
            flags,
            head + nested(3, *parts[start : start + _ELEMENTS_A_MESSAGE]),
            f"fill firewall set {table} {name}",
        )
        for start in range(0, len(parts), _ELEMENTS_A_MESSAGE)
    ]


# --- expressions -----------------------------------------------------------------------------------

_remembered = lru_cache(maxsize=512)
"""The same few expressions make up every table; encoding them anew would be most of the cost."""


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *parts))


def _be32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def _value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(1, data))


@_remembered
def load_meta(key: int, into: int) -> bytes:
    return _expression("meta", _be32(1, into), _be32(2, key))


@_remembered
def load_ct(key: int, into: int) -> bytes:
    return _expression("ct", _be32(1, into), _be32(2, key))


@_remembered
def load_payload(base: int, offset: int, length: int, into: int) -> bytes:
    return _expression("payload", _be32(1, into), _be32(2, base), _be32(3, offset), _be32(4, length))


@_remembered
def store_payload(base: int, offset: int, length: int, *, value_in: int, checksum_at: int) -> bytes:
    """Write into the packet and keep the internet checksum at `checksum_at` right."""
    target = (_be32(2, base), _be32(3, offset), _be32(4, length))
    return _expression("payload", *target, _be32(5, value_in), _be32(6, 1), _be32(7, checksum_at))


@_remembered
def load_address_type(into: int) -> bytes:
    """What the routing table calls the destination (RTN_*), through `fib daddr type`."""
    return _expression("fib", _be32(1, into), _be32(2, 3), _be32(3, 2))


def load_value(data: bytes, into: int) -> bytes:
    return _expression("immediate", _be32(1, into), _value(2, data))


@_remembered
def mask(value_in: int, bits: bytes) -> bytes:
    """Keep only these bits of a register, in place."""
    size = len(bits)
    parts = (_be32(1, value_in), _be32(2, value_in), _be32(3, size))
    return _expression("bitwise", *parts, _value(4, bits), _value(5, bytes(size)))


@_remembered
def compare(value_in: int, operator: int, data: bytes) -> bytes:
    return _expression("cmp", _be32(1, value_in), _be32(2, operator), _value(3, data))


@_remembered
def named(side: int, start: str) -> tuple[bytes, bytes]:
    """Go on if the interface on that side (IIFNAME, OIFNAME) has a name that starts so."""
    return load_meta(side, register(0)), compare(register(0), EQUAL, start.encode())


@_remembered
def protocol(number: int) -> tuple[bytes, bytes]:
    """Go on if the packet is of this IP protocol."""
    return load_meta(L4PROTO, register(0)), compare(register(0), EQUAL, bytes((number,)))


@_remembered
def lookup(name: str, value_in: int, *, into: int | None = None, absent: bool = False) -> bytes:
    """Go on if the value is in the set (with `absent`: if not); of a map, load what stands there."""
    parts = [text(1, name), _be32(2, value_in)]
    if into is not None:
        parts.append(_be32(3, into))
    if absent:
        parts.append(_be32(5, 1))
    return _expression("lookup", *parts)


@_remembered
def draw(below: int, into: int) -> bytes:
    """A random number, for each packet anew, from 0 to `below` - 1, in host byte order."""
    return _expression("numgen", _be32(1, into), _be32(2, below), _be32(3, 1), _be32(4, 0))


@_remembered
def verdict(code: int, chain: str = "") -> bytes:
    target = text(2, chain) if chain else b""
    return _expression("immediate", _be32(1, 0), nested(2, nested(2, _be32(1, code), target)))


@_remembered
def dnat(address_in: int, port_in: int) -> bytes:
    parts = (_be32(1, 1), _be32(2, _IPV4), _be32(3, address_in), _be32(5, port_in))
    return _expression("nat", *parts)


@_remembered
def untracked() -> bytes:
    """Keep the packet out of connection tracking (before it: priority RAW), and so out of any NAT."""
    return _expression("notrack")


@_remembered
def masquerade() -> bytes:
    return _expression("masq")
