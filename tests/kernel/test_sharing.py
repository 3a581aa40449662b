"""One published port for all containers of a service, on real packets."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.kernel import firewall
from tests.kernel.test_ports import free_port, page
from tests.kit.crowd import Crowd
from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel

ECHO = """
import os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 53))
while True:
    _, sender = s.recvfrom(99)
    s.sendto(os.uname().nodename.encode(), sender)
"""
HEALTHY = "{test: [CMD, test, -f, /tmp/well], interval: 0.1s, retries: 1}"


@pytest.fixture
def site(state_root: Path) -> Iterator[Site]:
    with Site(state_root) as made:
        yield made


def answers(port: int, count: int = 40) -> Counter[str]:
    """Who answers how often; "" for a request that is lost."""
    return Counter(page("127.0.0.1", port) for _ in range(count))


def ids(site: Site, stack: str) -> dict[int, str]:
    """By slot."""
    return {row["slot"]: row["id"][:12] for row in site.ps(stack) if row["state"] == "running"}


def test_replicas_share_a_port_and_no_request_is_lost(site: Site) -> None:
    """All answer; who is not well, is killed or is scaled away gets nothing more. A supervisor that begins
    again knows who is out, and a table that was flushed is written anew."""
    port = free_port()
    text = f"""
        name: shop
        services:
          web:
            x-rootfs: {{path: $BOX}}
            command: sh -c 'touch /tmp/well; mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www'
            ports: ["{port}:80"]
            healthcheck: {HEALTHY}
            scale: SCALE
            stop_grace_period: 0.3s
            restart: always
    """
    site.up(text.replace("SCALE", "3"))
    known = ids(site, "shop")
    assert until(lambda: set(answers(port)) == set(known.values()), "an answer of each")
    assert [row["ports"][0]["host_port"] for row in site.ps("shop")] == [port] * 3

    site.execute("shop", "web", "rm", "/tmp/well")
    assert until(lambda: known[1] not in answers(port), "nothing for who is not well")
    assert "" not in answers(port)
    site.execute("shop", "web", "touch", "/tmp/well")
    assert until(lambda: set(answers(port)) == set(known.values()), "an answer of each")

    # The table is written anew as it was, and who is out stays out when the supervisor has to begin again.
    site.execute("shop", "web", "rm", "/tmp/well")
    assert until(lambda: known[1] not in answers(port), "nothing for who is not well")
    subprocess.run(["nft", "flush", "table", "ip", firewall.table_name(site.places.tag)], check=True)
    assert until(lambda: set(answers(port, 20)) == {known[2], known[3]}, "the ports again")
    with Crowd(port, many=2) as crowd:
        site.kill(site.supervisor)
        until(lambda: len(site.ps("shop")) == 3, "another supervisor")
    assert crowd.lost == {}
    assert set(answers(port)) == {known[2], known[3]}

    (third,) = [row["pid"] for row in site.ps("shop") if row["slot"] == 3]
    site.kill(third)
    assert until(lambda: set(answers(port, 5)) == {known[2]}, "the rest for who is left")
    site.execute("shop", "web", "touch", "/tmp/well")
    assert until(lambda: set(answers(port)) == set(known.values()), "all of them again")

    with Crowd(port, many=2) as crowd:
        site.up(text.replace("SCALE", "1"))
        until(lambda: len(site.ps("shop")) == 1, "one that is left")
    assert crowd.said.total() > 20
    assert crowd.lost == {}
    site.down("shop")
    assert page("127.0.0.1", port) == ""


LATE = """
import http.server, os, time
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.wfile.write(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + os.uname().nodename[:12].encode())
    def log_message(self, *_): pass
own = http.server.HTTPServer(("127.0.0.1", 8080), Page)
time.sleep(0.7)
own.server_close()
http.server.ThreadingHTTPServer(("", 8080), Page).serve_forever()
"""


def test_without_a_health_check_nobody_is_sent_to_who_does_not_listen_yet(site: Site) -> None:
    """Listening to itself alone does not count."""
    port = free_port()
    text = f"""
        name: late
        services:
          web:
            x-rootfs: host
            init: true
            command: [python3, -c, {json.dumps(LATE)}]
            ports: ["{port}:8080"]
            scale: SCALE
    """
    site.up(text.replace("SCALE", "1"))
    until(lambda: page("127.0.0.1", port), "the first")
    with Crowd(port, many=2) as crowd:
        site.up(text.replace("SCALE", "3"))
        known = ids(site, "late")
        until(lambda: set(answers(port, 12)) == set(known.values()), "an answer of each")
    assert crowd.said.total() > 20
    assert crowd.lost == {}
    site.down("late", timeout=0)


def test_a_udp_sender_stays_with_its_container_until_that_is_told_to_stop(site: Site) -> None:
    port = free_port(socket.SOCK_DGRAM)
    text = f"""
        name: dns
        services:
          echo:
            x-rootfs: host
            init: true
            command: [python3, -c, {json.dumps(ECHO)}]
            ports: ["{port}:53/udp"]
            scale: SCALE
    """
    site.up(text.replace("SCALE", "3"))
    known = ids(site, "dns")
    with contextlib.ExitStack() as stack:
        senders = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(40)]
        # New flows until all have come up, then each stays where it is.
        until(lambda: {echo(port) for _ in range(9)} == set(known.values()), "an echo of each")
        served = [echo(port, sender) for sender in senders]
        assert set(served) == set(known.values())
        assert [echo(port, sender) for sender in senders] == served
        site.up(text.replace("SCALE", "2"))
        until(lambda: len(site.ps("dns")) == 2, "two that are left")
        left = {known[1], known[2]}
        for sender, before in zip(senders, served, strict=True):
            now = echo(port, sender)
            assert now == before if before in left else now in left
    site.down("dns", timeout=0)


def echo(port: int, sender: socket.socket | None = None) -> str:
    with contextlib.nullcontext(sender) if sender else socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        with contextlib.suppress(OSError):
            sock.sendto(b"who?", ("127.0.0.1", port))
            return sock.recv(99).decode()[:12]
    return ""
