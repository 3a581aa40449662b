"""What follows the end of a run. Rules in order, the first that applies speaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from orchestrator.model import steps
from orchestrator.model.desired import Intent
from orchestrator.model.frozen import dataclass
from orchestrator.model.observation import Container, HealthStatus, Run
from orchestrator.model.stack import RestartPolicy

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
WINDOW = 10.0
"""A run of this many seconds was no failed start: the back-off begins anew (docker's figures)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequel:
    """`start`: begin a run as soon as the gates are open. `later`: at `at`, gates or not. `rest`: it stays
    ended. `broken`: its command can't be executed."""

    kind: Literal["start", "later", "rest", "broken"]
    because: str
    at: float = 0.0
    attempt: int = 1
    restarts: int = 0
    exit_code: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """All that the rules look at."""

    run: Run
    policy: RestartPolicy
    intent: Intent
    now: float


Rule = Callable[[End], Sequel | None]


def sequel(run: Run, policy: RestartPolicy, intent: Intent, now: float) -> Sequel:
    """What happens after `run`, which has ended, in a container that is wanted running."""
    end = End(run=run, policy=policy, intent=intent, now=now)
    for rule in RULES:
        found = rule(end)
        if found is not None:
            return found
    raise AssertionError("the last rule always applies")


def wanted_turn(intent: Intent) -> int:
    """The turn in which a run that begins now begins."""
    return max(intent.turn, intent.restart_turn)


def has_turn(run: Run, intent: Intent) -> bool:
    """Whether `run` is what was ordered last, so that its end is an end."""
    if run.turn < intent.restart_turn:
        return False
    return run.turn >= intent.turn or run.started in intent.under_way


def _asked_again(end: End) -> Sequel | None:
    if has_turn(end.run, end.intent):
        return None
    return Sequel(
        kind="start",
        because=(end.intent.restart_because or "asked to restart")
        if end.run.turn < end.intent.restart_turn
        else "asked to start",
    )


def _not_executable(end: End) -> Sequel | None:
    return (
        Sequel(kind="broken", because=end.run.error, exit_code=end.run.exit_code or 127)
        if end.run.error
        else None
    )


def _stopped_by_user(end: End) -> Sequel | None:
    stopped = end.run.stopping is not None and end.run.stopping.by == "user"
    return Sequel(kind="rest", because="stopped by the user") if stopped else None


def _was_unhealthy(end: End) -> Sequel | None:
    """We stopped it because its health check failed: that counts like an end of its own."""
    if end.run.stopping is None or end.run.before_boot or not is_unhealthy(end.run):
        return None
    return _again(end, "unhealthy") if end.policy.unhealthy == "restart" else None


def _stopped_by_planner(end: End) -> Sequel | None:
    """We stopped it to restart it with a dependency (or were killed half-way through something like that)."""
    return (
        Sequel(kind="start", because="was stopped to be restarted") if end.run.stopping is not None else None
    )


def _machine_restarted(end: End) -> Sequel | None:
    """Whoever comes back after a restart of the machine does so in order, through the gates, and at once."""
    if not end.run.before_boot or end.policy.condition == "no":
        return None
    if end.policy.condition == "on-failure" and end.run.exit_code == 0:
        return None
    return Sequel(kind="start", because="the machine was restarted")


def _step_cut_short(end: End) -> Sequel | None:
    if end.policy != steps.POLICY or end.run.exit_code is not None:
        return None
    return Sequel(kind="start", because="its exit code was lost")


def _never(end: End) -> Sequel | None:
    return Sequel(kind="rest", because=_ended(end.run)) if end.policy.condition == "no" else None


def _succeeded(end: End) -> Sequel | None:
    done = end.policy.condition == "on-failure" and end.run.exit_code == 0
    return Sequel(kind="rest", because=_ended(end.run)) if done else None


def _gave_up(end: End) -> Sequel | None:
    if end.policy.max_attempts is None or _attempt(end.run, end.policy) - 1 < end.policy.max_attempts:
        return None
    return Sequel(
        kind="rest", because=f"{_ended(end.run)}, given up after {end.policy.max_attempts} restarts"
    )


def _restart(end: End) -> Sequel | None:
    return _again(end, _ended(end.run))


def _again(end: End, ended: str) -> Sequel:
    attempt = _attempt(end.run, end.policy)
    delay = end.policy.delay if end.policy.delay is not None else _backoff(attempt)
    finished = end.run.finished if end.run.finished is not None else end.now
    # Boot time begins anew with each boot, so an end "in the future" was before the machine started.
    due = finished + delay if finished <= end.now else end.now
    left = f"in {due - end.now:.1f} s " if due > end.now else ""
    because = f"restarting {left}({ended}, attempt {attempt + 1})"
    return Sequel(kind="later", because=because, at=due, attempt=attempt + 1, restarts=end.run.restarts + 1)


RULES: tuple[Rule, ...] = (
    _asked_again,
    _not_executable,
    _stopped_by_user,
    _was_unhealthy,
    _stopped_by_planner,
    _machine_restarted,
    _step_cut_short,
    _never,
    _succeeded,
    _gave_up,
    _restart,
)


def _attempt(run: Run, policy: RestartPolicy) -> int:
    """Which start in quick succession `run` was, seen from its end."""
    window = policy.window if policy.window is not None else WINDOW
    lasted = _went_well_until(run) - run.started
    return 1 if lasted >= window else run.attempt


def is_unhealthy(run: Run) -> bool:
    return run.health is not None and run.health.status is HealthStatus.UNHEALTHY


def remedy(run: Run, policy: RestartPolicy) -> Literal["", "restart", "recreate"]:
    """What is to be done with a run because it is unhealthy; "" when nothing is, or not any more."""
    if policy.unhealthy == "ignore" or run.paused or not is_unhealthy(run):
        return ""
    if policy.max_attempts is not None and _attempt(run, policy) - 1 >= policy.max_attempts:
        return ""
    return policy.unhealthy


def replaced_at(container: Container, intent: Intent) -> float:
    """The earliest moment at which an unhealthy container is replaced for that.

    Nothing of the one before is left to count by. So a container has to get as old as the order was when it
    was made, a minute at most: the first goes at once, a later one lasts as long as all before it together.
    """
    made = container.created - intent.asked if 0.0 < intent.asked <= container.created else LONGEST_DELAY
    return container.created + min(made, LONGEST_DELAY)


def _went_well_until(run: Run) -> float:
    """Its end or, when it is unhealthy, when its checks began to fail, as far as the last ones tell."""
    ended = run.finished if run.finished is not None else run.started
    if run.health is None or not is_unhealthy(run) or not run.health.results:
        return ended
    if not run.health.was_healthy:
        return run.started
    known = run.health.results[-max(run.health.failing_streak, 1) :]
    pace = (known[-1].started - known[0].started) / max(len(known) - 1, 1)
    return known[0].started - pace * (run.health.failing_streak - len(known))


def _backoff(attempt: int) -> float:
    return float(min(FIRST_DELAY * 2 ** min(attempt - 1, 30), LONGEST_DELAY))


def _ended(run: Run) -> str:
    if run.exit_code is None:
        return "exit code lost"
    return f"exit {run.exit_code}, out of memory" if run.oom_killed else f"exit {run.exit_code}"
