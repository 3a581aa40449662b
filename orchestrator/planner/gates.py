"""What a start waits for. Every container of a dependency is asked; rules in order, the first that applies
speaks."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from orchestrator.model.desired import Intent, Wanted
from orchestrator.model.frozen import dataclass, replace
from orchestrator.model.observation import Container, HealthStatus, State
from orchestrator.model.plan import Wait
from orchestrator.model.stack import Dependency, DependencyCondition, ImageRoot, Service
from orchestrator.model.steps import shown
from orchestrator.planner.draft import Draft
from orchestrator.planner.restarts import Sequel, remedy, sequel
from orchestrator.planner.survey import Fate, Survey, name_of

DEPENDENCY = "dependency failed to start: "
"""What comes before the reason of the one that failed first, however many wait for each other (docker
compose's words)."""
OUTPUT_SHOWN = 200
_SPEAKS_FOR_ITSELF = (
    DEPENDENCY,
    "container ",
    "service ",
    "network ",
    "volume ",
    "external ",
    "can't write ",
)


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
    hint: str = ""


def _open(because: str) -> Gate:
    return Gate(answer=Answer.OPEN, because=because)


def _not_yet(because: str) -> Gate:
    return Gate(answer=Answer.NOT_YET, because=because)


def _failed(because: str, exit_code: int = 1, hint: str = "") -> Gate:
    return Gate(answer=Answer.FAILED, because=because, exit_code=exit_code, hint=hint)


def about(container: str, because: str) -> str:
    """The sentence with the container's name before it, where it does not say what it is about."""
    if because.startswith(_SPEAKS_FOR_ITSELF) or container in because:
        return because
    return f"container {container}: {because}"


def called(service: Service) -> str:
    """A service, or a step of one, in a sentence."""
    step = service.step
    return service.name if step is None else f"pre_start step {step.number} of {step.of}"


def where_to_look(container: Container) -> str:
    """A hint for a container that runs or has run: what its health check said, and the command for more."""
    run = container.run
    if run is None or run.error:
        return ""
    words = ""
    if run.health is not None and run.health.status is HealthStatus.UNHEALTHY and run.health.results:
        last = run.health.results[-1]
        said = " ".join(last.output.split())[:OUTPUT_SHOWN]
        code = "" if last.exit_code < 0 else f" (exit {last.exit_code})"
        words = (
            f"its last health check{code} said: {said}; " if said else f"its last health check failed{code}; "
        )
    name = shown(container.definition)
    if container.definition.oneoff and container.definition.step is None:
        name = name.rpartition("-run-")[0]
    return f"{words}`pystack logs {name}` shows what it wrote"


class Gates:
    """Answers of one pass, each worked out once."""

    def __init__(self, survey: Survey, draft: Draft) -> None:
        self._survey = survey
        self._draft = draft
        self._known: dict[tuple[str, DependencyCondition], Gate] = {}
        self._before: dict[str, Gate] = {}

    def before(self, container: Container) -> Gate:
        """Whether it may start. Optional dependencies that failed are warned about."""
        name = container.service
        if name not in self._before:
            self._before[name] = self._weigh(name)
        gate = self._before[name]
        return self._prepared(container) or gate if gate.answer is Answer.OPEN else gate

    def _current(self, container: Container) -> bool:
        service = self._survey.desired.stack.services[container.service]
        intent = self._survey.intent(container.service)
        kept = intent is not None and intent.keep_stale
        return kept or container.fingerprint == self._survey.fingerprint(service)

    def _prepared(self, container: Container) -> Gate | None:
        """What `pre_start` has to say: each step has to succeed before the next one, and before the service,
        and a step of each container before that one. None: nothing."""
        survey = self._survey
        service = survey.desired.stack.services[container.service]
        names = survey.layout.steps.get(service.step.of if service.step is not None else service.name, ())
        if names and container.run is not None and not self._current(container):
            return None  # of a definition of before, by which it was prepared
        gate = None
        for name in names:
            if name == service.name:
                break
            step = survey.desired.stack.services[name]
            slot = container.slot if step.step is not None and step.step.each else 1
            gate = self._step(step, slot, container)
            if gate.answer is not Answer.OPEN:
                return gate
        return gate

    def _step(self, step: Service, slot: int, before: Container) -> Gate:
        """Who is made by the definition in force needs steps that are, too."""
        survey = self._survey
        there = [one for one in survey.seats.get(step.name, ()) if one.slot == slot]
        if there and self._current(before) and not self._current(there[0]):
            image = step.root.reference if isinstance(step.root, ImageRoot) else ""
            refusal = self._draft.refusal(f"image:{image}") if step.name in survey.pulls else None
            if refusal is not None:
                return _passed_on(there[0].name, refusal)
            return _not_yet(f"{called(step)} is about to be replaced")
        if there:
            intent = self._survey.intent(step.name) or Intent()
            return self._ask_one(there[0], "service_completed_successfully", intent)
        return self._vacancy(step.name, slot)

    def _weigh(self, service: str) -> Gate:
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
        if worst.answer is Answer.FAILED:
            return replace(worst, because=DEPENDENCY + worst.because)
        if worst.answer is Answer.NOT_YET:
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
            return _failed(f"service {name} has no container, and nobody has asked for one")
        gates = [self._vacancy(name, slot) for slot in survey.vacant.get(name, ())]
        seats = survey.seats.get(name, containers)
        gates += [self._ask_one(container, condition, intent or Intent()) for container in seats]
        if len(gates) > service.replicas:
            # Old and new ones of an update that starts first: as many as are wanted have to be good.
            gates = sorted(gates, key=lambda gate: gate.answer)[: service.replicas]
        return max(gates, key=lambda gate: gate.answer, default=_not_yet(f"{name} is not there yet"))

    def _vacancy(self, name: str, slot: int) -> Gate:
        stack = self._survey.desired.stack
        title = name_of(stack.name, stack.services[name], slot)
        refusal = self._draft.refusal(f"container:{title}")
        if refusal is not None:
            return _passed_on(title, refusal)
        return _not_yet(f"{called(stack.services[name])} is not there yet")

    def _ask_one(self, container: Container, condition: DependencyCondition, intent: Intent) -> Gate:
        fate = self._survey.fate(container)
        if fate in (Fate.REPLACE, Fate.REMOVE):
            return _not_yet(f"{called(container.definition)} is about to be {fate.value}d")
        wanted = fate in (Fate.KEEP, Fate.CYCLE) and intent.wanted is Wanted.RUNNING
        if container.state is State.RUNNING:
            if fate is Fate.CYCLE:
                return _not_yet(f"{called(container.definition)} is about to be restarted")
            return RUNNING_RULES[condition](container)
        refusal = self._draft.refusal(f"container:{container.name}")
        if refusal is not None:
            return _passed_on(container.name, refusal)
        if container.run is None:
            if wanted:
                return _not_yet(f"{called(container.definition)} is not started yet")
            return _failed(f"container {container.name} is not started, and nobody has asked for it")
        next_step = sequel(container.run, container.definition.restart, intent, self._survey.now)
        if not wanted and next_step.kind in ("start", "later"):
            next_step = Sequel(kind="rest", because="")
        return ENDED_RULES[condition](container, next_step)


def _passed_on(container: str, refusal: Wait) -> Gate:
    """What failed for a dependency of its own has failed for that one's reason."""
    because = about(container, refusal.because).removeprefix(DEPENDENCY)
    return _failed(because, refusal.exit_code, refusal.hint)


# --- a container that runs ---------------------------------------------------------------------------------


def _running_started(container: Container) -> Gate:
    return _open(f"{container.service} is started")


def _running_healthy(container: Container) -> Gate:
    run = container.run
    assert run is not None
    name = container.service
    if container.healthcheck is None:
        return _failed(f"container {container.name} has no healthcheck configured")
    if run.stopping is not None:
        return _not_yet(f"{name} is stopping")
    status = run.health.status if run.health else HealthStatus.STARTING
    match status:
        case HealthStatus.HEALTHY:
            return _open(f"{name} is healthy")
        case HealthStatus.UNHEALTHY if word := remedy(run, container.definition.restart):
            return _not_yet(
                f"{name} is unhealthy, and about to be {'restarted' if word == 'restart' else 'replaced'}"
            )
        case HealthStatus.UNHEALTHY:
            return _failed(f"container {container.name} is unhealthy", hint=where_to_look(container))
    return _not_yet(f"{name} is not healthy yet")


def _running_completed(container: Container) -> Gate:
    return _not_yet(f"{called(container.definition)} has not completed yet")


def _running_logged(container: Container) -> Gate:
    run = container.run
    assert run is not None
    name = container.service
    if container.definition.log_ready is None:
        return _failed(f"container {container.name} has no x-log-ready")
    if run.stopping is not None:
        return _not_yet(f"{name} is stopping")
    if run.log_ready is None:
        return _not_yet(f"{name} has not logged that it is ready")
    if not run.log_ready:
        return _failed(about(container.name, run.log_trouble), hint=where_to_look(container))
    return _open(f"{name} has logged that it is ready")


RUNNING_RULES: dict[DependencyCondition, Callable[[Container], Gate]] = {
    "service_started": _running_started,
    "service_healthy": _running_healthy,
    "service_completed_successfully": _running_completed,
    "service_log_ready": _running_logged,
}

# --- a container whose run has ended -----------------------------------------------------------------------


def exited(container: Container, then: str) -> str:
    """How a run has ended that should not have; `then`: the sequel's reason."""
    code = container.run.exit_code if container.run is not None else None
    rest = then.removeprefix(f"exit {code}").removeprefix(", ")
    shown = "" if code is None else f" ({code})"
    return f"container {container.name} exited{shown}" + (f", {rest}" if rest else "")


def _ended_started(container: Container, then: Sequel) -> Gate:
    """Started means that the start succeeded, even if the program has ended since (docker compose)."""
    if then.kind == "start":
        return _not_yet(f"{called(container.definition)} is not started yet")
    if then.kind == "broken":
        return _failed(about(container.name, then.because), then.exit_code)
    return _open(f"{container.service} was started")


def _ended_healthy(container: Container, then: Sequel) -> Gate:
    if container.healthcheck is None:
        return _failed(f"container {container.name} has no healthcheck configured")
    if then.kind == "start":
        return _not_yet(f"{called(container.definition)} is not started yet")
    if then.kind == "later":
        return _not_yet(f"{container.service} is restarting")
    if then.kind == "broken":
        return _failed(about(container.name, then.because), then.exit_code)
    return _failed(exited(container, then.because), then.exit_code, where_to_look(container))


def _ended_completed(container: Container, then: Sequel) -> Gate:
    """A run that is tried again is judged when its retries end."""
    run = container.run
    assert run is not None
    if then.kind == "start":
        return _not_yet(f"{called(container.definition)} is not started yet")
    if then.kind == "broken":
        return _failed(about(container.name, then.because), then.exit_code)
    if run.exit_code == 0 and not run.error:
        return _open(f"{called(container.definition)} has completed")
    if then.kind == "later":
        return _not_yet(f"{container.service} is trying again (exit {run.exit_code}, attempt {run.attempt})")
    code = "its exit code was lost" if run.exit_code is None else f"exit {run.exit_code}"
    step = container.definition.step
    who = f'service "{container.service}"' if step is None else called(container.definition)
    because = f"{who} didn't complete successfully: {code}"
    return _failed(because, hint=where_to_look(container))


def _ended_logged(container: Container, then: Sequel) -> Gate:
    """Who was ready and has done its work is no obstacle; who has failed since is."""
    run = container.run
    assert run is not None
    if container.definition.log_ready is None:
        return _failed(f"container {container.name} has no x-log-ready")
    if then.kind == "start":
        return _not_yet(f"{container.service} is not started yet")
    if then.kind == "later":
        return _not_yet(f"{container.service} is restarting")
    if then.kind == "broken":
        return _failed(about(container.name, then.because), then.exit_code)
    if run.log_ready is None and not run.before_boot:
        return _not_yet(f"the last lines of {container.service} are being read")
    if run.log_ready and run.exit_code == 0 and not run.error:
        return _open(f"{container.service} had logged that it was ready")
    because = exited(container, then.because)
    if not run.log_ready:
        because = f"{because}, and had not logged that it was ready"
    return _failed(because, then.exit_code, where_to_look(container))


ENDED_RULES: dict[DependencyCondition, Callable[[Container, Sequel], Gate]] = {
    "service_started": _ended_started,
    "service_healthy": _ended_healthy,
    "service_completed_successfully": _ended_completed,
    "service_log_ready": _ended_logged,
}
