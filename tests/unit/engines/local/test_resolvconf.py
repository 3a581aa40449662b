"""The texts of /etc/hosts and /etc/resolv.conf."""

from __future__ import annotations

from orchestrator.engines.local import resolvconf

HOST = "# host\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch example.org\noptions edns0\n"


def test_hosts_has_loopback_what_the_user_adds_and_its_own_addresses() -> None:
    text = resolvconf.hosts(
        hostname="web", domainname=None, addresses=["10.0.0.2", "10.1.0.2"], extra=[("far", "10.9.9.9")]
    )
    assert text.startswith("127.0.0.1\tlocalhost\n::1\tlocalhost ")
    assert text.endswith("10.9.9.9\tfar\n10.0.0.2\tweb\n10.1.0.2\tweb\n")


def test_a_domain_makes_the_full_name_come_first() -> None:
    text = resolvconf.hosts(hostname="web", domainname="example.org", addresses=["10.0.0.2"], extra=[])
    assert text.endswith("10.0.0.2\tweb.example.org web\n")


def test_the_embedded_resolver_answers_single_labels_unless_the_user_has_his_own_ndots() -> None:
    assert resolvconf.embedded(search=[], options=[]) == "nameserver 127.0.0.11\noptions ndots:0\n"
    assert resolvconf.embedded(search=["a", "b"], options=["ndots:3", "rotate"]) == (
        "nameserver 127.0.0.11\nsearch a b\noptions ndots:3 rotate\n"
    )


def test_without_our_resolver_the_host_s_file_is_passed_on_as_it_is() -> None:
    assert resolvconf.plain(host_text=HOST, servers=[], search=[], options=[]) == HOST


def test_what_the_service_says_replaces_that_part_of_the_host_s() -> None:
    assert resolvconf.plain(host_text=HOST, servers=["9.9.9.9"], search=[], options=[]) == (
        "nameserver 9.9.9.9\nsearch example.org\noptions edns0\n"
    )
    assert resolvconf.plain(host_text=HOST, servers=[], search=["."], options=["rotate"]) == (
        "nameserver 192.0.2.1\nnameserver 192.0.2.2\noptions rotate\n"
    )
