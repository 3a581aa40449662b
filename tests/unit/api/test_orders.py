"""What each command makes of what is wanted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.api import orders
from orchestrator.api.orders import UpOptions
from orchestrator.model import fingerprint
from orchestrator.model.desired import Desired, Intent, Wanted
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.observation import Container, Run, Stopping
from orchestrator.model.stack import OfService, Stack
from orchestrator.planner.restarts import has_turn
from tests.kit.stacks import service, stack

SHOP = stack(
    "shop",
    db=service(),
    web=service(after="db"),
    log=service(),
    beside=service(network_mode=OfService(service="log")),
)
FIRST = orders.up(None, SHOP, UpOptions())


def up(previous: Desired | None, wish: Stack = SHOP, *services: str, **options: Any) -> Desired:
    return orders.up(previous, wish, UpOptions(services=services, **options))


def wanted(desired: Desired) -> dict[str, str]:
    return {name: intent.wanted.value for name, intent in desired.intents.items()}


def turns(desired: Desired) -> dict[str, int]:
    return {name: intent.turn for name, intent in desired.intents.items()}


# --- up ------------------------------------------------------------------------------------------------------


def test_the_first_up_wants_every_service() -> None:
    assert wanted(FIRST) == dict.fromkeys(("db", "web", "log", "beside"), "running")
    assert set(turns(FIRST).values()) == {1}


def test_up_of_some_wants_these_and_what_they_need_and_nobody_else() -> None:
    assert set(up(None, SHOP, "web").intents) == {"web", "db"}
    assert set(up(None, SHOP, "beside").intents) == {"beside", "log"}
    assert set(up(None, SHOP, "web", no_deps=True).intents) == {"web"}


def test_each_up_is_a_new_turn_of_those_it_is_about() -> None:
    second = up(FIRST, SHOP, "web")
    assert turns(second) == {"web": 2, "db": 2, "log": 1, "beside": 1}
    assert turns(up(second, SHOP, wanted=Wanted.CREATED)) == turns(second)


def test_a_service_that_was_not_asked_for_keeps_its_old_definition() -> None:
    changed = replace(
        SHOP, services={n: replace(s, environment={"V": "2"}) for n, s in SHOP.services.items()}
    )
    merged = up(FIRST, changed, "web").stack.services
    assert merged["web"].environment == merged["db"].environment == {"V": "2"}
    assert merged["log"] == SHOP.services["log"]


def test_a_service_that_nobody_ever_asked_for_takes_the_new_definition() -> None:
    only_web = up(None, SHOP, "web")
    changed = replace(
        SHOP, services={n: replace(s, environment={"V": "2"}) for n, s in SHOP.services.items()}
    )
    assert up(only_web, changed, "web").stack.services["log"].environment == {"V": "2"}


def test_force_recreate_makes_a_generation_of_those_named_only() -> None:
    found = up(FIRST, SHOP, "web", force_recreate=True).intents
    assert (found["web"].generation, found["db"].generation) == (1, 0)
    assert up(FIRST, force_recreate=True).intents["db"].generation == 1


def test_options_of_one_up_do_not_stick_to_the_next() -> None:
    first = up(None, SHOP, no_recreate=True, timeout=3.0, no_deps=True, remove_orphans=True)
    assert first.intents["web"].keep_stale
    assert first.remove_orphans
    second = up(first).intents["web"]
    assert (second.keep_stale, second.stop_timeout, second.ignore_dependencies) == (False, None, False)
    assert not up(first).remove_orphans


def test_a_service_that_has_left_the_file_has_no_intent_any_more() -> None:
    smaller = replace(SHOP, services={"db": SHOP.services["db"]})
    assert set(up(FIRST, smaller).intents) == {"db"}


def test_one_offs_of_before_stay_until_the_stack_goes_down() -> None:
    wish = with_oneoff(SHOP)
    running = orders.run(FIRST, wish, "web-run-1", no_deps=False)
    assert "web-run-1" in up(running).stack.services
    assert "web-run-1" in up(running).intents
    taken_down = orders.down(running, remove_volumes=False, remove_orphans=False, timeout=None)
    assert "web-run-1" not in up(taken_down).stack.services


def test_an_unknown_service_is_named_with_those_there_are() -> None:
    with pytest.raises(UserError, match="no such service: wbe") as caught:
        up(FIRST, SHOP, "wbe")
    assert "beside, db, log, web" in caught.value.hint


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".", ".hidden", "a\0b", "x" * 201])
def test_names_that_would_lead_elsewhere_are_refused_here_too(name: str) -> None:
    wish = stack("shop", db=service(volumes=("data:/d",)))
    bad_volumes = {"data": replace(wish.volumes["data"], name=name)}
    bad_networks = {"default": replace(wish.networks["default"], name=name)}
    for bad in (
        replace(wish, name=name),
        replace(wish, volumes=bad_volumes),
        replace(wish, networks=bad_networks),
    ):
        with pytest.raises(UserError, match="can't be the name"):
            orders.demand_names(bad)
    orders.demand_names(wish)


# --- the others ----------------------------------------------------------------------------------------------


def test_down_wants_nothing_of_anybody() -> None:
    found = orders.down(FIRST, remove_volumes=True, remove_orphans=True, timeout=2.0)
    assert set(wanted(found).values()) == {"absent"}
    assert (found.down, found.remove_volumes, found.remove_orphans, found.stop_timeout) == (
        True,
        True,
        True,
        2.0,
    )


def test_up_after_down_is_up() -> None:
    found = up(orders.down(FIRST, remove_volumes=False, remove_orphans=False, timeout=None))
    assert not found.down
    assert set(wanted(found).values()) == {"running"}
    assert turns(found)["db"] == 2


@pytest.mark.parametrize(("services", "stopped"), [(["web"], {"web"}), ([], {"web", "db", "log", "beside"})])
def test_stop_and_start_concern_those_named_or_all(services: list[str], stopped: set[str]) -> None:
    found = orders.stop(FIRST, services, 1.0)
    assert {name for name, word in wanted(found).items() if word == "stopped"} == stopped
    again = orders.start(found, services)
    assert set(wanted(again).values()) == {"running"}
    assert {name for name, turn in turns(again).items() if turn == 2} == stopped


def test_restart_takes_along_who_asked_for_it() -> None:
    wish = stack("shop", db=service(), web=service(after={"db": "started!"}), other=service(after="db"))
    before = up(None, wish)
    found = orders.restart(before, ["db"], timeout=None, no_deps=False).intents
    assert {name for name, intent in found.items() if intent.restart_turn} == {"db", "web"}
    alone = orders.restart(before, ["db"], timeout=None, no_deps=True).intents
    assert {name for name, intent in alone.items() if intent.restart_turn} == {"db"}


def test_a_restart_is_a_turn_later_than_any_run() -> None:
    found = orders.restart(FIRST, ["db"], timeout=0.0, no_deps=False).intents["db"]
    assert found.restart_turn == found.turn == 2


def test_remove_wants_them_absent() -> None:
    assert wanted(orders.remove(FIRST, ["log"]))["log"] == "absent"


def test_every_order_refuses_what_it_does_not_know_and_changes_nothing() -> None:
    for order in (
        lambda: orders.stop(FIRST, ["x"], None),
        lambda: orders.start(FIRST, ["x"]),
        lambda: orders.remove(FIRST, ["x"]),
        lambda: orders.restart(FIRST, ["x"], timeout=None, no_deps=True),
    ):
        with pytest.raises(UserError, match="no such service: x"):
            order()


# --- one-offs ------------------------------------------------------------------------------------------------


def with_oneoff(wish: Stack, of: str = "web") -> Stack:
    oneoff = replace(wish.services[of], name=f"{of}-run-1", oneoff=True)
    return replace(wish, services={**wish.services, oneoff.name: oneoff})


def test_a_run_wants_its_one_off_and_starts_what_it_needs_if_that_does_not_run() -> None:
    found = orders.run(None, with_oneoff(SHOP), "web-run-1", no_deps=False)
    assert wanted(found) == {"db": "running", "web-run-1": "running"}
    assert not found.intents["db"].ignore_dependencies
    alone = orders.run(None, with_oneoff(SHOP), "web-run-1", no_deps=True)
    assert wanted(alone) == {"web-run-1": "running"}


def test_a_run_leaves_what_runs_already_as_it_is() -> None:
    found = orders.run(FIRST, with_oneoff(SHOP), "web-run-1", no_deps=False)
    assert turns(found) == {**turns(FIRST), "web-run-1": 1}


def test_up_and_restart_of_all_do_not_mean_one_offs() -> None:
    running = orders.run(FIRST, with_oneoff(SHOP), "web-run-1", no_deps=False)
    assert turns(orders.start(running, []))["web-run-1"] == 1
    assert not orders.restart(running, [], timeout=None, no_deps=False).intents["web-run-1"].restart_turn


def test_a_one_off_that_has_gone_is_forgotten() -> None:
    running = orders.run(FIRST, with_oneoff(SHOP), "web-run-1", no_deps=False)
    found = orders.forget_service(running, "web-run-1")
    assert "web-run-1" not in found.stack.services
    assert "web-run-1" not in found.intents
    assert found.intents["db"] == running.intents["db"]


# --- around them ---------------------------------------------------------------------------------------------


def test_a_lost_record_is_made_good_by_what_is_there() -> None:
    container = Container(
        id="a",
        name="shop-web-1",
        stack="shop",
        service="web",
        slot=1,
        definition=SHOP.services["web"],
        fingerprint="",
        generation=0,
        image_id="",
        created=0,
    )
    found = orders.found("shop", [container])
    assert list(found.stack.services) == ["web"]
    assert found.intents == {}
    assert orders.down(found, remove_volumes=False, remove_orphans=False, timeout=None).intents[
        "web"
    ].wanted is (Wanted.ABSENT)


def test_a_new_turn_is_carried_out_for_runs_under_way() -> None:
    second = up(FIRST, SHOP, "web")
    found = orders.acknowledge(FIRST, second, [ran("web", None), ran("log", None)], 9.0)
    assert found.intents["web"].under_way == (5.0,)
    assert found.intents["log"].under_way == ()


JOB = stack("shop", job=service(restart="on-failure"), web=service(after={"job": "completed"}), log=service())
HAD = up(None, JOB)


def ran(name: str, exit_code: int | None, wish: Stack = JOB, **fields: Any) -> Container:
    """A container whose run began at 5 and has ended with `exit_code`, unless that is None."""
    run = Run(turn=1, started=5.0, finished=None if exit_code is None else 6.0, exit_code=exit_code)
    recipe = wish.services.get(name, service())
    return Container(
        id=name,
        name=f"shop-{name}-1",
        stack="shop",
        service=name,
        slot=1,
        definition=recipe,
        fingerprint=fingerprint.of_service(recipe),
        generation=0,
        image_id="",
        created=0,
        run=replace(run, **fields),
    )


@pytest.mark.parametrize(
    ("ended", "again"),
    [
        (ran("job", 0), False),
        (ran("job", 1), True),
        (ran("job", 0, stopping=Stopping(since=5.5, signal=15, by="user")), True),
        (ran("log", 0), True),
        (replace(ran("job", 0), fingerprint="of another definition"), True),
    ],
)
def test_a_one_shot_that_has_succeeded_by_itself_is_not_run_again(ended: Container, again: bool) -> None:
    """One that nobody waits for is run again, as docker compose does."""
    found = orders.acknowledge(HAD, up(HAD, JOB), [ended], 9.0)
    assert ended.run is not None
    assert has_turn(ended.run, found.intents[ended.service]) is not again


@pytest.mark.parametrize(("names", "again"), [((), False), (("web",), False), (("job",), True)])
def test_a_one_shot_runs_again_when_it_is_named(names: tuple[str, ...], again: bool) -> None:
    job = ran("job", 0)
    assert job.run is not None
    ordered = orders.acknowledge(HAD, up(HAD, JOB, *names), [job], 9.0)
    assert has_turn(job.run, ordered.intents["job"]) is not again
    # An order that has not been carried out yet is not taken back by the next one.
    later = orders.acknowledge(ordered, up(ordered, JOB), [job], 9.0)
    assert has_turn(job.run, later.intents["job"]) is not again
    started = orders.start(HAD, ["job"], insists=bool(names))
    assert has_turn(job.run, orders.acknowledge(HAD, started, [job], 9.0).intents["job"]) is bool(not names)


def test_run_does_not_run_what_its_one_shot_has_done() -> None:
    wish = replace(JOB, services={**JOB.services, "web-run-1": replace(JOB.services["web"], oneoff=True)})
    stopped = orders.stop(HAD, ["job"], None)
    found = orders.acknowledge(
        stopped, orders.run(stopped, wish, "web-run-1", no_deps=False), [ran("job", 0)], 9
    )
    assert found.intents["job"].wanted is Wanted.RUNNING
    assert found.intents["job"].under_way == (5.0,)


@pytest.mark.parametrize(
    ("previous", "goes_on"),
    [(None, False), (replace(FIRST, began=3.0), True), (replace(FIRST, began=3.0, down=True), False)],
)
def test_a_stack_begins_a_new_life_when_it_was_not_there_or_going_down(
    previous: Desired | None, goes_on: bool
) -> None:
    assert orders.acknowledge(previous, FIRST, (), 9.0).began == (3.0 if goes_on else 9.0)


def test_going_down_goes_on_with_the_same_life() -> None:
    previous = replace(FIRST, began=3.0, down=True)
    again = orders.down(previous, remove_volumes=True, remove_orphans=False, timeout=None)
    assert orders.acknowledge(previous, again, (), 9.0).began == 3.0


# --- names of containers ---------------------------------------------------------------------------------


def bearer(name: str, stack_name: str, service_name: str) -> orders.Bearer:
    return orders.Bearer(name=name, stack=stack_name, service=service_name)


NAMED = up(None, stack("shop", db=service(container_name="one"), web=service()))


@pytest.mark.parametrize(
    ("there", "others", "said"),
    [
        ((), (), ""),
        ((bearer("one", "shop", "db"),), (), ""),
        ((bearer("two", "blog", "db"),), (bearer("three", "blog", "x"),), ""),
        (
            (bearer("one", "blog", "x"),),
            (),
            "service db: container name one is already in use by service x of stack blog",
        ),
        (
            (),
            (bearer("one", "blog", "x"),),
            "service db: container name one is already in use by service x of stack blog",
        ),
        (
            (bearer("shop-web-1", "shop-web", "1"),),
            (),
            "service web: container name shop-web-1 is already in use",
        ),
        (
            (bearer("one", "shop", "gone"),),
            (),
            "service db: container name one is already in use by service gone",
        ),
        ((bearer("one", "shop", "web"),), (), ""),
        ((bearer("one", "blog", "x-run-0123456789ab"),), (), "in use by service x of stack blog"),
    ],
)
def test_a_name_has_one_bearer_on_the_machine(
    there: tuple[orders.Bearer, ...], others: tuple[orders.Bearer, ...], said: str
) -> None:
    """One in the stack itself that is about to give its name up is waited for."""
    if not said:
        orders.demand_free_names(NAMED, there, others)
        return
    with pytest.raises(UserError) as caught:
        orders.demand_free_names(NAMED, there, others)
    assert said in caught.value.message
    assert caught.value.exit_code is ExitCode.CONFLICT


def test_an_orphan_that_is_to_go_gives_its_name_up() -> None:
    orders.demand_free_names(replace(NAMED, remove_orphans=True), [bearer("one", "shop", "gone")], ())


def test_what_a_stack_wants_to_have_bears_names() -> None:
    wish = stack("shop", db=service(replicas=2), idle=service(), web=service(container_name="one"))
    wanted = replace(up(None, wish), intents={"db": Intent(), "web": Intent(wanted=Wanted.ABSENT)})
    assert [one.name for one in orders.bearers(wanted)] == ["shop-db-1", "shop-db-2"]
    assert orders.bearers(replace(wanted, down=True)) == []


# --- a run that is given up --------------------------------------------------------------------------------


def test_a_run_that_is_given_up_takes_back_what_has_not_come_about() -> None:
    """Not what runs, not what was wanted before, and not what somebody else has asked for since."""
    wish = stack("shop", a=service(), b=service(), c=service(), d=service())
    before = replace(
        up(None, wish), intents={"a": Intent(turn=1), "b": Intent(wanted=Wanted.STOPPED, turn=1)}
    )
    ours = replace(
        before, intents={**before.intents, **{name: Intent(turn=2) for name in "bc"}, "d": Intent(turn=1)}
    )
    left = orders.withdraw(ours, before, ours, "abcd", {"d"})
    assert left.intents == {
        "a": Intent(turn=1),
        "b": Intent(wanted=Wanted.STOPPED, turn=1),
        "d": Intent(turn=1),
    }
    since = replace(ours, intents={**ours.intents, "c": Intent(turn=3)})
    assert orders.withdraw(since, before, ours, "abcd", {"d"}).intents["c"] == Intent(turn=3)
    assert set(orders.withdraw(ours, None, ours, "abcd", {"d"}).intents) == {"d"}


def test_rm_says_whether_volumes_go_and_a_later_order_forgets_it() -> None:
    gone = orders.remove(NAMED, ["db"], volumes=True)
    assert gone.intents["db"].remove_volumes
    for later in (
        orders.stop(gone, ["db"], None),
        orders.start(gone, ["db"]),
        orders.restart(gone, ["db"], timeout=None, no_deps=True),
        orders.down(gone, remove_volumes=False, remove_orphans=False, timeout=None),
        up(gone, NAMED.stack),
    ):
        assert not later.intents["db"].remove_volumes


# --- after a restart of the machine --------------------------------------------------------------------------


def test_always_outlives_a_stop_and_nothing_else_does() -> None:
    named = stack("shop", a=service(restart="always"), b=service(restart="unless-stopped"), c=service())
    desired = orders.stop(up(None, named), ("a", "b"), None)
    after = orders.after_boot(desired)
    assert wanted(after) == {"a": "running", "b": "stopped", "c": "running"}
    assert turns(after) == {**turns(desired), "a": turns(desired)["a"] + 1}
    assert orders.after_boot(up(None, named)) == up(None, named)


def test_repair_is_as_was_said_last_until_the_stack_goes() -> None:
    wish = stack("shop", web=service())
    off = orders.up(None, wish, UpOptions(repair=False))
    assert (orders.up(None, wish, UpOptions()).repair, off.repair) == (True, False)
    assert orders.up(off, wish, UpOptions()).repair is False
    assert orders.up(off, wish, UpOptions(repair=True)).repair is True
    assert orders.restart(off, ["web"], timeout=None, no_deps=False).repair is False
    gone = orders.down(off, remove_volumes=False, remove_orphans=False, timeout=None)
    assert orders.up(gone, wish, UpOptions()).repair is True
    assert orders.repair(off, on=True).repair is True
