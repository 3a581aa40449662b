"""Netlink messages as bytes: what we write can be read back, and what a kernel says is understood."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.kernel import netlink
from orchestrator.kernel.netlink import Netlink, Request


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=50), max_size=10))
def test_attributes_read_back_as_they_were_written(parts: dict[int, bytes]) -> None:
    data = b"".join(netlink.attribute(kind, value) for kind, value in parts.items())
    assert len(data) % 4 == 0
    assert netlink.attributes(data) == parts
    assert netlink.attributes(b"head" + data, 4) == parts


def test_a_nested_attribute_is_marked_and_holds_the_others() -> None:
    data = netlink.nested(5, netlink.text(1, "eth0"), netlink.u32(2, 7))
    assert struct.unpack_from("=HH", data) == (len(data), 5 | 0x8000)
    inner = netlink.attributes(netlink.attributes(data)[5])
    assert inner == {1: b"eth0\0", 2: struct.pack("=I", 7)}


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read(data: bytes) -> None:
    for value in netlink.attributes(data).values():
        assert len(value) <= len(data)
    for _, _, _, body in netlink.messages(data):
        assert len(body) <= len(data)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        netlink.attribute(1, bytes(65_532))
    with pytest.raises(ValueError, match="NUL"):
        netlink.text(1, "eth\0")


def test_the_kernels_sentence_is_found_whether_our_request_is_repeated_or_not() -> None:
    sentence = netlink.text(1, "Unknown device type")
    echoed = struct.pack("=IHHII", 22, 16, 5, 1, 0) + b"abcdef" + b"\0\0"
    whole = struct.pack("=i", -errno.EOPNOTSUPP) + echoed + sentence
    capped = struct.pack("=i", -errno.EOPNOTSUPP) + echoed[:16] + sentence
    assert netlink.refusal(0x200, whole) == (errno.EOPNOTSUPP, "Unknown device type")
    assert netlink.refusal(0x300, capped) == (errno.EOPNOTSUPP, "Unknown device type")
    assert netlink.refusal(0x100, struct.pack("=i", 0) + echoed[:16]) == (0, "")


def test_of_many_requests_all_are_tried_and_the_first_refusal_is_raised() -> None:
    """On the real kernel, but changing nothing: links that don't exist."""

    def absent(name: str, *tolerated: int) -> Request:
        return Request(17, 0, bytes(16) + netlink.text(3, name), f"delete link {name}", tolerated)

    with Netlink() as route:
        route.batch([absent("ps-none", errno.ENODEV)] * 200)
        many = [absent("ps-fine", errno.ENODEV)] * 70 + [absent("ps-one"), absent("ps-two")]
        with pytest.raises(OSError, match="delete link ps-one: No such device") as caught:
            route.batch(many)
        assert caught.value.errno == errno.ENODEV
        route.batch([absent("ps-none", errno.ENODEV)])


def test_a_flood_of_announcements_is_read_in_portions() -> None:
    """Any datagram socket will do: kinds of message come out, and never more than was asked for are taken."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        here.settimeout(0)
        for kind in range(16, 24):
            there.send(struct.pack("=IHHII", 16, kind, 0, 0, 0))
        assert netlink.heard(here, 5).ours == frozenset(range(16, 21))
        assert netlink.heard(here, 5) == netlink.Heard(ours=frozenset(range(21, 24)))
        assert netlink.heard(here) == netlink.Heard()
