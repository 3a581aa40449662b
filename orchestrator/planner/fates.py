"""What is to become of each container. Services are judged after those they depend on."""

from __future__ import annotations

from orchestrator.model.desired import Intent, Wanted
from orchestrator.model.errors import ExitCode
from orchestrator.model.observation import Container, Run
from orchestrator.model.stack import Dependency, ImageRoot, Service
from orchestrator.planner import images, updates
from orchestrator.planner.draft import Draft
from orchestrator.planner.gates import RUNNING_RULES, Answer
from orchestrator.planner.restarts import remedy, replaced_at
from orchestrator.planner.seating import seating
from orchestrator.planner.survey import Fate, Judgement, Survey

_KEEP = Judgement(fate=Fate.KEEP)
_LEAVE = Judgement(fate=Fate.LEAVE)
_DOWN = Judgement(fate=Fate.REMOVE, because="the stack goes down", by="user")
_ABSENT = Judgement(fate=Fate.REMOVE, because="it is not wanted any more", by="user")
_STOPPED = Judgement(fate=Fate.STOP, because="asked to stop", by="user")
_NO_STEP = Judgement(fate=Fate.REMOVE, because="its service has no such step any more")
_ORPHAN = Judgement(fate=Fate.REMOVE, because="orphan: the stack file has no such service", by="user")


def judge(survey: Survey, draft: Draft) -> None:
    """Fill in `fates`, `seats` and `vacant`."""
    _judge_strangers(survey, draft)
    for name in survey.layout.judged:
        service = survey.desired.stack.services[name]
        intent = survey.intent(name)
        containers = survey.by_service.get(name, ())
        if survey.desired.down:
            _all(survey, containers, _DOWN)
        elif intent is None:
            _all(survey, containers, _LEAVE)
        elif intent.wanted is Wanted.ABSENT:
            _all(survey, containers, _ABSENT)
        elif intent.wanted is Wanted.STOPPED:
            _all(survey, containers, _STOPPED)
        else:
            _judge_wanted(survey, draft, service, intent, containers)


def _all(survey: Survey, containers: tuple[Container, ...], judgement: Judgement) -> None:
    for container in containers:
        survey.fates[container.id] = judgement


def _judge_strangers(survey: Survey, draft: Draft) -> None:
    """Containers of services that the stack does not have (now): orphans, inactive profiles, old one-offs."""
    desired = survey.desired
    orphans: list[str] = []
    for name, containers in survey.by_service.items():
        if name in desired.stack.services:
            continue
        step = containers[0].definition.step
        if step is not None and desired.intents.get(step.of) is not None and not desired.down:
            _all(survey, containers, _NO_STEP)
            continue
        ours = name in desired.stack.disabled or containers[0].definition.oneoff
        if desired.down and (ours or desired.remove_orphans):
            _all(survey, containers, _DOWN)
        elif desired.remove_orphans and not ours:
            _all(survey, containers, _ORPHAN)
        else:
            _all(survey, containers, _LEAVE)
            orphans += [] if ours else [container.name for container in containers]
    if orphans:
        draft.warn(
            f"containers of services that the stack file does not have: {', '.join(sorted(orphans))} "
            "(--remove-orphans takes them away)"
        )


def _judge_wanted(
    survey: Survey, draft: Draft, service: Service, intent: Intent, containers: tuple[Container, ...]
) -> None:
    """Who has lost a seat goes; who keeps one is judged by itself and by what becomes of others."""
    found = seating(survey, service, intent, containers)
    needed = images.needed(survey, service)
    if needed and (found.wanting or images.is_here(survey, service)):
        survey.pulls[service.name] = needed
    for container in containers:
        if container.id in found.held:
            because, hint = found.held[container.id]
            draft.refuse(f"container:{container.name}", because, hint=hint)
    division = updates.divide(survey, draft, service, intent, containers, found.reasons)
    if division is not None:
        _judge_divided(survey, service, intent, division)
        return
    for container_id, because in found.surplus.items():
        survey.fates[container_id] = Judgement(fate=Fate.REMOVE, because=because)
    survey.seats[service.name] = found.seats
    survey.vacant[service.name] = found.vacant
    for container in found.seats:
        reason = found.reasons[container.id]
        survey.fates[container.id] = _judge_seated(survey, service, intent, container, reason)
        if reason and _without_image(survey, service):
            because = f"{images.absent(service)}: it stays as it was"
            draft.refuse(f"container:{container.name}", because, ExitCode.IMAGE, images.BRINGS)


def _without_image(survey: Survey, service: Service) -> bool:
    """Nothing could be put in the place of a container, and nobody may pull what is lacking."""
    image = isinstance(service.root, ImageRoot) and not images.is_here(survey, service)
    return image and service.name not in survey.pulls


