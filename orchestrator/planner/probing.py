"""Which health checks are due."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.model.action import ProbeContainer
from orchestrator.model.health import last_probe_at, next_probe_at
from orchestrator.model.observation import Container, Run
from orchestrator.model.stack import Healthcheck
from orchestrator.planner.draft import Draft
from orchestrator.planner.restarts import is_unhealthy, remedy, replaced_at
from orchestrator.planner.survey import Fate, Survey

TOGETHER = 15
"""When a check is due, those that would be in less than a part in so many of their time go with it: with many
containers a pass costs more than a check."""


def probe(survey: Survey, draft: Draft) -> None:
    """A ProbeContainer for each check that is due; the time of the next for the others."""
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
