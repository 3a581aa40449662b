"""How far a stack has come."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model import effects
from orchestrator.model.desired import Desired
from orchestrator.model.observation import (
    Container,
    Failure,
    Health,
    HealthStatus,
    Observation,
    ProbeResult,
    Stopping,
)
from orchestrator.model.sections import InitContainer
from orchestrator.model.stack import RestartPolicy, Stack
from orchestrator.planner.plan import plan
from orchestrator.planner.progress import Progress, progress
from tests.kit.stacks import check, converge, down, nothing, service, stack, up, wanting

NOW = 1000.0


def told(desired: Desired, world: Observation, at: float = NOW) -> Progress:
    world = replace(world, at=at)
    return progress(desired, world, plan(desired, world, at))


def phases(found: Progress) -> dict[str, str]:
    return {row.name: row.phase.value for row in found.seats}


def exits(world: Observation, name: str, code: int, at: float = NOW) -> Observation:
    (container,) = (c for c in world.containers if c.name == name)
    return effects.expect_exit(world, container.id, at, code)


def health(world: Observation, status: str, output: str = "", exit_code: int = 0) -> Observation:
    last = ProbeResult(started=NOW, ended=NOW, exit_code=exit_code, output=output)

    def turned(container):  # type: ignore[no-untyped-def]
        if container.run is None or container.run.health is None:
            return container
        found = Health(status=HealthStatus(status), results=(last,) if exit_code else ())
        return replace(container, run=replace(container.run, health=found))

    return replace(world, containers=tuple(turned(c) for c in world.containers))


def test_nothing_is_there_yet() -> None:
    found = told(up(stack(web=service(replicas=2))), nothing())
    assert phases(found) == {"shop-web-1": "pending", "shop-web-2": "pending"}
    assert (found.started.done, found.ready.done) == (False, False)


def test_running_without_a_health_check_is_started_and_ready() -> None:
    desired = up(stack(web=service()))
    found = told(desired, converge(desired, nothing()))
    assert phases(found) == {"shop-web-1": "started"}
    assert (found.started.done, found.ready.done, found.ready.failures) == (True, True, ())


@pytest.mark.parametrize(
    ("status", "phase", "ready", "failures"),
    [
        ("starting", "starting", False, ()),
        ("healthy", "healthy", True, ()),
        ("unhealthy", "unhealthy", True, ("container shop-web-1 is unhealthy",)),
    ],
)
def test_with_a_health_check(status: str, phase: str, ready: bool, failures: tuple[str, ...]) -> None:
    desired = up(stack(web=service(healthcheck=check(interval=1e6))))
    found = told(desired, health(converge(desired, nothing()), status))
    assert phases(found) == {"shop-web-1": phase}
    assert found.started.done
    assert (found.ready.done, found.ready.failures) == (ready, failures)


def test_a_one_shot_is_ready_only_if_somebody_waits_for_its_completion() -> None:
    wish = stack(job=service(), web=service(after={"job": "completed"}), lone=service())
    desired = up(wish)
    world = converge(desired, nothing())
    world = converge(desired, exits(exits(world, "shop-job-1", 0), "shop-lone-1", 0))
    found = told(desired, world)
    assert found.started.done
    assert found.ready.failures == ("container shop-lone-1 exited (0)",)
    codes = {row.name: row.exit_code for row in found.seats}
    assert codes == {"shop-job-1": 0, "shop-lone-1": 0, "shop-web-1": None}


def test_what_failed_is_said_once_with_a_hint_where_to_look() -> None:
    """Who waits for it in vain has nothing to add; the hint shows what the health check said last."""
    desired = up(stack(db=service(healthcheck=check(interval=1e6)), web=service(after={"db": "healthy"})))
    world = converge(wanting(desired, "web", wanted="created"), nothing())
    world = health(world, "unhealthy", output="connection\nrefused", exit_code=7)
    found = told(desired, world)
    assert found.ready.failures == ("container shop-db-1 is unhealthy",)
    assert found.started.failures == ("dependency failed to start: container shop-db-1 is unhealthy",)
    hint = "its last health check (exit 7) said: connection refused; `pystack logs db` shows what it wrote"
    assert (found.ready.hint, found.started.hint) == (hint, hint)


def test_a_missing_image_fails_with_its_code_when_the_rest_has_started() -> None:
    desired = up(stack(web=service(image="web", pull_policy="never"), db=service()))
    early, late = told(desired, nothing()), told(desired, converge(desired, nothing()))
    assert not early.started.done
    assert early.started.exit_code == 6
    assert late.started.done
    assert phases(late) == {"shop-db-1": "started", "shop-web-1": "failed"}
    assert (len(late.started.failures), late.started.exit_code) == (1, 6)


def test_a_restart_that_is_due_later_counts_as_started() -> None:
    desired = up(stack(web=service(restart="always")))
    found = told(desired, exits(converge(desired, nothing()), "shop-web-1", 1))
    assert phases(found) == {"shop-web-1": "starting"}
    assert (found.started.done, found.ready.done) == (True, False)


def test_what_ended_in_an_earlier_turn_is_pending() -> None:
    desired = up(stack(web=service()))
    world = exits(converge(desired, nothing()), "shop-web-1", 0)
    assert told(desired, world).started.done
    assert not told(wanting(desired, "web", turn=2), world).started.done


def test_what_runs_since_an_earlier_turn_is_started() -> None:
    desired = up(stack(web=service()))
    assert told(wanting(desired, "web", turn=2), converge(desired, nothing())).started.done


def test_out_of_date_containers_are_not_what_was_wanted() -> None:
    world = converge(up(stack(web=service())), nothing())
    found = told(up(stack(web=service(user="1"))), world)
    assert phases(found) == {"shop-web-1": "stopping"}
    assert not found.started.done


def test_only_the_services_asked_about_count() -> None:
    desired = up(stack(web=service(image="web"), db=service()))
    world = replace(converge(desired, nothing()), at=NOW)
    found = progress(desired, world, plan(desired, world, NOW), ("db",))
    assert (found.started.done, found.started.failures) == (True, ())


def test_stopped_means_that_nothing_runs() -> None:
    wish = stack(web=service())
    desired = wanting(up(wish), "web", wanted="stopped")
    world = converge(up(wish), nothing())
    assert not told(desired, world).stopped.done
    assert told(desired, converge(desired, world)).stopped.done


def test_gone_means_that_networks_are_gone_too() -> None:
    wish = stack(web=service())
    world = converge(up(wish), nothing())
    assert not told(down(wish), world).gone.done
    bare = replace(world, containers=(), networks={
        name: replace(state, users=(), addresses=()) for name, state in world.networks.items()})  # fmt: skip
    assert not told(down(wish), bare).gone.done
    assert told(down(wish), converge(down(wish), world)).gone.done


def test_created_is_all_that_create_wants() -> None:
    desired = wanting(up(stack(web=service())), "web", wanted="created")
    found = told(desired, converge(desired, nothing()))
    assert rows(found) == {"shop-web-1": ("created", "created", "", None)}
    assert (found.started.done, found.started.failures, found.ready.failures) == (True, (), ())
    assert (found.started.exit_code, found.started.hint) == (0, "")


def test_services_that_nobody_asked_for_are_no_part_of_it() -> None:
    wish = stack(web=service(), db=service())
    desired = up(wish, "db")
    found = told(desired, converge(desired, nothing()))
    assert list(rows(found)) == ["shop-db-1"]
    assert found.started.done


def test_steps_are_told_of_by_their_service_alone() -> None:
    """`pre_start`: a row each would be a row too many, and one that ended with 0 no failure."""
    wish = stack(web=service(pre_start=(InitContainer(command=("prepare",)),)))
    desired = up(wish)
    world = converge(desired, nothing())
    (step,) = (one.name for one in world.containers if one.service != "web")
    found = told(desired, converge(desired, exits(world, step, 0)))
    assert rows(found) == {"shop-web-1": ("started", "running", "", None)}
    assert found.ready.failures == ()


def test_who_has_lost_its_network_is_not_what_was_wanted() -> None:
    desired = up(stack(web=service()))
    world = converge(desired, nothing())
    astray = replace(world, containers=tuple(replace(one, addresses={}) for one in world.containers))
    found = told(desired, astray)
    assert rows(found) == {"shop-web-1": ("stopping", "running", "it is not on network shop_default", None)}
    assert not found.started.done


def test_who_is_replaced_for_its_health_but_not_yet_is_waited_for() -> None:
    wish = stack(
        web=replace(service(healthcheck=check(interval=1e6)), restart=replace(AGAIN, unhealthy="recreate"))
    )
    world = health(converge(up(wish), nothing()), "unhealthy")
    young = replace(world, containers=tuple(replace(one, created=NOW - 5) for one in world.containers))
    found = told(up(wish), young)
    assert rows(found) == {"shop-web-1": ("unhealthy", "running", "is unhealthy", None)}
    assert (found.started.done, found.started.failures) == (True, ())
    assert (found.ready.done, found.ready.failures) == (False, ())


def test_how_one_that_has_ended_stands() -> None:
    wish = stack(job=service(), web=service(after={"job": "completed"}), again=service(restart="always"))
    world = converge(wanting(up(wish), "web", wanted="created"), nothing())
    world = exits(exits(world, "shop-job-1", 0), "shop-again-1", 3)
    found = told(up(wish), world)
    assert rows(found)["shop-job-1"] == ("exited", "running", "exit 0", 0)
    assert rows(found)["shop-again-1"] == (
        "starting",
        "running",
        "restarting in 0.1 s (exit 3, attempt 2)",
        None,
    )
    assert (found.started.failures, found.ready.failures) == ((), ())
    failed = told(
        up(wish), exits(converge(wanting(up(wish), "web", wanted="created"), nothing()), "shop-job-1", 4)
    )
    assert rows(failed)["shop-job-1"] == ("exited", "running", "exit 4", 4)
    assert failed.started.failures == (
        'dependency failed to start: service "job" didn\'t complete successfully: exit 4',
    )
    assert failed.ready.failures == ("container shop-job-1 exited (4)", *failed.started.failures)
    assert failed.ready.hint == "`pystack logs job` shows what it wrote"


# --- what stands in a row --------------------------------------------------------------------------------


Row = tuple[str, str, str, int | None]
"""Phase, what is wanted, why, exit code."""


def rows(found: Progress) -> dict[str, Row]:
    return {row.name: (row.phase.value, row.wanted.value, row.because, row.exit_code) for row in found.seats}


def with_run(world: Observation, name: str, **fields: object) -> Observation:
    """The world with another run of one container, or (`run=None`) without one."""

    def turned(one: Container) -> Container:
        if one.name != name or one.run is None:
            return one
        return replace(one, run=None if "run" in fields else replace(one.run, **fields))  # type: ignore[arg-type]

    return replace(world, containers=tuple(turned(one) for one in world.containers))


def failing(world: Observation, target: str, verb: str, **fields: object) -> Observation:
    found = Failure(target=target, verb=verb, count=1, at=NOW, **{"retryable": False, **fields})  # type: ignore[arg-type]
    return replace(world, failures={**world.failures, target: found})


LINE = "ready"
STOPPING = Stopping(since=NOW, signal=15, by="planner")
AGAIN = RestartPolicy(condition="always", unhealthy="restart")
NOT_LOGGED = {"log_ready": False, "log_trouble": "it has not logged `ready` within 60 s"}
TROUBLE = "container shop-web-1: it has not logged `ready` within 60 s"

STANDINGS: dict[str, tuple[dict[str, object], dict[str, object], tuple[str, str], bool, bool, str]] = {
    "runs": ({}, {}, ("started", ""), True, True, ""),
    "was not started": ({}, {"run": None}, ("created", ""), False, False, ""),
    "is on its way out": ({}, {"stopping": STOPPING}, ("stopping", "is stopping"), False, False, ""),
    "was not asked yet": (
        {"healthcheck": check(interval=1e6)},
        {"health": None},
        ("starting", "health check has not answered yet"),
        True,
        False,
        "",
    ),
    "is healthy": (
        {"healthcheck": check(interval=1e6)},
        {"health": Health(status=HealthStatus.HEALTHY)},
        ("healthy", ""),
        True,
        True,
        "",
    ),
    "is unhealthy and stands still": (
        {"healthcheck": check(interval=1e6), "restart_policy": AGAIN},
        {"health": Health(status=HealthStatus.UNHEALTHY), "paused": True},
        ("unhealthy", "is unhealthy"),
        True,
        True,
        "container shop-web-1 is unhealthy",
    ),
    "has logged": ({"log_ready": LINE}, {"log_ready": True}, ("started", ""), True, True, ""),
    "has not logged": (
        {"log_ready": LINE},
        {},
        ("starting", "has not logged that it is ready"),
        True,
        False,
        "",
    ),
    "will not log": (
        {"log_ready": LINE},
        NOT_LOGGED,
        ("unhealthy", TROUBLE.partition(": ")[2]),
        True,
        True,
        TROUBLE,
    ),
    "can't be executed": (
        {},
        {"finished": NOW, "exit_code": 127, "error": "sh: not found"},
        ("failed", "sh: not found"),
        True,
        True,
        "container shop-web-1: sh: not found",
    ),
    "is to be started again": (
        {},
        {"finished": NOW, "exit_code": 0, "stopping": STOPPING},
        ("pending", "was stopped to be restarted"),
        False,
        False,
        "",
    ),
}


@pytest.mark.parametrize("standing", STANDINGS)
def test_how_one_that_is_wanted_stands(standing: str) -> None:
    fields, run, told_of, started, ready, failure = STANDINGS[standing]
    fields = dict(fields)
    policy = fields.pop("restart_policy", None)
    made = service(**fields)  # type: ignore[arg-type]
    wish = stack(web=made if policy is None else replace(made, restart=policy))  # type: ignore[arg-type]
    world = with_run(converge(wanting(up(wish), "web"), nothing()), "shop-web-1", **run)
    found = told(up(wish), world)
    (row,) = rows(found).values()
    assert row[:3] == (told_of[0], "running", told_of[1])
    assert (found.started.done, found.ready.done) == (started, ready)
    assert found.ready.failures == ((failure,) if failure else ())
    assert found.started.failures == ((failure,) if row[0] == "failed" else ())
    assert found.ready.exit_code == (1 if failure and row[0] != "failed" else row[3] or 0)


def test_who_is_unhealthy_and_about_to_be_restarted_has_not_failed() -> None:
    wish = stack(web=replace(service(healthcheck=check(interval=1e6)), restart=AGAIN))
    found = told(up(wish), health(converge(up(wish), nothing()), "unhealthy"))
    assert (found.ready.done, found.ready.failures) == (False, ())


def test_who_waits_for_its_image_says_so_and_fails_with_it() -> None:
    before, after = (stack(web=service(image=name, ports=("80:80",))) for name in ("old", "new"))
    world = converge(up(before), nothing("old"))
    found = told(up(after), world)
    assert rows(found) == {
        "shop-web-1": (
            "pending",
            "running",
            "definition changed: image, but first the image has to be here",
            None,
        )
    }
    gone = told(
        up(after), failing(world, "image:new", "pull", because="no such image", exit_code=6, hint="pull")
    )
    assert rows(gone)["shop-web-1"] == ("failed", "running", "no such image", 6)
    assert gone.ready.failures == ("container shop-web-1: no such image",)
    assert (gone.started.exit_code, gone.started.hint) == (6, "pull")


def test_a_seat_that_can_not_be_filled_says_why_with_code_and_hint() -> None:
    wish = stack(web=service())
    world = failing(
        nothing(), "container:shop-web-1", "create", because="no space", exit_code=5, hint="prune"
    )
    world = replace(world, networks=converge(up(wish), nothing()).networks)
    found = told(up(wish), world)
    assert rows(found) == {"shop-web-1": ("failed", "running", "no space", 5)}
    for verdict in (found.started, found.ready):
        assert (verdict.done, verdict.failures) == (True, ("container shop-web-1: no space",))
        assert (verdict.exit_code, verdict.hint) == (5, "prune")


def test_who_has_printed_its_line_and_ended_well_is_ready_for_who_waits_for_the_line_only() -> None:
    wish = stack(db=service(log_ready=LINE), web=service(after={"db": "logged"}))
    world = with_run(
        converge(wanting(up(wish), "web", wanted="created"), nothing()), "shop-db-1", log_ready=True
    )
    world = exits(world, "shop-db-1", 0)
    assert told(up(wish), world, NOW + 1).ready.failures == ()
    silent = with_run(world, "shop-db-1", log_ready=False)
    assert told(up(wish), silent, NOW + 1).ready.failures[0] == "container shop-db-1 exited (0)"
    nobody = stack(db=service(log_ready=LINE), web=service(after={"db": "healthy"}))
    assert told(up(nobody), world, NOW + 1).ready.failures[0] == "container shop-db-1 exited (0)"


# --- what is to end --------------------------------------------------------------------------------------


def ending(wish: Stack) -> tuple[Desired, Desired]:
    return wanting(up(wish), "web", wanted="stopped"), down(wish)


def test_how_one_that_is_to_end_stands() -> None:
    wish = stack(web=service())
    stop, gone = ending(wish)
    world = converge(up(wish), nothing())
    assert rows(told(stop, world)) == {"shop-web-1": ("started", "stopped", "asked to stop", None)}
    assert rows(told(gone, world)) == {"shop-web-1": ("started", "absent", "the stack goes down", None)}
    on_its_way = with_run(world, "shop-web-1", stopping=STOPPING)
    assert rows(told(gone, on_its_way))["shop-web-1"][0] == "stopping"
    assert not told(gone, on_its_way).stopped.done
    ended = exits(on_its_way, "shop-web-1", 143)
    assert rows(told(gone, ended)) == {"shop-web-1": ("stopped", "absent", "the stack goes down", 143)}
    assert told(gone, ended).stopped.done
    never = with_run(world, "shop-web-1", run=None)
    assert rows(told(stop, never)) == {"shop-web-1": ("stopped", "stopped", "asked to stop", None)}


def test_only_the_services_asked_about_have_to_end() -> None:
    wish = stack(web=service(), db=service())
    both = wanting(wanting(up(wish), "web", wanted="stopped"), "db", wanted="stopped")
    world = replace(exits(converge(up(wish), nothing()), "shop-db-1", 0), at=NOW)
    found = progress(both, world, plan(both, world, NOW), ("db",))
    assert (found.stopped.done, list(rows(found))) == (True, ["shop-db-1"])


def test_a_stop_that_can_not_be_is_a_failure_and_not_waited_for() -> None:
    wish = stack(web=service())
    world = converge(up(wish), nothing())
    broken = failing(world, "container:shop-web-1", "stop", because="no keeper", exit_code=4, hint="look")
    for desired in ending(wish):
        found = told(desired, broken).stopped
        assert (found.done, found.failures) == (True, ("container shop-web-1: no keeper",))
        assert (found.exit_code, found.hint) == (4, "look")


def test_absent_services_are_gone_when_their_containers_are() -> None:
    wish = stack(web=service(), db=service())
    desired = wanting(up(wish), "web", wanted="absent")
    world = converge(up(wish), nothing())
    assert not told(desired, world).gone.done
    assert told(desired, converge(desired, world)).gone.done
    stopped = told(wanting(up(wish), "web", wanted="stopped"), world)
    assert stopped.gone.done, "who is only to stop need not go"


def test_a_network_that_can_not_be_taken_away_is_what_down_fails_for() -> None:
    wish = stack(web=service())
    world = replace(
        converge(down(wish), converge(up(wish), nothing())), networks=converge(up(wish), nothing()).networks
    )
    bare = {name: replace(state, users=(), addresses=()) for name, state in world.networks.items()}
    found = told(
        down(wish), failing(replace(world, networks=bare), "network:shop_default", "remove", because="busy")
    )
    assert (found.gone.done, found.gone.failures, found.gone.exit_code) == (True, ("busy",), 1)
