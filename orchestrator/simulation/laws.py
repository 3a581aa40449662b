"""What must hold whatever happens. Pure: judges what was decided and seen, and knows nothing of how.

Safety: no slot has two occupants, nothing starts before its gates are open, no restart comes before its
back-off is over; `asked` and `ends` add that nothing is done, lost or ended without a reason, the engine
that a target has one action at a time and that no address, port or name is given twice. Liveness: once
nothing breaks any more, the stack becomes what was asked for.

The planner is not asked: a law that borrowed its judgement would share its faults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from orchestrator.engines.guarding import UnsafeError
from orchestrator.engines.simulated import Program
from orchestrator.model import steps
from orchestrator.model.action import (
    Action,
    CreateContainer,
    ProbeContainer,
    RemoveContainer,
    SignalContainer,
    StartContainer,
)
from orchestrator.model.desired import Desired, Wanted
from orchestrator.model.graph import needs, shares
from orchestrator.model.observation import Container, HealthStatus, Observation, Run, State
from orchestrator.model.plan import Plan
from orchestrator.model.stack import Dependency, ImageRoot, Service
from orchestrator.simulation.asked import NEVER_PULLED, demand_asked
from orchestrator.simulation.ends import demand_end
from orchestrator.simulation.parts import up_to_date, with_parts
from orchestrator.simulation.tables import tables

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
GRACE = 0.01
"""Seconds by which a clock may be read too early."""
LONG_RUN = 10.0
COMPLETED = "service_completed_successfully"
ALWAYS = ("always", "unless-stopped")


def demand_safe(desired: Desired, world: Observation, action: Action, now: float) -> None:
    """`desired` and `world` are what was wanted and known when `action`, which begins `now`, was decided.

    Raises UnsafeError.
    """
    desired = with_parts(desired, world)
    demand_asked(desired, world, action)
    match action:
        case SignalContainer() | RemoveContainer():
            demand_end(desired, world, action, now)
        case CreateContainer():
            _demand_free_slot(world, action)
        case StartContainer():
            demand_open_gates(desired, world, action)
            _demand_patience(world, action, now)
        case _:
            pass


def _demand_free_slot(world: Observation, action: CreateContainer) -> None:
    if action.service.oneoff:
        return
    for other in tables(world).by_service.get(action.service.name, ()):
        same = other.slot == action.slot and other.id != action.id
        if same and not other.definition.oneoff:
            raise UnsafeError(f"{action.name} is made for the slot that {other.name} is in")


def demand_open_gates(desired: Desired, world: Observation, action: StartContainer) -> None:
    """No first start before its dependencies are what they have to be (restarts by policy pass no gate).

    Raises UnsafeError.
    """
    container = tables(world).by_id.get(action.id)
    if container is None or action.attempt > 1:
        return
    step = container.definition.step
    service = desired.stack.services[container.service if step is None else step.of]
    intent = desired.intents.get(service.name)
    kept = intent is not None and intent.keep_stale  # `--no-recreate`
    own = desired.stack.services[container.service]
    current = container.fingerprint == up_to_date(desired, world, own)
    # Who has run by a definition of before was prepared by that.
    for wanted in steps.of(service) if current or container.run is None else ():
        assert wanted.step is not None
        if step is not None and wanted.step.number >= step.number:
            break
        needed = up_to_date(desired, world, wanted) if current and not kept else ""
        _demand_step(world, action, wanted.name, container.slot if wanted.step.each else 1, needed)
    if intent is not None and intent.ignore_dependencies:
        return
    for dependency in needs(service if step is None else container.definition):
        if not dependency.required or dependency.service not in desired.stack.services:
            continue
        replicas = desired.stack.services[dependency.service].replicas
        there = tables(world).by_service.get(dependency.service, [])
        if len(there) > replicas:
            continue  # Which of them will stay is not for us to decide.
        for other in there:
            why = _closed(other, dependency.condition)
            if why:
                raise UnsafeError(f"{action.name} starts {why}")


def _demand_step(world: Observation, action: StartContainer, step: str, slot: int, needed: str) -> None:
    """A step of `pre_start` has succeeded; for a container of the definition in force, one of that, too."""
    for one in tables(world).by_service.get(step, ()):
        same = one.slot == slot and needed in ("", one.fingerprint)
        if same and one.run is not None and one.run.exit_code == 0:
            return
    raise UnsafeError(f"{action.name} starts before {step} has succeeded")


def _closed(other: Container, condition: str) -> str:
    run = other.run
    if run is None:
        return f"before {other.name} was ever started"
    if run.error:
        return f"although {other.name} can't be executed"
    if condition == COMPLETED and run.exit_code != 0:
        return f"while {other.name} has not completed"
    if condition == "service_log_ready" and not run.log_ready:
        return f"before {other.name} has logged that it is ready"
    if condition == "service_healthy":
        status = run.health.status if run.health and run.finished is None else None
        if status is not HealthStatus.HEALTHY:
            return f"while {other.name} is {status or 'not checked'}"
    return ""


def _demand_patience(world: Observation, action: StartContainer, now: float) -> None:
    """A restart by policy waits: deploy.restart_policy.delay, or 100 ms doubled each time up to a minute.

    An order to start or restart begins anew, with attempt 1, and need not wait.
    """
    container = tables(world).by_id.get(action.id)
    run = container.run if container is not None else None
    if container is None or run is None or run.finished is None or action.attempt <= 1:
        return
    if run.finished > now:
        return  # before the machine started: boot time begins anew
    window = container.definition.restart.window
    lasted = run.finished - run.started
    earlier = 1 if lasted >= (LONG_RUN if window is None else window) else run.attempt
    delay = container.definition.restart.delay
    if delay is None:
        delay = min(FIRST_DELAY * 2 ** min(earlier - 1, 30), LONGEST_DELAY)
    waited = now - run.finished
    if waited + GRACE < delay:
        raise UnsafeError(f"{action.name} starts again after {waited:.2f} s in place of {delay:.2f} s")


# --- liveness ------------------------------------------------------------------------------------------


def restless(desired: Desired, programs: Mapping[str, Program]) -> AbstractSet[str]:
    """Services whose programs never come to rest by themselves, and those that need them: nobody can say
    of these how they stand at a given moment. So with those that wait for the end of what runs on."""
    services = desired.stack.services
    found = {
        name for name, program in programs.items() if name in services and _unquiet(services[name], program)
    }
    endless = {name for name in services if programs.get(name, Program()).exits_after is None}
    found |= {
        name
        for name, service in services.items()
        if any(one.service in endless and one.condition == COMPLETED for one in needs(service))
    }
    while True:
        more = {
            name
            for name, service in services.items()
            if name not in found and any(one.service in found for one in needs(service))
        }
        if not more:
            return found
        found |= more


def _unquiet(service: Service, program: Program) -> bool:
    if program.refuses is not None or program.crashes_every is not None or program.hangs_after is not None:
        return True
    if program.exits_after is not None:
        comes_back = service.restart.condition in ALWAYS or any(code != 0 for code in program.exit_codes)
        return comes_back and service.restart.condition != "no"
    return bool(program.probes[-1])


def unconverged(
    desired: Desired, world: Observation, decided: Plan, unquiet: AbstractSet[str]
) -> tuple[str, ...]:
    """What is not as it was asked for, in sentences; none: converged."""
    if desired.down:
        return tuple(left_over(desired, world))
    return (
        *_pending(desired, world, decided, unquiet),
        *_missing(desired, world, unquiet),
        *_left_behind(desired, world, unquiet),
    )


def left_over(desired: Desired, world: Observation) -> list[str]:
    """What a stack that goes down has not taken with it, in sentences."""
    stack = desired.stack
    known = {*stack.services, *stack.disabled}
    left = [
        f"{one.name} is still there"
        for one in world.containers
        if one.service in known or one.definition.oneoff or desired.remove_orphans
    ]
    left += [
        f"network {state.name} is still there"
        for state in world.networks.values()
        if state.stack == stack.name and not state.users
    ]
    external = {volume.name for volume in stack.volumes.values() if volume.external}
    if desired.remove_volumes:
        left += [
            f"volume {state.name} is still there"
            for state in world.volumes.values()
            if state.stack == stack.name and not state.users and state.name not in external
        ]
    return left


def _pending(desired: Desired, world: Observation, decided: Plan, unquiet: AbstractSet[str]) -> Iterator[str]:
    owners = {f"container:{one.name}": steps.shown(one.definition) for one in world.containers}
    for action in decided.actions:
        if not isinstance(action, ProbeContainer) and owners.get(action.target, "") not in unquiet:
            yield f"{action.target} is still to be acted on: {action.because}"
    blocked = _blocked(desired, world)
    for wait in decided.waits:
        name = _service(desired, wait.target, owners)
        held = wait.target.startswith("service:") and name in blocked
        held = held or not blocked.isdisjoint(_on(world, wait.target))
        if not wait.failed and name not in unquiet and not held:
            yield f"{wait.target} waits: {wait.because}"


def _on(world: Observation, target: str) -> Iterator[str]:
    """The services with containers on a network."""
    kind, _, name = target.partition(":")
    if kind == "network":
        yield from (one.service for one in world.containers if name in one.addresses)


def _service(desired: Desired, target: str, owners: Mapping[str, str]) -> str:
    """The service of a container that may not exist yet: its name begins with theirs."""
    if target in owners:
        return owners[target]
    kind, _, name = target.partition(":")
    if kind == "service":
        return name
    fitting = (one for one in desired.stack.services if name.startswith(f"{desired.stack.name}-{one}-"))
    return max(fitting, key=len, default="")


def _missing(desired: Desired, world: Observation, unquiet: AbstractSet[str]) -> Iterator[str]:
    blocked = _blocked(desired, world)
    for name, service in desired.stack.services.items():
        intent = desired.intents.get(name)
        if intent is None or name in unquiet or service.oneoff:
            continue
        there = tables(world).by_service.get(name, [])
        if intent.wanted is Wanted.RUNNING:
            update = desired.rollouts.get(name)
            paused = update is not None and update.outcome == "paused"  # half-way, until somebody says more
            if len(there) != service.replicas and name not in blocked and not paused:
                yield f"{name} has {len(there)} containers, not {service.replicas}"
            yield from _idle(there, blocked=name in blocked)
        elif intent.wanted is Wanted.STOPPED:
            for one in there:
                if one.state is State.RUNNING:
                    yield f"{one.name} still runs"
        elif intent.wanted is Wanted.ABSENT and there:
            yield f"{there[0].name} is still there"


def _left_behind(desired: Desired, world: Observation, unquiet: AbstractSet[str]) -> Iterator[str]:
    """Who asked to be restarted with a dependency runs since after that one's last crash."""
    by_service = tables(world).by_service
    for name, service in desired.stack.services.items():
        if name in unquiet or name not in desired.intents or desired.intents[name].ignore_dependencies:
            continue
        followed = {one.service for one in needs(service) if one.restart} & desired.intents.keys()
        there = [(other, other.run) for one in sorted(followed) for other in by_service.get(one, ())]
        for one in by_service.get(name, ()):
            for other, run in there:
                if _after(run, one.run):
                    yield f"{one.name} runs since before {other.name} was restarted"


