"""The server: real sockets on loopback, upstreams that answer, lie, refuse and keep silent."""

from __future__ import annotations

import socket
import statistics
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field

import trio

from orchestrator.engines.local import dns, resolver
from orchestrator.engines.local.dns import Upstream, Zone

NAMES = {"db": ("10.0.0.2",), "web": tuple(f"10.0.{number}.1" for number in range(100))}
Reply = Callable[[bytes], bytes | None]


def ask(name: str, number: int = 7) -> bytes:
    return (
        struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + dns.encode_name(name) + struct.pack("!HH", 1, 1)
    )


def reply_to(message: bytes, code: int = 0, address: bytes = b"\xc0\x00\x02\x09") -> bytes:
    header = message[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, 0 if code else 1, 0, 0)
    record = b"" if code else struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + address
    return header + message[12:] + record


def opened(kind: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.bind(("127.0.0.1", 0))
    made.settimeout(0)
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


@dataclass
class Fake:
    """Another DNS server, by UDP and TCP on one port. `reply` None: it keeps silent."""

    reply: Reply
    heard: list[bytes] = field(default_factory=list)
    upstream: Upstream = field(default_factory=lambda: Upstream(""))

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        tcp = opened(socket.SOCK_STREAM)
        port = tcp.getsockname()[1]
        self.upstream = Upstream("127.0.0.1", port)
        udp = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(tcp))
        with udp:
            await udp.bind(("127.0.0.1", port))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._streams, listener)
                task_status.started()
                while True:
                    message, sender = await udp.recvfrom(4096)
                    self.heard.append(message)
                    if (reply := self.reply(message)) is not None:
                        await udp.sendto(reply, sender)

    async def _streams(self, listener: trio.SocketListener) -> None:
        async with listener:
            while True:
                async with await listener.accept() as stream:
                    message = (await stream.receive_some(4096))[2:]
                    self.heard.append(message)
                    reply = self.reply(message) or b""
                    await stream.send_all(struct.pack("!H", len(reply)) + reply)


@dataclass
class Served:
    udp: tuple[str, int]
    tcp: tuple[str, int]

    async def ask(self, message: bytes) -> bytes:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, trio.fail_after(5):
            await asking.connect(self.udp)
            await asking.send(message)
            return await asking.recv(4096)

    async def ask_by_stream(self, *messages: bytes) -> list[bytes]:
        with trio.fail_after(5):
            async with await trio.open_tcp_stream(*self.tcp) as stream:
                found = []
                for message in messages:
                    await stream.send_all(struct.pack("!H", len(message)) + message)
                    found.append(await resolver._read_frame(stream, 65535))
                return found


@asynccontextmanager
async def served(
    *upstreams: Fake, patience: float = 0.2, limit: int = 8, forward: bool = True
) -> AsyncIterator[Served]:
    udp, tcp = opened(socket.SOCK_DGRAM), opened(socket.SOCK_STREAM)
    with closing(udp), closing(tcp):  # once nobody waits for them any more
        async with trio.open_nursery() as nursery:
            for fake in upstreams:
                await nursery.start(fake.run)
            zone = Zone(
                scopes=(NAMES,), upstreams=tuple(fake.upstream for fake in upstreams), forward=forward
            )
            forwarder = resolver.Forwarder(limit, patience)
            nursery.start_soon(resolver.serve, udp, tcp, lambda: zone, forwarder)
            yield Served(udp.getsockname(), tcp.getsockname())
            nursery.cancel_scope.cancel()


async def test_a_known_name_is_answered_by_udp_and_tcp() -> None:
    async with served() as server:
        assert (await server.ask(ask("db"))).endswith(b"\x0a\0\0\2")
        assert (await server.ask_by_stream(ask("db")))[0].endswith(b"\x0a\0\0\2")


async def test_a_long_answer_is_cut_by_udp_and_whole_by_tcp() -> None:
    async with served() as server:
        assert (await server.ask(ask("web")))[2] & 0x02
        whole = (await server.ask_by_stream(ask("web")))[0]
        assert struct.unpack_from("!H", whole, 6) == (100,)


async def test_several_questions_go_through_one_connection() -> None:
    async with served() as server:
        replies = await server.ask_by_stream(*(ask("db", number) for number in range(20)))
        assert [struct.unpack_from("!H", reply)[0] for reply in replies] == list(range(20))


async def test_what_we_do_not_know_is_asked_elsewhere_the_way_we_were_asked() -> None:
    fake = Fake(reply_to)
    async with served(fake) as server:
        assert (await server.ask(ask("example.org", 3)))[:2] == b"\0\3"
        assert (await server.ask_by_stream(ask("example.org", 4)))[0].endswith(b"\xc0\x00\x02\x09")
    assert len(fake.heard) == 2


async def test_nothing_of_a_container_on_an_island_is_heard_outside() -> None:
    fake = Fake(reply_to)
    async with served(fake, forward=False) as server:
        for name in ("secret.example.org", "9.2.0.192.in-addr.arpa", "single"):
            assert dns.code(await server.ask(ask(name))) in (dns.SERVER_FAILURE, dns.NO_SUCH_NAME)
            await server.ask_by_stream(ask(name))
    assert fake.heard == []


