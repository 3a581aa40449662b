"""Published ports of a user without privileges: connections of the host are carried into their own network.

The listening socket belongs to the host's network (the porter has opened it), the connection to the container
is made in ours. Bytes of TCP stay in the kernel: splice(2) moves them through a pipe. The container sees the
gateway of its network as the sender. Of containers that share a port one is chosen for each connection; one
that does not take it is passed over.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import Protocol

import trio

Address = tuple[str, int]

_CONNECT_SECONDS = 10.0
_PIECE = 1 << 20
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_STREAMS = 2000
"""Connections of one port at a time; further ones wait in the queue of the listening socket."""
_FLOWS = 1000
"""Senders of datagrams to one port that are remembered; the oldest is forgotten for a new one."""
_FLOW_SECONDS = 60.0
_DATAGRAM = 1 << 16
_PORTION = 64
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_RESET = struct.pack("ii", 1, 0)
"""struct linger: closing sends RST."""


class Lead(Protocol):
    """Where a port leads to."""

    def choose(self) -> Sequence[Address]:
        """For something new: where to try, in this order. Another order each time."""
        ...

    def may_go_on(self, target: Address) -> bool:
        """Whether datagrams that have gone there until now should still go there."""
        ...


async def serve(listening: socket.socket, lead: Lead) -> None:
    """Carry what comes to the socket to containers, until cancelled. Closes the socket."""
    with listening:
        if listening.type == socket.SOCK_STREAM:
            await _serve_streams(listening, lead)
        else:
            await _serve_datagrams(listening, lead)


# --- TCP -------------------------------------------------------------------------------------------


async def _serve_streams(listening: socket.socket, lead: Lead) -> None:
    room = trio.Semaphore(_STREAMS)
    async with trio.open_nursery() as nursery:
        while True:
            await room.acquire()
            nursery.start_soon(_carry_stream, await _accept(listening), lead, room)


async def _accept(listening: socket.socket) -> socket.socket:
    while True:
        try:
            await trio.lowlevel.wait_readable(listening)
            client, _ = listening.accept()
        except OSError as error:
            if error.errno in _FULL:
                await trio.sleep(0.1)
            continue
        client.settimeout(0)
        return client


async def _carry_stream(client: socket.socket, lead: Lead, room: trio.Semaphore) -> None:
    with contextlib.closing(client):
        try:
            inner = await _connect(lead)
            if inner is None:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                return
            with inner:
                await _carry_both_ways(client, inner)
        finally:
            room.release()


async def _connect(lead: Lead) -> socket.socket | None:
    """A connection to the first container that takes it."""
    for target in lead.choose():
        inner = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            inner.settimeout(0)
            if await _connected(inner, target):
                return inner
        except OSError:
            pass
        except BaseException:
            inner.close()
            raise
        inner.close()
    return None


async def _connected(inner: socket.socket, target: Address) -> bool:
    """Whether the container takes the connection."""
    if inner.connect_ex(target) == errno.EINPROGRESS:
        with trio.move_on_after(_CONNECT_SECONDS) as patience:
            await trio.lowlevel.wait_writable(inner)
        if patience.cancelled_caught:
            return False
    return inner.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


async def _carry_both_ways(client: socket.socket, inner: socket.socket) -> None:
    try:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_move, client, inner)
            await _move(inner, client)
    except* OSError:
        # One side is gone without a word: so be it for the other.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


async def _move(source: socket.socket, sink: socket.socket) -> None:
    """Everything from one connection to the other, and then that no more comes."""
    out, into = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        while count := await _fill(source, into):
            while count:
                count -= await _drain(out, sink, count)
    finally:
        os.close(out)
        os.close(into)
    with contextlib.suppress(OSError):  # it has ended already
        sink.shutdown(socket.SHUT_WR)


async def _fill(source: socket.socket, pipe: int) -> int:
    """What is there, into an empty pipe; 0 at the end."""
    while True:
        try:
            moved = os.splice(source.fileno(), pipe, _PIECE, flags=_FLAGS)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(source)
        else:
            await trio.lowlevel.checkpoint()
            return moved


async def _drain(pipe: int, sink: socket.socket, count: int) -> int:
    while True:
        try:
            return os.splice(pipe, sink.fileno(), count, flags=_FLAGS)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sink)


# --- UDP -------------------------------------------------------------------------------------------


class _Flow:
    """One sender and the socket that speaks for it."""

    __slots__ = ("heard", "scope", "sock", "target")

    def __init__(self, sock: socket.socket, target: Address) -> None:
        self.sock = sock
        self.target = target
        self.scope = trio.CancelScope()
        self.heard = trio.current_time()


async def _serve_datagrams(listening: socket.socket, lead: Lead) -> None:
    flows: dict[Address, _Flow] = {}
    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(listening)
            for _ in range(_PORTION):
                try:
                    data, sender = listening.recvfrom(_DATAGRAM)
                except OSError:
                    break
                flow = flows.get(sender)
                if flow is not None and not lead.may_go_on(flow.target):
                    flow.scope.cancel()
                    flow = None
                if flow is None:
                    targets = lead.choose()
                    if not targets:
                        continue  # lost, as with a port that leads nowhere
                    flow = _begin_flow(flows, sender, targets[0])
                    nursery.start_soon(_answer, listening, flows, sender, flow)
                flow.heard = trio.current_time()
                with contextlib.suppress(OSError):
                    flow.sock.send(data)
            await trio.lowlevel.checkpoint()


def _begin_flow(flows: dict[Address, _Flow], sender: Address, target: Address) -> _Flow:
    if len(flows) >= _FLOWS:
        oldest = min(flows, key=lambda one: flows[one].heard)
        flows.pop(oldest).scope.cancel()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(0)
    with contextlib.suppress(OSError):  # no route: what is sent is lost
        sock.connect(target)
    flows[sender] = _Flow(sock, target)
    return flows[sender]


async def _answer(
    listening: socket.socket, flows: dict[Address, _Flow], sender: Address, flow: _Flow
) -> None:
    with flow.sock, flow.scope:
        while True:
            with trio.move_on_after(_FLOW_SECONDS):
                await trio.lowlevel.wait_readable(flow.sock)
            with contextlib.suppress(OSError):
                while True:
                    listening.sendto(flow.sock.recv(_DATAGRAM), sender)
                    flow.heard = trio.current_time()
            if trio.current_time() - flow.heard >= _FLOW_SECONDS:
                break
    if flows.get(sender) is flow:
        del flows[sender]
