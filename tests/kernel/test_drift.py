"""What somebody changes of our network is put right within two seconds, and no container is restarted."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.kernel import interfaces
from tests.kit.patience import patient
from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel

STACK = """
name: one
services:
  a: {x-rootfs: {path: $BOX}, command: sleep 1000, networks: [front, back]}
  b: {x-rootfs: {path: $BOX}, command: httpd -f -p 80 -h /etc, networks: [front], ports: ["127.0.0.1:PORT:80"]}
networks: {front: {}, back: {}}
"""


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def one(anchored_site: Site, port: int) -> Iterator[Site]:
    """The stack, up."""
    anchored_site.up(STACK.replace("PORT", str(port)))
    yield anchored_site
    anchored_site.down("one", timeout=0)


def bridge(site: Site) -> str:
    return interfaces.bridge(site.places.tag, "one_front")


def link(site: Site, service: str) -> str:
    return interfaces.port(site.places.tag, site.row("one", service)["id"], "one_front")


def gateway(site: Site) -> str:
    listed = subprocess.run(
        ["ip", "-o", "-4", "address", "show", "dev", bridge(site)], check=True, capture_output=True, text=True
    )
    return listed.stdout.split()[3]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def carry_off(site: Site) -> None:
    """Into a network namespace that goes away, and the link with it."""
    with subprocess.Popen(["unshare", "-n", "sleep", "60"]) as other:
        until(
            lambda: Path(f"/proc/{other.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink(), "it"
        )
        ip("link", "set", link(site, "b"), "netns", str(other.pid))
        time.sleep(0.3)
        other.kill()


def nft(site: Site, *words: str) -> None:
    subprocess.run(["nft", *words], check=True, capture_output=True)


FAULTS: dict[str, tuple[Callable[[Site], None], str]] = {
    "bridge deleted": (lambda site: ip("link", "delete", bridge(site)), "its bridge was deleted"),
    "bridge down": (lambda site: ip("link", "set", bridge(site), "down"), "its bridge was set down"),
    "bridge's address removed": (
        lambda site: ip("address", "del", gateway(site), "dev", bridge(site)),
        "its bridge had lost its address",
    ),
    "link deleted": (
        lambda site: ip("link", "delete", link(site, "b")),
        "its link to network one_front was deleted",
    ),
    "link taken off the bridge": (
        lambda site: ip("link", "set", link(site, "a"), "nomaster"),
        "its link to network one_front was taken off the bridge",
    ),
    "link down": (
        lambda site: ip("link", "set", link(site, "b"), "down"),
        "its link to network one_front was taken off the bridge",
    ),
    "link carried off": (carry_off, "its link to network one_front was deleted"),
    "table deleted": (
        lambda site: nft(site, "delete", "table", "ip", f"pystack-{site.places.tag}"),
        "its rules were changed",
    ),
    "table flushed": (
        lambda site: nft(site, "flush", "table", "ip", f"pystack-{site.places.tag}"),
        "its rules were changed",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_put_right_and_nobody_restarts(one: Site, port: int, fault: str) -> None:
    before = {row["service"]: row["pid"] for row in one.ps("one")}
    assert works(one, port)
    do, because = FAULTS[fault]
    do(one)
    began = time.monotonic()
    until(lambda: repairs(one, because), f"a repair: {because}")
    until(lambda: works(one, port), "that all works again")
    assert time.monotonic() - began < patient(2.0)
    assert {row["service"]: row["pid"] for row in one.ps("one")} == before


def repairs(site: Site, because: str) -> bool:
    told = site.ask("events", stack="one", history=True, follow=False).lines
    return any(line.get("verb") == "repair" and line["because"] == because for line in told)


def works(site: Site, port: int) -> bool:
    """By name inside, by the published port from outside, and out of the other network."""
    inside = site.execute("one", "a", "ping", "-c", "1", "-W", "1", "b", exit_code=None)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as asking:
            asking.sendall(b"GET /passwd HTTP/1.0\r\n\r\n")
            return "1 packets received" in inside and b"200 OK" in asking.recv(100)
    except OSError:
        return False


def test_own_work_is_no_drift(one: Site) -> None:
    """Coming and going of our own is announced as well, and nothing of it is repaired."""
    told = one.ask("events", stack="one", history=True, follow=False).lines
    before = sum(line.get("verb") == "repair" for line in told)
    for number in range(3):
        one.up(
            f"name: two\nservices: {{s: {{x-rootfs: {{path: $BOX}}, command: sleep 9{number}, scale: 4}}}}"
        )
        one.down("two", timeout=0)
    told = one.ask("events", stack="one", history=True, follow=False).lines
    assert sum(line.get("verb") == "repair" for line in told) == before
