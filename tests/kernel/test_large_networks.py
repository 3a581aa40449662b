"""A network of more addresses than a bridge has ports: containers far apart in it, on bridges of their own."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.kernel import interfaces
from tests.kit.patience import patient
from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel

NAME = "one_wide"
GATEWAY = "10.98.0.1"
STACK = """
name: one
services:
  near: {x-rootfs: {path: $BOX}, command: httpd -f -p 80 -h /etc, networks: {wide: {ipv4_address: 10.98.0.5}}}
  far:
    x-rootfs: {path: $BOX}
    command: httpd -f -p 80 -h /etc
    networks: {wide: {ipv4_address: 10.98.8.5}}
    ports: ["127.0.0.1:PORT:80"]
  beside: {x-rootfs: {path: $BOX}, command: sleep 1000, networks: {wide: {ipv4_address: 10.98.9.255}}}
networks: {wide: {ipam: {config: [{subnet: 10.98.0.0/16}]}}}
"""
SEGMENT = 4
"""The one that far and beside are on."""


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
    anchored_site.down("one")


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def ours(site: Site) -> set[str]:
    """The network's links on the host's side, but for those of containers."""
    shown = {line.split(": ")[1].partition("@")[0] for line in ip("-o", "link").splitlines()}
    tag = site.places.tag
    return {name for name in shown if name.startswith(interfaces.prefix(tag)) and name[6] != "v"}


def links_of(site: Site) -> dict[str, str]:
    tag = site.places.tag
    upper, lower = interfaces.trunk(tag, NAME, SEGMENT)
    first, further = interfaces.bridge(tag, NAME), interfaces.bridge(tag, NAME, SEGMENT)
    return {"first": first, "further": further, "upper": upper, "lower": lower}


def pids(site: Site) -> dict[str, int]:
    return {row["service"]: row["pid"] for row in site.ps("one")}


def works(site: Site, port: int) -> bool:
    """By name in both directions, by the published port from the host, and to the host."""
    for service, other in (("near", "far"), ("far", "near"), ("beside", "near"), ("beside", "far")):
        if "root:" not in page(site, service, f"http://{other}/passwd"):
            return False
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as asking:
            asking.sendall(b"GET /passwd HTTP/1.0\r\n\r\n")
            return b"200 OK" in asking.recv(100)
    except OSError:
        return False


def page(site: Site, service: str, url: str) -> str:
    return site.execute("one", service, "timeout", "1", "wget", "-q", "-O-", url, exit_code=None)


def test_containers_far_apart_are_on_one_network_and_nothing_of_it_is_left(site: Site, port: int) -> None:
    site.up(STACK.replace("PORT", str(port)), "near")
    assert ours(site) & set(links_of(site).values()) == {links_of(site)["first"]}
    site.up(STACK.replace("PORT", str(port)))
    assert set(links_of(site).values()) <= ours(site)
    assert works(site, port)
    with socket.create_server((GATEWAY, 0)) as listening:
        listening.settimeout(patient(2))
        number = listening.getsockname()[1]
        site.execute("one", "far", "timeout", "1", "nc", GATEWAY, str(number), exit_code=None)
        accepted, peer = listening.accept()
        accepted.close()
        assert peer[0] == "10.98.8.5"
    site.down("one")
    assert not ours(site) & set(links_of(site).values())


FAULTS = {
    "further bridge deleted": ("delete {further}", "its further bridge 4 was deleted"),
    "further bridge down": ("set {further} down", "its further bridge 4 was set down"),
    "joint deleted": ("delete {upper}", "the link to its further bridge 4 was deleted"),
    "joint moved": ("set {lower} master {first}", "the link to its further bridge 4 was taken off a bridge"),
    "first bridge deleted": ("delete {first}", "its bridge was deleted"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_put_right_and_nobody_restarts(one: Site, port: int, fault: str) -> None:
    before = pids(one)
    assert works(one, port)
    command, because = FAULTS[fault]
    told = repairs(one, because)
    ip("link", *command.format(**links_of(one)).split())
    began = time.monotonic()
    until(lambda: repairs(one, because) > told, f"a repair: {because}")
    until(lambda: works(one, port), "that all works again")
    assert time.monotonic() - began < patient(2.0)
    assert pids(one) == before
    assert one.ask("drift", stack="one").result["differences"] == []


def repairs(site: Site, because: str) -> int:
    told = site.ask("events", stack="one", history=True, follow=False).lines
    return sum(line.get("verb") == "repair" and because in line["because"] for line in told)


def test_a_link_on_the_wrong_bridge_of_its_network_is_moved(one: Site, port: int) -> None:
    """It works there too, until that bridge is full."""
    link = interfaces.port(one.places.tag, one.row("one", "far")["id"], NAME)
    ip("link", "set", link, "master", links_of(one)["first"])
    until(lambda: f"master {links_of(one)['further']} " in ip("-o", "link", "show", link), "its return")
    until(lambda: works(one, port), "that all works")
