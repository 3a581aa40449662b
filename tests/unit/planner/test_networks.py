"""Subnets and addresses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model import effects
from orchestrator.model.action import (
    Action,
    CreateContainer,
    CreateNetwork,
    PullImage,
    RemoveNetwork,
    SignalContainer,
)
from orchestrator.model.desired import Desired
from orchestrator.model.observation import Failure, NetworkState, Observation, State
from orchestrator.model.plan import Plan
from orchestrator.model.stack import Attachment, Subnet
from orchestrator.planner.networks import contains, free_subnet
from orchestrator.planner.plan import plan
from tests.kit.stacks import apply_all, converge, down, network, nothing, service, stack, up, wanting

NOW = 1000.0


def made(decided: Plan) -> dict[str, tuple[str, str]]:
    return {a.network.name: (a.subnet, a.gateway) for a in decided.actions if isinstance(a, CreateNetwork)}


def refusals(decided: Plan) -> dict[str, tuple[str, int]]:
    return {w.target: (w.because, w.exit_code) for w in decided.waits if w.failed}


def addresses(world: Observation, name: str = "shop_default") -> dict[str, str]:
    return {c.name: c.addresses[name] for c in world.containers}


def test_each_new_network_gets_a_range_of_its_own_and_the_first_address_as_gateway() -> None:
    wish = stack(web=service(networks=("front", "back")))
    assert made(plan(up(wish), nothing(), NOW)) == {
        "shop_back": ("172.28.0.0/20", "172.28.0.1"),
        "shop_front": ("172.28.16.0/20", "172.28.16.1"),
    }


def test_ranges_in_use_by_anybody_are_avoided() -> None:
    taken = ("0.0.0.0/0", "172.28.0.0/16", "172.29.7.0/24", "fd00::/8")
    assert free_subnet(taken) == "172.29.16.0/20"


def test_the_second_pool_follows_the_first_and_then_none_is_left() -> None:
    assert free_subnet(["172.16.0.0/12"]) == "192.168.0.0/20"
    assert free_subnet(["172.16.0.0/12", "192.168.0.0/16"]) is None


def test_a_range_that_is_being_taken_is_taken() -> None:
    wish = stack(a=service(networks=("one",)), b=service(networks=("two",)))
    (first, _) = plan(up(wish), nothing(), NOW).actions
    rest = plan(up(wish), nothing(), NOW, {first.target: first})
    assert made(rest) == {"shop_two": ("172.28.16.0/20", "172.28.16.1")}


def test_no_range_left_is_refused() -> None:
    world = nothing(subnets_taken=("172.16.0.0/12", "192.168.0.0/16"))
    found = refusals(plan(up(stack(web=service())), world, NOW))
    assert found["network:shop_default"] == ("no address range is free; give the network a subnet", 7)
    assert found["container:shop-web-1"] == found["network:shop_default"]


def test_a_configured_range_is_taken_as_it_is() -> None:
    given = replace(network(), subnets=(Subnet(subnet="10.5.0.0/16", gateway="10.5.0.254"),))
    wish = stack(web=service(), networks={"default": given})
    assert made(plan(up(wish), nothing(), NOW)) == {"shop_default": ("10.5.0.0/16", "10.5.0.254")}


def test_a_configured_range_that_overlaps_another_is_refused() -> None:
    wish = stack(web=service(), networks={"default": network("10.5.0.0/16")})
    decided = plan(up(wish), nothing(subnets_taken=("10.5.3.0/24",)), NOW)
    expected = ("subnet 10.5.0.0/16 overlaps 10.5.3.0/24, which is in use", 7)
    assert refusals(decided) == {"network:shop_default": expected, "container:shop-web-1": expected}


def test_addresses_follow_the_gateway() -> None:
    world = converge(up(stack(a=service(), b=service(replicas=2))), nothing())
    assert addresses(world) == {
        "shop-a-1": "172.28.0.2",
        "shop-b-1": "172.28.0.3",
        "shop-b-2": "172.28.0.4",
    }


def test_a_replaced_container_gets_its_address_back() -> None:
    desired = up(stack(a=service(), b=service(), c=service()))
    before = converge(desired, nothing())
    after = converge(wanting(desired, "b", generation=1), before)
    assert addresses(after) == addresses(before)
    assert {c.id for c in after.containers} != {c.id for c in before.containers}


def test_addresses_asked_for_by_number_are_kept_for_who_asked() -> None:
    fixed = Attachment(network="default", ipv4_address="10.5.0.2")
    wish = stack(a=service(), z=service(networks=(fixed,)), networks={"default": network("10.5.0.0/24")})
    world = converge(up(wish), nothing())
    assert addresses(world) == {"shop-a-1": "10.5.0.3", "shop-z-1": "10.5.0.2"}


@pytest.mark.parametrize(
    ("address", "because"),
    [
        ("10.6.0.2", "address 10.6.0.2 is not within 10.5.0.0/24 of network shop_default"),
        ("10.5.0.1", "address 10.5.0.1 is the gateway of network shop_default"),
        ("10.5.0.9", "address 10.5.0.9 on network shop_default is taken"),
    ],
)
def test_an_address_that_cannot_be_given_is_refused(address: str, because: str) -> None:
    fixed = Attachment(network="default", ipv4_address=address)
    wish = stack(web=service(networks=(fixed,)), networks={"default": network("10.5.0.0/24")})
    desired = up(wish)
    (create,) = plan(desired, nothing(), NOW).actions
    assert isinstance(create, CreateNetwork)
    state = NetworkState(
        name="shop_default",
        subnet="10.5.0.0/24",
        gateway="10.5.0.1",
        fingerprint=create.fingerprint,
        stack="shop",
        addresses=("10.5.0.9",),
    )
    decided = plan(desired, nothing(networks={"shop_default": state}), NOW)
    assert refusals(decided) == {"container:shop-web-1": (because, 7)}


def test_a_full_range_is_refused() -> None:
    wish = stack(web=service(replicas=6), networks={"default": network("10.5.0.0/29")})
    decided = plan(up(wish), converge(up(wish), nothing()), NOW)
    assert refusals(decided) == {"container:shop-web-6": ("no address is left on network shop_default", 7)}


def test_addresses_come_from_the_ip_range() -> None:
    given = replace(network(), subnets=(Subnet(subnet="10.5.0.0/16", ip_range="10.5.7.0/24"),))
    world = converge(up(stack(web=service(), networks={"default": given})), nothing())
    assert addresses(world) == {"shop-web-1": "10.5.7.0"}


def test_an_address_that_is_being_given_is_taken() -> None:
    desired = up(stack(a=service(), b=service()))
    (create,) = plan(desired, nothing(), NOW).actions
    world = converge(replace(desired, intents={}), nothing())

    world = effects.expect(world, create, NOW)
    first, second = plan(desired, world, NOW).actions
    (alone,) = plan(desired, world, NOW, {first.target: first}).actions
    assert isinstance(second, CreateContainer)
    assert isinstance(alone, CreateContainer)
    assert alone.addresses == second.addresses


def test_an_external_network_must_exist_and_is_never_made_or_removed() -> None:
    outside = replace(network(external=True), name="lan")
    wish = stack(web=service(networks=("lan",)), networks={"lan": outside})
    decided = plan(up(wish), nothing(), NOW)
    assert decided.actions == ()
    assert set(refusals(decided)) == {"network:lan", "container:shop-web-1"}
    state = NetworkState(name="lan", subnet="10.9.0.0/24", gateway="10.9.0.1", fingerprint="?", stack="other")
    world = converge(up(wish), nothing(networks={"lan": state}))
    assert addresses(world, "lan") == {"shop-web-1": "10.9.0.2"}
    assert "lan" in converge(down(wish), world).networks


def test_a_network_of_another_stack_with_our_name_is_refused() -> None:
    state = NetworkState(
        name="shop_default", subnet="10.9.0.0/24", gateway="10.9.0.1", fingerprint="?", stack="other"
    )
    decided = plan(up(stack(web=service())), nothing(networks={state.name: state}), NOW)
    because = "a network named shop_default exists already and was made by stack other"
    assert refusals(decided)["network:shop_default"] == (because, 7)
    assert decided.actions == ()


def test_a_changed_network_is_made_anew_with_its_containers() -> None:
    before = stack(web=service(), db=service(networks=("back",)))
    after = stack(web=service(), db=service(networks=("back",)), networks={"default": network(internal=True)})
    world = converge(up(before), nothing())
    changed = converge(up(after), world)
    ids = {c.service: c.id for c in world.containers}
    new_ids = {c.service: c.id for c in changed.containers}
    assert ids["db"] == new_ids["db"]
    assert ids["web"] != new_ids["web"]
    assert changed.networks["shop_default"].fingerprint != world.networks["shop_default"].fingerprint
    assert plan(up(after), changed, NOW).settled


def test_a_network_is_not_made_anew_under_a_container_that_waits_for_its_image() -> None:
    """db is to be replaced with the network, but serves until its image is here again."""
    before = stack(web=service(), db=service(image="db"))
    after = stack(web=service(), db=service(image="db"), networks={"default": network(internal=True)})
    world = replace(converge(up(before), nothing("db")), images={})
    for moment in range(20):
        decided = plan(up(after), world, NOW + moment)
        acts = [one for one in decided.actions if not isinstance(one, PullImage)]
        assert not any(isinstance(one, RemoveNetwork) for one in acts)
        world = apply_all(world, acts, NOW + moment)
    assert {c.service: c.state for c in world.containers} == {"db": State.RUNNING}
    waits = {wait.target: wait.because for wait in decided.waits}
    assert waits["network:shop_default"] == "shop-db-1 is still attached to it"


def test_a_changed_network_that_others_use_is_left_with_a_warning() -> None:
    world = converge(up(stack(web=service())), nothing())
    state = world.networks["shop_default"]
    shared = replace(world, networks={"shop_default": replace(state, users=(*state.users, "f" * 64))})
    wish = stack(web=service(), networks={"default": network(internal=True)})
    decided = plan(up(wish), shared, NOW)
    assert decided.actions == ()
    assert "a container of another stack uses it" in decided.warnings[0]


def test_a_network_removed_by_hand_comes_back_with_its_containers() -> None:
    desired = up(stack(web=service(), db=service(networks=("back",))))
    world = converge(desired, nothing())
    broken = replace(world, networks={"shop_back": world.networks["shop_back"]})
    healed = converge(desired, broken)
    assert healed.networks.keys() == {"shop_back", "shop_default"}
    assert {c.service for c in healed.containers if c in broken.containers} == {"db"}


def test_only_networks_that_somebody_wanted_is_on_are_made() -> None:
    wish = stack(web=service(), db=service(networks=("back",)), networks={"unused": network()})
    assert made(plan(up(wish, "web"), nothing(), NOW)).keys() == {"shop_default"}


def test_down_leaves_a_network_that_others_use_and_says_so() -> None:
    wish = stack(web=service())
    world = converge(up(wish), nothing())
    state = world.networks["shop_default"]
    shared = replace(world, networks={"shop_default": replace(state, users=(*state.users, "f" * 64))})
    left = converge(down(wish), shared)
    assert left.containers == ()
    decided = plan(down(wish), left, NOW)
    assert not any(isinstance(a, RemoveNetwork) for a in decided.actions)
    assert decided.warnings == ("network shop_default is left: still in use by ffffffffffff",)


# --- at the edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        ("172.28.0.0/32", "172.28.16.0/20"),
        ("172.28.15.255/32", "172.28.16.0/20"),
        ("172.28.16.0/20", "172.28.0.0/20"),
        ("172.27.255.255/32", "172.28.0.0/20"),
        ("172.28.0.9/20", "172.28.16.0/20"),  # the address of somebody's interface
    ],
)
def test_a_range_is_free_if_not_even_its_first_or_last_address_is_taken(taken: str, free: str) -> None:
    assert free_subnet([taken]) == free


@pytest.mark.parametrize(
    ("address", "within"),
    [("10.0.0.0", True), ("10.0.0.255", True), ("10.0.1.0", False), ("9.255.255.255", False)],
)
def test_which_addresses_are_within_a_range(address: str, within: bool) -> None:
    assert contains("10.0.0.0/24", address) is within


def test_the_first_address_is_a_container_s_where_the_gateway_has_another() -> None:
    subnets = (Subnet(subnet="10.9.0.0/24", gateway="10.9.0.254"),)
    wish = stack(web=service(), networks={"default": replace(network(), subnets=subnets)})
    assert addresses(converge(up(wish), nothing())) == {"shop-web-1": "10.9.0.1"}


def test_an_address_that_two_ask_for_is_given_once() -> None:
    two = tuple(
        service(networks=(Attachment(network="default", ipv4_address="172.28.0.9"),)) for _ in range(2)
    )
    desired = up(stack(a=two[0], b=two[1]))
    world = apply_all(nothing(), plan(desired, nothing(), NOW).actions, NOW)
    decided = plan(desired, world, NOW)
    assert [one.name for one in decided.actions if isinstance(one, CreateContainer)] == ["shop-a-1"]
    assert refusals(decided) == {
        "container:shop-b-1": ("address 172.28.0.9 on network shop_default is taken", 7)
    }


def test_an_address_that_a_container_was_given_is_its_own_though_it_is_not_attached() -> None:
    desired = up(stack(web=service(replicas=2)))
    world = converge(desired, nothing())
    first = next(one for one in world.containers if one.name == "shop-web-1")
    state = replace(world.networks["shop_default"], addresses=(), users=())
    alone = replace(world, containers=(first,), networks={"shop_default": state})
    (made,) = [one for one in plan(desired, alone, NOW).actions if isinstance(one, CreateContainer)]
    assert made.addresses["shop_default"] != first.addresses["shop_default"]


def changed() -> tuple[Desired, Observation]:
    """The network of web has another definition."""
    after = stack(web=service(), networks={"default": network(internal=True)})
    return up(after), converge(up(stack(web=service())), nothing())


def test_a_network_waits_to_be_made_anew_for_who_is_on_it_or_is_coming() -> None:
    desired, world = changed()
    still = ("network:shop_default", "shop-web-1 is still attached to it", False)
    state = world.networks["shop_default"]
    apart = replace(world, networks={"shop_default": replace(state, users=(), addresses=())})
    for seen in (world, apart):
        waits = [(one.target, one.because, one.failed) for one in plan(desired, seen, NOW).waits]
        assert still in waits
    bare = replace(apart, containers=())
    (action,) = plan(desired, bare, NOW).actions
    assert isinstance(action, RemoveNetwork)
    assert action.because == "definition changed"
    (coming,) = plan(up(stack(web=service())), bare, NOW).actions
    waits = [
        (one.target, one.because, one.failed)
        for one in plan(desired, bare, NOW, {coming.target: coming}).waits
    ]
    assert still in waits


def test_who_lost_its_network_says_so() -> None:
    desired = up(stack(web=service()))
    world = converge(desired, nothing())
    for networks, because in (
        ({}, "network shop_default is gone"),
        (
            {"shop_default": replace(world.networks["shop_default"], subnet="10.0.0.0/24")},
            "network shop_default was made anew",
        ),
    ):
        actions = plan(desired, replace(world, networks=networks), NOW).actions
        assert [one.because for one in actions if isinstance(one, SignalContainer)] == [because]
    (missing,) = plan(desired, nothing(), NOW).actions
    assert missing.because == "missing"


def test_down_waits_for_who_is_on_a_network_or_is_coming_and_names_who_is_left() -> None:
    wish = stack(web=service())
    world = converge(up(wish), nothing())
    state = world.networks["shop_default"]
    still = {"network:shop_default": "shop-web-1 is still attached to it"}

    def waits(seen: Observation, **under_way: Action) -> dict[str, str]:
        found = plan(down(wish), seen, NOW, {one.target: one for one in under_way.values()}).waits
        return {one.target: one.because for one in found if one.target.startswith("network:")}

    assert waits(replace(world, networks={"shop_default": replace(state, users=())})) == still
    elsewhere = tuple(replace(one, addresses={}) for one in world.containers)
    assert waits(replace(world, containers=elsewhere)) == still
    bare = replace(world, containers=(), networks={"shop_default": replace(state, users=(), addresses=())})
    (coming,) = plan(up(wish), bare, NOW).actions
    assert waits(bare, it=coming) == still
    assert waits(bare) == {}
    strangers = replace(bare, networks={"shop_default": replace(state, users=("f" * 64, "a" * 64))})
    said = f"network shop_default is left: still in use by {'a' * 12}, {'f' * 12}"
    assert plan(down(wish), strangers, NOW).warnings == (said,)


@pytest.mark.parametrize(("policy", "pulls"), [("never", ""), ("missing", "for good"), ("missing", "still")])
def test_a_changed_network_is_left_to_who_can_not_be_replaced_for_want_of_an_image(
    policy: str, pulls: str
) -> None:
    """Else it would wait for that one for ever, and all others on it, too."""
    before = up(stack(web=service(image="old"), db=service()))
    after = stack(
        web=service(image="new", pull_policy=policy),
        db=service(),
        networks={"default": network(internal=True)},
    )
    world = converge(before, nothing("old"))
    if pulls:
        failure = Failure(
            target="image:new", verb="pull", count=1, at=NOW, because="no", retryable=pulls == "still"
        )
        world = replace(world, failures={failure.target: failure})
    decided = plan(up(after), world, NOW + 1)
    said = "network shop_default has another definition now, but container shop-web-1 uses it: left as it was"
    assert decided.warnings == ((said,) if pulls != "still" else ())
    waits = {one.target for one in decided.waits}
    assert ("network:shop_default" in waits) is (pulls == "still")
