"""Name service for containers: one task pair a container, on sockets inside its network namespace.

The socket says who asks, so every container gets its own zone and none can pose as another. A container
that floods or stalls its resolver hurts itself: work is done in small portions, everything is bounded.
"""

from __future__ import annotations

import errno
import secrets
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from orchestrator.engines.local import dns
from orchestrator.engines.local.dns import Question, Upstream, Zone
from orchestrator.engines.local.turns import SLICE, Turns
from orchestrator.kernel import netns, redirect

ADDRESS = "127.0.0.11"
_FREEBIND = 15  # IP_FREEBIND: loopback need not be up yet

_PORTION = 32
"""Datagrams answered before other tasks have their turn."""
_QUERY_LIMIT = 4096
_UPSTREAM_PATIENCE = 2.0
_IN_FLIGHT_EACH, _IN_FLIGHT_ALL = 64, 256
_CONNECTIONS = 16
_CONNECTION_QUERIES = 64
_CONNECTION_PATIENCE = 10.0
"""Seconds for one query by TCP to come in, and for its answer to be taken."""
_BACKLOG = 16


def open_sockets(namespace: int) -> tuple[socket.socket, socket.socket]:
    """(UDP, TCP) of a resolver inside the network namespace, and 127.0.0.11:53 leading to them.

    They are non-blocking, on ports of the kernel's choice. Raises OSError. About 0.5 ms; blocking.
    """
    with netns.inside(namespace):
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        streams = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        for opened in (datagrams, streams):
            opened.settimeout(0)
            opened.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
            opened.bind((ADDRESS, 0))
        streams.listen(_BACKLOG)
        redirect.lay(namespace, datagrams.getsockname()[1], streams.getsockname()[1])
    except BaseException:
        datagrams.close()
        streams.close()
        raise
    return datagrams, streams


class Forwarder:
    """Asks other servers for all containers: not more than so many questions at a time."""

    def __init__(
        self,
        limit: int = _IN_FLIGHT_ALL,
        patience: float = _UPSTREAM_PATIENCE,
        host: Callable[[int, int], Awaitable[socket.socket]] | None = None,
    ) -> None:
        """`patience`: seconds for each server. `host` makes a socket (family, kind) of the host's network,
        where that is not ours."""
        self._host = host
        self._free = limit
        self._patience = patience

    async def ask(
        self, question: Question, upstreams: tuple[Upstream, ...], namespace: int | None, *, stream: bool
    ) -> bytes:
        """One server after the other, by UDP or TCP as we were asked; the asker's answer in any case."""
        reply = None
        if self._free > 0:
            self._free -= 1
            try:
                reply = await self._ask_each(question, upstreams, namespace, stream=stream)
            finally:
                self._free += 1
        return reply or dns.respond(question, dns.SERVER_FAILURE)

    async def _ask_each(
        self, question: Question, upstreams: tuple[Upstream, ...], namespace: int | None, *, stream: bool
    ) -> bytes | None:
        unhappy = None
        exchange = _by_stream if stream else _by_datagram
        for upstream in upstreams[: dns.MOST_UPSTREAMS]:
            if upstream.inside and namespace is None:
                continue
            reply = None
            with trio.move_on_after(self._patience):
                try:
                    asking = await self._open(upstream, namespace if upstream.inside else None, stream=stream)
                    reply = await exchange(question, upstream, asking)
                except (OSError, EOFError, trio.BrokenResourceError):
                    continue
            if reply is not None and dns.code(reply) not in (dns.SERVER_FAILURE, dns.REFUSED):
                return reply
            unhappy = reply or unhappy
        return unhappy

    async def _open(
        self, upstream: Upstream, namespace: int | None, *, stream: bool
    ) -> trio.socket.SocketType:
        family = socket.AF_INET6 if ":" in upstream.address else socket.AF_INET
        kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
        if namespace is not None:
            return trio.socket.from_stdlib_socket(netns.socket_in(namespace, family, kind))
        if self._host is None:
            return trio.socket.socket(family, kind)
        return trio.socket.from_stdlib_socket(await self._host(family, kind))


async def _by_datagram(
    question: Question, upstream: Upstream, asking: trio.socket.SocketType
) -> bytes | None:
    """A socket for each question: the kernel picks a random port, and a connected one hears nobody else."""
    number = secrets.randbits(16)
    with asking:
        await asking.connect((upstream.address, upstream.port))
        await asking.send(dns.query(question, number))
        while True:
            reply = dns.returned(question, number, await asking.recv(_QUERY_LIMIT))
            if reply is not None:
                return reply


async def _by_stream(question: Question, upstream: Upstream, asking: trio.socket.SocketType) -> bytes | None:
    number = secrets.randbits(16)
    with asking:
        await asking.connect((upstream.address, upstream.port))
        stream = trio.SocketStream(asking)
        await stream.send_all(_framed(dns.query(question, number)))
        return dns.returned(question, number, await _read_frame(stream, dns.LARGEST_MESSAGE))


def _framed(message: bytes) -> bytes:
    return struct.pack("!H", len(message)) + message