def _judge_divided(survey: Survey, service: Service, intent: Intent, division: updates.Division) -> None:
    for container in division.seats:
        because = division.replaced.get(container.id, "")
        if because:
            judgement = Judgement(fate=Fate.REPLACE, because=because)
        else:
            judgement = _judge_seated(survey, service, intent, container, "")
            outdated = division.outdated.get(container.id, "")
            if outdated and (division.goes_on or judgement.fate is Fate.KEEP):
                judgement = Judgement(fate=Fate.KEEP, because=outdated)
        survey.fates[container.id] = judgement
    for container_id, because in division.removed.items():
        survey.fates[container_id] = Judgement(fate=Fate.REMOVE, because=because)
    survey.seats[service.name] = division.seats
    survey.vacant[service.name] = division.vacant


def _judge_seated(
    survey: Survey, service: Service, intent: Intent, container: Container, reason: str
) -> Judgement:
    if reason:
        return _judge_outdated(survey, service, container, reason)
    shared = survey.layout.shares[service.name]
    for peer, word in shared.items():
        if any(survey.fate(other) is Fate.REPLACE for other in survey.seats.get(peer, ())[:1]):
            return Judgement(fate=Fate.REPLACE, because=f"{peer}, whose {word} it shares, is replaced")
    if intent.wanted is not Wanted.RUNNING or container.run is None:
        return _KEEP
    if container.run.turn < intent.restart_turn:
        return Judgement(fate=Fate.CYCLE, because=intent.restart_because or "asked to restart")
    policy = container.definition.restart
    match remedy(container.run, policy):
        case "restart" if container.run.finished is None:
            return Judgement(fate=Fate.CYCLE, because=f"is unhealthy (x-on-unhealthy: {policy.unhealthy})")
        case "recreate" if _replaceable(survey, service, intent, container, container.run):
            return Judgement(fate=Fate.REPLACE, because=f"is unhealthy (x-on-unhealthy: {policy.unhealthy})")
    if not intent.ignore_dependencies:
        for dependency in survey.layout.needs[service.name]:
            if dependency.restart and (
                because := _disturbance(survey, dependency.service)
                or _recovery(survey, dependency, container.run)
            ):
                return Judgement(fate=Fate.CYCLE, because=because)
    return _KEEP


def _judge_outdated(survey: Survey, service: Service, container: Container, reason: str) -> Judgement:
    if service.name in survey.pulls:
        # It serves until there is something to put in its place.
        return Judgement(fate=Fate.KEEP, because=f"{reason}, but first the image has to be here")
    if _without_image(survey, service):
        return Judgement(fate=Fate.KEEP, because=f"{reason}, but there is no image for another")
    if _too_early(survey, service, container):
        return Judgement(fate=Fate.KEEP, because=f"{reason}, but first its container is replaced")
    return Judgement(fate=Fate.REPLACE, because=reason)


def _too_early(survey: Survey, service: Service, step: Container) -> bool:
    """A step of one container is run when that one is replaced, which may not have its turn yet."""
    if service.step is None or not service.step.each:
        return False
    owner = survey.desired.stack.services[service.step.of]
    return any(
        one.slot == step.slot
        and one.fingerprint != survey.fingerprint(owner)
        and survey.fate(one) is not Fate.REPLACE
        for one in survey.seats.get(owner.name, ())
    )


def _replaceable(survey: Survey, service: Service, intent: Intent, container: Container, run: Run) -> bool:
    """It runs, or we have stopped it for that; it is old enough; and another can be made of its image."""
    ours = run.finished is None or run.stopping is not None
    here = not isinstance(service.root, ImageRoot) or images.is_here(survey, service)
    return ours and here and replaced_at(container, intent) <= survey.now


def _disturbance(survey: Survey, name: str) -> str:
    """A dependency that is about to be replaced or restarted: its dependents stop before it does."""
    intent = survey.intent(name)
    if intent is None or intent.ignore_dependencies:
        return ""
    for container in survey.seats.get(name, ()):
        if survey.fate(container) is Fate.REPLACE and name not in survey.rolling:
            # One that is updated step by step is followed once, at the end.
            return f"{name} is replaced"
        if survey.fate(container) is Fate.CYCLE:
            return f"{name} is restarted"
    return ""


def _recovery(survey: Survey, dependency: Dependency, run: Run) -> str:
    """A dependency that has ended by itself, was restarted by its policy since `run` began, and is back.

    The Compose Specification (depends_on.restart) leaves crashes out: there, nobody is left to see them. Who
    never comes back disturbs nobody. What is compared stands in the records of the runs, so one crash is
    followed once, whoever is killed meanwhile: the dependent's next run is younger.
    """
    intent = survey.intent(dependency.service)
    if run.finished is not None or run.paused or intent is None or intent.ignore_dependencies:
        return ""
    for container in survey.seats.get(dependency.service, ()):
        other = container.run
        if other is None or other.finished is not None or other.restarts == 0 or other.started <= run.started:
            continue
        if RUNNING_RULES[dependency.condition](container).answer is Answer.OPEN:
            return f"{dependency.service} was restarted after it had ended, and is back"
    return ""
