"""What a copy of a stack keeps, and what it lets go."""

from __future__ import annotations

from orchestrator.testing.copies import copy

STACK = {
    "name": "shop",
    "services": {
        "web": {
            "image": "web",
            "container_name": "the-web",
            "mac_address": "02:42:ac:11:00:02",
            "ports": [
                {"mode": "ingress", "target": 80, "published": "8080", "protocol": "tcp"},
                {"target": 81, "host_ip": "127.0.0.1", "published": "9000-9010", "protocol": "udp"},
            ],
            "networks": {"front": {"ipv4_address": "10.9.0.5", "aliases": ["www"]}, "back": None},
            "environment": {"A": "b"},
        },
        "db": {"image": "db", "network_mode": "none"},
    },
    "networks": {
        "front": {"name": "shop-front", "ipam": {"config": [{"subnet": "10.9.0.0/24"}]}, "internal": True},
        "back": None,
        "theirs": {"external": True, "name": "lan"},
    },
    "volumes": {
        "data": {"name": "shop-data", "labels": {"a": "b"}},
        "theirs": {"external": True, "name": "nas"},
    },
    "secrets": {"key": {"file": "/key"}},
}


def test_what_only_one_can_have_is_let_go_and_the_rest_is_kept() -> None:
    assert copy(STACK, "t1") == {
        "name": "t1",
        "services": {
            "web": {
                "image": "web",
                "ports": [
                    {"mode": "ingress", "target": 80, "protocol": "tcp"},
                    {"target": 81, "host_ip": "127.0.0.1", "protocol": "udp"},
                ],
                "networks": {"front": {"aliases": ["www"]}, "back": None},
                "environment": {"A": "b"},
            },
            "db": {"image": "db", "network_mode": "none"},
        },
        "networks": {"front": {"internal": True}, "back": None, "theirs": {"external": True, "name": "lan"}},
        "volumes": {"data": {"labels": {"a": "b"}}, "theirs": {"external": True, "name": "nas"}},
        "secrets": {"key": {"file": "/key"}},
    }


def test_ports_stay_when_they_are_wanted() -> None:
    kept = copy(STACK, "t1", keep_ports=True)
    assert kept["services"]["web"]["ports"] == STACK["services"]["web"]["ports"]  # type: ignore[index]


def test_the_original_is_left_alone() -> None:
    before = repr(STACK)
    copy(STACK, "t1")
    assert repr(STACK) == before