def _after(run: Run | None, own: Run | None) -> bool:
    """Whether `run`, a restart, began after `own`, and both go on."""
    if run is None or own is None or run.finished is not None or own.finished is not None:
        return False
    return run.restarts > 0 and run.started > own.started


def _idle(there: list[Container], *, blocked: bool) -> Iterator[str]:
    for one in there:
        if one.state is State.CREATED and not blocked:
            yield f"{one.name} was never started"
        elif one.state is State.EXITED and not blocked and _comes_back(one.definition, one.run):
            yield f"{one.name} does not run"


def _comes_back(service: Service, run: Run | None) -> bool:
    if run is None or run.error or service.restart.max_attempts is not None:
        return False
    by_user = run.stopping is not None and run.stopping.by == "user"
    return service.restart.condition in ALWAYS and not by_user


def _blocked(desired: Desired, world: Observation) -> AbstractSet[str]:
    """Services that wait for what will not come by itself, and those that need them."""
    found: set[str] = set()
    services = desired.stack.services
    while True:
        more = {
            name
            for name, service in services.items()
            if name not in found and _is_blocked(desired, world, service, found)
        }
        if not more:
            return found
        found |= more


def _is_blocked(desired: Desired, world: Observation, service: Service, blocked: AbstractSet[str]) -> bool:
    lacks = isinstance(service.root, ImageRoot) and service.root.reference not in world.images
    if lacks and service.pull_policy in NEVER_PULLED:
        return True
    runs = [one.run for step in steps.of(service) for one in tables(world).by_service.get(step.name, ())]
    if any(run is not None and run.finished is not None and run.exit_code for run in runs):
        return True  # a step of pre_start has failed
    for peer in shares(service):
        first = min(tables(world).by_service.get(peer, ()), key=_seat, default=None)
        if first is None or first.state is not State.RUNNING:
            return True  # nobody can join a namespace that has no process in it
    return any(_shut(desired, world, one, blocked) for one in needs(service) if one.required)


def _seat(container: Container) -> tuple[int, float, str]:
    return container.slot, container.created, container.id


def _shut(desired: Desired, world: Observation, need: Dependency, blocked: AbstractSet[str]) -> bool:
    if need.service in blocked or need.service not in desired.stack.services:
        return True
    there = tables(world).by_service.get(need.service, ())
    intent = desired.intents.get(need.service)
    if not there:
        wanted = intent is not None and intent.wanted in (Wanted.RUNNING, Wanted.CREATED)
        return not wanted and desired.stack.services[need.service].replicas > 0
    return any(_closed(one, need.condition) for one in there)
