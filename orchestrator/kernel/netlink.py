"""Netlink: requests as bytes, and one socket that carries them (netlink(7), rtnetlink(7)).

An own encoder, because the libraries' cost 15-40 times more a request and can't be shared by threads.
Errors are OSErrors that carry what was tried and, where the kernel offers one, its own sentence
(NETLINK_EXT_ACK, Linux 4.12).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

ROUTE = 0
NETFILTER = 12

# linux/netlink.h
REQUEST = 0x1
ACK = 0x4
REPLACE = 0x100
EXCL = 0x200
CREATE = 0x400
APPEND = 0x800
_DUMP = 0x300
_DUMP_INTR = 0x10
_CAPPED = 0x100
_ACK_TLVS = 0x200
_ERROR = 2
_DONE = 3
_SOL_NETLINK = 270
_ADD_MEMBERSHIP = 1
_LISTEN_ALL_NSID = 8
_CAP_ACK = 10
_EXT_ACK = 11
_ATTR_MSG = 1
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")
_REPLY_BYTES = 1 << 18
_HEARD_BYTES = 1 << 12
_MOST_HEARD = 500
_NUMBERED = (_SOL_NETLINK, _LISTEN_ALL_NSID)
_ATTR_LIMIT = 0xFFFF
_BATCH = 64
"""Requests a send: their acknowledgements must fit the default receive buffer, and others need rtnl too."""
_DUMP_TRIES = 8
_PATIENCE = struct.pack("=qq", 10, 0)
"""SO_RCVTIMEO. The kernel answers within the send; this only turns a kernel fault into an error."""


@dataclass(frozen=True, slots=True)
class Request:
    """One message. `doing` names it in errors; an errno in `tolerate` counts as success."""

    kind: int
    flags: int
    body: bytes
    doing: str
    tolerate: tuple[int, ...] = ()


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute: header, value, padding to four bytes. Raises ValueError over 64 KiB."""
    size = len(value) + 4
    if size > _ATTR_LIMIT:
        raise ValueError(f"netlink attribute {kind} of {size} bytes is too long")
    return _ATTR.pack(size, kind) + value + _PAD[size & 3]


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | _NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute. Raises ValueError for an inner NUL."""
    if "\0" in value:
        raise ValueError("a NUL in a name")
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in the machine's byte order."""
    return struct.pack("=HHI", 8, kind, value)


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes in `data` from `offset` on; of several of one kind the last. Stops at malformed ones."""
    found: dict[int, bytes] = {}
    end = len(data)
    while offset + 4 <= end:
        size, kind = _ATTR.unpack_from(data, offset)
        if size < 4 or offset + size > end:
            break
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + size]
        offset += size + 3 & ~3
    return found


def messages(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """(kind, flags, sequence number, body) of each message in a datagram."""
    found = []
    offset = 0
    while offset + 16 <= len(data):
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if size < 16 or offset + size > len(data):
            break
        found.append((kind, flags, sequence, data[offset + 16 : offset + size]))
        offset += size + 3 & ~3
    return found


def refusal(flags: int, body: bytes) -> tuple[int, str]:
    """(errno, the kernel's sentence or "") of an error message; errno 0 is an acknowledgement."""
    (code,) = struct.unpack_from("=i", body)
    if not flags & _ACK_TLVS:
        return -code, ""
    offset = 20
    if not flags & _CAPPED:
        (original,) = struct.unpack_from("=I", body, 4)
        offset = 4 + (original + 3 & ~3)
    sentence = attributes(body, offset).get(_ATTR_MSG, b"")
    return -code, sentence.rstrip(b"\0").decode(errors="replace")


class Netlink:
    """A netlink socket of the namespace it was opened in. Any thread may use it, one exchange at a time."""

    __slots__ = ("_lock", "_sequence", "_socket")

    def __init__(self, protocol: int = ROUTE, opened: socket.socket | None = None) -> None:
        """`opened`: a raw netlink socket made elsewhere (in another namespace); owned from now on."""
        self._socket = opened or socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._sequence = 0
        self._lock = threading.Lock()
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def batch(self, requests: Sequence[Request]) -> None:
        """Send the requests in order, all of them, and raise the OSError of the first that was refused."""
        failed: OSError | None = None
        with self._lock:
            for start in range(0, len(requests), _BATCH):
                failed = self._exchange(requests[start : start + _BATCH]) or failed
        if failed is not None:
            raise failed

    def _exchange(self, requests: Sequence[Request]) -> OSError | None:
        first = self._sequence + 1
        self._sequence += len(requests)
        self._socket.send(_pack(requests, first, ACK))
        failed: OSError | None = None
        waiting = len(requests)
        while waiting:
            for kind, flags, sequence, body in messages(self._socket.recv(_REPLY_BYTES)):
                place = sequence - first
                if kind != _ERROR or not 0 <= place < len(requests):
                    continue
                waiting -= 1
                failed = failed or _failure(requests[place], flags, body)
        return failed

    def dump(self, kind: int, body: bytes) -> list[tuple[int, bytes]]:
        """(kind, body) of everything the kernel lists. Repeats when the list changed under our eyes."""
        with self._lock:
            for _ in range(_DUMP_TRIES):
                found = self._dump_once(kind, body)
                if found is not None:
                    return found
        raise OSError(errno.EINTR, "the kernel's tables change too quickly to be read")

    def _dump_once(self, kind: int, body: bytes) -> list[tuple[int, bytes]] | None:
        request = Request(kind, _DUMP, body, "list what the kernel has")
        self._sequence += 1
        self._socket.send(_pack([request], self._sequence, 0))
        found: list[tuple[int, bytes]] = []
        interrupted = False
        while True:
            for reply, flags, sequence, data in messages(self._socket.recv(_REPLY_BYTES)):
                if sequence != self._sequence:
                    continue
                interrupted |= bool(flags & _DUMP_INTR)
                if reply == _DONE:
                    return None if interrupted else found
                if reply == _ERROR:
                    raise _failure(request, flags, data) or OSError(errno.EPROTO, "an empty dump")
                found.append((reply, data))

    def ask(self, request: Request) -> bytes | None:
        """The body of the kernel's one answer; None when it says that there is no such thing."""
        with self._lock:
            self._sequence += 1
            self._socket.send(_pack([request], self._sequence, 0))
            while True:
                for kind, flags, sequence, body in messages(self._socket.recv(_REPLY_BYTES)):
                    if sequence != self._sequence:
                        continue
                    if kind != _ERROR:
                        return body
                    if refusal(flags, body)[0] in (errno.ENODEV, errno.ENOENT):
                        return None
                    raise _failure(request, flags, body) or OSError(errno.EPROTO, "no answer")

    def transact(self, requests: Sequence[Request]) -> None:
        """Send a netfilter batch: all of it happens or nothing. Raises the OSError of the first refusal.

        The kernel answers within the send, refusals first to last; a success brings no more than the
        acknowledgements asked for, which are none (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c).
        """
        with self._lock:
            first = self._sequence + 1
            self._sequence += len(requests)
            data = _pack(requests, first, 0)
            self._widen(len(data))
            self._socket.send(data)
            failed: OSError | None = None
            while True:
                try:
                    reply = self._socket.recv(_REPLY_BYTES, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
                for kind, flags, sequence, body in messages(reply):
                    place = sequence - first
                    if kind == _ERROR and 0 <= place < len(requests):
                        failed = failed or _failure(requests[place], flags, body)
        if failed is not None:
            raise failed

    def _widen(self, size: int) -> None:
        """A batch is one datagram, and a datagram has to fit the send buffer."""
        if size * 2 <= self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF):
            return
        force = 32  # SO_SNDBUFFORCE: over the system's limit, with CAP_NET_ADMIN
        self._socket.setsockopt(socket.SOL_SOCKET, force, size * 2)


def subscribe(protocol: int, *groups: int, everywhere: bool = False) -> socket.socket:
    """A non-blocking socket that becomes readable when the kernel announces a change in `groups`.

    `everywhere`: in every network namespace that ours has a number for, too; one gets its number with the
    first veth that leads into it (netlink(7), NETLINK_LISTEN_ALL_NSID; rtnl_fill_link_netnsid in
    net/core/rtnetlink.c). What it says is hardly needed: read it empty (see `heard`) and look anew.
    """
    listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    try:
        listening.bind((0, 0))  # before joining: binding resets the first 32 groups
        for group in groups:
            listening.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        if everywhere:
            with contextlib.suppress(PermissionError):  # without CAP_NET_BROADCAST: then of ours alone
                listening.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)
    except OSError:
        listening.close()
        raise
    return listening