async def _read_frame(stream: trio.SocketStream, limit: int) -> bytes:
    """One message by TCP. Raises EOFError when the other side ends or has more than `limit` bytes."""
    (size,) = struct.unpack("!H", await _read_exactly(stream, 2))
    if size > limit:
        raise EOFError
    return await _read_exactly(stream, size)


async def _read_exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = await stream.receive_some(size - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


# --- serving ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Desk:
    """One container's name service: what its two tasks share."""

    zone: Callable[[], Zone]
    forwarder: Forwarder
    namespace: int | None
    nursery: trio.Nursery
    deaf: Callable[[], None]
    turn: int = 0
    in_flight: int = 0
    connections: int = 0


async def serve(
    udp: socket.socket,
    tcp: socket.socket,
    zone: Callable[[], Zone],
    forwarder: Forwarder,
    namespace: int | None = None,
    deaf: Callable[[], None] = lambda: None,
    turns: Turns | None = None,
) -> None:
    """Answer one container until cancelled. The sockets stay open: their owner closes them.

    `zone` is called for every portion of questions, so it must be cheap; `namespace` is the container's,
    needed for upstreams that are to be asked from inside; `deaf` is told when a socket can't be reached any
    more: who may administer the namespace can destroy it (sock_diag(7), SOCK_DESTROY). `turns`: of all that
    may flood.
    """
    async with trio.open_nursery() as nursery:
        desk = _Desk(zone, forwarder, namespace, nursery, deaf)
        nursery.start_soon(_serve_streams, tcp, desk)
        await _serve_datagrams(udp, desk, turns or Turns())


async def _serve_datagrams(udp: socket.socket, desk: _Desk, turns: Turns) -> None:
    worked = 0.0
    while True:
        await trio.lowlevel.wait_readable(udp)
        began = time.perf_counter()
        zone = desk.zone()
        for _ in range(_PORTION):
            try:
                message, asker = udp.recvfrom(_QUERY_LIMIT)
            except ConnectionAbortedError:
                return desk.deaf()
            except OSError:
                break
            _answer_datagram(udp, desk, zone, message, asker)
        worked += time.perf_counter() - began
        if worked > SLICE:
            await turns.rest(worked)
            worked = 0.0


def _answer_datagram(
    udp: socket.socket, desk: _Desk, zone: Zone, message: bytes, asker: tuple[str, int]
) -> None:
    question = dns.parse(message)
    if question is None:
        return
    desk.turn += 1
    reply = dns.answer(question, zone, desk.turn, question.limit)
    if reply is not None:
        _send(udp, reply, asker)
    elif desk.in_flight < _IN_FLIGHT_EACH:
        desk.in_flight += 1
        desk.nursery.start_soon(_forward_datagram, udp, desk, zone, question, asker)
    else:
        _send(udp, dns.respond(question, dns.SERVER_FAILURE), asker)


async def _forward_datagram(
    udp: socket.socket, desk: _Desk, zone: Zone, question: Question, asker: tuple[str, int]
) -> None:
    try:
        reply = await desk.forwarder.ask(question, zone.upstreams, desk.namespace, stream=False)
        _send(udp, dns.fit(question, reply, question.limit), asker)
    finally:
        desk.in_flight -= 1


def _send(udp: socket.socket, reply: bytes, asker: tuple[str, int]) -> None:
    """Without waiting: an asker that does not read its answers loses them, as with any DNS server."""
    try:
        udp.sendto(reply, asker)
    except OSError:
        return


async def _serve_streams(tcp: socket.socket, desk: _Desk) -> None:
    while True:
        await trio.lowlevel.wait_readable(tcp)
        try:
            connection, _ = tcp.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                await trio.sleep(0.1)
            elif error.errno == errno.EINVAL:  # it does not listen any more, and would be readable for ever
                return desk.deaf()
            continue
        if desk.connections >= _CONNECTIONS:
            connection.close()
            continue
        desk.connections += 1
        connection.settimeout(0)
        desk.nursery.start_soon(_serve_connection, connection, desk)


async def _serve_connection(connection: socket.socket, desk: _Desk) -> None:
    try:
        async with trio.SocketStream(trio.socket.from_stdlib_socket(connection)) as stream:
            for _ in range(_CONNECTION_QUERIES):
                with trio.fail_after(_CONNECTION_PATIENCE):
                    message = await _read_frame(stream, _QUERY_LIMIT)
                reply = await _answer_message(message, desk)
                if reply is None:
                    return
                with trio.fail_after(_CONNECTION_PATIENCE):
                    await stream.send_all(_framed(reply))
    except (OSError, EOFError, trio.BrokenResourceError, trio.TooSlowError):
        return
    finally:
        desk.connections -= 1


async def _answer_message(message: bytes, desk: _Desk) -> bytes | None:
    question = dns.parse(message)
    if question is None:
        return None
    desk.turn += 1
    zone = desk.zone()
    reply = dns.answer(question, zone, desk.turn, dns.LARGEST_MESSAGE)
    if reply is not None:
        return reply
    return await desk.forwarder.ask(question, zone.upstreams, desk.namespace, stream=True)
