"""What a start waits for. Every container of a dependency is asked; rules in order, the first that applies
speaks."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from orchestrator.model.desired import Intent, Wanted
from orchestrator.model.frozen import dataclass
from orchestrator.model.observation import Container, HealthStatus, State
from orchestrator.model.stack import Dependency, DependencyCondition
from orchestrator.planner.draft import Draft
from orchestrator.planner.restarts import Sequel, sequel
from orchestrator.planner.survey import Fate, Survey, name_of


class Answer(IntEnum):
    """In order of weight: one failed container fails the gate."""

    OPEN = 0
    NOT_YET = 1
    FAILED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Whether a container may start now, and what is said of it."""

    answer: Answer
    because: str = ""
    exit_code: int = 1


def _open(because: str) -> Gate:
    return Gate(answer=Answer.OPEN, because=because)


def _not_yet(because: str) -> Gate:
    return Gate(answer=Answer.NOT_YET, because=because)


def _failed(because: str, exit_code: int = 1) -> Gate:
    return Gate(answer=Answer.FAILED, because=because, exit_code=exit_code)


class Gates:
    """Answers of one pass, each worked out once."""

    def __init__(self, survey: Survey, draft: Draft) -> None:
        self._survey = survey
        self._draft = draft
        self._known: dict[tuple[str, DependencyCondition], Gate] = {}

    def before(self, service: str) -> Gate:
        """Whether containers of `service` may start. Optional dependencies that failed are warned about."""
        intent = self._survey.intent(service)
        if intent is not None and intent.ignore_dependencies:
            return _open("")
        worst = _open("")
        reasons: list[str] = []
        for dependency in self._survey.layout.needs[service]:
            gate = self._of(dependency)
            if gate.answer is Answer.FAILED and not dependency.required:
                self._draft.warn(f"{service} goes on without {dependency.service}: {gate.because}")
                continue
            if gate.answer is Answer.OPEN:
                reasons.append(gate.because)
            elif gate.answer > worst.answer:
                worst = gate
        if worst.answer is not Answer.OPEN:
            return worst
        return _open(", ".join(reason for reason in reasons if reason))

    def _of(self, dependency: Dependency) -> Gate:
        key = (dependency.service, dependency.condition)
        if key not in self._known:
            self._known[key] = self._ask(dependency.service, dependency.condition)
        return self._known[key]

    def _ask(self, name: str, condition: DependencyCondition) -> Gate:
        survey = self._survey
        service = survey.desired.stack.services[name]
        if service.replicas == 0:
            return _open("")
        intent = survey.intent(name)
        containers = survey.by_service.get(name, ())
        if not containers and (intent is None or intent.wanted in (Wanted.ABSENT, Wanted.STOPPED)):
            return _failed(f"{name} is not there, and nobody has asked for it")
        gates = [self._vacancy(name, slot) for slot in survey.vacant.get(name, ())]
        seats = survey.seats.get(name, containers)
        gates += [self._ask_one(container, condition, intent or Intent()) for container in seats]
        return max(gates, key=lambda gate: gate.answer, default=_not_yet(f"{name} is not there yet"))

    def _vacancy(self, name: str, slot: int) -> Gate:
        stack = self._survey.desired.stack
        refusal = self._draft.refusal(f"container:{name_of(stack.name, stack.services[name], slot)}")
        if refusal is not None:
            return _failed(f"{name} can't be made: {refusal.because}", refusal.exit_code)
        return _not_yet(f"{name} is not there yet")

    def _ask_one(self, container: Container, condition: DependencyCondition, intent: Intent) -> Gate:
        fate = self._survey.fate(container)
        if fate in (Fate.REPLACE, Fate.REMOVE):
            return _not_yet(f"{container.service} is about to be replaced")
        wanted = fate in (Fate.KEEP, Fate.CYCLE) and intent.wanted is Wanted.RUNNING
        if container.state is State.RUNNING:
            if fate is Fate.CYCLE:
                return _not_yet(f"{container.service} is about to be restarted")
            return RUNNING_RULES[condition](container)
        refusal = self._draft.refusal(f"container:{container.name}")
        if refusal is not None:
            return _failed(f"{container.service} failed: {refusal.because}", refusal.exit_code)
        if container.run is None:
            if wanted:
                return _not_yet(f"{container.service} is not started yet")
            return _failed(f"{container.service} is not started, and nobody has asked for it")
        next_step = sequel(container.run, container.definition.restart, intent, self._survey.now)
        if not wanted:
            next_step = Sequel(kind="rest", because=next_step.because)
        return ENDED_RULES[condition](container, next_step)


# --- a container that runs ---------------------------------------------------------------------------------


def _running_started(container: Container) -> Gate:
    return _open(f"{container.service} is started")


def _running_healthy(container: Container) -> Gate:
    run = container.run
    assert run is not None
    name = container.service
    if container.healthcheck is None:
        return _failed(f"{name} has no health check")
    if run.stopping is not None:
        return _not_yet(f"{name} is stopping")
    status = run.health.status if run.health else HealthStatus.STARTING
    match status:
        case HealthStatus.HEALTHY:
            return _open(f"{name} is healthy")
        case HealthStatus.UNHEALTHY:
            return _failed(f"{name} is unhealthy")
    return _not_yet(f"{name} is not healthy yet")


def _running_completed(container: Container) -> Gate:
    return _not_yet(f"{container.service} has not completed yet")


RUNNING_RULES: dict[DependencyCondition, Callable[[Container], Gate]] = {
    "service_started": _running_started,
    "service_healthy": _running_healthy,
    "service_completed_successfully": _running_completed,
}

# --- a container whose run has ended -----------------------------------------------------------------------


def _ended_started(container: Container, then: Sequel) -> Gate:
    """Started means that the start succeeded, even if the program has ended since (docker compose)."""
    if then.kind == "start":
        return _not_yet(f"{container.service} is not started yet")
    if then.kind == "broken":
        return _failed(f"{container.service} failed to start: {then.because}", then.exit_code)
    return _open(f"{container.service} was started")


def _ended_healthy(container: Container, then: Sequel) -> Gate:
    if container.healthcheck is None:
        return _failed(f"{container.service} has no health check")
    if then.kind == "start":
        return _not_yet(f"{container.service} is not started yet")
    if then.kind == "later":
        return _not_yet(f"{container.service} is restarting")
    return _failed(f"{container.service} is not healthy: {then.because}", then.exit_code)


def _ended_completed(container: Container, then: Sequel) -> Gate:
    """A run that is tried again is judged when its retries end."""
    run = container.run
    assert run is not None
    if then.kind == "start":
        return _not_yet(f"{container.service} is not started yet")
    if then.kind == "broken":
        return _failed(f"{container.service} failed to start: {then.because}", then.exit_code)
    if run.exit_code == 0 and not run.error:
        return _open(f"{container.service} has completed")
    if then.kind == "later":
        return _not_yet(f"{container.service} is trying again (exit {run.exit_code}, attempt {run.attempt})")
    code = "its exit code was lost" if run.exit_code is None else f"exit {run.exit_code}"
    return _failed(f"{container.service} did not complete successfully: {code}")


ENDED_RULES: dict[DependencyCondition, Callable[[Container, Sequel], Gate]] = {
    "service_started": _ended_started,
    "service_healthy": _ended_healthy,
    "service_completed_successfully": _ended_completed,
}
