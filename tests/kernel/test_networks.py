"""Networks and names between the containers of real stacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel

WEB = "sh -c 'mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www'"


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


def fetch(site: Site, stack: str, service: str, host: str) -> str:
    """The page at `host`, as a container sees it; "" when it does not answer."""
    return site.execute(
        stack, service, "timeout", "2", "wget", "-q", "-O-", f"http://{host}/", exit_code=None
    ).strip()


def reaches(site: Site, stack: str, service: str, host: str) -> str:
    """The same, with patience for a server that has just been started."""
    return until(lambda: fetch(site, stack, service, host), f"an answer from {host}")


def test_names_are_service_container_id_and_alias_on_each_network(site: Site) -> None:
    site.up(
        f"""
        name: n1
        services:
          web:
            x-rootfs: {{path: $BOX}}
            command: {WEB}
            hostname: page
            networks: {{front: {{aliases: [www, site.example]}}, back: {{aliases: [hidden]}}}}
          one: {{x-rootfs: {{path: $BOX}}, command: sleep 100, networks: [front]}}
          two: {{x-rootfs: {{path: $BOX}}, command: sleep 100, networks: [back]}}
        networks: {{front: {{}}, back: {{}}}}
        """
    )
    row = site.row("n1", "web")
    for name in ("web", "n1-web-1", row["id"][:12], "www", "site.example", "page", "WEB"):
        assert reaches(site, "n1", "one", name) == "page"
    for name in ("web", "hidden"):
        assert reaches(site, "n1", "two", name) == "page"
    for service, name in (("one", "hidden"), ("two", "www"), ("two", "one"), ("one", "nobody")):
        assert fetch(site, "n1", service, name).startswith("wget: bad address")
    front, back = row["addresses"]["n1_front"], row["addresses"]["n1_back"]
    assert front in site.execute("n1", "one", "nslookup", "web")
    assert back not in site.execute("n1", "one", "nslookup", "web")
    assert "n1-web-1.n1_front" in site.execute("n1", "one", "nslookup", front)
    site.down("n1")


def test_networks_are_closed_to_one_another(site: Site) -> None:
    site.up(
        f"""
        name: n2
        services:
          web: {{x-rootfs: {{path: $BOX}}, command: {WEB}, networks: [front]}}
          one: {{x-rootfs: {{path: $BOX}}, command: sleep 100, networks: [front]}}
          two: {{x-rootfs: {{path: $BOX}}, command: sleep 100, networks: [back]}}
        networks: {{front: {{}}, back: {{}}}}
        """
    )
    address = site.row("n2", "web")["addresses"]["n2_front"]
    reaches(site, "n2", "one", address)
    assert not fetch(site, "n2", "two", address).isalnum()
    site.down("n2")


def test_replicas_answer_in_turn_under_the_service_s_name(site: Site) -> None:
    site.up(
        f"""
        name: n3
        services:
          web: {{x-rootfs: {{path: $BOX}}, command: {WEB}, scale: 3}}
          ask: {{x-rootfs: {{path: $BOX}}, command: sleep 100}}
        """
    )
    rows = {row["id"][:12]: row for row in site.ps("n3") if row["service"] == "web"}
    for row in rows.values():
        reaches(site, "n3", "ask", row["name"])
    answered = [fetch(site, "n3", "ask", "web") for _ in range(12)]
    assert set(answered) == set(rows)
    site.ask("kill", stack="n3", services=["web"], signal="SIGKILL")
    until(lambda: fetch(site, "n3", "ask", "web").startswith("wget: bad address"), "no name without a run")
    site.down("n3")


def test_an_internal_network_reaches_its_members_and_nothing_else(site: Site) -> None:
    """Not the host's other addresses either, and no question is passed on to the host's name servers."""
    site.up(
        f"""
        name: n4
        services:
          web: {{x-rootfs: {{path: $BOX}}, command: {WEB}, networks: [closed]}}
          ask: {{x-rootfs: {{path: $BOX}}, command: sleep 100, networks: [closed]}}
        networks: {{closed: {{internal: true}}}}
        """
    )
    reaches(site, "n4", "ask", "web")
    assert "default" not in site.execute("n4", "ask", "ip", "route")
    said = site.execute("n4", "ask", "nslookup", "example.com", exit_code=1)
    assert "REFUSED" in said or "SERVFAIL" in said
    site.down("n4")


def test_addresses_of_one_s_own_are_honoured(site: Site) -> None:
    site.up(
        f"""
        name: n5
        services:
          web: {{x-rootfs: {{path: $BOX}}, command: {WEB}, networks: {{lan: {{ipv4_address: 10.213.7.99}}}}}}
          ask: {{x-rootfs: {{path: $BOX}}, command: sleep 100, networks: [lan]}}
        networks: {{lan: {{ipam: {{config: [{{subnet: 10.213.7.0/24, gateway: 10.213.7.1}}]}}}}}}
        """
    )
    assert site.row("n5", "web")["addresses"] == {"n5_lan": "10.213.7.99"}
    assert "inet 10.213.7.99/24" in site.execute("n5", "web", "ip", "addr")
    assert "default via 10.213.7.1" in site.execute("n5", "web", "ip", "route")
    reaches(site, "n5", "ask", "10.213.7.99")
    site.down("n5")


def test_network_modes_none_host_and_service(site: Site) -> None:
    site.up(
        f"""
        name: n6
        services:
          web: {{x-rootfs: {{path: $BOX}}, command: {WEB}}}
          beside: {{x-rootfs: {{path: $BOX}}, command: sleep 100, network_mode: "service:web"}}
          third: {{x-rootfs: {{path: $BOX}}, command: sleep 100, network_mode: "service:beside"}}
          alone: {{x-rootfs: {{path: $BOX}}, command: sleep 100, network_mode: none}}
          host: {{x-rootfs: {{path: $BOX}}, command: sleep 100, network_mode: host}}
          hosts: {{x-rootfs: {{path: $BOX}}, command: sleep 100, network_mode: "service:host"}}
        """
    )
    for service in ("beside", "third"):
        assert reaches(site, "n6", service, "127.0.0.1") == site.row("n6", "web")["id"][:12]
        assert site.execute("n6", service, "cat", "/etc/hosts") == site.execute(
            "n6", "web", "cat", "/etc/hosts"
        )
        assert reaches(site, "n6", service, "web")
    assert site.execute("n6", "alone", "ls", "/sys/class/net") == "lo\n"
    links = Path("/sys/class/net")
    assert set(site.execute("n6", "host", "ls", "/sys/class/net").split()) == {
        p.name for p in links.iterdir()
    }
    assert site.execute("n6", "hosts", "readlink", "/proc/self/ns/net").strip() == str(
        Path("/proc/self/ns/net").readlink()
    )
    site.down("n6")


def test_two_stacks_meet_on_an_external_network(site: Site) -> None:
    site.up(
        f"""
        name: n7
        services: {{web: {{x-rootfs: {{path: $BOX}}, command: {WEB}, networks: [shared]}}}}
        networks: {{shared: {{name: meeting}}}}
        """
    )
    site.up(
        """
        name: n8
        services: {ask: {x-rootfs: {path: $BOX}, command: sleep 100, networks: [theirs]}}
        networks: {theirs: {external: true, name: meeting}}
        """
    )
    assert reaches(site, "n8", "ask", "web") == site.row("n7", "web")["id"][:12]
    site.down("n8")
    assert reaches(site, "n7", "web", "web")
    site.down("n7")


def test_a_network_that_others_still_use_stays_until_they_have_gone(site: Site) -> None:
    site.up(
        f"""
        name: n9
        services: {{web: {{x-rootfs: {{path: $BOX}}, command: {WEB}, networks: [shared]}}}}
        networks: {{shared: {{name: meeting2}}}}
        """
    )
    guest = """
        name: n10
        services: {ask: {x-rootfs: {path: $BOX}, command: sleep 100, networks: [theirs]}}
        networks: {theirs: {external: true, name: meeting2}}
    """
    site.up(guest)
    site.down("n9")
    assert site.execute("n10", "ask", "ip", "-4", "addr", "show", "eth0").count("inet ") == 1
    assert "ask" in site.execute("n10", "ask", "nslookup", "ask")
    site.down("n10")
    # Nobody is left to take it away for: the stack that made it has gone before.
    site.up(
        """
        name: n9
        services: {}
        networks: {shared: {name: meeting2}}
        """,
        exit_code=None,
    )
    site.down("n9")


def test_an_address_in_hosts_and_dns_of_one_s_own(site: Site) -> None:
    site.up(
        """
        name: n11
        services:
          ask:
            x-rootfs: {path: $BOX}
            command: sleep 100
            hostname: me
            domainname: example.org
            extra_hosts: ["far:10.1.2.3", "host:host-gateway"]
            dns_search: [corp.example]
            dns_opt: ["ndots:2"]
        """
    )
    hosts = site.execute("n11", "ask", "cat", "/etc/hosts")
    assert "10.1.2.3\tfar" in hosts
    address = site.row("n11", "ask")["addresses"]["n11_default"]
    assert f"{address}\tme.example.org me" in hosts
    gateway = site.execute(
        "n11", "ask", "sh", "-c", "ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'"
    ).strip()
    assert f"{gateway}\thost" in hosts
    assert site.execute("n11", "ask", "cat", "/etc/resolv.conf") == (
        "nameserver 127.0.0.11\nsearch corp.example\noptions ndots:2\n"
    )
    assert site.execute("n11", "ask", "hostname") == "me\n"
    assert site.execute("n11", "ask", "cat", "/proc/sys/kernel/domainname") == "example.org\n"
    site.down("n11")


def test_a_container_keeps_its_address_and_its_namespace_over_a_restart(site: Site) -> None:
    site.up(
        """
        name: n12
        services: {ask: {x-rootfs: {path: $BOX}, command: sleep 100}}
        """
    )
    before = site.execute("n12", "ask", "sh", "-c", "ip -4 addr; readlink /proc/self/ns/net")
    site.ask("restart", stack="n12", services=["ask"], timeout=0)
    assert site.execute("n12", "ask", "sh", "-c", "ip -4 addr; readlink /proc/self/ns/net") == before
    site.down("n12")
