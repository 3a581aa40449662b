"""Who keeps a seat of a service, and which seats are free.

It is asked of every container in every pass, and nearly always nothing has changed since the last one. So
what was found is kept beside the layout, and taken again while all that it was made from is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from orchestrator.model.desired import Intent
from orchestrator.model.frozen import dataclass, field, fields
from orchestrator.model.observation import Container
from orchestrator.model.stack import Service
from orchestrator.planner import volumes
from orchestrator.planner.changes import stale
from orchestrator.planner.survey import Survey

_PASSING = frozenset({"at", "connections", "containers", "deaf", "failures", "ports_taken", "ports_held"})
"""Of an observation: what makes no container out of date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seating:
    """The containers of one service, and where they sit."""

    seats: tuple[Container, ...]
    """By slot."""
    vacant: tuple[int, ...]
    reasons: Mapping[str, str]
    """Container id -> why it is out of date, "" if it isn't."""
    surplus: Mapping[str, str]
    """Container id -> why it has no seat."""
    held: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Container id -> why it is out of date but not replaced, and a hint: without its volume nothing could
    be put in its place, and what it has open may be all that is left."""

    @property
    def wanting(self) -> bool:
        """Somebody has to be made."""
        return bool(self.vacant) or any(self.reasons[container.id] for container in self.seats)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    """A seating and what it was made from."""

    intent: Intent
    containers: tuple[Container, ...]
    seating: Seating


def seating(survey: Survey, service: Service, intent: Intent, containers: tuple[Container, ...]) -> Seating:
    """Who keeps a seat: up-to-date ones first, then low numbers, so that scaling down takes the obsolete,
    then the highest number (as docker compose does)."""
    if survey.layout.shares[service.name] or service.step is not None:
        return _seat(survey, service, intent, containers)  # Its peers, too, would have to be the same.
    memory = survey.layout.memory
    if not survey.compared:
        survey.compared = True
        circumstances = _circumstances(survey)
        if memory.circumstances != circumstances:
            memory.circumstances = circumstances
            memory.seatings.clear()
    kept = memory.seatings.get(service.name)
    if isinstance(kept, _Remembered) and kept.containers == containers and kept.intent == intent:
        return kept.seating
    found = _seat(survey, service, intent, containers)
    memory.seatings[service.name] = _Remembered(intent=intent, containers=containers, seating=found)
    return found


def _circumstances(survey: Survey) -> tuple[object, ...]:
    """All that the rules of `changes` may look at beside a container, its service and the wish for it."""
    seen = survey.observation
    names = (one.name for one in fields(seen) if one.name not in _PASSING)
    return (
        survey.segments,
        survey.desired.pins,
        survey.desired.repair,
        *(getattr(seen, name) for name in names),
    )


def _seat(survey: Survey, service: Service, intent: Intent, containers: tuple[Container, ...]) -> Seating:
    slots = survey.slots(service)
    count = len(slots)
    reasons = {container.id: stale(survey, service, intent, container) for container in containers}
    held = dict(_held(survey, containers, reasons))
    reasons |= dict.fromkeys(held, "")
    seated: dict[int, Container] = {}
    surplus: dict[str, str] = {}
    for container in sorted(containers, key=lambda c: (bool(reasons[c.id]), c.slot, -c.created)):
        if service.step is not None and container.slot not in slots:
            one = service.step.each or not slots
            of = service.step.of
            surplus[container.id] = (
                f"{of} has no container {container.slot}" if one else f"one is enough for all of {of}"
            )
        elif len(seated) >= count:
            surplus[container.id] = f"scaled to {count}"
        elif container.slot in seated:
            surplus[container.id] = f"{seated[container.slot].name} has its place"
        else:
            seated[container.slot] = container
    free = (slot for slot in slots if slot not in seated)
    return Seating(
        seats=tuple(seated[slot] for slot in sorted(seated)),
        vacant=tuple(islice(free, count - len(seated))),
        reasons=reasons,
        surplus=surplus,
        held=held,
    )


def _held(
    survey: Survey, containers: tuple[Container, ...], reasons: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str, str]]]:
    for container in containers:
        volume = volumes.lost_by(survey, container) if reasons[container.id] else None
        if volume is not None:
            because = f"{reasons[container.id]}, but {volumes.lost_words(volume)}"
            yield container.id, (because, volumes.lost_hint(volume))
