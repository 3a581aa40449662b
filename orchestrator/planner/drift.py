"""What is wanted of a stack against what is there, as far as the planner sees it. Pure.

It asks the planner itself: whatever that would change, or can't, is a difference. What lies below, in the
kernel, the engine compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.model import fingerprint
from orchestrator.model.action import (
    Action,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    ProbeContainer,
    PullImage,
    StartContainer,
)
from orchestrator.model.desired import Desired, Wanted
from orchestrator.model.drift import Difference
from orchestrator.model.observation import Container, Observation
from orchestrator.model.stack import Stack
from orchestrator.planner import fates, files, networks
from orchestrator.planner.draft import Draft
from orchestrator.planner.plan import plan
from orchestrator.planner.survey import Fate, name_of, slots_of, survey

_NOTHING: Mapping[str, Action] = {}
_BY_LINE = frozenset({"runtime", "pull_policy"})
"""Keys that the command line may set: in these the file may differ."""


def differences(
    desired: Desired, observation: Observation, now: float, in_flight: Mapping[str, Action] = _NOTHING
) -> tuple[Difference, ...]:
    """One for each target, in the order of the plan. Raises UserError when the stack has a cycle."""
    decided = plan(desired, observation, now, in_flight)
    there = {f"container:{one.name}": one for one in observation.containers}
    services = {
        f"container:{name_of(desired.stack.name, service, slot)}": name
        for name, service in desired.stack.services.items()
        for slot in slots_of(service)
    }
    found: dict[str, Difference] = {}
    for action in (*in_flight.values(), *decided.actions):
        if not isinstance(action, ProbeContainer):
            found.setdefault(action.target, _of_action(desired, action, there.get(action.target)))
    for wait in decided.waits:
        kind, _, name = wait.target.partition(":")
        if kind == "service":
            found[wait.target] = Difference(
                target=wait.target,
                what="update",
                wanted="done",
                found="paused" if wait.failed else "under way",
                because=wait.because,
                stack=desired.stack.name,
                service=name,
                mendable=not wait.failed,
            )
        elif wait.target not in found:
            container = there.get(wait.target)
            service = container.service if container is not None else services.get(wait.target, "")
            found[wait.target] = Difference(
                target=wait.target,
                what=wait.target.partition(":")[0],
                wanted=_wanted(desired, service) if service else "there",
                found=_state(container) if service else "missing",
                because=wait.because,
                stack=desired.stack.name,
                service=service,
                id=container.id if container is not None else "",
                mendable=not wait.failed,
            )
    others = (*_outdated(desired, observation, now, in_flight), *files.differences(desired, observation))
    return (*found.values(), *(one for one in others if one.target not in found))


def _outdated(
    desired: Desired, observation: Observation, now: float, in_flight: Mapping[str, Action]
) -> Iterator[Difference]:
    """Containers that are not as the file says and stay so for now: an update has not come to them yet, or
    never will."""
    seen = survey(desired, observation, now, in_flight)
    if not desired.down:
        seen.segments = networks.assess(seen)
    fates.judge(seen, Draft(now, {}, {}))
    for container in observation.containers:
        judgement = seen.fates[container.id]
        if judgement.fate is Fate.KEEP and judgement.because:
            rollout = desired.rollouts.get(container.service)
            yield Difference(
                target=f"container:{container.name}",
                what="container",
                wanted="up to date",
                found=_state(container),
                because=judgement.because,
                stack=desired.stack.name,
                service=container.service,
                id=container.id,
                mendable=rollout is None or rollout.outcome != "paused",
            )


def _of_action(desired: Desired, action: Action, container: Container | None) -> Difference:
    service = container.service if container is not None else ""
    what, wanted, found = action.target.partition(":")[0], "there", "missing"
    match action:
        case CreateNetwork() | CreateVolume() | PullImage():
            pass
        case CreateContainer():
            service = action.service.name
            wanted = _wanted(desired, service)
        case StartContainer():
            wanted, found = "running", _state(container)
        case _:
            wanted, found = _end(desired, service), _state(container)
    return Difference(
        target=action.target,
        what=what,
        wanted=wanted,
        found=found,
        because=action.because,
        stack=desired.stack.name,
        service=service,
        id=container.id if container is not None else "",
    )


def _wanted(desired: Desired, service: str) -> str:
    intent = desired.intents.get(service)
    return (intent.wanted if intent is not None else Wanted.ABSENT).value


def _end(desired: Desired, service: str) -> str:
    """What is wanted of a container that is being stopped or removed."""
    if desired.down or service not in desired.stack.services:
        return Wanted.ABSENT.value
    wanted = _wanted(desired, service)
    return "up to date" if wanted in (Wanted.RUNNING, Wanted.CREATED) else wanted


def _state(container: Container | None) -> str:
    if container is None:
        return "missing"
    run = container.run
    if run is None or run.finished is None:
        return container.state.value
    return f"exited ({'unknown' if run.exit_code is None else run.exit_code})"


def moved(said: Stack, file: Stack) -> tuple[str, ...]:
    """In what the file differs from what `up` last said, a line for each service, network or volume."""
    return tuple(_moved(said, file))


def _moved(said: Stack, file: Stack) -> Iterator[str]:
    ours = {name: one for name, one in said.services.items() if not one.oneoff}
    for name in sorted({*ours, *file.services}):
        if name not in file.services:
            yield f"service {name}: not in the file any more"
        elif name not in ours:
            yield f"service {name}: new in the file"
        else:
            keys = set(fingerprint.differing(ours[name], file.services[name])) - _BY_LINE
            if keys:
                yield f"service {name}: {', '.join(sorted(keys))}"
    for kind, before, after in (
        ("network", said.networks, file.networks),
        ("volume", said.volumes, file.volumes),
    ):
        for key in sorted({*before, *after}):
            one, other = before.get(key), after.get(key)
            if one is None:
                yield f"{kind} {key}: new in the file"
            elif other is not None and one != other:
                yield f"{kind} {key}: defined otherwise"
