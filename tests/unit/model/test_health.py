"""When probes are due, and what a result does to the health of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model.health import advance, in_force, next_probe_at
from orchestrator.model.observation import Health, HealthStatus, ProbeResult, Run
from orchestrator.model.sections import HttpProbe, TcpProbe
from orchestrator.model.stack import Healthcheck

OWN = Healthcheck(
    probe=TcpProbe(port=80), interval=30.0, timeout=5.0, retries=2, start_period=0.0, start_interval=5.0
)


def played(check: Healthcheck, seconds: float, healthy_from: float = 1e9) -> tuple[Run, list[float]]:
    """A run that is probed whenever it is due until `seconds`, and the times of its probes."""
    run, times = Run(turn=1, started=0.0, health=Health()), []
    while (at := next_probe_at(run, check)) <= seconds:
        assert run.health is not None
        times.append(round(at, 3))
        result = ProbeResult(started=at, ended=at, exit_code=0 if at >= healthy_from else 1)
        run = replace(run, health=advance(run.health, result, run, check))
        assert len(times) < 1000
    return run, times


def test_our_own_probe_is_due_at_once_and_then_quickly_until_one_succeeds() -> None:
    run, times = played(OWN, 60.0, healthy_from=2.0)
    assert times[:4] == [0.0, 0.1, 0.2, 0.3]
    first = next(at for at in times if at >= 2.0)
    assert first <= 2.0 * 1.25 + 0.1
    assert times[times.index(first) + 1] == round(first + 30.0, 3)
    assert run.health is not None
    assert run.health.status is HealthStatus.HEALTHY


def test_what_fails_before_the_first_interval_has_passed_does_not_count() -> None:
    """A command would not have been asked by then either."""
    run, times = played(OWN, 29.9)
    assert run.health is not None
    assert (run.health.status, run.health.failing_streak) == (HealthStatus.STARTING, 0)
    assert 15 < len(times) < 40
    run, _ = played(OWN, 100.0)
    assert run.health is not None
    assert run.health.status is HealthStatus.UNHEALTHY


def test_the_start_period_holds_where_it_is_longer_than_an_interval() -> None:
    run, _ = played(replace(OWN, interval=1.0, start_period=20.0), 19.0)
    assert run.health is not None
    assert run.health.status is HealthStatus.STARTING


def test_a_command_is_asked_one_interval_after_the_start() -> None:
    _, times = played(replace(OWN, probe=None, test=("CMD", "true")), 61.0)
    assert times == [30.0, 60.0]


@pytest.mark.parametrize("image", [None, Healthcheck(test=("CMD", "x")), Healthcheck(test=("NONE",))])
def test_our_own_probe_stands_over_the_images_check(image: Healthcheck | None) -> None:
    found = in_force(Healthcheck(probe=HttpProbe(port=80), test=("CMD", "curl")), image)
    assert found is not None
    assert (found.probe, found.test, found.interval) == (HttpProbe(port=80), None, 30.0)
    assert in_force(Healthcheck(disable=True, probe=HttpProbe(port=80)), image) is None
