"""Whether there is room for a stack: named before anything is done, with the limit, its value and what sets it."""

from __future__ import annotations

import dataclasses

import pytest

from orchestrator.engines.local.room import Shortage, demand, shortages
from orchestrator.kernel.ceilings import Ceilings
from orchestrator.model.observation import NetworkState
from orchestrator.model.stack import Stack
from tests.kit.stacks import converge, network, nothing, service, stack, up

PLENTY = Ceilings(
    processes=1_000_000,
    group=1_000_000,
    namespaces=1_000_000,
    neighbours=1_000_000,
    watches=1_000_000,
    descriptors=1_000_000,
)
BRIDGE = {
    "shop_default": NetworkState(
        name="shop_default", subnet="172.28.0.0/20", gateway="172.28.0.1", fingerprint="", users=("a", "b")
    )
}


def missing(wish: Stack, there: Ceilings = PLENTY, **networks: NetworkState) -> list[Shortage]:
    asked = demand(wish, wish.services, (), networks)
    return shortages(wish, asked, there, networks)


def some(count: int) -> Stack:
    return stack(web=service(replicas=count))


def test_a_stack_that_fits_is_told_nothing() -> None:
    assert missing(some(4093)) == []


def test_a_network_has_no_more_containers_than_its_range_has_addresses() -> None:
    """However many ports a bridge has: it has several bridges then."""
    (said,) = missing(stack(web=service(replicas=4000), db=service(replicas=94)))
    assert said.because == (
        "network shop_default would have 4,094 containers, and its range has 4,093 addresses for them"
    )
    assert said.fatal


def test_those_of_others_on_the_network_count_and_its_own_do_not_count_twice() -> None:
    assert missing(some(4091), **BRIDGE) == []
    assert len(missing(some(4092), **BRIDGE)) == 1
    wish = some(50)
    world = converge(up(wish), nothing())
    asked = demand(wish, ["web"], world.containers, world.networks)
    assert (asked.containers, asked.new, asked.networks) == (50, 0, {"shop_default": 50})
    assert shortages(wish, asked, PLENTY, world.networks) == []


@pytest.mark.parametrize(("subnet", "room"), [("10.0.0.0/24", 253), ("10.0.0.0/29", 5), ("10.0.0.0/30", 1)])
def test_a_range_has_so_many_addresses(subnet: str, room: int) -> None:
    wish = {"networks": {"default": network(subnet)}}
    assert missing(stack(web=service(replicas=room), **wish)) == []
    (said,) = missing(stack(web=service(replicas=room + 1), **wish))
    assert f"its range has {room} addresses" in said.because


def test_services_without_a_network_of_their_own_take_no_address() -> None:
    assert missing(stack(web=service(replicas=5000, networks=()))) == []


@pytest.mark.parametrize(
    ("there", "word", "fatal"),
    [
        ({"processes": 1099}, "kernel.pid_max", True),
        ({"processes": 5000, "processes_now": 3901}, "kernel.pid_max", True),
        ({"group": 1099}, "TasksMax", True),
        ({"namespaces": 999}, "user.max_net_namespaces", True),
        ({"descriptors": 8199}, "LimitNOFILE", True),
        ({"neighbours": 999}, "net.ipv4.neigh.default.gc_thresh3", False),
        ({"watches": 5999}, "fs.inotify.max_user_watches", False),
    ],
)
def test_each_limit_is_named_with_what_sets_it(there: dict[str, int], word: str, fatal: bool) -> None:
    (said,) = missing(some(1000), dataclasses.replace(PLENTY, **there))
    assert word in said.hint
    assert said.fatal is fatal
    enough = {name: value + 1 for name, value in there.items() if not name.endswith("_now")}
    assert missing(some(1000), dataclasses.replace(PLENTY, **{**there, **enough})) == []


def test_what_the_kernel_does_not_say_is_no_limit() -> None:
    assert missing(some(1000), Ceilings()) == []
