"""What follows the end of a run: the truth table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model import steps
from orchestrator.model.desired import Intent
from orchestrator.model.observation import Health, HealthStatus, ProbeResult, Run, Stopping
from orchestrator.model.stack import RestartPolicy
from orchestrator.planner.restarts import replaced_at, sequel
from tests.kit.stacks import converge, nothing, policy, service, stack, up

STARTED, ENDED, NOW = 100.0, 101.0, 101.0


def run(code: int | None = 0, *, by: str = "", lasted: float = 1.0, attempt: int = 1, error: str = "") -> Run:
    stopping = Stopping(since=100.5, signal=15, by=by) if by else None  # type: ignore[arg-type]
    return Run(
        turn=1,
        started=ENDED - lasted,
        finished=ENDED,
        exit_code=code,
        attempt=attempt,
        restarts=attempt - 1,
        stopping=stopping,
        error=error,
    )


def after(
    ended: Run, restart: str | RestartPolicy, *, turn: int = 1, restart_turn: int = 0, now: float = NOW
) -> tuple[str, str]:
    rule = policy(restart) if isinstance(restart, str) else restart
    then = sequel(ended, rule, Intent(turn=turn, restart_turn=restart_turn), now)
    return then.kind, then.because


@pytest.mark.parametrize(
    ("ended", "restart", "expected"),
    [
        (run(0), "no", ("rest", "exit 0")),
        (run(1), "no", ("rest", "exit 1")),
        (run(None), "no", ("rest", "exit code lost")),
        (run(0), "on-failure", ("rest", "exit 0")),
        (run(1), "on-failure", ("later", "restarting in 0.1 s (exit 1, attempt 2)")),
        (run(None), "on-failure", ("later", "restarting in 0.1 s (exit code lost, attempt 2)")),
        (run(137), "on-failure", ("later", "restarting in 0.1 s (exit 137, attempt 2)")),
        (run(0), "always", ("later", "restarting in 0.1 s (exit 0, attempt 2)")),
        (run(0), "unless-stopped", ("later", "restarting in 0.1 s (exit 0, attempt 2)")),
        (run(1, attempt=3), "on-failure:3", ("later", "restarting in 0.4 s (exit 1, attempt 4)")),
        (run(1, attempt=4), "on-failure:3", ("rest", "exit 1, given up after 3 restarts")),
        (run(143, by="user"), "always", ("rest", "stopped by the user")),
        (run(143, by="user"), "unless-stopped", ("rest", "stopped by the user")),
        (run(143, by="planner"), "no", ("start", "was stopped to be restarted")),
        (run(143, by="planner"), "always", ("start", "was stopped to be restarted")),
        (run(127, error="no such file"), "always", ("broken", "no such file")),
    ],
)
def test_ends(ended: Run, restart: str, expected: tuple[str, str]) -> None:
    assert after(ended, restart) == expected


@pytest.mark.parametrize("ended", [run(0), run(1, by="user"), run(127, error="gone"), run(0, by="planner")])
@pytest.mark.parametrize("restart", ["no", "always", "on-failure:1"])
def test_a_newer_turn_starts_whatever_ended_however(ended: Run, restart: str) -> None:
    assert after(ended, restart, turn=2) == ("start", "asked to start")
    assert after(ended, restart, restart_turn=2) == ("start", "asked to restart")


@pytest.mark.parametrize(
    ("attempt", "delay"), [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (9, 25.6), (10, 51.2), (11, 60), (500, 60)]
)
def test_the_delay_doubles_up_to_a_minute(attempt: int, delay: float) -> None:
    then = sequel(run(1, attempt=attempt), policy("always"), Intent(turn=1), NOW)
    assert then.at == pytest.approx(ENDED + delay)
    assert (then.attempt, then.restarts) == (attempt + 1, attempt)


def test_a_run_of_ten_seconds_starts_the_count_anew() -> None:
    then = sequel(run(1, attempt=7, lasted=10.0), policy("on-failure:3"), Intent(turn=1), NOW)
    assert (then.kind, then.attempt, then.restarts) == ("later", 2, 7)
    assert then.at == pytest.approx(ENDED + 0.1)


def test_delay_and_window_of_the_policy_replace_the_defaults() -> None:
    rule = RestartPolicy(condition="on-failure", max_attempts=2, delay=5.0, window=2.0)
    short = sequel(run(1, attempt=3, lasted=1.9), rule, Intent(turn=1), NOW)
    long = sequel(run(1, attempt=3, lasted=2.0), rule, Intent(turn=1), NOW)
    assert short.kind == "rest"
    assert (long.kind, long.at) == ("later", ENDED + 5.0)


def test_when_the_time_has_come_no_time_is_named() -> None:
    assert after(run(1), "always", now=ENDED + 0.2) == ("later", "restarting (exit 1, attempt 2)")


def test_an_end_before_the_machine_started_is_not_waited_for() -> None:
    """Boot time begins anew: a record of the last boot can lie in this one's future."""
    then = sequel(run(1), policy("always"), Intent(turn=1), 3.0)
    assert (then.kind, then.at) == ("later", 3.0)


