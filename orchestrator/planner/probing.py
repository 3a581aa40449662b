"""Which health checks are due."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.model.action import ProbeContainer
from orchestrator.model.health import last_probe_at, next_probe_at, probe_again_at
from orchestrator.model.observation import Container, Run
from orchestrator.model.stack import Healthcheck
from orchestrator.planner.draft import Draft
from orchestrator.planner.restarts import is_unhealthy, remedy, replaced_at
from orchestrator.planner.survey import Fate, Survey

TOGETHER = 15
"""When a check is due, those that would be in less than a part in so many of their time go with it: with many
containers a pass costs more than a check."""
LATE = 0.1
"""Seconds that a check may wait for company at the most."""


def probe(survey: Survey, draft: Draft) -> None:
    """A ProbeContainer for each check that is due; the time of the next for the others.

    Nobody looks because a check ends that tells nothing new: those under way have their next time, too.
    """
    now = survey.now
    waiting = [(next_probe_at(run, check), one, run, check) for one, run, check in _asked(survey, draft)]
    soonest = min((due for due, *_ in waiting), default=None)
    if soonest is None or soonest > now:
        if soonest is not None:
            draft.wake(soonest)
        return
    for due, container, run, check in waiting:
        early = (due - last_probe_at(run)) / TOGETHER
        if due - early > now:
            draft.wake(due)
            continue
        draft.act(
            ProbeContainer(
                id=container.id,
                name=container.name,
                healthcheck=check,
                run_started=run.started,
                because="its interval has passed",
            )
        )
        draft.wake(_after(run, check, now))


def _after(run: Run, check: Healthcheck, now: float) -> float:
    """When to look for the check after the one under way: just after it is due, if this one takes as long as
    the last, so that it is found due."""
    results = run.health.results if run.health is not None else ()
    took = results[-1].ended - results[-1].started if results else 0.0
    due = probe_again_at(run, check, now + took)
    return due + min(LATE, (due - now) / TOGETHER)


def _asked(survey: Survey, draft: Draft) -> Iterator[tuple[Container, Run, Healthcheck]]:
    """Those that run and could answer."""
    for container in survey.observation.containers:
        check, run = container.healthcheck, container.run
        if check is None or run is None or run.finished is not None or run.stopping is not None:
            continue
        if run.paused:
            continue  # nobody would answer
        if is_unhealthy(run):
            _wait_for_remedy(survey, draft, container, run)
        if survey.in_flight and f"probe:{container.name}" in survey.in_flight:
            draft.wake(_after(run, check, survey.now))
            continue
        yield container, run, check


def _wait_for_remedy(survey: Survey, draft: Draft, container: Container, run: Run) -> None:
    """An unhealthy container that is to be replaced, but not yet."""
    intent = survey.intent(container.service)
    if intent is None or remedy(run, container.definition.restart) != "recreate":
        return
    due = replaced_at(container, intent)
    if survey.fate(container) is Fate.KEEP and due > survey.now:
        draft.wait(f"container:{container.name}", f"is unhealthy, and replaced in {due - survey.now:.1f} s")
        draft.wake(due)
