"""Questions and answers as bytes."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engines.local import dns
from orchestrator.engines.local.dns import Question, Upstream, Zone

ZONE = Zone(
    scopes=({"db": ("10.0.0.2", "10.0.0.3", "10.0.0.4"), "web-1": ("10.0.0.9",)}, {"db": ("10.1.0.2",)}),
    reverse=({"10.0.0.9": "shop-web-1.shop_default"},),
    upstreams=(Upstream("192.0.2.53"),),
)
ISLAND = Zone(scopes=ZONE.scopes, reverse=ZONE.reverse, upstreams=ZONE.upstreams, forward=False)


def ask(name: str, kind: int = dns.A, *, edns: int = 0, number: int = 7, extra: bytes = b"") -> bytes:
    raw = b"".join(bytes((len(part),)) + part.encode() for part in name.split(".") if part) + b"\0"
    opt = struct.pack("!BHHIH", 0, dns.OPT, edns, 0, len(extra)) + extra if edns else b""
    return (
        struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 1 if edns else 0)
        + raw
        + struct.pack("!HH", kind, 1)
        + opt
    )


def understood(message: bytes) -> Question:
    question = dns.parse(message)
    assert question is not None
    return question


def answered(name: str, kind: int = dns.A, zone: Zone = ZONE, turn: int = 0, edns: int = 0) -> bytes:
    question = understood(ask(name, kind, edns=edns))
    reply = dns.answer(question, zone, turn, question.limit)
    assert reply is not None
    return reply


def counts(reply: bytes) -> tuple[int, int]:
    """(result code, number of answers)."""
    return dns.code(reply), struct.unpack_from("!H", reply, 6)[0]


def addresses(reply: bytes) -> list[str]:
    number = struct.unpack_from("!H", reply, 6)[0]
    start = reply.index(b"\0", 12) + 5
    records = [reply[start + 16 * place :][:16] for place in range(number)]
    return [".".join(str(byte) for byte in record[12:]) for record in records]


def test_every_address_of_a_name_is_given_and_each_turn_begins_with_another() -> None:
    assert addresses(answered("db", turn=0)) == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    assert addresses(answered("db", turn=1)) == ["10.0.0.3", "10.0.0.4", "10.0.0.2"]
    assert addresses(answered("db", turn=5)) == ["10.0.0.4", "10.0.0.2", "10.0.0.3"]


def test_the_first_network_that_knows_a_name_answers() -> None:
    swapped = Zone(scopes=tuple(reversed(ZONE.scopes)))
    assert addresses(answered("db", zone=swapped)) == ["10.1.0.2"]
    assert addresses(answered("web-1", zone=swapped)) == ["10.0.0.9"]


def test_a_name_is_found_in_any_case_and_repeated_as_it_was_asked() -> None:
    reply = answered("Web-1")
    assert addresses(reply) == ["10.0.0.9"]
    assert b"\x05Web-1\0" in reply


@pytest.mark.parametrize("kind", [dns.AAAA, 15, 16, 33, 65])
def test_a_known_name_without_the_record_asked_for_exists_and_is_empty(kind: int) -> None:
    """NXDOMAIN for AAAA would make musl and others give up on the A answer."""
    assert counts(answered("db", kind)) == (dns.NO_ERROR, 0)


def test_an_unknown_single_label_does_not_exist_and_is_never_asked_elsewhere() -> None:
    assert counts(answered("nobody")) == (dns.NO_SUCH_NAME, 0)
    relaxed = Zone(upstreams=ZONE.upstreams, single_labels=True)
    assert dns.answer(understood(ask("nobody")), relaxed, 0, 512) is None


def test_other_names_are_asked_elsewhere_unless_the_container_is_on_an_island() -> None:
    assert dns.answer(understood(ask("example.org")), ZONE, 0, 512) is None
    assert counts(answered("example.org", zone=ISLAND)) == (dns.SERVER_FAILURE, 0)
    assert counts(answered("example.org", zone=Zone())) == (dns.SERVER_FAILURE, 0)
    assert addresses(answered("db", zone=ISLAND))[0] == "10.0.0.2"


def test_an_address_leads_back_to_its_name() -> None:
    reply = answered("9.0.0.10.in-addr.arpa", dns.PTR)
    assert counts(reply) == (dns.NO_ERROR, 1)
    assert reply.endswith(dns.encode_name("shop-web-1.shop_default"))
    assert dns.answer(understood(ask("1.2.0.192.in-addr.arpa", dns.PTR)), ZONE, 0, 512) is None
    assert counts(answered("1.2.0.192.in-addr.arpa", dns.PTR, ISLAND)) == (dns.NO_SUCH_NAME, 0)


def test_a_name_that_dns_cannot_say_is_no_answer_to_an_address() -> None:
    zone = Zone(reverse=({"10.0.0.9": "x" * 64},), forward=False)
    assert counts(answered("9.0.0.10.in-addr.arpa", dns.PTR, zone)) == (dns.NO_SUCH_NAME, 0)
    with pytest.raises(ValueError):
        dns.encode_name("a..b")


def test_what_does_not_fit_is_cut_and_marked() -> None:
    many = Zone(scopes=({"web": tuple(f"10.0.{number}.1" for number in range(100))},))
    small, large = answered("web", zone=many), answered("web", zone=many, edns=4096)
    assert len(small) <= 512
    assert len(large) <= dns.PAYLOAD
    for reply in (small, large):
        assert reply[2] & 0x02
        assert 0 < counts(reply)[1] < 100
    whole = dns.answer(understood(ask("web")), many, 0, dns.LARGEST_MESSAGE)
    assert whole is not None
    assert counts(whole)[1] == 100
    assert not whole[2] & 0x02


def test_edns_is_answered_with_edns_and_only_then() -> None:
    assert answered("db")[10:12] == b"\0\0"
    reply = answered("db", edns=1400)
    assert reply[10:12] == b"\0\1"
    assert reply[-11:] == struct.pack("!BHHIH", 0, dns.OPT, dns.PAYLOAD, 0, 0)


def test_a_newer_edns_is_told_so() -> None:
    message = bytearray(ask("db", edns=1400))
    message[-5] = 1
    reply = dns.answer(understood(bytes(message)), ZONE, 0, 512)
    assert reply is not None
    assert (reply[3] & 15, reply[-6]) == (0, 1), "BADVERS is 16: four bits in the header, the rest in OPT"


def test_the_flags_of_an_answer() -> None:
    """It is one, from us, recursion is at hand; what the asker desired is repeated."""
    assert struct.unpack_from("!HH", answered("db")) == (7, 0x8580)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (struct.pack("!HHHHHH", 1, 0x2800, 1, 0, 0, 0), dns.NOT_IMPLEMENTED),
        (struct.pack("!HHHHHH", 1, 0x0100, 0, 0, 0, 0), dns.FORMAT_ERROR),
        (struct.pack("!HHHHHH", 1, 0x0100, 2, 0, 0, 0) + ask("a")[12:] * 2, dns.FORMAT_ERROR),
        (struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1", dns.FORMAT_ERROR),
        (struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0) + b"\x3fshort", dns.FORMAT_ERROR),
        (
            struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0) + (b"\x3f" + b"x" * 63) * 4 + b"\0\0\1\0\1",
            dns.FORMAT_ERROR,
        ),
        (ask("db", dns.AXFR), dns.REFUSED),
        (ask("db")[:-1] + b"\3", dns.REFUSED),
    ],
)
def test_a_query_that_is_wrong_or_not_for_us_is_refused(message: bytes, fault: int) -> None:
    question = understood(message)
    reply = dns.answer(question, ZONE, 0, 512)
    assert reply is not None
    assert dns.code(reply) == fault
    assert reply[2] & 0x80


def test_an_answer_is_never_answered() -> None:
    """Two servers would else talk to each other for ever."""
    assert dns.parse(answered("db")) is None
    assert dns.parse(b"") is None
    assert dns.parse(ask("db")[:11]) is None


def test_a_label_with_a_dot_inside_is_not_two_labels() -> None:
    message = struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0) + b"\x03a.b\0\0\1\0\1"
    assert understood(message).name == "a\\046b"


@given(st.binary(max_size=300))
def test_any_bytes_are_answered_within_the_limit_or_dropped(message: bytes) -> None:
    question = dns.parse(message)
    if question is not None:
        reply = dns.answer(question, ISLAND, 0, question.limit)
        assert reply is not None
        assert len(reply) <= dns.PAYLOAD
        assert reply[:2] == message[:2]
        assert dns.parse(reply) is None


def test_a_damaged_query_is_answered_or_dropped_too() -> None:
    chance = random.Random(4)
    whole = ask("web-1.example.org", dns.PTR, edns=1232, extra=b"\0\x0a\0\x08cookie!!")
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        question = dns.parse(bytes(damaged))
        if question is not None:
            assert dns.answer(question, ISLAND, 0, question.limit) is not None


def test_a_question_goes_out_clean_and_its_reply_comes_back_in_the_askers_words() -> None:
    asked = understood(ask("Example.ORG", edns=4096, extra=b"\0\x0a\0\x08cookie!!"))
    sent = dns.query(asked, 999)
    assert b"cookie" not in sent
    assert struct.unpack_from("!H", sent) == (999,)
    reply = struct.pack("!HHHHHH", 999, 0x8180, 1, 0, 0, 0) + asked.raw.lower()
    back = dns.returned(asked, 999, reply)
    assert back is not None
    assert back[:2] == struct.pack("!H", 7)
    assert b"\x07Example\x03ORG" in back


@pytest.mark.parametrize("broken", ["id", "query", "name", "short", "opcode"])
def test_a_reply_to_another_question_is_not_taken(broken: str) -> None:
    asked = understood(ask("example.org"))
    reply = bytearray(struct.pack("!HHHHHH", 999, 0x8180, 1, 0, 0, 0) + asked.raw)
    match broken:
        case "id":
            reply[1] ^= 1
        case "query":
            reply[2] &= 0x7F
        case "name":
            reply[14] ^= 1
        case "opcode":
            reply[2] |= 0x10
        case _:
            del reply[-1]
    assert dns.returned(asked, 999, bytes(reply)) is None


def test_a_long_reply_becomes_the_hint_to_ask_by_tcp() -> None:
    asked = understood(ask("example.org"))
    assert dns.fit(asked, b"x" * 512, 512) == b"x" * 512
    cut = dns.fit(asked, b"x" * 513, 512)
    assert cut[2] & 0x02
    assert len(cut) == 12 + len(asked.raw)


def test_the_servers_of_a_resolv_conf() -> None:
    text = """# nameserver 9.9.9.9
nameserver 127.0.0.53
nameserver 192.0.2.1   # office
nameserver fe80::1%eth0
nameserver 192.0.2.1
nameserver bogus
nameserver
search example.org
nameserver 192.0.2.2
"""
    assert dns.upstreams(text) == (Upstream("127.0.0.53"), Upstream("192.0.2.1"), Upstream("fe80::1%eth0"))
    assert dns.upstreams(text, loopback=False) == (
        Upstream("192.0.2.1"),
        Upstream("fe80::1%eth0"),
        Upstream("192.0.2.2"),
    )
    assert dns.upstreams("") == ()
