"""How one probe result changes a health state (Dockerfile reference, HEALTHCHECK; docker's behaviour)."""

from __future__ import annotations

from orchestrator.model.frozen import replace
from orchestrator.model.observation import Health, HealthStatus, ProbeResult, Run
from orchestrator.model.stack import Healthcheck

KEPT_RESULTS = 5
SOON = 0.1
"""Seconds between the first of our own probes."""
EASING = 0.25
"""Later ones wait for so much of the age of the run."""


def in_force(service: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """The check that applies: the service's fields over the image's over the defaults; None when off."""
    chosen = service or Healthcheck()
    base = image or Healthcheck()
    test = chosen.test if chosen.test is not None else base.test
    if chosen.disable:
        return None
    if chosen.probe is not None:
        test = None
    elif not test or test[0] == "NONE" or (chosen.test is None and base.disable):
        return None

    def pick(name: str, default: float) -> float:
        for check in (chosen, base):
            value = getattr(check, name)
            if value is not None:
                return float(value)
        return default

    return Healthcheck(
        test=test,
        probe=chosen.probe,
        interval=pick("interval", 30.0) or 30.0,
        timeout=pick("timeout", 30.0) or 30.0,
        retries=int(pick("retries", 3)) or 3,
        start_period=pick("start_period", 0.0),
        start_interval=pick("start_interval", 5.0) or 5.0,
    )


def in_start_period(run: Run, check: Healthcheck, now: float) -> bool:
    """The first success ends the start period, however long it was meant to be."""
    health = run.health or Health()
    if health.status is not HealthStatus.STARTING:
        return False
    return now < run.started + grace(check)


def grace(check: Healthcheck) -> float:
    """Seconds from the start in which failures do not count. Our own probes begin at once, one interval
    before a command would: those that come earlier can only tell that the container is healthy."""
    period = check.start_period or 0.0
    return period if check.probe is None else max(period, check.interval or 30.0)


def advance(health: Health, result: ProbeResult, run: Run, check: Healthcheck) -> Health:
    """The state after one more probe. Failures within the start period do not count."""
    results = (*health.results, result)[-KEPT_RESULTS:]
    if result.exit_code == 0:
        return Health(status=HealthStatus.HEALTHY, was_healthy=True, results=results)
    if in_start_period(run, check, result.ended):
        return replace(health, results=results)
    streak = health.failing_streak + 1
    unhealthy = streak >= (check.retries or 3)
    status = HealthStatus.UNHEALTHY if unhealthy else health.status
    return replace(health, status=status, failing_streak=streak, results=results)


def last_probe_at(run: Run) -> float:
    """When the last probe ended; when the run began if there was none."""
    return run.health.results[-1].ended if run.health is not None and run.health.results else run.started


def next_probe_at(run: Run, check: Healthcheck) -> float:
    """When the next probe is due: one interval after the start, then after the end of the previous one.

    Our own cost next to nothing: the first is due at once, and then they come quickly until one succeeds.
    """
    first = run.health is None or not run.health.results
    if first and check.probe is not None and in_start_period(run, check, run.started):
        return run.started
    return probe_again_at(run, check, last_probe_at(run))


def probe_again_at(run: Run, check: Healthcheck, ended: float) -> float:
    """When the one after a probe is due that ends at `ended` and tells nothing new."""
    wait = check.interval or 30.0
    if not in_start_period(run, check, ended):
        return ended + wait
    if check.probe is not None:
        return ended + min(max(SOON, EASING * (ended - run.started)), wait)
    return ended + (min(check.start_interval, wait) if check.start_interval else wait)
