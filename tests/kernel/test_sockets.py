"""Host ports: who has them, and keeping them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Literal

import pytest

from orchestrator.kernel import netns, sockets
from orchestrator.kernel.sockets import Bound
from tests.kit.wires import run

pytestmark = pytest.mark.kernel


@pytest.fixture
def alone() -> Iterator[None]:
    """A network namespace of our own, so that nobody else's ports are seen."""
    made = netns.create()
    try:
        run(made, "ip", "link", "set", "lo", "up")
        with netns.inside(made):
            yield
    finally:
        os.close(made)


def test_what_waits_is_listed_whoever_it_belongs_to(alone: None) -> None:
    six = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    with closing(six), sockets.hold("127.0.0.1", 8080, "tcp"), sockets.hold("", 53, "udp"):
        six.bind(("::1", 8081))
        six.listen()
        with sockets.open_diag() as diag:
            assert sockets.bound(diag) == {
                Bound(protocol="tcp", host_ip="127.0.0.1", port=8080),
                Bound(protocol="tcp", host_ip="::1", port=8081),
                Bound(protocol="udp", host_ip="", port=53),
            }


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_that_is_kept_can_be_had_by_nobody_else(alone: None, protocol: Literal["tcp", "udp"]) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with sockets.hold("", 8080, protocol):
        with pytest.raises(OSError, match=rf"\*:8080/{protocol}: Address already in use") as caught:
            sockets.hold("", 8080, protocol)
        assert caught.value.errno == errno.EADDRINUSE
        with closing(socket.socket(socket.AF_INET, kind)) as stranger:
            if protocol == "tcp":
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                stranger.bind(("127.0.0.1", 8080))
    sockets.hold("", 8080, protocol).close()


def test_connections_that_linger_do_not_keep_a_port_taken(alone: None) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as serving:
        serving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        serving.bind(("127.0.0.1", 8080))
        serving.listen()
        with closing(socket.create_connection(("127.0.0.1", 8080))) as client:
            accepted, _ = serving.accept()
            accepted.close()
            assert client.recv(1) == b""
    sockets.hold("", 8080, "tcp").close()


def test_an_address_that_is_not_ours_is_refused(alone: None) -> None:
    with pytest.raises(OSError, match="hold port 203") as caught:
        sockets.hold("203.0.113.9", 80, "tcp")
    assert caught.value.errno == errno.EADDRNOTAVAIL
