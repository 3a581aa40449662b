"""The name service inside a container, asked by dig, in the container's own namespace."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from functools import partial

import pytest
import trio

from orchestrator.engines.local import dns, resolver
from orchestrator.engines.local.dns import Upstream, Zone
from orchestrator.kernel import netns
from tests.kit.wires import World, run, world

pytestmark = pytest.mark.kernel

ZONE = Zone(
    scopes=({"db": ("10.81.0.3", "10.81.0.4"), "many": tuple(f"10.9.{place}.1" for place in range(200))},),
    reverse=({"10.81.0.3": "shop-db-1.shop_front"},),
)


@pytest.fixture
def town() -> Iterator[World]:
    with world() as made:
        made.network("front", "10.81.0.1/24")
        yield made


@asynccontextmanager
async def resolving(namespace: int, zone: Zone) -> AsyncIterator[None]:
    udp, tcp = resolver.open_sockets(namespace)
    with closing(udp), closing(tcp):
        async with trio.open_nursery() as nursery:
            forwarder = resolver.Forwarder(patience=0.5)
            nursery.start_soon(partial(resolver.serve, udp, tcp, lambda: zone, forwarder, namespace))
            yield
            nursery.cancel_scope.cancel()


async def dig(namespace: int, *words: str) -> str:
    asked = ("dig", "+tries=1", "+time=2", "@127.0.0.11", *words)
    return await trio.to_thread.run_sync(partial(run, namespace, *asked))


async def test_dig_understands_our_answers(town: World) -> None:
    container = town.container(front="10.81.0.2")
    async with resolving(container, ZONE):
        assert sorted((await dig(container, "+short", "db")).split()) == ["10.81.0.3", "10.81.0.4"]
        assert sorted((await dig(container, "+short", "+tcp", "DB")).split()) == ["10.81.0.3", "10.81.0.4"]
        assert (await dig(container, "+short", "-x", "10.81.0.3")).strip() == "shop-db-1.shop_front."
        empty = await dig(container, "db", "AAAA")
        assert "status: NOERROR" in empty
        assert "ANSWER: 0" in empty
        assert "status: NXDOMAIN" in await dig(container, "nobody")
        assert "status: SERVFAIL" in await dig(container, "example.org")
        assert "WARNING" not in await dig(container, "db")
        assert "version: 0" in await dig(container, "+edns=0", "db"), "EDNS is answered"


async def test_dig_goes_on_by_tcp_when_an_answer_was_cut(town: World) -> None:
    container = town.container(front="10.81.0.2")
    async with resolving(container, ZONE):
        assert len((await dig(container, "+short", "many")).split()) == 200
        cut = await dig(container, "+ignore", "+noedns", "many")
        assert " tc" in cut.split(";; flags:")[1].split(";")[0]


async def test_replicas_take_turns(town: World) -> None:
    container = town.container(front="10.81.0.2")
    async with resolving(container, ZONE):
        first = {(await dig(container, "+short", "db")).split()[0] for _ in range(4)}
    assert first == {"10.81.0.3", "10.81.0.4"}


async def test_a_container_may_serve_dns_itself(town: World) -> None:
    """On the wildcard address, UDP and TCP, as CoreDNS and Pi-hole do; both are then reached."""
    container = town.container(front="10.81.0.2")
    async with resolving(container, ZONE):
        own = town.datagrams(container, 53)
        town.listen(container, 53)
        assert "10.81.0.3" in await dig(container, "+short", "db")
        assert "10.81.0.3" in await dig(container, "+short", "+tcp", "db")
        asking = town.datagrams(container)
        asking.sendto(b"mine", ("127.0.0.1", 53))
        assert own.recvfrom(10)[0] == b"mine"


async def test_sockets_can_be_opened_anew_in_the_same_container(town: World) -> None:
    """After a crash of the supervisor: the old rules point to ports that nobody serves."""
    container = town.container(front="10.81.0.2")
    for _ in range(3):
        async with resolving(container, ZONE):
            assert "10.81.0.3" in await dig(container, "+short", "db")
    assert run(container, "nft", "list", "tables").split() == ["table", "ip", "pystack-dns"]


async def test_name_service_needs_no_network(town: World) -> None:
    container = netns.create()
    with ExitStack() as stack:
        stack.callback(os.close, container)
        udp, tcp = resolver.open_sockets(container)  # loopback is still down
        udp.close()
        tcp.close()
        run(container, "ip", "link", "set", "lo", "up")
        async with resolving(container, ZONE):
            assert "10.81.0.3" in await dig(container, "+short", "db")


async def test_a_server_of_the_services_choice_is_asked_from_inside_the_container(town: World) -> None:
    """`dns: 127.0.0.1` means the container's loopback, never the host's."""
    container = town.container(front="10.81.0.2")
    inner = town.datagrams(container, 5300, "127.0.0.1")
    inner.settimeout(0)

    async def reply() -> None:
        await trio.lowlevel.wait_readable(inner)
        message, sender = inner.recvfrom(512)
        asked = dns.parse(message)
        assert asked is not None
        inner.sendto(dns.respond(asked, dns.NO_SUCH_NAME), sender)

    zone = Zone(upstreams=(Upstream("127.0.0.1", 5300, inside=True),))
    async with resolving(container, zone), trio.open_nursery() as nursery:
        nursery.start_soon(reply)
        assert "status: NXDOMAIN" in await dig(container, "example.org")


async def test_nobody_else_reaches_a_containers_resolver(town: World) -> None:
    container, beside = town.container(front="10.81.0.2"), town.container(front="10.81.0.3")
    udp, tcp = resolver.open_sockets(container)
    with closing(udp), closing(tcp):
        asking = town.datagrams(beside)
        asking.sendto(b"x", ("10.81.0.2", udp.getsockname()[1]))
        await trio.sleep(0.1)
        with pytest.raises(BlockingIOError):
            udp.recvfrom(10)
        assert udp.family == socket.AF_INET
