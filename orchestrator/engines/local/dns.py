"""The wire format of DNS and what a container is answered: pure, and safe against any bytes (RFC 1035, 6891).

A name that a container's networks know is answered here, whatever is asked about it: no address of the
family asked for gives an empty answer, and nothing about it is ever asked elsewhere. A name of one label
that they don't know does not exist. Everything else goes to other servers, or nowhere at all when all of
the container's networks are internal (CVE-2024-29018).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Mapping

from orchestrator.model.frozen import dataclass

A, PTR, OPT, AAAA, IXFR, AXFR, ANY = 1, 12, 41, 28, 251, 252, 255
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NO_SUCH_NAME, NOT_IMPLEMENTED, REFUSED = range(6)
_BAD_VERSION = 16

TTL = 5
"""Seconds. Docker says 600, and its users wait that long for a moved service."""
PAYLOAD = 1232
"""The largest datagram we send: what passes any link unfragmented (DNS flag day 2020)."""
SMALLEST_PAYLOAD = 512
LARGEST_MESSAGE = 0xFFFF

_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHHIH")  # name as a pointer, type, class, TTL, length of the data
_TO_QUESTION = 0xC00C
_IN, _ANY_CLASS = 1, 255
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _DESIRED, _AVAILABLE, _AUTHENTIC, _UNCHECKED = (
    0x8000,
    0x0400,
    0x0200,
    0x0100,
    0x0080,
    0x0020,
    0x0010,
)
_OPCODE = 0x7800
_DNSSEC_OK = 0x8000
_LONGEST_NAME = 255
_REVERSE = ".in-addr.arpa"
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")


@dataclass(frozen=True, slots=True)
class Upstream:
    """Another DNS server. `inside`: to be asked from the container's own network (the service's `dns:`)."""

    address: str
    port: int = 53
    inside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """What one container may know. Immutable; containers on the same networks can share the mappings.

    `scopes`: one mapping a network, in order of preference, of names (lower case, no final dot) to IPv4
    addresses; the first that knows a name answers. `reverse`: likewise, address to name. `forward` False:
    nothing is asked elsewhere. `single_labels`: also names without a dot may be (the service set ndots).
    """

    scopes: tuple[Mapping[str, tuple[str, ...]], ...] = ()
    reverse: tuple[Mapping[str, str], ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    forward: bool = True
    single_labels: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A query that was understood, or, with `fault` not 0, one that can only be refused.

    `name` is lower case without a final dot; bytes that are not of host names are escaped (\\DDD), so no
    label can pass for two. `raw` is the question section as it came, case kept.
    """

    id: int
    flags: int
    name: str = ""
    kind: int = 0
    raw: bytes = b""
    payload: int = 0
    """What the asker can take by UDP; 0: it knows no EDNS."""
    dnssec: bool = False
    fault: int = 0

    @property
    def limit(self) -> int:
        """Bytes of a UDP answer."""
        return min(max(self.payload, SMALLEST_PAYLOAD), PAYLOAD)


# --- reading ---------------------------------------------------------------------------------------


def parse(message: bytes) -> Question | None:
    """The question in a query. None: nothing that deserves an answer (too short, or itself an answer)."""
    if len(message) < _HEADER.size:
        return None
    number, flags, questions, answers, authorities, extras = _HEADER.unpack_from(message)
    if flags & _RESPONSE:
        return None
    if flags & _OPCODE:
        return Question(id=number, flags=flags, fault=NOT_IMPLEMENTED)
    if questions != 1 or answers or authorities:
        return Question(id=number, flags=flags, fault=FORMAT_ERROR)
    read = _read_name(message, _HEADER.size)
    if read is None or read[1] + _QUESTION.size > len(message):
        return Question(id=number, flags=flags, fault=FORMAT_ERROR)
    name, end = read
    kind, of_class = _QUESTION.unpack_from(message, end)
    end += _QUESTION.size
    payload, dnssec, fault = _read_edns(message, end) if extras else (0, False, 0)
    if not fault and (of_class not in (_IN, _ANY_CLASS) or kind in (AXFR, IXFR, OPT)):
        fault = REFUSED
    return Question(
        id=number,
        flags=flags,
        name=name,
        kind=kind,
        raw=message[_HEADER.size : end],
        payload=payload,
        dnssec=dnssec,
        fault=fault,
    )


def _read_name(message: bytes, offset: int) -> tuple[str, int] | None:
    """(name, where it ends), None when it is broken. No pointers: a question has nothing to point to."""
    start = offset
    labels: list[str] = []
    while offset < len(message):
        size = message[offset]
        offset += 1
        if size == 0:
            return ".".join(labels), offset
        if size > 63 or offset + size - start >= _LONGEST_NAME:
            return None
        label = message[offset : offset + size]
        if len(label) < size:
            return None
        lower = label.lower()
        labels.append(lower.decode("ascii") if _PLAIN.issuperset(lower) else _escape(lower))
        offset += size
    return None


def _escape(label: bytes) -> str:
    return "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03d}" for byte in label)


def _read_edns(message: bytes, offset: int) -> tuple[int, bool, int]:
    """(payload, DNSSEC wanted, fault) of an OPT record right after the question, where askers put it."""
    if offset + 11 > len(message) or message[offset] != 0:
        return 0, False, 0
    kind, payload, high, version, flags, _ = struct.unpack_from("!HHBBHH", message, offset + 1)
    if kind != OPT:
        return 0, False, 0
    fault = _BAD_VERSION if version or high else 0
    return max(payload, SMALLEST_PAYLOAD), bool(flags & _DNSSEC_OK), fault


