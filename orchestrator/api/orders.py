"""What each command makes of a Desired: pure functions. There is no other way to change what is wanted.

Counters only grow: an order that is given twice is carried out twice, one that was interrupted, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.model import fingerprint
from orchestrator.model.desired import Desired, Intent, Rollout, Wanted
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass, replace
from orchestrator.model.observation import Container
from orchestrator.model.stack import Network, OfService, Service, Stack
from orchestrator.planner.restarts import has_turn
from orchestrator.planner.survey import name_of, slots_of

NAME_BYTES = 200
NOW = -1.0
"""Of `Intent.asked`: stands for the moment that `acknowledge` is told."""
"""Of a name on the machine: with what we add, it has to fit into a file name (255, NAME_MAX)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """The flags of `up` that change what is wanted."""

    services: tuple[str, ...] = ()
    wanted: Wanted = Wanted.RUNNING
    force_recreate: bool = False
    no_recreate: bool = False
    no_deps: bool = False
    remove_orphans: bool = False
    timeout: float | None = None
    repair: bool | None = None
    """Whether what is changed behind our back is put right; None: as was said last, at first it is."""


def needed(service: Service) -> set[str]:
    """The services it can't start without, implied ones included."""
    names = {dependency.service for dependency in service.depends_on}
    for sharing in (service.network_mode, service.pid, service.ipc, service.uts):
        if isinstance(sharing, OfService):
            names.add(sharing.service)
    return names


def with_dependencies(stack: Stack, names: Iterable[str]) -> list[str]:
    """`names` and everything they need, in no particular order."""
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found and name in stack.services:
            found[name] = None
            waiting += needed(stack.services[name])
    return list(found)


def demand(stack: Stack, names: Iterable[str]) -> None:
    """Raises UserError for a name that is no service of the stack."""
    for name in names:
        if name not in stack.services:
            known = ", ".join(sorted(n for n, s in stack.services.items() if not s.oneoff)) or "none"
            raise UserError(f"no such service: {name}", hint=f"services of stack {stack.name}: {known}")


def demand_names(stack: Stack) -> None:
    """Names become parts of paths. The command line has checked them, but it is not who answers for it."""
    networks = [network.name for network in stack.networks.values()]
    volumes = [volume.name for volume in stack.volumes.values()]
    for name in (stack.name, *networks, *volumes):
        if not 0 < len(name.encode()) <= NAME_BYTES or "/" in name or name.startswith(".") or "\0" in name:
            raise UserError(f"{name[:80]!r} can't be the name of a stack, a network or a volume")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """Whose name a container has, or is about to have."""

    name: str
    stack: str
    service: str


def bearers(desired: Desired) -> list[Bearer]:
    """The containers that a stack wants to have."""
    if desired.down:
        return []
    return [
        Bearer(name=name_of(desired.stack.name, service, slot), stack=desired.stack.name, service=key)
        for key, service in desired.stack.services.items()
        if desired.intents.get(key, _UNASKED).wanted in (Wanted.RUNNING, Wanted.CREATED)
        for slot in slots_of(service)
    ]


def shown(service: str) -> str:
    """The service that a one-off was made of, whose own name is made up."""
    return service.rpartition("-run-")[0] or service


_UNASKED = Intent(wanted=Wanted.ABSENT)


def demand_free_names(desired: Desired, there: Iterable[Bearer], others: Iterable[Bearer]) -> None:
    """Names of containers are the machine's. Raises UserError for one that another container has.

    `there`: every container of the machine; `others`: what other stacks want to have. A container that is
    in the way in the stack itself is in the way only if nobody takes it away.
    """
    stack = desired.stack
    taken = {bearer.name: bearer for bearer in (*others, *there)}
    for wanted in bearers(desired):
        holder = taken.get(wanted.name)
        if holder is None or (holder.stack, holder.service) == (stack.name, wanted.service):
            continue
        if holder.stack == stack.name and (holder.service in stack.services or desired.remove_orphans):
            continue
        place = stack.services[wanted.service].place
        where = f"{place}: " if place else ""
        foreign = holder.stack != stack.name
        owner = f"service {shown(holder.service)}" + (f" of stack {holder.stack}" if foreign else "")
        said = f"container name {wanted.name} is already in use by {owner}"
        remedy = f"`pystack -p {holder.stack} down`" if foreign else "--remove-orphans"
        raise UserError(
            f"{where}service {shown(wanted.service)}: {said}",
            exit_code=ExitCode.CONFLICT,
            hint=f"{remedy} takes that one away; or choose another container_name",
        )