def test_out_of_memory_is_said() -> None:
    ended = Run(turn=1, started=STARTED, finished=ENDED, exit_code=137, oom_killed=True)
    assert after(ended, "no") == ("rest", "exit 137, out of memory")


def test_a_turn_is_carried_out_for_what_ran_when_it_was_ordered() -> None:
    """`up` beside a running one-shot: when that ends, it has ended."""
    ended = run(0)
    then = sequel(ended, policy("no"), Intent(turn=2, under_way=(ended.started,)), NOW)
    assert (then.kind, then.because) == ("rest", "exit 0")
    restart = Intent(turn=2, restart_turn=2, under_way=(ended.started,))
    assert sequel(ended, policy("no"), restart, NOW).kind == "start"


@pytest.mark.parametrize(
    ("rule", "exit_code", "kind"),
    [
        ("no", 0, "rest"),
        ("no", None, "rest"),
        ("always", 0, "start"),
        ("always", None, "start"),
        ("unless-stopped", 1, "start"),
        ("on-failure", 0, "rest"),
        ("on-failure", 1, "start"),
        ("on-failure", None, "start"),
    ],
)
def test_after_a_restart_of_the_machine_the_policy_decides_and_the_gates_count(
    rule: str, exit_code: int | None, kind: str
) -> None:
    """start waits for the gates, where a restart by policy waits for its delay alone."""
    ended = replace(run(1), exit_code=exit_code, before_boot=True)
    assert sequel(ended, policy(rule), Intent(turn=1), NOW).kind == kind
    stopped = replace(ended, stopping=Stopping(since=1.0, signal=15, by="user"))
    assert sequel(stopped, policy(rule), Intent(turn=1), NOW).kind == "rest"


# --- at the edges ----------------------------------------------------------------------------------------


def test_a_turn_after_a_restart_is_a_start() -> None:
    ended = replace(run(0), turn=2)
    assert after(ended, "no", turn=3, restart_turn=2) == ("start", "asked to start")


@pytest.mark.parametrize(("code", "said"), [(126, 126), (127, 127), (None, 127), (0, 127)])
def test_the_exit_code_of_what_can_not_be_executed(code: int | None, said: int) -> None:
    found = sequel(run(code, error="no such file"), policy("no"), Intent(turn=1), NOW)
    assert (found.kind, found.exit_code) == ("broken", said)


def test_at_the_very_moment_no_time_is_named() -> None:
    assert after(run(1), RestartPolicy(condition="always", delay=2.0), now=ENDED + 2.0) == (
        "later",
        "restarting (exit 1, attempt 2)",
    )


def test_a_step_whose_exit_code_was_lost_is_run_again() -> None:
    """`pre_start`: nobody knows whether it has done its work."""
    assert after(run(None), steps.POLICY) == ("start", "its exit code was lost")
    assert after(run(1), steps.POLICY)[0] == "rest"
    assert after(run(None), "no") == ("rest", "exit code lost")


def test_why_an_unhealthy_one_is_restarted() -> None:
    sick = replace(run(143, by="planner"), health=Health(status=HealthStatus.UNHEALTHY))
    rule = RestartPolicy(condition="no", unhealthy="restart")
    assert after(sick, rule) == ("later", "restarting in 0.1 s (unhealthy, attempt 2)")


def test_how_long_it_went_well_is_reckoned_back_where_the_first_failures_are_forgotten() -> None:
    """Two of four failures are remembered, 3 s apart: the first was 6 s before those, 11 s after the start."""
    known = tuple(ProbeResult(started=at, ended=at, exit_code=1) for at in (117.0, 120.0))
    health = Health(status=HealthStatus.UNHEALTHY, was_healthy=True, failing_streak=4, results=known)
    for started, attempt in ((101.0, 2), (101.5, 6)):
        sick = replace(run(143, by="planner", attempt=5), started=started, finished=121.0, health=health)
        found = sequel(sick, RestartPolicy(condition="no", unhealthy="restart"), Intent(turn=1), 122.0)
        assert found.attempt == attempt


@pytest.mark.parametrize(("asked", "created", "due"), [(0.0, 5.0, 65.0), (0.5, 5.0, 9.5), (5.0, 5.0, 5.0)])
def test_an_order_of_the_first_second_counts_and_none_does_not(
    asked: float, created: float, due: float
) -> None:
    (web,) = converge(up(stack(web=service())), nothing()).containers
    assert replaced_at(replace(web, created=created), Intent(asked=asked)) == due
