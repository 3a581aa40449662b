"""The planner run in advance: what would happen, and when, if everything went as it usually does."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from orchestrator.model import effects
from orchestrator.model.action import (
    Action,
    ProbeContainer,
    SignalContainer,
    StartContainer,
    verb,
)
from orchestrator.model.desired import Desired
from orchestrator.model.frozen import dataclass, field
from orchestrator.model.observation import Container, HealthStatus, Observation
from orchestrator.model.plan import Plan
from orchestrator.model.world import World
from orchestrator.planner.layout import layout
from orchestrator.planner.plan import plan
from orchestrator.planner.rollouts import accept

DURATIONS: dict[str, float] = {"start": 0.2, "create": 0.02, "remove": 0.02, "probe": 0.02, "pull": 1.0}
"""Assumed seconds of an action; what is not named takes no time worth showing."""
NO_TIME = 0.001
EXIT_AFTER_SIGNAL = 0.1
ONE_SHOT = 1.0
"""Assumed seconds that a program runs when others wait for its completion."""
LINE = 0.5
"""Assumed seconds until a program logs that it is ready."""
LONGEST = 3600.0
MOST_STEPS = 20_000
PATIENCE = 50
"""Looks in a row that bring nothing but probes: who still waits then waits for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that would happen `at` seconds from now; `verb` is "refuse" for what can't be done."""

    at: float
    target: str
    verb: str
    because: str
    action: Action | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.at:>8.2f}  {self.target:<28} {self.verb:<8} {self.because}".rstrip()


def rehearse(
    desired: Desired, observation: Observation, now: float, until: float = LONGEST
) -> tuple[Line, ...]:
    """The lines in order of time, until nothing is left to do or `until` seconds are over. Always ends.

    Assumed: every action succeeds, the first probe of each run too, programs run until told, except those
    that others wait for to complete. Probes of services that nobody waits for are not shown.
    """
    return _Rehearsal(desired, observation, now, until).lines()


@dataclass(order=True, slots=True)
class _Moment:
    at: float
    number: int
    action: Action | None = field(compare=False)
    """Ends at this moment; None for an exit of `container_id`."""
    container_id: str = field(compare=False, default="")
    exit_code: int | None = field(compare=False, default=0)
    """None for a line that says that it is ready."""


class _Rehearsal:
    def __init__(self, desired: Desired, observation: Observation, now: float, until: float) -> None:
        self._desired = desired
        self._world = World(observation)
        self._began = self._now = now
        self._until = now + until
        self._in_flight: dict[str, Action] = {}
        self._agenda: list[_Moment] = []
        self._count = 0
        self._refused: set[tuple[str, str]] = set()
        self._quiet = 0
        self._one_shots = {name for steps in layout(desired.stack).steps.values() for name in steps} | {
            dependency.service
            for service in desired.stack.services.values()
            for dependency in service.depends_on
            if dependency.condition == "service_completed_successfully"
        }

    def lines(self) -> tuple[Line, ...]:
        found: list[Line] = []
        for container in self._world.containers.values():
            if container.run is None or container.run.finished:
                continue
            self._line_to_come(container)
            if container.service in self._one_shots:
                self._push(ONE_SHOT, None, container.id)
        for _ in range(MOST_STEPS):
            decided = plan(self._desired, self._world.observation(), self._now, self._in_flight)
            if decided.rollouts:
                self._desired = accept(self._desired, decided.rollouts)
                continue
            found.extend(self._begin(decided))
            at = self._next_moment(decided)
            if at is None or at > self._until or self._quiet > PATIENCE + len(self._world.containers):
                break
            self._now = max(self._now, at)
            self._end_due()
        return tuple(found)

    def _line(self, target: str, word: str, because: str, action: Action | None = None) -> Line:
        return Line(at=self._now - self._began, target=target, verb=word, because=because, action=action)

    def _begin(self, decided: Plan) -> Iterator[Line]:
        for wait in decided.waits:
            if wait.failed and (wait.target, wait.because) not in self._refused:
                self._refused.add((wait.target, wait.because))
                yield self._line(wait.target, "refuse", wait.because)
        self._quiet += 1
        for action in decided.actions:
            self._in_flight[action.target] = action
            word = verb(action)
            self._push(DURATIONS.get(word, NO_TIME), action)
            if not isinstance(action, ProbeContainer):
                self._quiet = 0
                yield self._line(action.target, word, action.because, action)
            elif self._somebody_waits(decided) and not self._healthy(action.id):
                yield self._line(action.target, word, action.because, action)

    def _somebody_waits(self, decided: Plan) -> bool:
        return any(not wait.failed for wait in decided.waits)

    def _healthy(self, container_id: str) -> bool:
        container = self._world.containers.get(container_id)
        health = container.run.health if container is not None and container.run is not None else None
        return health is not None and health.status is HealthStatus.HEALTHY

    def _next_moment(self, decided: Plan) -> float | None:
        """When something ends, or when the plan wants to look again because somebody waits for that."""
        times = [self._agenda[0].at] if self._agenda else []
        if decided.wake_at is not None and self._somebody_waits(decided):
            times.append(decided.wake_at)
        return min(times, default=None)

    def _push(
        self, after: float, action: Action | None, container_id: str = "", exit_code: int | None = 0
    ) -> None:
        self._count += 1
        moment = _Moment(self._now + after, self._count, action, container_id, exit_code)
        heapq.heappush(self._agenda, moment)

    def _end_due(self) -> None:
        while self._agenda and self._agenda[0].at <= self._now:
            moment = heapq.heappop(self._agenda)
            if moment.action is None and moment.exit_code is None:
                effects.log_ready(self._world, moment.container_id)
                continue
            if moment.action is None:
                effects.end(self._world, moment.container_id, self._now, moment.exit_code)
                continue
            action = moment.action
            self._in_flight.pop(action.target, None)
            effects.perform(self._world, action, self._now)
            started = self._world.containers.get(action.id) if isinstance(action, StartContainer) else None
            if started is not None:
                self._line_to_come(started)
            match action:
                case StartContainer() if action.attempt == 1 and self._service(action.id) in self._one_shots:
                    # A restart by policy after success is taken to run on; else this would never end.
                    self._push(ONE_SHOT, None, action.id)
                case SignalContainer():
                    self._push(EXIT_AFTER_SIGNAL, None, action.id, 128 + action.signal)
                case _:
                    pass

    def _line_to_come(self, container: Container) -> None:
        if container.definition.log_ready and (container.run is None or container.run.log_ready is None):
            self._push(LINE, None, container.id, None)

    def _service(self, container_id: str) -> str:
        container = self._world.containers.get(container_id)
        return container.service if container is not None else ""
