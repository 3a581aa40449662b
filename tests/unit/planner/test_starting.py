"""Who starts, beside whom, and why not yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model import effects
from orchestrator.model.action import CreateContainer, StartContainer
from orchestrator.model.desired import Desired
from orchestrator.model.observation import Container, Failure, Observation, PublishedPort, Stopping
from orchestrator.model.plan import Plan
from orchestrator.model.stack import OfService
from orchestrator.planner.creating import container_id, signal_number
from orchestrator.planner.plan import plan
from tests.kit.stacks import converge, nothing, service, stack, up, wanting

NOW = 1000.0


def called(world: Observation, name: str) -> Container:
    return next(one for one in world.containers if one.name == name)


def changed(world: Observation, name: str, **run: Any) -> Observation:
    def turned(one: Container) -> Container:
        if one.name != name or one.run is None:
            return one
        return replace(one, run=replace(one.run, **run) if run else None)

    return replace(world, containers=tuple(turned(one) for one in world.containers))


def waits(decided: Plan) -> dict[str, tuple[str, bool]]:
    return {one.target.partition(":")[2]: (one.because, one.failed) for one in decided.waits}


def starts(decided: Plan) -> list[str]:
    return [one.name for one in decided.actions if isinstance(one, StartContainer)]


# --- beside whom -----------------------------------------------------------------------------------------

NOT_RUNNING = "db, whose network it shares, does not run"


def pair(restart: str = "no", **options: Any) -> Desired:
    web = service(network_mode=OfService(service="db"), restart="always")
    return up(stack(db=service(restart=restart, **options), web=web))


def ended(desired: Desired, **db: Any) -> Observation:
    """web has ended and is to be started again; `db`: its run, if anything is said of it."""
    world = changed(converge(desired, nothing()), "shop-web-1", finished=NOW - 200, exit_code=1)
    return changed(world, "shop-db-1", **db) if db else world


@pytest.mark.parametrize(
    ("restart", "run", "said"),
    [
        ("no", {"finished": NOW - 99, "exit_code": 0}, (NOT_RUNNING, True)),
        ("always", {"finished": NOW, "exit_code": 0}, (NOT_RUNNING, False)),
        (
            "no",
            {"finished": NOW - 99, "stopping": Stopping(since=0.0, signal=15, by="planner")},
            (NOT_RUNNING, False),
        ),
        ("no", {"stopping": Stopping(since=NOW, signal=15, by="planner")}, (NOT_RUNNING, False)),
        (
            "no",
            {"finished": NOW - 99, "stopping": Stopping(since=0.0, signal=15, by="user")},
            (NOT_RUNNING, True),
        ),
    ],
)
def test_who_shares_a_namespace_waits_if_its_owner_comes_back(
    restart: str, run: dict[str, Any], said: tuple[str, bool]
) -> None:
    decided = plan(pair(restart), ended(pair(restart), **run), NOW)
    assert waits(decided)["shop-web-1"] == said
    assert "shop-web-1" not in starts(decided)


@pytest.mark.parametrize("wanted", ["stopped", "absent", "created"])
def test_who_shares_a_namespace_of_what_is_not_wanted_running_is_refused(wanted: str) -> None:
    world = ended(pair(), finished=NOW - 99, exit_code=0)
    assert waits(plan(wanting(pair(), "db", wanted=wanted), world, NOW))["shop-web-1"] == (NOT_RUNNING, True)


def test_who_shares_a_namespace_starts_beside_one_that_nobody_asked_for() -> None:
    desired = pair()
    alone = replace(desired, intents={"web": desired.intents["web"]})
    assert starts(plan(alone, ended(desired), NOW)) == ["shop-web-1"]
    assert waits(plan(alone, ended(desired, finished=NOW - 99), NOW))["shop-web-1"] == (NOT_RUNNING, True)


def test_who_shares_a_namespace_is_told_of_when_its_owner_is_not_there_yet() -> None:
    made = converge(pair(), nothing())
    decided = plan(pair(), replace(made, containers=()), NOW)
    assert [one.name for one in decided.actions if isinstance(one, CreateContainer)] == ["shop-db-1"]
    assert waits(decided)["shop-web-1"] == ("db, whose network it shares, is not there", False)


def test_who_shares_a_namespace_waits_for_an_owner_that_is_not_started_yet() -> None:
    world = ended(pair())
    unstarted = replace(
        world,
        containers=tuple(replace(one, run=None) if one.service == "db" else one for one in world.containers),
    )
    decided = plan(pair(), unstarted, NOW)
    assert starts(decided) == ["shop-db-1"]
    assert waits(decided)["shop-web-1"] == (NOT_RUNNING, False)


# --- when, and why not -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "started"), [(NOW + 0.09, []), (NOW + 0.1, ["shop-web-1"])])
def test_a_restart_comes_when_it_is_due_and_not_before(at: float, started: list[str]) -> None:
    desired = up(stack(web=service(restart="always")))
    world = changed(converge(desired, nothing()), "shop-web-1", started=NOW - 1, finished=NOW, exit_code=1)
    decided = plan(desired, world, at)
    assert starts(decided) == started
    if not started:
        assert decided.wake_at == pytest.approx(NOW + 0.1)


def test_a_turn_is_taken_by_who_was_told_to_restart() -> None:
    desired = wanting(up(stack(web=service())), "web", restart_turn=2)
    world = changed(
        converge(up(stack(web=service())), nothing()), "shop-web-1", finished=NOW - 1, exit_code=0
    )
    (start,) = plan(desired, world, NOW).actions
    assert isinstance(start, StartContainer)
    assert (start.turn, start.because) == (2, "asked to restart")


@pytest.mark.parametrize(("because", "hint"), [("sh: not found", "try it"), ("another", "")])
def test_the_hint_of_a_failed_start_is_told_with_its_own_reason_only(because: str, hint: str) -> None:
    desired = up(stack(web=service()))
    world = changed(
        converge(desired, nothing()), "shop-web-1", finished=NOW, exit_code=127, error="sh: not found"
    )
    target = "container:shop-web-1"
    failure = Failure(target=target, verb="start", count=1, at=NOW, because=because, hint="try it")
    (wait,) = plan(desired, replace(world, failures={target: failure}), NOW + 1).waits
    assert (wait.because, wait.exit_code, wait.hint) == ("sh: not found", 127, hint)


def test_who_starts_waits_for_a_port_that_is_about_to_be_free() -> None:
    before = up(stack(old=service(ports=("8080:80",)), web=service(ports=("8081:80",))))
    world = changed(converge(before, nothing()), "shop-web-1", finished=NOW - 1, exit_code=0)
    port = PublishedPort(host_ip="", host_port=8080, target=80)
    world = replace(
        world,
        containers=tuple(
            replace(one, ports=(port,)) if one.service == "web" else one for one in world.containers
        ),
    )
    leaving = wanting(wanting(before, "old", wanted="absent"), "web", turn=2)
    decided = plan(leaving, world, NOW)
    said = "port 8080/tcp is free when container shop-old-1 has gone"
    assert waits(decided)["shop-web-1"] == (said, False)
    decided = plan(wanting(before, "web", turn=2), world, NOW)
    assert waits(decided)["shop-web-1"] == ("port 8080/tcp is in use by container shop-old-1", True)
    assert starts(decided) == []


# --- what is made ----------------------------------------------------------------------------------------


def test_a_name_that_is_about_to_be_free_is_waited_for() -> None:
    """`container_name` goes over from one service to another."""
    before = up(stack(old=service(container_name="it")))
    after = replace(up(stack(new=service(container_name="it"))), remove_orphans=True)
    world = converge(before, nothing())
    decided = plan(after, world, NOW)
    assert waits(decided)["it"] == ("an older container it has to go first", False)
    kept = plan(replace(after, remove_orphans=False), world, NOW)
    assert waits(kept)["it"] == ("the name it is held by a container of service old", True)
    for found in (decided, kept):
        assert not any(isinstance(one, CreateContainer) for one in found.actions)
    swapped = up(stack(old=service(container_name="other"), new=service(container_name="it")))
    assert waits(plan(swapped, world, NOW))["it"] == ("an older container it has to go first", False)


def test_what_a_new_container_is_made_of() -> None:
    desired = wanting(pair(), "web", generation=3)
    world = converge(wanting(desired, "web", wanted="stopped"), nothing())
    only_db = replace(world, containers=tuple(one for one in world.containers if one.service == "db"))
    (made,) = [one for one in plan(desired, only_db, NOW).actions if isinstance(one, CreateContainer)]
    assert (made.image_id, made.generation, made.because) == ("", 3, "missing")
    assert made.peers == {"db": called(world, "shop-db-1").id}


def test_ids_of_two_names_that_run_together_differ() -> None:
    assert container_id("a", "bc", 1, "x", NOW) != container_id("ab", "c", 1, "x", NOW)


@pytest.mark.parametrize(
    ("text", "number"),
    [("RTMIN", 34), ("RTMIN+3", 37), ("RTMIN+x", 34), ("RTMIN+", 34), ("SIGHUP", 1), ("?", 15)],
)
def test_signals_by_name(text: str, number: int) -> None:
    assert signal_number(text) == number


def test_a_container_whose_start_is_under_way_counts_as_live() -> None:
    world = effects.expect_exit(converge(pair("always"), nothing()), "", NOW, 0)
    down_ = ended(pair("always"), finished=NOW - 200, exit_code=0)
    (start, *_) = [one for one in plan(pair("always"), down_, NOW).actions if isinstance(one, StartContainer)]
    decided = plan(wanting(pair("always"), "web", turn=2), down_, NOW, {start.target: start})
    assert waits(decided)["shop-web-1"] == (NOT_RUNNING, False)
    assert world.containers
