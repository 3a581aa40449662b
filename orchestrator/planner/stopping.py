"""Signals: who is told to end, in which order, and who has had long enough."""

from __future__ import annotations

from orchestrator.model.action import RemoveContainer, SignalContainer
from orchestrator.model.graph import needs
from orchestrator.model.observation import Container, Stopping
from orchestrator.planner import rotation
from orchestrator.planner.draft import Draft
from orchestrator.planner.survey import ENDING, Fate, Judgement, Survey

SIGKILL = 9
KILL_AGAIN = 5.0
"""SIGKILL may be lost with whoever was about to send it; sent twice it does no harm."""


def stop(survey: Survey, draft: Draft) -> None:
    """Signals for containers whose run is to end, dependents before those they depend on.

    A stop that has begun is carried through, also when the container is wanted again since.
    """
    ending = [c for c in survey.observation.containers if survey.fate(c) in ENDING and survey.live(c)]
    holding = _Holding(survey, ending) if ending else None
    for container in survey.observation.containers:
        run = container.run
        if run is None or run.finished is not None:
            continue
        if run.stopping is not None:
            _carry_through(survey, draft, container, run.stopping)
        elif holding is not None and survey.fate(container) in ENDING:
            _begin(survey, draft, container, holding)


def remove(survey: Survey, draft: Draft) -> None:
    """Containers that are to go and do not run."""
    for container in survey.observation.containers:
        judgement = survey.fates[container.id]
        if judgement.fate not in (Fate.REMOVE, Fate.REPLACE) or survey.live(container):
            continue
        gone_for_good = judgement.fate is Fate.REMOVE
        intent = survey.intent(container.service)
        with_volumes = survey.desired.down and survey.desired.remove_volumes
        with_volumes = with_volumes or (intent is not None and intent.remove_volumes)
        draft.act(
            RemoveContainer(
                id=container.id,
                name=container.name,
                anonymous_volumes=gone_for_good and (with_volumes or container.definition.remove_on_exit),
                because=judgement.because,
            )
        )


def grace(survey: Survey, container: Container) -> float:
    """Seconds between the stop signal and SIGKILL. What the user has said last beats the file."""
    desired = survey.desired
    if desired.down and desired.stop_timeout is not None:
        return desired.stop_timeout
    intent = survey.intent(container.service)
    if intent is not None and intent.stop_timeout is not None:
        return intent.stop_timeout
    return container.definition.stop_grace_period


def _begin(survey: Survey, draft: Draft, container: Container, holding: _Holding) -> None:
    judgement = survey.fates[container.id]
    dependent = holding.dependent_of(container.service)
    if dependent:
        draft.wait(f"container:{container.name}", f"{dependent} must stop first")
        return
    at_once = grace(survey, container) <= 0
    if not at_once and rotation.holds_up(survey, draft, container):
        return
    draft.act(_signal(container, SIGKILL if at_once else container.stop_signal, judgement, judgement.because))


def _carry_through(survey: Survey, draft: Draft, container: Container, stopping: Stopping) -> None:
    judgement = survey.fates[container.id]
    allowed = KILL_AGAIN if stopping.killed else grace(survey, container)
    due = stopping.since + allowed
    if due > survey.now:
        draft.wait(f"container:{container.name}", "killed" if stopping.killed else "is stopping")
        draft.wake(due)
        return
    because = "still there after SIGKILL" if stopping.killed else f"did not end within {allowed:g} s"
    draft.act(_signal(container, SIGKILL, judgement, because))


def _signal(container: Container, signal: int, judgement: Judgement, because: str) -> SignalContainer:
    run = container.run
    by = run.stopping.by if run is not None and run.stopping is not None else judgement.by
    return SignalContainer(
        id=container.id, name=container.name, signal=signal, stopping=True, by=by, because=because
    )


class _Holding:
    """Which services have a dependent, direct or not, that is to end and still runs."""

    def __init__(self, survey: Survey, ending: list[Container]) -> None:
        self._live: dict[str, str] = {}
        for container in ending:
            self._live.setdefault(container.service, container.name)
        self._dependents: dict[str, set[str]] = {
            name: set(found) for name, found in survey.layout.dependents.items()
        }
        for container in ending:
            if container.service not in survey.desired.stack.services:
                for dependency in needs(container.definition):
                    self._add(dependency.service, container.service)
        self._known: dict[str, str] = {}

    def dependent_of(self, service: str) -> str:
        """The name of a container that has to end before those of `service`; "" when there is none."""
        if service not in self._known:
            found = (
                self._live.get(name) or self.dependent_of(name)
                for name in sorted(self._dependents.get(service, ()))
            )
            self._known[service] = next((name for name in found if name), "")
        return self._known[service]

    def _add(self, service: str, dependent: str) -> None:
        """Definitions of different times can form a circle, in which everybody would wait for everybody."""
        reached, open_ends = {dependent}, [dependent]
        while open_ends:
            for name in self._dependents.get(open_ends.pop(), ()):
                if name not in reached:
                    reached.add(name)
                    open_ends.append(name)
        if service not in reached:
            self._dependents.setdefault(service, set()).add(dependent)