async def test_the_next_server_is_asked_when_one_is_silent_or_fails() -> None:
    silent, failing, good = (
        Fake(lambda _: None),
        Fake(lambda asked: reply_to(asked, dns.SERVER_FAILURE)),
        Fake(reply_to),
    )
    async with served(silent, failing, good) as server:
        assert dns.code(await server.ask(ask("example.org"))) == dns.NO_ERROR
    assert [len(fake.heard) for fake in (silent, failing, good)] == [1, 1, 1]


async def test_that_a_name_does_not_exist_is_final() -> None:
    first, second = Fake(lambda asked: reply_to(asked, dns.NO_SUCH_NAME)), Fake(reply_to)
    async with served(first, second) as server:
        assert dns.code(await server.ask(ask("example.org"))) == dns.NO_SUCH_NAME
    assert second.heard == []


async def test_no_server_that_answers_is_a_failure_the_asker_hears_of() -> None:
    async with served(Fake(lambda _: None)) as server:
        assert dns.code(await server.ask(ask("example.org"))) == dns.SERVER_FAILURE
        assert dns.code((await server.ask_by_stream(ask("example.org")))[0]) == dns.SERVER_FAILURE


async def test_a_closed_port_is_passed_over_at_once() -> None:
    closed = Fake(reply_to, upstream=Upstream("127.0.0.1", 9))
    async with trio.open_nursery() as nursery:
        good = Fake(reply_to)
        await nursery.start(good.run)
        forwarder = resolver.Forwarder(patience=30)
        question = dns.parse(ask("example.org"))
        assert question is not None
        with trio.fail_after(2):
            reply = await forwarder.ask(question, (closed.upstream, good.upstream), None, stream=False)
        assert dns.code(reply) == dns.NO_ERROR
        nursery.cancel_scope.cancel()


async def test_a_forged_reply_is_not_taken() -> None:
    """The right one comes after two wrong ones."""

    def forge(asked: bytes) -> bytes:
        return bytes((asked[0] ^ 1,)) + reply_to(asked, address=b"\6\6\6\6")[1:]

    fake = Fake(forge)
    async with served(fake) as server:
        reply = await server.ask(ask("example.org"))
    assert b"\6\6\6\6" not in reply
    assert dns.code(reply) == dns.SERVER_FAILURE


async def test_too_many_questions_at_a_time_are_refused_not_queued() -> None:
    fake = Fake(lambda _: None)
    async with served(fake, limit=2, patience=1.0) as server:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            await asking.connect(server.udp)
            for number in range(10):
                await asking.send(ask("example.org", number))
            with trio.fail_after(0.8):
                refused = [await asking.recv(512) for _ in range(8)]
    assert {dns.code(reply) for reply in refused} == {dns.SERVER_FAILURE}
    assert len(fake.heard) == 2


async def test_connections_that_say_nothing_do_not_keep_others_from_asking_by_udp() -> None:
    async with served() as server, trio.open_nursery() as nursery:
        held = [await trio.open_tcp_stream(*server.tcp) for _ in range(40)]
        assert (await server.ask(ask("db"))).endswith(b"\x0a\0\0\2")
        for stream in held:
            nursery.start_soon(stream.aclose)


async def test_garbage_by_tcp_ends_the_connection_and_nothing_else() -> None:
    async with served() as server:
        for garbage in (b"\xff\xff" + b"x" * 100, b"\0\0", b"\0\x05hello"):
            with trio.fail_after(5):
                async with await trio.open_tcp_stream(*server.tcp) as stream:
                    await stream.send_all(garbage)
                    with suppress(trio.BrokenResourceError):  # closed with our bytes unread: a reset
                        assert await stream.receive_some(10) == b""
        assert (await server.ask(ask("db"))).endswith(b"\x0a\0\0\2")


async def test_a_cancelled_server_leaves_its_sockets_to_their_owner() -> None:
    udp, tcp = opened(socket.SOCK_DGRAM), opened(socket.SOCK_STREAM)
    with closing(udp), closing(tcp):
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    resolver.serve, udp, tcp, lambda: Zone(scopes=(NAMES,)), resolver.Forwarder()
                )
                server = Served(udp.getsockname(), tcp.getsockname())
                assert (await server.ask(ask("db"))).endswith(b"\x0a\0\0\2")
                nursery.cancel_scope.cancel()


async def test_one_that_floods_leaves_others_their_turn() -> None:
    async with served() as loud, served() as quiet:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flooding:
            flooding.connect(loud.udp)
            flooding.settimeout(0)
            took = []
            for _ in range(20):
                for _ in range(200):
                    try:
                        flooding.send(ask("db"))
                    except BlockingIOError:
                        break
                started = trio.current_time()
                await quiet.ask(ask("db"))
                took.append(trio.current_time() - started)
            assert statistics.median(took) < 0.05, took  # a single one may wait for the machine