@dataclass(frozen=True, slots=True)
class Heard:
    """What a subscribed socket had to tell: the kinds of message, and where it happened."""

    ours: frozenset[int] = frozenset()
    """Kinds of what has changed in our own namespace."""
    others: frozenset[int] = frozenset()
    """Numbers of the other namespaces in which something has changed."""
    missed: bool = False
    """There was more than the socket holds: anything may have changed anywhere."""


def heard(listening: socket.socket, most: int = _MOST_HEARD) -> Heard:
    """Read a subscribed socket empty, or `most` of its messages: who may administer a namespace can bring
    them forth faster than they are read. Does not wait."""
    ours: set[int] = set()
    others: set[int] = set()
    missed = False
    for _ in range(most):
        try:
            data, notes, _, _ = listening.recvmsg(_HEARD_BYTES, 64)
        except BlockingIOError:
            break
        except OSError:  # ENOBUFS
            missed = True
            continue
        where = next((value for level, kind, value in notes if (level, kind) == _NUMBERED), None)
        if where is not None:
            others.add(int.from_bytes(where[:4], sys.byteorder, signed=True))
        elif len(data) >= _HEADER.size:
            ours.add(_HEADER.unpack_from(data)[1])
    return Heard(frozenset(ours), frozenset(others), missed)


def _pack(requests: Sequence[Request], first: int, flags: int) -> bytes:
    parts = []
    for sequence, request in enumerate(requests, first):
        size = len(request.body) + 16
        parts.append(_HEADER.pack(size, request.kind, request.flags | REQUEST | flags, sequence, 0))
        parts.append(request.body)
        parts.append(_PAD[size & 3])
    return b"".join(parts)


def _failure(request: Request, flags: int, body: bytes) -> OSError | None:
    number, sentence = refusal(flags, body)
    if number == 0 or number in request.tolerate:
        return None
    reason = os.strerror(number)
    return OSError(number, f"{request.doing}: {reason}" + (f" ({sentence})" if sentence else ""))