# --- answering -------------------------------------------------------------------------------------


def answer(question: Question, zone: Zone, turn: int, limit: int) -> bytes | None:
    """The answer in at most `limit` bytes; None when another server is to be asked.

    `turn` rotates the addresses, so that clients which take the first spread over the replicas.
    """
    if question.fault:
        return respond(question, question.fault)
    known = next((scope[question.name] for scope in zone.scopes if question.name in scope), None)
    if known is not None:
        addresses = known if question.kind in (A, ANY) else ()
        start = turn % len(addresses) if addresses else 0
        return _with_addresses(question, addresses[start:] + addresses[:start], limit)
    if question.kind == PTR and (target := _reverse(question.name, zone)) is not None:
        return _with_name(question, target)
    if "." not in question.name and question.name and not zone.single_labels:
        return respond(question, NO_SUCH_NAME)
    if zone.forward and zone.upstreams:
        return None
    return respond(question, NO_SUCH_NAME if question.name.endswith(_REVERSE) else SERVER_FAILURE)


def respond(question: Question, code: int, records: bytes = b"", count: int = 0, flags: int = 0) -> bytes:
    """A message that answers `question` with `code` and `count` ready records."""
    flags |= _RESPONSE | _AVAILABLE | question.flags & (_OPCODE | _DESIRED | _UNCHECKED) | code & 15
    extra = b""
    if question.payload:
        extra = struct.pack("!BHHBBHH", 0, OPT, PAYLOAD, code >> 4, 0, 0, 0)
    asked = 1 if question.raw else 0
    header = _HEADER.pack(question.id, flags, asked, count, 0, 1 if extra else 0)
    return header + question.raw + records + extra


def _with_addresses(question: Question, addresses: tuple[str, ...], limit: int) -> bytes:
    """As many as fit; when some don't, the mark that they can be had by TCP."""
    room = limit - _HEADER.size - len(question.raw) - (11 if question.payload else 0)
    fitting = addresses[: max(room, 0) // 16]
    records = b"".join(
        _RECORD.pack(_TO_QUESTION, A, _IN, TTL, 4) + socket.inet_aton(address) for address in fitting
    )
    cut = _TRUNCATED if len(fitting) < len(addresses) else 0
    return respond(question, NO_ERROR, records, len(fitting), _AUTHORITATIVE | cut)


def _with_name(question: Question, target: str) -> bytes:
    data = encode_name(target)
    record = _RECORD.pack(_TO_QUESTION, PTR, _IN, TTL, len(data)) + data
    return respond(question, NO_ERROR, record, 1, _AUTHORITATIVE)


def _reverse(name: str, zone: Zone) -> str | None:
    if not name.endswith(_REVERSE):
        return None
    address = ".".join(reversed(name.removesuffix(_REVERSE).split(".")))
    target = next((names[address] for names in zone.reverse if address in names), None)
    return target if target and is_name(target) else None


def is_name(name: str) -> bool:
    """Whether the name can be said in DNS: labels of 1 to 63 bytes, 253 in all."""
    raw = name.encode()
    return 0 < len(raw) <= 253 and all(0 < len(label) <= 63 for label in raw.split(b"."))


def encode_name(name: str) -> bytes:
    """A name as labels. Raises ValueError when it is none."""
    if not is_name(name):
        raise ValueError(f"{name!r} is not a DNS name")
    return b"".join(bytes((len(label),)) + label for label in name.encode().split(b".")) + b"\0"


# --- asking elsewhere ------------------------------------------------------------------------------


def query(question: Question, number: int) -> bytes:
    """The same question to another server, under another id. Only what we understood goes out."""
    flags = question.flags & (_DESIRED | _AUTHENTIC | _UNCHECKED)
    extra = b""
    if question.payload:
        extra = struct.pack("!BHHIH", 0, OPT, PAYLOAD, _DNSSEC_OK if question.dnssec else 0, 0)
    return _HEADER.pack(number, flags, 1, 0, 0, 1 if extra else 0) + question.raw + extra


def returned(question: Question, number: int, reply: bytes) -> bytes | None:
    """The reply as the asker must see it: its own id, its own spelling. None: not a reply to this query."""
    end = _HEADER.size + len(question.raw)
    if len(reply) < end:
        return None
    identity, flags, questions, *_ = _HEADER.unpack_from(reply)
    if identity != number or not flags & _RESPONSE or flags & _OPCODE or questions != 1:
        return None
    if reply[_HEADER.size : end].lower() != question.raw.lower():
        return None
    return struct.pack("!H", question.id) + reply[2 : _HEADER.size] + question.raw + reply[end:]


def code(reply: bytes) -> int:
    """The result code in a message's header."""
    return reply[3] & 15


def fit(question: Question, reply: bytes, limit: int) -> bytes:
    """The reply if it fits, else the mark that it can be had by TCP."""
    return reply if len(reply) <= limit else respond(question, NO_ERROR, flags=_TRUNCATED)


# --- the host's own servers ------------------------------------------------------------------------

MOST_UPSTREAMS = 3
"""MAXNS of resolv.conf(5)."""


def upstreams(text: str, *, loopback: bool = True) -> tuple[Upstream, ...]:
    """The servers that a resolv.conf(5) names.

    Questions go out from the host's own network, where a resolver on the host's loopback (127.0.0.53 of
    systemd-resolved) can be reached; without `loopback` such servers are left out.
    """
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address = ipaddress.ip_address(words[1])
        except ValueError:
            continue
        if loopback or not address.is_loopback:
            found.append(Upstream(words[1]))
    return tuple(dict.fromkeys(found))[:MOST_UPSTREAMS]
