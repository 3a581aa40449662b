"""Who answers to which name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.engines.local import names
from orchestrator.engines.local.dns import Upstream, Zone
from orchestrator.engines.local.records import Built
from orchestrator.engines.local.table import Live, Table, Wires
from orchestrator.model.observation import Container, NetworkState, Run
from orchestrator.model.stack import Attachment, Service
from tests.kit.stacks import service

HOST = (Upstream("192.0.2.53"),)


def live(
    number: int,
    service_name: str,
    /,
    addresses: dict[str, str],
    definition: Service | None = None,
    **more: Any,
) -> Live:
    made = definition or service(networks=tuple(addresses))
    container = Container(
        id=f"{number:x}" * 64,
        name=f"shop-{service_name}-1",
        stack="shop",
        service=service_name,
        slot=1,
        definition=replace(made, name=service_name),
        fingerprint="",
        generation=0,
        image_id="",
        created=0,
        addresses={f"shop_{key}": address for key, address in addresses.items()},
        run=Run(turn=1, started=1.0),
    )
    networks = {key: f"shop_{key}" for key in addresses}
    container = replace(container, **more)
    return Live(built=Built(container=container, networks=networks), container=container)


def table(*lives: Live, internal: tuple[str, ...] = ()) -> Table:
    made = Table()
    for key in ("front", "back"):
        name = f"shop_{key}"
        made.networks[name] = NetworkState(
            name=name, subnet="10.0.0.0/24", gateway="10.0.0.1", fingerprint="", internal=key in internal
        )
    for one in lives:
        made.add(one)
    return made


def zone(of: Live, among: Table) -> Zone:
    return names.zone_of(of, among, lambda: HOST)


def test_a_container_has_its_names_on_each_network_and_aliases_on_their_own() -> None:
    networks = (Attachment(network="front", aliases=("WWW",)), Attachment(network="back"))
    web = live(
        1, "web", {"front": "10.0.0.2", "back": "10.1.0.2"}, service(networks=networks, hostname="Page")
    )
    front, back = zone(web, table(web)).scopes
    plain = {"web", "shop-web-1", "1" * 12, "page"}
    assert {name for name in front if "." not in name} == {*plain, "www"}
    assert {name for name in back if "." not in name} == plain
    assert front["web.shop_front"] == front["web"] == ("10.0.0.2",)


def test_replicas_share_the_service_s_name() -> None:
    one, two = live(1, "web", {"front": "10.0.0.2"}), live(2, "web", {"front": "10.0.0.3"}, name="shop-web-2")
    (scope,) = zone(one, table(one, two)).scopes
    assert scope["web"] == ("10.0.0.2", "10.0.0.3")
    assert scope["shop-web-2"] == ("10.0.0.3",)


def test_only_those_who_run_and_share_a_network_are_known() -> None:
    asking = live(1, "ask", {"front": "10.0.0.2"})
    ended = live(2, "ended", {"front": "10.0.0.3"}, run=Run(turn=1, started=1.0, finished=2.0))
    made = live(3, "made", {"front": "10.0.0.4"}, run=None)
    elsewhere = live(4, "elsewhere", {"back": "10.1.0.2"})
    (scope,) = zone(asking, table(asking, ended, made, elsewhere)).scopes
    assert {name for name in scope if "." not in name} == {"ask", "shop-ask-1", "1" * 12}


def test_a_one_off_has_no_service_name() -> None:
    oneoff = live(1, "web-run-1", {"front": "10.0.0.2"}, service(networks=("front",), oneoff=True))
    (scope,) = zone(oneoff, table(oneoff)).scopes
    assert "web-run-1" not in scope


def test_addresses_lead_back_to_a_name_and_its_network() -> None:
    web = live(1, "web", {"front": "10.0.0.2"})
    assert zone(web, table(web)).reverse == ({"10.0.0.2": "shop-web-1.shop_front"},)


def test_questions_go_on_unless_every_network_is_internal() -> None:
    both = live(1, "web", {"front": "10.0.0.2", "back": "10.1.0.2"})
    assert zone(both, table(both, internal=("back",))).forward
    closed = live(2, "db", {"back": "10.1.0.3"})
    assert not zone(closed, table(closed, internal=("back",))).forward


def test_a_service_s_own_servers_are_asked_from_inside() -> None:
    web = live(1, "web", {"front": "10.0.0.2"}, service(networks=("front",), dns=("9.9.9.9",)))
    assert zone(web, table(web)).upstreams == (Upstream("9.9.9.9", inside=True),)
    plain = live(2, "db", {"front": "10.0.0.3"})
    assert zone(plain, table(plain)).upstreams == HOST


def test_a_zone_is_computed_anew_only_when_the_table_has_changed() -> None:
    web = live(1, "web", {"front": "10.0.0.2"})
    web.wires = Wires(namespace=-1)
    among = table(web)
    first = zone(web, among)
    assert zone(web, among) is first
    among.add(live(2, "db", {"front": "10.0.0.3"}))
    assert "db" in zone(web, among).scopes[0]


def test_a_linked_name_is_known_to_the_linking_service_alone() -> None:
    """On shared networks, for every replica that runs."""
    linking = live(
        1,
        "web",
        {"front": "10.0.0.2", "back": "10.1.0.2"},
        service(networks=("front", "back"), links=(("db", "Store"),)),
    )
    one = live(2, "db", {"back": "10.1.0.3"})
    two = live(3, "db", {"back": "10.1.0.4"}, name="shop-db-2")
    other = live(4, "other", {"back": "10.1.0.5"})
    among = table(linking, one, two, other)
    front, back = zone(linking, among).scopes
    assert back["store"] == ("10.1.0.3", "10.1.0.4")
    assert "store" not in front
    assert all("store" not in scope for scope in zone(other, among).scopes)