def up(previous: Desired | None, stack: Stack, options: UpOptions) -> Desired:
    """The stack as the file says now. Services that were not asked for keep their old definition."""
    demand(stack, options.services)
    named = set(options.services) or {name for name, service in stack.services.items() if not service.oneoff}
    targets = named if options.no_deps else set(with_dependencies(stack, named))
    before = previous.intents if previous is not None else {}
    merged = _merge(previous, stack, targets)
    intents = {name: intent for name, intent in before.items() if name in merged.services}
    for name in targets:
        old = intents.get(name, Intent())
        intents[name] = Intent(
            wanted=options.wanted,
            turn=old.turn + 1 if options.wanted is Wanted.RUNNING else old.turn,
            restart_turn=old.restart_turn,
            generation=old.generation + int(options.force_recreate and name in named),
            keep_stale=options.no_recreate,
            stop_timeout=options.timeout,
            ignore_dependencies=options.no_deps,
            asked=NOW,
            insists=name in options.services,
        )
    kept = _rollouts(previous, merged, intents, targets)
    return Desired(
        stack=merged,
        intents=intents,
        remove_orphans=options.remove_orphans,
        repair=options.repair
        if options.repair is not None
        else previous is None or previous.down or previous.repair,
        stop_timeout=options.timeout,
        rollouts=kept,
        pins={key: image for key, image in previous.pins.items() if key not in targets and key in intents}
        if previous is not None
        else {},
    )


def _rollouts(
    previous: Desired | None, stack: Stack, intents: Mapping[str, Intent], targets: set[str]
) -> dict[str, Rollout]:
    """`up` ends every verdict; an update on its way to the same end goes on. What it would go back to stays
    the same until one has come through."""
    kept: dict[str, Rollout] = {}
    for name, rollout in previous.rollouts.items() if previous is not None and not previous.down else ():
        if name not in targets or name not in stack.services:
            if name in stack.services:
                kept[name] = rollout
        elif rollout.outcome == "" and rollout.kind == "update" and _goes_on(stack, intents, name, rollout):
            kept[name] = replace(rollout, turn=intents[name].turn)
        elif rollout.outcome != "done":
            kept[name] = Rollout(before=rollout.before)
    return kept


def _goes_on(stack: Stack, intents: Mapping[str, Intent], name: str, rollout: Rollout) -> bool:
    same = rollout.fingerprint == fingerprint.of_service(stack.services[name])
    return same and rollout.generation == intents[name].generation


def _merge(previous: Desired | None, stack: Stack, targets: set[str]) -> Stack:
    """The new file, but with what still belongs to services of before: one-offs, and those not asked for."""
    if previous is None or previous.down:
        return stack
    services = dict(stack.services)
    for name, service in previous.stack.services.items():
        kept = name in services and name not in targets and name in previous.intents
        if service.oneoff or kept:
            services[name] = service
    # A failed update goes back to what the service was before.
    former = [
        old for name, old in previous.stack.services.items() if name in targets and _by_steps(stack, name)
    ]
    former += [one.before.service for one in previous.rollouts.values() if one.before is not None]
    return replace(
        stack,
        services=services,
        networks={**_used(previous.stack.networks, [*services.values(), *former]), **stack.networks},
        volumes={**previous.stack.volumes, **stack.volumes},
    )


def _by_steps(stack: Stack, name: str) -> bool:
    deploy = stack.services[name].deploy if name in stack.services else None
    return deploy is not None and deploy.update is not None


def _used(networks: Mapping[str, Network], services: Iterable[Service]) -> dict[str, Network]:
    used = {attachment.network for service in services for attachment in service.networks}
    return {key: network for key, network in networks.items() if key in used}


