"""What a start waits for: the truth table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model.action import StartContainer
from orchestrator.model.desired import Desired, Wanted
from orchestrator.model.observation import (
    Failure,
    Health,
    HealthStatus,
    Observation,
    ProbeResult,
    Run,
    Stopping,
)
from orchestrator.model.plan import Plan
from orchestrator.model.sections import InitContainer
from orchestrator.model.stack import RestartPolicy
from orchestrator.planner.gates import DEPENDENCY, about, where_to_look
from orchestrator.planner.plan import plan
from tests.kit.stacks import check, converge, nothing, service, stack, up, wanting

NOW = 1000.0
CHECKED = check(interval=1e6)


def running(**fields: object) -> Run:
    return Run(turn=1, started=NOW - 1, **fields)  # type: ignore[arg-type]


def ended(code: int | None, **fields: object) -> Run:
    return running(finished=NOW, exit_code=code, **fields)


def health(status: str) -> Health:
    return Health(status=HealthStatus(status))


BROKEN = ended(127, error="no such command")

OPEN, WAIT, FAIL = "open", "wait", "fail"
NOT_COMPLETED = 'service "db" didn\'t complete successfully: '

TABLE = [
    # condition, restart policy of db, db's run, answer, sentence
    ("started", "no", None, WAIT, "db is not started yet"),
    ("started", "no", running(), OPEN, "db is started"),
    ("started", "no", ended(0), OPEN, "db was started"),
    ("started", "no", ended(3), OPEN, "db was started"),
    ("started", "always", ended(3), OPEN, "db was started"),
    ("started", "no", BROKEN, FAIL, DEPENDENCY + "container shop-db-1: no such command"),
    ("healthy", "no", None, WAIT, "db is not started yet"),
    ("healthy", "no", running(health=health("starting")), WAIT, "db is not healthy yet"),
    ("healthy", "no", running(health=health("healthy")), OPEN, "db is healthy"),
    (
        "healthy",
        "no",
        running(health=health("unhealthy")),
        FAIL,
        DEPENDENCY + "container shop-db-1 is unhealthy",
    ),
    (
        "healthy",
        "no",
        ended(0, health=health("healthy")),
        FAIL,
        DEPENDENCY + "container shop-db-1 exited (0)",
    ),
    ("healthy", "always", ended(1), WAIT, "db is restarting"),
    (
        "healthy",
        "on-failure:1",
        ended(1, attempt=2),
        FAIL,
        DEPENDENCY + "container shop-db-1 exited (1), given up after 1 restarts",
    ),
    ("healthy", "no", BROKEN, FAIL, DEPENDENCY + "container shop-db-1: no such command"),
    ("completed", "no", None, WAIT, "db is not started yet"),
    ("completed", "no", running(), WAIT, "db has not completed yet"),
    ("completed", "no", ended(0), OPEN, "db has completed"),
    ("completed", "always", ended(0), OPEN, "db has completed"),
    ("completed", "no", ended(4), FAIL, DEPENDENCY + NOT_COMPLETED + "exit 4"),
    ("completed", "no", ended(None), FAIL, DEPENDENCY + NOT_COMPLETED + "its exit code was lost"),
    ("completed", "on-failure", ended(4), WAIT, "db is trying again (exit 4, attempt 1)"),
    ("completed", "on-failure:1", ended(4, attempt=2), FAIL, DEPENDENCY + NOT_COMPLETED + "exit 4"),
    ("completed", "no", BROKEN, FAIL, DEPENDENCY + "container shop-db-1: no such command"),
]


def world_where(desired: Desired, runs: dict[str, Run | None]) -> Observation:
    """All containers made; the runs as given."""
    created = replace(
        desired, intents={n: replace(i, wanted=Wanted.CREATED) for n, i in desired.intents.items()}
    )
    made = converge(created, nothing())
    return replace(made, containers=tuple(replace(c, run=runs.get(c.name)) for c in made.containers))


def answer(decided: Plan, name: str = "shop-web-1") -> tuple[str, str]:
    for action in decided.actions:
        if isinstance(action, StartContainer) and action.name == name:
            return OPEN, action.because
    for wait in decided.waits:
        if wait.target == f"container:{name}":
            return (FAIL if wait.failed else WAIT), wait.because
    return "nothing", ""


@pytest.mark.parametrize(("condition", "restart", "run", "expected", "because"), TABLE)
def test_gate(condition: str, restart: str, run: Run | None, expected: str, because: str) -> None:
    desired = up(
        stack(db=service(restart=restart, healthcheck=CHECKED), web=service(after={"db": condition}))
    )
    world = world_where(desired, {"shop-db-1": run})
    assert answer(plan(desired, world, NOW)) == (expected, because)


@pytest.mark.parametrize(("condition", "restart", "run", "expected", "because"), TABLE)
def test_an_optional_dependency_that_fails_is_a_warning(
    condition: str, restart: str, run: Run | None, expected: str, because: str
) -> None:
    wish = stack(db=service(restart=restart, healthcheck=CHECKED), web=service(after={"db": condition + "?"}))
    desired = up(wish)
    decided = plan(desired, world_where(desired, {"shop-db-1": run}), NOW)
    if expected == FAIL:
        assert answer(decided) == (OPEN, "not running")
        assert decided.warnings == (f"web goes on without db: {because.removeprefix(DEPENDENCY)}",)
    else:
        assert answer(decided)[0] == expected
        assert decided.warnings == ()


def test_waiting_for_health_without_a_health_check_is_refused() -> None:
    desired = up(stack(db=service(), web=service(after={"db": "healthy"})))
    world = world_where(desired, {"shop-db-1": running()})
    assert answer(plan(desired, world, NOW)) == (
        FAIL,
        DEPENDENCY + "container shop-db-1 has no healthcheck configured",
    )


def test_every_container_of_the_dependency_is_asked() -> None:
    wish = stack(db=service(replicas=2, healthcheck=CHECKED), web=service(after={"db": "healthy"}))
    desired = up(wish)
    half = {
        "shop-db-1": running(health=health("healthy")),
        "shop-db-2": running(health=health("starting")),
    }
    assert answer(plan(desired, world_where(desired, half), NOW)) == (WAIT, "db is not healthy yet")


def test_a_dependency_scaled_to_nothing_is_not_waited_for() -> None:
    desired = up(stack(db=service(replicas=0), web=service(after={"db": "healthy"})))
    assert answer(plan(desired, world_where(desired, {}), NOW))[0] == OPEN


def test_no_deps_waits_for_nobody() -> None:
    desired = up(stack(db=service(healthcheck=CHECKED), web=service(after={"db": "healthy"})))
    desired = wanting(desired, "web", ignore_dependencies=True)
    assert answer(plan(desired, world_where(desired, {}), NOW))[0] == OPEN


def test_a_failure_is_passed_on_along_the_chain() -> None:
    wish = stack(
        db=service(healthcheck=CHECKED), api=service(after={"db": "healthy"}), web=service(after="api")
    )
    desired = up(wish)
    world = world_where(desired, {"shop-db-1": running(health=health("unhealthy"))})
    assert answer(plan(desired, world, NOW)) == (FAIL, DEPENDENCY + "container shop-db-1 is unhealthy")


def test_a_dependency_whose_image_is_missing_fails_with_its_exit_code() -> None:
    desired = up(stack(db=service(image="db", pull_policy="never"), web=service(after="db")))
    decided = plan(desired, converge(desired, nothing()), NOW)
    (wait,) = (w for w in decided.waits if w.target == "container:shop-web-1")
    assert (wait.failed, wait.exit_code) == (True, 6)
    assert wait.because.startswith(DEPENDENCY + "container shop-db-1: image not here: db")


def test_a_dependency_about_to_be_replaced_is_waited_for() -> None:
    desired = up(stack(db=service(), web=service(after="db")))
    world = world_where(desired, {"shop-db-1": running()})
    desired = wanting(desired, "db", generation=1)
    assert answer(plan(desired, world, NOW)) == (WAIT, "db is about to be replaced")


def test_a_dependency_that_will_be_started_again_is_waited_for() -> None:
    desired = up(stack(db=service(), web=service(after={"db": "completed"})), turn=2)
    world = world_where(desired, {"shop-db-1": ended(0)})
    assert answer(plan(desired, world, NOW)) == (WAIT, "db is not started yet")


@pytest.mark.parametrize("wanted", ["running", "stopped"])
def test_a_dependency_that_cannot_be_executed_lets_nobody_start_though_it_is_to_be_stopped(
    wanted: str,
) -> None:
    desired = up(stack(db=service(), web=service(after="db")))
    world = world_where(desired, {"shop-db-1": ended(127, error="no such file")})
    decided = plan(wanting(desired, "db", wanted=wanted), world, NOW)
    assert answer(decided) == (FAIL, f"{DEPENDENCY}container shop-db-1: no such file")


def test_a_stopping_dependency_is_not_healthy() -> None:
    desired = up(stack(db=service(healthcheck=CHECKED), web=service(after={"db": "healthy"})))
    stopping = Stopping(since=NOW, signal=15, by="planner")
    world = world_where(desired, {"shop-db-1": running(health=health("healthy"), stopping=stopping)})
    assert answer(plan(desired, world, NOW)) == (WAIT, "db is stopping")


def test_a_restart_by_policy_passes_no_gate() -> None:
    """As in docker: the policy brings back what has crashed, whatever its dependencies do."""
    wish = stack(db=service(healthcheck=CHECKED), web=service(after={"db": "healthy"}, restart="always"))
    desired = up(wish)
    runs = {
        "shop-db-1": running(health=health("unhealthy")),
        "shop-web-1": Run(turn=1, started=1.0, finished=2.0, exit_code=1),
    }
    assert answer(plan(desired, world_where(desired, runs), NOW)) == (OPEN, "restarting (exit 1, attempt 2)")


def test_a_dependency_that_keeps_failing_to_be_made_fails_its_dependents_in_the_end() -> None:
    desired = up(stack(db=service(), web=service(after="db")))
    world = world_where(desired, {})

    def failed(count: int) -> Observation:
        failure = Failure(
            target="container:shop-db-1", verb="start", count=count, at=NOW, because="device busy"
        )
        return replace(world, failures={failure.target: failure})

    assert answer(plan(desired, failed(1), NOW))[0] == WAIT
    assert answer(plan(desired, failed(6), NOW))[0] == FAIL


# --- who is not wanted, or was asked nothing -------------------------------------------------------------

STOPPED = [
    # condition, restart policy of db, db's run, answer, sentence; db is wanted stopped
    (
        "started",
        "no",
        None,
        FAIL,
        DEPENDENCY + "container shop-db-1 is not started, and nobody has asked for it",
    ),
    ("started", "no", running(), OPEN, "db is started"),
    ("started", "always", ended(3), OPEN, "db was started"),
    ("started", "no", BROKEN, FAIL, DEPENDENCY + "container shop-db-1: no such command"),
    ("healthy", "no", running(), WAIT, "db is not healthy yet"),
    ("healthy", "no", ended(None), FAIL, DEPENDENCY + "container shop-db-1 exited, exit code lost"),
    ("healthy", "always", ended(1), FAIL, DEPENDENCY + "container shop-db-1 exited (1)"),
    ("healthy", "no", BROKEN, FAIL, DEPENDENCY + "container shop-db-1: no such command"),
    ("completed", "always", ended(1), FAIL, DEPENDENCY + NOT_COMPLETED + "exit 1"),
    ("completed", "no", ended(0), OPEN, "db has completed"),
    ("completed", "no", BROKEN, FAIL, DEPENDENCY + "container shop-db-1: no such command"),
    ("logged", "always", ended(1), WAIT, "the last lines of db are being read"),
    ("logged", "no", BROKEN, FAIL, DEPENDENCY + "container shop-db-1: no such command"),
]


@pytest.mark.parametrize(("condition", "restart", "run", "expected", "because"), STOPPED)
def test_a_gate_before_what_is_to_stop(
    condition: str, restart: str, run: Run | None, expected: str, because: str
) -> None:
    """What its policy would have done does not count."""
    db = service(restart=restart, healthcheck=CHECKED, log_ready="ready")
    desired = up(stack(db=db, web=service(after={"db": condition})))
    world = world_where(desired, {"shop-db-1": run})
    assert answer(plan(wanting(desired, "db", wanted="stopped"), world, NOW)) == (expected, because)


LOGGED = [
    ("no", None, WAIT, "db is not started yet"),
    ("no", running(), WAIT, "db has not logged that it is ready"),
    ("no", running(log_ready=True), OPEN, "db has logged that it is ready"),
    (
        "no",
        running(log_ready=False, log_trouble="no line"),
        FAIL,
        DEPENDENCY + "container shop-db-1: no line",
    ),
    ("no", running(stopping=Stopping(since=NOW, signal=15, by="planner")), WAIT, "db is stopping"),
    ("no", ended(0), WAIT, "the last lines of db are being read"),
    (
        "no",
        ended(0, before_boot=True),
        FAIL,
        DEPENDENCY + "container shop-db-1 exited (0), and had not logged that it was ready",
    ),
    ("no", ended(0, log_ready=True), OPEN, "db had logged that it was ready"),
    ("no", ended(1, log_ready=True), FAIL, DEPENDENCY + "container shop-db-1 exited (1)"),
    ("always", ended(1, log_ready=True), WAIT, "db is restarting"),
]


@pytest.mark.parametrize(("restart", "run", "expected", "because"), LOGGED)
def test_a_gate_before_a_line(restart: str, run: Run | None, expected: str, because: str) -> None:
    desired = up(stack(db=service(restart=restart, log_ready="ready"), web=service(after={"db": "logged"})))
    assert answer(plan(desired, world_where(desired, {"shop-db-1": run}), NOW)) == (expected, because)


@pytest.mark.parametrize("run", [running(), ended(0)])
def test_waiting_for_a_line_that_nobody_looks_for_is_refused(run: Run) -> None:
    desired = up(stack(db=service(), web=service(after={"db": "logged"})))
    found = answer(plan(desired, world_where(desired, {"shop-db-1": run}), NOW))
    assert found == (FAIL, DEPENDENCY + "container shop-db-1 has no x-log-ready")


@pytest.mark.parametrize(
    ("wanted", "asked"), [("stopped", True), ("absent", True), ("created", False), ("", True)]
)
def test_a_dependency_without_a_container_that_nobody_wants_fails(wanted: str, asked: bool) -> None:
    desired = up(stack(db=service(), web=service(after="db")))
    world = world_where(desired, {})
    bare = replace(world, containers=tuple(one for one in world.containers if one.service == "web"))
    if wanted:
        desired = wanting(desired, "db", wanted=wanted)
    else:
        desired = replace(desired, intents={"web": desired.intents["web"]})
    nobody = (FAIL, DEPENDENCY + "service db has no container, and nobody has asked for one")
    assert answer(plan(desired, bare, NOW)) == (nobody if asked else (WAIT, "db is not there yet"))


def test_a_dependency_about_to_be_removed_is_waited_for() -> None:
    desired = up(stack(db=service(), web=service(after="db")))
    world = world_where(desired, {"shop-db-1": running()})
    found = answer(plan(wanting(desired, "db", wanted="absent"), world, NOW))
    assert found == (WAIT, "db is about to be removed")


def test_one_that_ended_and_is_to_be_restarted_is_not_started_yet() -> None:
    desired = up(stack(db=service(), web=service(after="db")))
    world = world_where(desired, {"shop-db-1": ended(0)})
    assert answer(plan(wanting(desired, "db", restart_turn=2), world, NOW)) == (WAIT, "db is not started yet")


def test_who_runs_and_was_asked_nothing_yet_is_not_healthy() -> None:
    desired = up(stack(db=service(healthcheck=CHECKED), web=service(after={"db": "healthy"})))
    assert answer(plan(desired, world_where(desired, {"shop-db-1": running()}), NOW)) == (
        WAIT,
        "db is not healthy yet",
    )


def test_an_unhealthy_dependency_that_is_about_to_be_replaced_is_waited_for() -> None:
    policy = RestartPolicy(condition="always", unhealthy="recreate")
    db = replace(service(healthcheck=CHECKED), restart=policy)
    desired = up(stack(db=db, web=service(after={"db": "healthy"})))
    world = world_where(desired, {"shop-db-1": running(health=health("unhealthy"))})
    young = replace(world, containers=tuple(replace(one, created=NOW - 1) for one in world.containers))
    found = answer(plan(desired, young, NOW))
    assert found == (WAIT, "db is unhealthy, and about to be replaced")


# --- several reasons -------------------------------------------------------------------------------------


def test_of_several_dependencies_all_that_are_good_are_told_and_the_first_that_is_not() -> None:
    desired = up(stack(db=service(), cache=service(), web=service(after=("db", "cache"))))
    both = {"shop-db-1": running(), "shop-cache-1": running()}
    assert answer(plan(desired, world_where(desired, both), NOW)) == (OPEN, "db is started, cache is started")
    assert answer(plan(desired, world_where(desired, {}), NOW)) == (WAIT, "db is not started yet")


@pytest.mark.parametrize("replicas", [0, 1])
def test_where_nothing_is_waited_for_no_reason_is_made_up(replicas: int) -> None:
    desired = up(stack(db=service(replicas=replicas), web=service(after="db")))
    if replicas:
        desired = wanting(desired, "web", ignore_dependencies=True)
    assert answer(plan(desired, world_where(desired, {}), NOW)) == (OPEN, "not running")


@pytest.mark.parametrize(
    ("because", "said"),
    [
        ("no space", "container shop-db-1: no space"),
        ("shop-db-1 is odd", "shop-db-1 is odd"),
        ("container other is odd", "container other is odd"),
        ("service db is odd", "service db is odd"),
        ("network n is odd", "network n is odd"),
        ("volume v is odd", "volume v is odd"),
        ("external network n does not exist", "external network n does not exist"),
        ("can't write /x: disk full", "can't write /x: disk full"),
        (DEPENDENCY + "x", DEPENDENCY + "x"),
    ],
)
def test_a_sentence_names_the_container_unless_it_says_what_it_is_about(because: str, said: str) -> None:
    assert about("shop-db-1", because) == said


@pytest.mark.parametrize(
    ("code", "output", "said"),
    [
        (7, "no\n route", "its last health check (exit 7) said: no route; "),
        (0, "x", "its last health check (exit 0) said: x; "),
        (-1, "timed out", "its last health check said: timed out; "),
        (1, " ", "its last health check failed (exit 1); "),
        (-1, "", "its last health check failed; "),
        (1, "x" * 201, f"its last health check (exit 1) said: {'x' * 200}; "),
    ],
)
def test_the_hint_tells_what_the_health_check_said_last(code: int, output: str, said: str) -> None:
    desired = up(stack(db=service(healthcheck=CHECKED)))
    results = (
        ProbeResult(started=NOW - 9, ended=NOW - 9, exit_code=3, output="before"),
        ProbeResult(started=NOW, ended=NOW, exit_code=code, output=output),
    )
    sick = Health(status=HealthStatus.UNHEALTHY, results=results)
    (db,) = world_where(desired, {"shop-db-1": running(health=sick)}).containers
    assert where_to_look(db) == f"{said}`pystack logs db` shows what it wrote"
    well = replace(db, run=running(health=replace(sick, status=HealthStatus.HEALTHY)))
    assert where_to_look(well) == "`pystack logs db` shows what it wrote"


# --- steps of pre_start ----------------------------------------------------------------------------------

FIRST, SECOND = "pre_start step 1 of web", "pre_start step 2 of web"
PREPARED = [
    # runs of the steps, what is said of the second step and of web
    ((None, None), (WAIT, f"{FIRST} is not started yet"), (WAIT, f"{FIRST} is not started yet")),
    ((running(), None), (WAIT, f"{FIRST} has not completed yet"), (WAIT, f"{FIRST} has not completed yet")),
    ((ended(0), None), (OPEN, f"{FIRST} has completed"), (WAIT, f"{SECOND} is not started yet")),
    ((ended(0), ended(0)), ("nothing", ""), (OPEN, f"{SECOND} has completed")),
    (
        (ended(0), ended(2)),
        ("nothing", ""),
        (FAIL, f"{SECOND} didn't complete successfully: exit 2"),
    ),
]


def prepared(**fields: object) -> Desired:
    said = tuple(InitContainer(command=(word,), **fields) for word in ("one", "two"))  # type: ignore[arg-type]
    return up(stack(web=replace(service(replicas=2), pre_start=said)))


@pytest.mark.parametrize(("runs", "second", "web"), PREPARED)
def test_steps_come_one_after_another_and_before_their_service(
    runs: tuple[Run | None, Run | None], second: tuple[str, str], web: tuple[str, str]
) -> None:
    names = ("shop-web-pre_start-1", "shop-web-pre_start-2")
    world = world_where(prepared(), dict(zip(names, runs, strict=True)))
    decided = plan(prepared(), world, NOW)
    assert (answer(decided, names[1]), answer(decided)) == (second, web)


def test_a_container_waits_for_its_own_steps_only() -> None:
    desired = prepared(per_replica=True)
    there = [one.name for one in world_where(desired, {}).containers]
    mine = [name for name in there if "pre_start" in name and name.endswith("-1")]
    others = [name for name in there if "pre_start" in name and name.endswith("-2")]
    assert (len(mine), len(others)) == (2, 2)
    decided = plan(desired, world_where(desired, dict.fromkeys(mine, ended(0))), NOW)
    assert answer(decided, "shop-web-1") == (OPEN, f"{SECOND} has completed")
    assert answer(decided, "shop-web-2") == (WAIT, f"{FIRST} is not started yet")


def test_a_step_that_is_not_made_yet_is_waited_for() -> None:
    world = world_where(prepared(), {})
    bare = replace(world, containers=tuple(one for one in world.containers if "pre_start" not in one.name))
    assert answer(plan(prepared(), bare, NOW)) == (WAIT, f"{FIRST} is not there yet")
