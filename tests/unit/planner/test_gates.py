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
    Run,
    Stopping,
)
from orchestrator.model.plan import Plan
from orchestrator.planner.gates import DEPENDENCY
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