def down(previous: Desired, *, remove_volumes: bool, remove_orphans: bool, timeout: float | None) -> Desired:
    intents = {
        name: replace(
            previous.intents.get(name, Intent()),
            wanted=Wanted.ABSENT,
            stop_timeout=timeout,
            remove_volumes=False,
        )
        for name in previous.stack.services
    }
    return replace(
        previous,
        intents=intents,
        down=True,
        remove_volumes=remove_volumes,
        remove_orphans=remove_orphans,
        stop_timeout=timeout,
    )


def stop(previous: Desired, services: Iterable[str], timeout: float | None) -> Desired:
    return _change(previous, services, wanted=Wanted.STOPPED, stop_timeout=timeout)


def remove(previous: Desired, services: Iterable[str], *, volumes: bool = False) -> Desired:
    """`volumes`: with the anonymous ones."""
    return _change(previous, services, wanted=Wanted.ABSENT, remove_volumes=volumes)


def start(previous: Desired, services: Iterable[str], *, insists: bool = False) -> Desired:
    """Containers that have ended run again; those that were never made are not made (`start`).

    `insists`: also one-shots that have succeeded.
    """
    names = _chosen(previous, services)
    intents = dict(previous.intents)
    for name in names:
        old = intents.get(name, Intent())
        intents[name] = replace(
            old, wanted=Wanted.RUNNING, turn=old.turn + 1, remove_volumes=False, insists=insists
        )
    return replace(previous, intents=intents)


def restart(previous: Desired, services: Iterable[str], *, timeout: float | None, no_deps: bool) -> Desired:
    """With them, unless `no_deps`, those that asked for it by `depends_on.restart`."""
    names = set(_chosen(previous, services))
    if not no_deps:
        names |= {
            name
            for name, service in previous.stack.services.items()
            if any(dependency.restart and dependency.service in names for dependency in service.depends_on)
            and previous.intents.get(name, Intent(wanted=Wanted.ABSENT)).wanted is Wanted.RUNNING
        }
    intents = dict(previous.intents)
    for name in names:
        old = intents.get(name, Intent())
        turn = old.turn + 1
        intents[name] = replace(
            old,
            wanted=Wanted.RUNNING,
            turn=turn,
            restart_turn=turn,
            restart_because="",
            stop_timeout=timeout,
            remove_volumes=False,
        )
    return replace(previous, intents=intents)


def repair(previous: Desired, *, on: bool) -> Desired:
    """Whether what is changed behind our back is put right, or only reported."""
    return replace(previous, repair=on)


def after_boot(desired: Desired) -> Desired:
    """What is wanted once the machine has been restarted: `always` outlives a `stop`, nothing else does."""
    intents = {
        name: replace(intent, wanted=Wanted.RUNNING, turn=intent.turn + 1)
        if intent.wanted is Wanted.STOPPED
        and name in desired.stack.services
        and desired.stack.services[name].restart.condition == "always"
        else intent
        for name, intent in desired.intents.items()
    }
    # Boot time has begun anew: what was good before the boot, or had failed, is so since long ago.
    rollouts = {
        name: replace(
            one, began=0.0, ready=dict.fromkeys(one.ready, 0.0), failed=dict.fromkeys(one.failed, 0.0)
        )
        for name, one in desired.rollouts.items()
    }
    return replace(desired, intents=intents, rollouts=rollouts)


def run(previous: Desired | None, stack: Stack, oneoff: str, *, no_deps: bool) -> Desired:
    """A one-off service `oneoff` of the stack, after what it needs."""
    needs = with_dependencies(stack, needed(stack.services[oneoff])) if not no_deps else []
    missing = [
        name
        for name in needs
        if previous is None
        or previous.intents.get(name, Intent(wanted=Wanted.ABSENT)).wanted is not Wanted.RUNNING
    ]
    base = up(previous, stack, UpOptions(services=(oneoff, *missing), no_deps=True))
    intents = dict(base.intents)
    for name in missing:
        intents[name] = replace(intents[name], ignore_dependencies=False, insists=False)
    intents[oneoff] = replace(intents[oneoff], ignore_dependencies=no_deps)
    return replace(base, intents=intents, remove_orphans=False)


