"""In what the kernel's objects differ from what they should be: the same answer for who mends and who shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.engines.local import facts
from orchestrator.engines.local.facts import Fact, Owner
from orchestrator.model.observation import Container, NetworkState, Run, VolumeState
from tests.kit.stacks import service

FRONT = NetworkState(name="front", subnet="10.1.0.0/24", gateway="10.1.0.1", fingerprint="")
WEB = Container(
    id="1" * 64,
    name="shop-web-1",
    stack="shop",
    service="web",
    slot=1,
    definition=service(),
    fingerprint="",
    generation=0,
    image_id="",
    created=1.0,
    addresses={"front": "10.1.0.2"},
    run=Run(turn=1, started=2.0, pid=7),
)
TARGET = "container:shop-web-1"
WANTED = facts.of_inside(WEB, {"front": FRONT}, "10.1.0.1", resolves=True) | facts.of_processes(WEB, ["/g"])


def test_all_is_well() -> None:
    assert facts.differences(WANTED, WANTED, {}) == {}


@pytest.mark.parametrize(
    ("kind", "of", "found", "because"),
    [
        ("address", "front", "none", "its address on network front was removed"),
        ("address", "front", "10.9.9.9/24", "its address on network front was removed"),
        ("interface", "front", "down", "its interface on network front was set down"),
        ("interface", "front", "missing", "its interface on network front was taken away"),
        ("loopback", "", "down", "its loopback interface was set down"),
        ("route", "", "none", "its default route was removed"),
        ("route", "", "10.1.0.9", "its default route was changed to 10.1.0.9"),
        ("resolver", "", "closed", "the socket of its name server was closed"),
        ("redirect", "", "missing", "the rules that lead to its name server were removed"),
        ("state", "", "frozen", "it was frozen"),
        ("group", "/g", "outside of it", "it was moved out of its control group /g"),
        ("group", "/g", "missing", "its control group /g was removed"),
    ],
)
def test_a_difference_is_said_in_a_sentence(kind: str, of: str, found: str, because: str) -> None:
    fact = Fact(TARGET, kind, of)
    owners = {TARGET: Owner(stack="shop", service="web", id=WEB.id)}
    (one,) = facts.differences(WANTED, {**WANTED, fact: found}, owners).values()
    assert (one.because, one.wanted, one.found) == (because, WANTED[fact], found)
    assert (one.target, one.stack, one.service, one.mendable) == (TARGET, "shop", "web", True)


def test_what_nobody_looked_at_is_no_difference() -> None:
    assert facts.differences(WANTED, {}, {}) == {}


def test_a_paused_container_is_to_stand_still() -> None:
    assert WEB.run is not None
    paused = replace(WEB, run=replace(WEB.run, paused=True))
    wanted = facts.of_processes(paused, ())
    (one,) = facts.differences(wanted, {Fact(TARGET, "state"): "running"}, {}).values()
    assert one.because == "it is paused, and was made to go on"


@pytest.mark.parametrize(
    ("fields", "own"),
    [
        ({"cap_add": ("NET_ADMIN",)}, True),
        ({"cap_add": ("CAP_NET_ADMIN",)}, True),
        ({"cap_add": ("ALL",)}, True),
        ({"cap_add": ("ALL",), "cap_drop": ("NET_ADMIN",)}, False),
        ({"privileged": True}, True),
        ({"cap_add": ("SYS_TIME",)}, False),
        ({}, False),
    ],
)
def test_who_may_administer_its_network_is_left_to_do_so(fields: dict[str, object], own: bool) -> None:
    """A VPN replaces the default route: that is no drift."""
    changed = replace(WEB, definition=service(**fields))
    assert (facts.of_inside(changed, {"front": FRONT}, "10.1.0.1", resolves=True) == {}) is own


def test_a_lost_volume_is_left_to_the_user() -> None:
    state = VolumeState(name="data", path="/v/data", fingerprint="")
    wanted = facts.of_volume(state)
    (one,) = facts.differences(wanted, dict.fromkeys(wanted, "missing"), {}).values()
    assert (one.mendable, one.because) == (False, "its directory /v/data is gone")


def test_every_kind_has_its_words() -> None:
    """A fact that could be wanted and had no sentence would end the mender."""
    every = {
        **WANTED,
        **facts.of_network(FRONT),
        **facts.of_links(WEB),
        **facts.of_directories(WEB, ["/d"]),
        **facts.of_volume(VolumeState(name="v", path="/v", fingerprint="")),
        Fact(TARGET, "limit", "memory.max"): "1",
    }
    found = facts.differences(every, dict.fromkeys(every, "otherwise"), {})
    assert all(one.what and one.because and "{" not in one.what + one.because for one in found.values())
    assert len(found) == len(every)
