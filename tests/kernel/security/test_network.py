"""What a container can do to its neighbours and to the host over its own network, with a packet socket."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.kit.patience import patient
from tests.kit.site import Site

pytestmark = pytest.mark.kernel

PREFIX = "2001:db8:bad0"


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


@pytest.fixture(scope="module")
def armed(anchored_site: Site, attacker: Path) -> Site:
    shutil.copy(attacker, anchored_site.box / "bin/attacker")
    return anchored_site


def test_nobody_becomes_the_router_of_others(armed: Site, site: Site) -> None:
    """CVE-2020-13401: router advertisements, sent as raw frames, give no address and no route: neither to
    neighbours nor to the host."""
    service = "{x-rootfs: {path: $BOX}, command: sleep 100}"
    site.up(f"{{name: w1, services: {{rogue: {service}, victim: {service}}}}}")
    assert site.execute("w1", "rogue", "attacker", "advertise", "eth0") == ""
    time.sleep(0.3)
    for said in (
        site.execute("w1", "victim", "ip", "-6", "addr") + site.execute("w1", "victim", "ip", "-6", "route"),
        subprocess.run("ip -6 addr; ip -6 route", shell=True, capture_output=True, text=True).stdout,
    ):
        assert PREFIX not in said
        assert "default via fe80::ff:fe00:9" not in said
    site.down("w1")


def test_the_frames_of_the_test_above_make_a_router_where_they_are_listened_to(armed: Site) -> None:
    """Else it would prove nothing."""
    script = """
        ip link add name va type veth peer name vb && sysctl -qw net.ipv6.conf.vb.accept_ra=2 net.ipv6.conf.vb.dad_transmits=0
        ip link set va up; ip link set vb up; sleep 0.3
        "$0" advertise va; sleep 0.3; ip -6 route show dev vb
    """
    words = ["unshare", "-n", "sh", "-c", script, str(armed.box / "bin/attacker")]
    said = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert PREFIX in said.stdout, said


@pytest.mark.parametrize("internal", [True, False])
def test_a_name_leaves_an_internal_network_in_no_packet(site: Site, internal: bool) -> None:
    """CVE-2024-29018: with a name server of the user's own outside, what is asked on an internal network is seen
    nowhere on the host; on an ordinary one it is, by the same means."""
    site.up(
        f"""
        name: w2
        services: {{c: {{x-rootfs: {{path: $BOX}}, command: sleep 100, networks: [n], dns: [192.0.2.53]}}}}
        networks: {{n: {{internal: {str(internal).lower()}}}}}
        """
    )
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire:
        wire.settimeout(0.1)
        site.execute("w2", "c", "timeout", "1", "nslookup", "stolen-words.example.org", exit_code=None)
        seen, deadline = False, time.monotonic() + (0.5 if internal else patient(5))
        while time.monotonic() < deadline and not seen:
            try:
                seen |= b"stolen-words" in wire.recv(2048)
            except TimeoutError:
                continue
    assert seen != internal
    site.down("w2")


def test_an_unpublished_port_is_not_to_be_had_from_another_network(site: Site) -> None:
    """Routed directly, with the container as the host's guest on another bridge (see also test_traffic: from the
    LAN, by route_localnet, by forged senders)."""
    serve = "httpd -f -p 80"
    site.up(
        f"""
        name: w3
        services:
          web: {{x-rootfs: {{path: $BOX}}, command: {serve}, networks: [one]}}
          rogue: {{x-rootfs: {{path: $BOX}}, command: sleep 100, networks: [two], cap_add: [NET_ADMIN]}}
        networks: {{one: {{}}, two: {{}}}}
        """
    )
    address = site.execute("w3", "web", "hostname", "-i").split()[0]
    gateway = site.execute(
        "w3", "rogue", "sh", "-c", "ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'"
    ).strip()
    script = f"ip route add {address} via {gateway}; timeout 1 nc {address} 80 </dev/null && echo REACHED"
    assert "REACHED" not in site.execute("w3", "rogue", "sh", "-c", script, exit_code=None)
    site.down("w3")
