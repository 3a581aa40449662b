"""The verbs that change what is wanted and then tell the client how the machine gets there."""

from __future__ import annotations

import math
import signal as signals
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

import trio

from orchestrator.api import orders, rehearsing
from orchestrator.api.asking import look
from orchestrator.api.session import Gone, Session
from orchestrator.api.stacks import Change, Stacks, Supervised
from orchestrator.api.telling import Telling
from orchestrator.engines.local import clock
from orchestrator.model import codec, steps
from orchestrator.model.action import ProbeContainer, SignalContainer
from orchestrator.model.desired import Desired
from orchestrator.model.errors import ExitCode, UserError, no_containers
from orchestrator.model.observation import Container, State
from orchestrator.model.stack import ImageRoot, Stack
from orchestrator.planner.images import BRINGS, NOT_AT_ALL, absent
from orchestrator.planner.progress import Verdict, progress
from orchestrator.reconciler.history import Event
from orchestrator.reconciler.loop import View

Goal = Literal["started", "ready", "stopped", "gone", "forgotten"]

SETTLE_SECONDS = 2.0


# --- the verbs ---------------------------------------------------------------------------------------


async def up(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    stack = codec.decode(Stack, request["stack"])
    options = rehearsing.options(request)
    named = options.services or [name for name, service in stack.services.items() if not service.oneoff]
    targets = named if options.no_deps else orders.with_dependencies(stack, named)
    stacks.machine.pulls.remember(stack.name, request.get("environment") or {})
    demand_images(stacks, stack, targets)
    demand_rights(stacks, stack, targets)
    for warning in demand_room(stacks, stack, targets):
        await session.send({"event": "warning", "message": warning})
    if advice := stacks.machine.advice():
        await session.send({"event": "warning", "message": advice})

    async def demand() -> None:
        await rehearsing.demand_as_planned(look(stacks, stack.name), request)

    await converge(
        session,
        stacks,
        stack.name,
        lambda previous: orders.up(previous, stack, options),
        targets,
        demand=demand if request.get("plan") else None,
        goal="ready" if request.get("wait") else "started",
        timeout=request.get("wait_timeout"),
        quiet_pull=bool(request.get("quiet_pull")),
    )


def demand_images(stacks: Stacks, stack: Stack, services: Iterable[str]) -> None:
    """Before anything is done: every image must be here that may not be pulled. Raises UserError that names
    each that is not.

    A service that has its containers already can go on without.
    """
    made = {live.container.service for live in stacks.machine.table.of_stack(stack.name)}
    missing: dict[str, str] = {}
    named = [stack.services[name] for name in sorted(services) if name in stack.services]
    for service in steps.with_theirs(named):
        name = steps.shown(service)
        if name in made or not isinstance(service.root, ImageRoot) or not service.replicas:
            continue
        if service.pull_policy not in NOT_AT_ALL:
            continue
        reference = service.root.reference
        if stacks.machine.store.resolve(reference) is None:
            place = f"{service.place}: " if service.place else ""
            shown = name.partition("-run-")[0] if service.oneoff else name
            missing[reference] = f"{place}service {shown}: {absent(service)}"
    if missing:
        raise UserError(
            "\n".join(missing.values()),
            exit_code=ExitCode.IMAGE,
            hint=BRINGS,
        )


def demand_rights(stacks: Stacks, stack: Stack, services: Iterable[str]) -> None:
    """Before anything is done: an ordinary user can have all that the services ask for. Raises UserError."""
    named = [stack.services[name] for name in sorted(services) if name in stack.services]
    wanted = list(steps.with_theirs(named))
    refused = stacks.machine.refusals(wanted)
    if refused:
        raise UserError(
            "\n".join(refused), exit_code=ExitCode.NOT_PERMITTED, hint="docs/rootless.md says what can be had"
        )


def demand_room(stacks: Stacks, stack: Stack, services: Iterable[str]) -> list[str]:
    """Before anything is done: the machine's limits allow so many containers. Warnings, or UserError."""
    found = stacks.machine.shortages(stack, services)
    fatal = [one for one in found if one.fatal]
    if fatal:
        raise UserError("\n".join(one.because for one in fatal), hint=fatal[0].hint)
    return [f"{one.because} ({one.hint})" for one in found]


async def down(session: Session, stacks: Stacks, request: dict[str, Any]) -> Verdict:
    """Everything but the last message, which is the supervisor's: it may leave with this stack."""
    name = request["stack"]
    volumes = stacks.machine.table.volumes.values() if request.get("remove_volumes") else ()
    left = any(volume.stack == name for volume in volumes)
    if stacks.get(name) is None and not left and not any(stacks.machine.table.of_stack(name)):
        return Verdict(done=True)

    def change(previous: Desired | None) -> Desired:
        return orders.down(
            previous or Desired(stack=Stack(name=name)),  # of which orphans are left
            remove_volumes=bool(request.get("remove_volumes")),
            remove_orphans=bool(request.get("remove_orphans")),
            timeout=request.get("timeout"),
        )

    return await converge(session, stacks, name, change, (), goal="forgotten", end=False)


async def start(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    name, services = request["stack"], request.get("services", [])
    supervised = _known(stacks, name)
    observed = await supervised.engine.observe()
    made = {container.service for container in observed.containers}
    orders.demand(supervised.loop.desired.stack, services)
    for service in services:
        if service not in made:
            raise UserError(f"service {service} has no container to start", hint="`pystack up` creates it")
    chosen = services or sorted(made & set(supervised.loop.desired.stack.services))

    def change(previous: Desired | None) -> Desired:
        return orders.start(_existing(previous, name), chosen, insists=bool(services))

    await converge(session, stacks, name, change, chosen)


async def stop(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    name, services = request["stack"], request.get("services", [])
    if stacks.get(name) is None:
        await session.end()
        return
    timeout = request.get("timeout")
    await converge(
        session,
        stacks,
        name,
        lambda previous: orders.stop(_existing(previous, name), services, timeout),
        services,
        goal="stopped",
    )


async def remove(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    """`rm`: containers that do not run; with "stop", the others too."""
    name = request["stack"]
    supervised = _known(stacks, name)
    orders.demand(supervised.loop.desired.stack, request.get("services", []))
    observed = await supervised.engine.observe()
    idle = {
        container.service
        for container in observed.containers
        if container.state is not State.RUNNING and not container.definition.oneoff
    }
    busy = {container.service for container in observed.containers if container.state is State.RUNNING}
    chosen = set(request.get("services") or supervised.loop.desired.stack.services)
    services = sorted(chosen & ((idle | busy) if request.get("stop") else idle - busy))
    if not services:
        await session.end({"removed": []})
        return
    await converge(
        session,
        stacks,
        name,
        lambda previous: orders.remove(
            _existing(previous, name), services, volumes=bool(request.get("volumes"))
        ),
        services,
        goal="gone",
    )


async def restart(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    name, services = request["stack"], request.get("services", [])
    supervised = _known(stacks, name)
    orders.demand(supervised.loop.desired.stack, services)
    made = {live.container.service for live in stacks.machine.table.of_stack(name)}
    every = [n for n, s in supervised.loop.desired.stack.services.items() if not s.oneoff]
    chosen = [one for one in services or every if one in made]
    if not chosen:
        await session.end()
        return

    def change(previous: Desired | None) -> Desired:
        return orders.restart(
            _existing(previous, name),
            chosen,
            timeout=request.get("timeout"),
            no_deps=bool(request.get("no_deps")),
        )

    await converge(session, stacks, name, change, chosen)


async def kill(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    """A signal to every running container, at once and in no order. What SIGKILL has ended stays ended."""
    name, services = request["stack"], request.get("services", [])
    supervised = _known(stacks, name)
    orders.demand(supervised.loop.desired.stack, services)
    number = signal_number(request.get("signal") or "SIGKILL")
    observed = await supervised.engine.observe()
    running = [
        container
        for container in observed.containers
        if container.state is State.RUNNING and (not services or container.service in services)
    ]
    async with trio.open_nursery() as nursery:
        for container in running:
            stacks.history.record(_signalled(container, number))
            action = SignalContainer(
                id=container.id,
                name=container.name,
                signal=number,
                stopping=number == signals.SIGKILL,
                by="user",
                because="kill",
            )
            nursery.start_soon(supervised.engine.apply, action)
    await session.end({"killed": [container.name for container in running]})


def _signalled(container: Container, number: int) -> Event:
    """What the user's own signals leave in the history; those of the planner are in it as actions."""
    return Event(
        at=clock.now(),
        target=f"container:{container.name}",
        verb="kill" if number == signals.SIGKILL else "signal",
        because=f"signal {number}, asked for",
        outcome="ok",
        stack=container.stack,
        service=container.service,
        id=container.id,
    )


def signal_number(text: str) -> int:
    """A signal's number from "SIGHUP", "HUP", "1" or "RTMIN+3" (signal(7)). Raises UserError."""
    word = str(text).upper()
    if word.isdigit() and 1 <= int(word) <= 64:
        return int(word)
    for name in (word, f"SIG{word}"):
        if name in signals.Signals.__members__:
            return int(signals.Signals[name])
    base, plus, offset = word.removeprefix("SIG").partition("+")
    if base == "RTMIN" and plus and offset.isdigit() and signals.SIGRTMIN + int(offset) <= signals.SIGRTMAX:
        return int(signals.SIGRTMIN) + int(offset)
    raise UserError(f"{text!r} is no signal", hint="such as SIGTERM, HUP or 9")


# --- how they get there ------------------------------------------------------------------------------


async def converge(
    session: Session,
    stacks: Stacks,
    name: str,
    change: Change,
    services: Iterable[str],
    *,
    goal: Goal = "started",
    timeout: float | None = None,
    end: bool = True,
    quiet_pull: bool = False,
    demand: Callable[[], Awaitable[None]] | None = None,
) -> Verdict:
    """Apply `change`, tell what happens, and end when the plan's progress has a verdict.

    `goal` names the verdict (see planner.progress); "forgotten" is "gone" for the whole stack. `timeout`:
    seconds until it is given up. `demand` may raise before anything is changed.
    """
    began = clock.now()
    services = tuple(services)
    telling = Telling(session, name, began, services, waits=goal in ("started", "ready"))
    verdict: Verdict | None = None
    async with stacks.history.follow() as events:
        supervised, revision = await stacks.want(name, change, demand)
        await session.send({"event": "accepted"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(telling.events, events)
            nursery.start_soon(_watch_client, session, nursery.cancel_scope)
            if not quiet_pull:
                nursery.start_soon(telling.pulls, supervised.loop, stacks.machine.pulls)
            verdict = await _verdict(supervised, revision, services, goal, timeout, telling)
            await _settled(supervised)
            nursery.cancel_scope.cancel()
        if verdict is None:
            raise Gone
        await telling.rest(events)
    if end:
        await conclude(session, verdict)
    return verdict


async def conclude(session: Session, verdict: Verdict) -> None:
    """The last message of a command that has waited for `verdict`."""
    await session.end(exit_code=verdict.exit_code, error="\n".join(verdict.failures), hint=verdict.hint)


async def _settled(supervised: Supervised) -> None:
    """The last actions may still be on their way back when their effect is seen: their lines come first.

    The loop of a stack that has gone shows nothing any more, so it is asked a few times.
    """
    with trio.move_on_after(SETTLE_SECONDS):
        while any(not isinstance(one, ProbeContainer) for one in supervised.loop.in_flight.values()):  # noqa: ASYNC110
            await trio.sleep(0.002)


async def _watch_client(session: Session, scope: trio.CancelScope) -> None:
    """A client that goes away stops nothing, but needs no more telling."""
    try:
        while True:
            await session.receive()
    except Gone:
        scope.cancel()


async def _verdict(
    supervised: Supervised,
    revision: int,
    services: tuple[str, ...],
    goal: Goal,
    timeout: float | None,
    telling: Telling,
) -> Verdict:
    last = -1

    def newer(view: View) -> View | None:
        return view if view.number > last else None

    with trio.move_on_after(math.inf if timeout is None else timeout):
        while True:
            view = await _next_or_gone(supervised, newer, revision)
            if view is None:
                return Verdict(done=True)
            last = view.number
            await telling.view(view)
            ahead = any(not isinstance(action, ProbeContainer) for action in view.plan.actions)
            if ahead and goal != "forgotten":
                continue  # something is about to be done, so nothing is settled
            verdict = _judge(view, goal, services)
            if verdict.done and (goal != "forgotten" or verdict.failures):
                return verdict
    return Verdict(
        done=True, exit_code=int(ExitCode.FAILED), failures=(f"application not healthy after {timeout:g}s",)
    )


def _judge(view: View, goal: Goal, services: tuple[str, ...]) -> Verdict:
    found = progress(view.desired, view.observation, view.plan, services or None)
    match goal:
        case "started":
            return _and_surplus_gone(view, found.started)
        case "ready":
            return _and_surplus_gone(view, found.ready)
        case "stopped":
            return found.stopped
        case "gone" | "forgotten":
            return found.gone


def _and_surplus_gone(view: View, verdict: Verdict) -> Verdict:
    """What `up` no longer wants (orphans, slots beyond the scale) belongs to it, whoever was asked for."""
    if not verdict.done:
        return verdict
    surplus = progress(view.desired, view.observation, view.plan).gone
    return verdict if surplus.done else surplus


async def _next_or_gone(
    supervised: Supervised, newer: Callable[[View], View | None], revision: int
) -> View | None:
    """The next view; None when nothing is left of the stack."""
    found: list[View] = []

    async with trio.open_nursery() as nursery:

        async def look() -> None:
            found.append(await supervised.loop.until(newer, revision=revision))
            nursery.cancel_scope.cancel()

        async def gone() -> None:
            await supervised.gone.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(look)
        nursery.start_soon(gone)
    return None if supervised.gone.is_set() else found[0]


def _known(stacks: Stacks, name: str) -> Supervised:
    supervised = stacks.get(name)
    if supervised is None:
        raise no_containers(name)
    return supervised


def _existing(previous: Desired | None, name: str) -> Desired:
    if previous is None:
        raise no_containers(name)
    return previous
