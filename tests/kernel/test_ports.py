"""Published ports, from wherever a client may be."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.patience import patient
from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel

WEB = "sh -c 'mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www'"
ECHO = "import socket; s = socket.socket(2, 2); s.bind(('', 53))\nwhile 1: s.sendto(*s.recvfrom(99))"


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert isinstance(port, int)
        return port


def host_address() -> str:
    """One of this machine's own addresses that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # sends nothing
        address = sock.getsockname()[0]
        assert isinstance(address, str)
        return address


def page(address: str, port: int) -> str:
    """What an HTTP server says; "" when there is none."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=patient(1)) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while part := sock.recv(4096):
            answer += part
        return answer.partition(b"\r\n\r\n")[2].decode().strip()
    return ""


@contextlib.contextmanager
def listener(port: int, kind: int = socket.SOCK_STREAM) -> Iterator[None]:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        yield


def test_a_tcp_port_answers_from_loopback_the_host_s_address_and_other_containers(site: Site) -> None:
    port = free_port()
    site.up(
        f"""
        name: p1
        services:
          web: {{x-rootfs: {{path: $BOX}}, command: {WEB}, ports: ["{port}:80"]}}
          ask: {{x-rootfs: {{path: $BOX}}, command: sleep 100, networks: [other]}}
        networks: {{other: {{}}}}
        """
    )
    wanted = site.row("p1", "web")["id"][:12]
    for address in ("127.0.0.1", host_address()):
        assert until(lambda address=address: page(address, port), f"an answer at {address}") == wanted
    for service in ("ask", "web"):
        command = ["timeout", "2", "wget", "-q", "-O-", f"http://{host_address()}:{port}/"]
        assert site.execute("p1", service, *command).strip() == wanted
    site.down("p1")
    assert page("127.0.0.1", port) == ""


def test_a_udp_port_answers_from_loopback_and_the_host_s_address(site: Site) -> None:
    port = free_port(socket.SOCK_DGRAM)
    site.up(
        f"""
        name: p2
        services:
          echo: {{x-rootfs: host, command: [/usr/bin/python3, -c, {json.dumps(ECHO)}], ports: ["{port}:53/udp"]}}
        """
    )

    def echoes(address: str) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.3)
            with contextlib.suppress(OSError):
                sock.sendto(b"ping", (address, port))
                return sock.recv(100) == b"ping"
        return False

    assert until(lambda: echoes("127.0.0.1"), "an echo from loopback")
    assert until(lambda: echoes(host_address()), "an echo from the host's address")
    site.down("p2")


def test_a_port_published_on_loopback_is_not_to_be_had_elsewhere(site: Site) -> None:
    port = free_port()
    site.up(
        f"""
        name: p3
        services: {{web: {{x-rootfs: {{path: $BOX}}, command: {WEB}, ports: ["127.0.0.1:{port}:80"]}}}}
        """
    )
    assert until(lambda: page("127.0.0.1", port), "an answer")
    assert page(host_address(), port) == ""
    assert site.row("p3", "web")["ports"] == [
        {"host_ip": "127.0.0.1", "host_port": port, "target": 80, "protocol": "tcp"}
    ]
    site.down("p3")


def test_a_port_of_another_program_is_refused_and_the_rest_comes_up(site: Site) -> None:
    port = free_port()
    text = f"""
        name: p4
        services:
          web: {{x-rootfs: {{path: $BOX}}, command: {WEB}, ports: ["{port}:80"]}}
          calm: {{x-rootfs: {{path: $BOX}}, command: sleep 100}}
    """
    with listener(port):
        answer = site.up(text, exit_code=7)
        assert f"port {port}/tcp is in use" in answer.error
        assert site.row("p4", "calm")["state"] == "running"
    site.up(text)
    assert until(lambda: page("127.0.0.1", port), "an answer")
    site.down("p4")


def test_a_udp_port_and_a_bound_port_without_a_listener_are_in_use_too(site: Site) -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as bound:
        bound.bind(("0.0.0.0", port))
        answer = site.up(
            f"""
            name: p5
            services: {{web: {{x-rootfs: {{path: $BOX}}, command: {WEB}, ports: ["{port}:80"]}}}}
            """,
            exit_code=7,
        )
        assert f":{port}/tcp is already in use" in answer.error
    udp = free_port(socket.SOCK_DGRAM)
    with listener(udp, socket.SOCK_DGRAM):
        answer = site.up(
            f"""
            name: p5
            services: {{web: {{x-rootfs: {{path: $BOX}}, command: {WEB}, ports: ["{udp}:80/udp"]}}}}
            """,
            exit_code=7,
        )
        assert f"port {udp}/udp is in use" in answer.error
    site.down("p5")


def test_a_port_of_another_stack_is_refused_while_that_holds_it(site: Site) -> None:
    port = free_port()
    text = f"""
        name: NAME
        services: {{web: {{x-rootfs: {{path: $BOX}}, command: {WEB}, ports: ["{port}:80"]}}}}
    """
    site.up(text.replace("NAME", "p6"))
    refused = site.up(text.replace("NAME", "p7"), exit_code=7)
    assert refused.error.endswith(f"port {port}/tcp is in use by container p6-web-1 of stack p6")
    assert "`pystack -p p6 stop`" in refused.hint
    site.ask("stop", stack="p6", timeout=0)
    site.up(text.replace("NAME", "p7"))
    assert until(lambda: page("127.0.0.1", port), "an answer") == site.row("p7", "web")["id"][:12]
    answer = site.ask("start", stack="p6", exit_code=7)
    assert answer.error.endswith(f"port {port}/tcp is in use by container p7-web-1 of stack p7")
    site.down("p6")
    site.down("p7")


def test_a_range_gives_each_replica_a_port_and_none_means_any(site: Site) -> None:
    first = 20000 + free_port() % 10000
    site.up(
        f"""
        name: p8
        services:
          web:
            x-rootfs: {{path: $BOX}}
            command: {WEB}
            ports: ["{first}-{first + 2}:80"]
            scale: 3
          any: {{x-rootfs: {{path: $BOX}}, command: {WEB}, ports: ["80"]}}
        """
    )
    given = {row["slot"]: row["ports"][0]["host_port"] for row in site.ps("p8") if row["service"] == "web"}
    assert sorted(given.values()) == [first, first + 1, first + 2]
    for slot, port in given.items():
        assert (
            until(lambda port=port: page("127.0.0.1", port), "an answer")
            == site.row("p8", "web", slot)["id"][:12]
        )
    chosen = site.row("p8", "any")["ports"][0]["host_port"]
    assert until(lambda: page("127.0.0.1", chosen), "an answer")
    site.down("p8")


def test_a_port_stays_with_its_container_over_restarts_of_all_kinds(site: Site) -> None:
    port = free_port()
    text = f"""
        name: p9
        services:
          web: {{x-rootfs: {{path: $BOX}}, command: {WEB}, ports: ["{port}:80"], restart: always, init: true}}
    """
    site.up(text)
    assert until(lambda: page("127.0.0.1", port), "an answer")
    site.execute("p9", "web", "kill", "-9", "-1", exit_code=None)
    assert until(lambda: page("127.0.0.1", port), "an answer after its own end")
    site.ask("restart", stack="p9", timeout=0)
    assert until(lambda: page("127.0.0.1", port), "an answer after a restart")
    site.up(text, force_recreate=True, timeout=0)
    assert until(lambda: page("127.0.0.1", port), "an answer after its replacement")
    site.down("p9")