def withdraw(
    current: Desired, before: Desired | None, ours: Desired, names: Iterable[str], started: Iterable[str]
) -> Desired:
    """Take back what `run` has asked for besides its one-off (`ours`, after `before`) and has not come about:
    services that are not `started`, and that nobody has asked for since.
    """
    intents = dict(current.intents)
    for name in set(names) - set(started):
        now, then = intents.get(name), ours.intents.get(name)
        old = before.intents.get(name) if before is not None else None
        if now is None or then is None or now.turn != then.turn or old == then:
            continue
        if old is None:
            del intents[name]
        else:
            intents[name] = old
    return replace(current, intents=intents)


def found(name: str, containers: Iterable[Container]) -> Desired:
    """A stack of which the record is lost, by what is there of it: enough to list it and to take it down.

    Nobody has asked for anything, so everything is left as it is until the next `up`.
    """
    services = {
        container.service: Service(
            name=container.service,
            root=container.definition.root,
            oneoff=container.definition.oneoff,
            command=container.definition.command,
        )
        for container in containers
    }
    return Desired(stack=Stack(name=name, services=services))


def acknowledge(
    previous: Desired | None, desired: Desired, containers: Iterable[Container], now: float
) -> Desired:
    """Mark the runs for which a new turn is carried out: those under way, and one-shots that have succeeded.

    A stack that was not there, or was going down, begins a new life.
    """
    before = previous.intents if previous is not None else {}
    intents = dict(desired.intents)
    for name, intent in intents.items():
        if intent.asked == NOW:
            intents[name] = replace(intents[name], asked=now)
    ordered = {name for name, intent in intents.items() if intent.turn != before.get(name, Intent()).turn}
    one_shots = awaited(desired.stack)
    marked: dict[str, list[float]] = {name: [] for name in ordered}
    for container in containers:
        name, run = container.service, container.run
        if name not in ordered or run is None:
            continue
        under_way = run.finished is None and run.stopping is None
        done = name in one_shots and not intents[name].insists and has_turn(run, before.get(name, Intent()))
        if under_way or (done and _done(desired.stack.services[name], container)):
            marked[name].append(run.started)
    for name, began in marked.items():
        intents[name] = replace(intents[name], under_way=tuple(began))
    goes_on = previous is not None and (not previous.down or desired.down)
    return replace(desired, intents=intents, began=previous.began if previous and goes_on else now)


def awaited(stack: Stack) -> set[str]:
    """The services that others wait for to complete: one-shots by what the file says."""
    return {
        dependency.service
        for service in stack.services.values()
        for dependency in service.depends_on
        if dependency.condition == "service_completed_successfully" and dependency.service in stack.services
    }


def _done(service: Service, container: Container) -> bool:
    """Its last run has succeeded by itself, as the stack file defines it now."""
    run = container.run
    return (
        run is not None
        and run.finished is not None
        and run.exit_code == 0
        and not run.error
        and run.stopping is None
        and service.restart.condition in ("no", "on-failure")
        and container.fingerprint == fingerprint.of_service(service)
    )


def forget_service(previous: Desired, name: str) -> Desired:
    """After the container of a one-off has gone."""
    stack = replace(
        previous.stack, services={key: value for key, value in previous.stack.services.items() if key != name}
    )
    intents = {key: value for key, value in previous.intents.items() if key != name}
    return replace(previous, stack=stack, intents=intents)


def _chosen(previous: Desired, services: Iterable[str]) -> list[str]:
    names = list(services)
    demand(previous.stack, names)
    return names or [name for name, service in previous.stack.services.items() if not service.oneoff]


def _change(
    previous: Desired,
    services: Iterable[str],
    *,
    wanted: Wanted,
    stop_timeout: float | None = None,
    remove_volumes: bool = False,
) -> Desired:
    intents = dict(previous.intents)
    for name in _chosen(previous, services):
        intents[name] = replace(
            intents.get(name, Intent()),
            wanted=wanted,
            stop_timeout=stop_timeout,
            remove_volumes=remove_volumes,
        )
    return replace(previous, intents=intents)
