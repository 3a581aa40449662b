"""How far a stack has come: for commands that wait (`up -d`, `up --wait`, `stop`, `down`), and for tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import StrEnum

from orchestrator.model.desired import Desired, Intent, Wanted
from orchestrator.model.frozen import dataclass, replace
from orchestrator.model.observation import Container, HealthStatus, Observation, Run, State
from orchestrator.model.plan import Plan, Wait
from orchestrator.model.stack import ImageRoot
from orchestrator.planner import fates, networks
from orchestrator.planner.draft import Draft
from orchestrator.planner.gates import DEPENDENCY, about, exited, where_to_look
from orchestrator.planner.leaving import finished
from orchestrator.planner.restarts import Sequel, has_turn, remedy, sequel
from orchestrator.planner.rollouts import said
from orchestrator.planner.survey import Fate, Survey, name_of, survey


class Phase(StrEnum):
    PENDING = "pending"
    CREATED = "created"
    STARTING = "starting"
    """It runs and its health check has not answered yet, or it is about to be restarted."""
    STARTED = "started"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    EXITED = "exited"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatProgress:
    """One container, or the place of one that is not there yet. `wanted` is what it is wanted to be."""

    name: str
    service: str
    phase: Phase
    wanted: Wanted
    because: str = ""
    exit_code: int | None = None
    """Of a program that has exited, or the command line's for what failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`done`: nothing is left to wait for. `failures` are sentences; `exit_code` and `hint` are the first
    one's."""

    done: bool
    failures: tuple[str, ...] = ()
    exit_code: int = 0
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`started`: each wanted container was started in the wanted turn (or created, if only that is wanted).
    `ready`: it is healthy or, without a health check, runs; a one-shot that others wait for has completed.
    `stopped`: nothing that should have ended runs. `gone`: nothing that should be absent is left."""

    seats: tuple[SeatProgress, ...]
    started: Verdict
    ready: Verdict
    stopped: Verdict
    gone: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seat:
    """How one seat stands: None is "not yet", "" is "as it should be", a sentence is "failed". Without a row
    it is the service's update that stands so."""

    row: SeatProgress | None
    started: str | None
    ready: str | None
    exit_code: int = 1
    hint: str = ""


def progress(
    desired: Desired, observation: Observation, plan: Plan, services: Collection[str] | None = None
) -> Progress:
    """Where `services` (or all that were asked for) stand. `plan` is the one made from `observation`."""
    seen = survey(desired, observation, observation.at, {})
    if not desired.down:
        seen.segments = networks.assess(seen)
    fates.judge(seen, Draft(observation.at, {}, {}))
    refusals = {wait.target: wait for wait in plan.waits if wait.failed}
    seats = list(_seats(seen, refusals, services))
    ending = [c for c in observation.containers if _chosen(c, services) and _to_end(seen, c)]
    to_go = [c for c in ending if seen.fate(c) is Fate.REMOVE]
    return Progress(
        seats=(
            *(seat.row for seat in seats if seat.row is not None),
            *(_ending_row(seen, c) for c in ending),
        ),
        started=_verdict([(seat.started, seat.exit_code, seat.hint) for seat in seats]),
        ready=_verdict([(seat.ready, seat.exit_code, seat.hint) for seat in seats]),
        stopped=_end_verdict([c for c in ending if c.state is State.RUNNING], refusals),
        gone=_gone(desired, observation, to_go, refusals),
    )


def _chosen(container: Container, services: Collection[str] | None) -> bool:
    return services is None or container.service in services


def _to_end(seen: Survey, container: Container) -> bool:
    return seen.fate(container) in (Fate.STOP, Fate.REMOVE)


def _seats(seen: Survey, refusals: dict[str, Wait], services: Collection[str] | None) -> Iterator[_Seat]:
    if seen.desired.down:
        return
    stuck: set[str] = set()
    """Services whose update can't go on, whatever the reason is."""
    for name in seen.layout.order:
        intent = seen.intent(name)
        if intent is None or intent.wanted not in (Wanted.RUNNING, Wanted.CREATED):
            continue
        seats = list(_seats_of(seen, refusals, name, intent))
        failed = any(seat.row is not None and seat.row.phase is Phase.FAILED for seat in seats)
        refused = name in seen.rolling and f"service:{name}" in refusals
        if failed or refused or any(dependency.service in stuck for dependency in seen.layout.needs[name]):
            stuck.add(name)
        if seen.desired.stack.services[name].step is not None:
            continue  # its service tells of it
        if services is None or name in services:
            yield from _with_update(seen, refusals, name, intent, seats, name in stuck)


def _seats_of(seen: Survey, refusals: dict[str, Wait], name: str, intent: Intent) -> Iterator[_Seat]:
    stack = seen.desired.stack
    for container in seen.seats.get(name, ()):
        refusal = refusals.get(f"container:{container.name}") or _no_image(seen, name, refusals)
        yield _of_container(seen, intent, container, refusal)
    for slot in seen.vacant.get(name, ()):
        title = name_of(stack.name, stack.services[name], slot)
        yield _vacant(title, name, intent, refusals.get(f"container:{title}"))


def _with_update(
    seen: Survey, refusals: dict[str, Wait], name: str, intent: Intent, seats: list[_Seat], stuck: bool
) -> Iterator[_Seat]:
    """The seats, and how the update of the service stands if there is one. Once it is paused, that is the
    one thing to be said."""
    rollout = seen.desired.rollouts.get(name)
    if name in seen.rolling:
        refusal = refusals.get(f"service:{name}")
        if refusal is not None:
            yield _Seat(row=None, started=refusal.because, ready=refusal.because, exit_code=refusal.exit_code)
        elif not stuck:
            yield _Seat(row=None, started=None, ready=None)
        yield from seats
        return
    because = said(name, rollout) if rollout is not None and rollout.turn == intent.turn else ""
    if because:
        yield _Seat(
            row=None, started=because, ready=because, hint=f"`pystack logs {name}` shows what it wrote"
        )
    paused = because and rollout is not None and rollout.outcome == "paused"
    yield from (replace(seat, started="", ready="") for seat in seats) if paused else seats


def _no_image(seen: Survey, service: str, refusals: dict[str, Wait]) -> Wait | None:
    """Why the image that a service needs can't be had, if that is so."""
    if service not in seen.pulls:
        return None
    root = seen.desired.stack.services[service].root
    assert isinstance(root, ImageRoot)
    return refusals.get(f"image:{root.reference}")


def _vacant(title: str, service: str, intent: Intent, refusal: Wait | None) -> _Seat:
    phase = Phase.FAILED if refusal else Phase.PENDING
    row = SeatProgress(
        name=title,
        service=service,
        phase=phase,
        wanted=intent.wanted,
        because=refusal.because if refusal else "",
        exit_code=refusal.exit_code if refusal else None,
    )
    if refusal is None:
        return _Seat(row=row, started=None, ready=None)
    problem = about(title, refusal.because)
    return _Seat(row=row, started=problem, ready=problem, exit_code=refusal.exit_code, hint=refusal.hint)


def _of_container(seen: Survey, intent: Intent, container: Container, refusal: Wait | None) -> _Seat:
    phase, because, started, ready = _stand(seen, intent, container, refusal)
    code = refusal.exit_code if refusal else None
    if phase is Phase.EXITED and container.run is not None:
        code = container.run.exit_code
    row = SeatProgress(
        name=container.name,
        service=container.service,
        phase=phase,
        wanted=intent.wanted,
        because=because,
        exit_code=code,
    )
    return _Seat(
        row=row,
        started=started,
        ready=ready,
        exit_code=refusal.exit_code if refusal else 1,
        hint=refusal.hint if refusal else where_to_look(container) if ready else "",
    )


_Stand = tuple[Phase, str, str | None, str | None]
"""Phase, reason, how far with starting, how far with getting ready."""


def _stand(seen: Survey, intent: Intent, container: Container, refusal: Wait | None) -> _Stand:
    if refusal is not None:
        problem = about(container.name, refusal.because)
        return Phase.FAILED, refusal.because, problem, problem
    judgement = seen.fates[container.id]
    if container.service in seen.pulls:
        return Phase.PENDING, judgement.because or "its image is being pulled", None, None
    if judgement.fate is not Fate.KEEP:
        running = container.state is State.RUNNING
        return Phase.STOPPING if running else Phase.PENDING, judgement.because, None, None
    if intent.wanted is Wanted.CREATED:
        return Phase.CREATED, "", "", ""
    run = container.run
    if run is None:
        return Phase.CREATED, "", None, None
    if run.stopping is not None and run.finished is None:
        return Phase.STOPPING, "is stopping", None, None
    if not has_turn(run, intent):
        # A program that runs since an earlier turn is what `up` wants; one that has ended will be started.
        return _running(container, run) if run.finished is None else (Phase.PENDING, "", None, None)
    if run.finished is None:
        return _running(container, run)
    return _ended(seen, container, sequel(run, container.definition.restart, intent, seen.now))


def _running(container: Container, run: Run) -> _Stand:
    if container.definition.log_ready and not run.log_ready:
        if run.log_ready is None:
            return Phase.STARTING, "has not logged that it is ready", "", None
        return Phase.UNHEALTHY, run.log_trouble, "", about(container.name, run.log_trouble)
    if container.healthcheck is None:
        return Phase.STARTED, "", "", ""
    status = run.health.status if run.health else HealthStatus.STARTING
    match status:
        case HealthStatus.HEALTHY:
            return Phase.HEALTHY, "", "", ""
        case HealthStatus.UNHEALTHY if remedy(run, container.definition.restart):
            return Phase.UNHEALTHY, "is unhealthy", "", None
        case HealthStatus.UNHEALTHY:
            return Phase.UNHEALTHY, "is unhealthy", "", f"container {container.name} is unhealthy"
    return Phase.STARTING, "health check has not answered yet", "", None


def _ended(seen: Survey, container: Container, then: Sequel) -> _Stand:
    if then.kind == "broken":
        problem = about(container.name, then.because)
        return Phase.FAILED, then.because, problem, problem
    if then.kind == "start":
        return Phase.PENDING, then.because, None, None
    if then.kind == "later":
        return Phase.STARTING, then.because, "", None
    run = container.run
    code = run.exit_code if run is not None else None
    if code == 0 and _awaited(seen, container):
        return Phase.EXITED, then.because, "", ""
    return Phase.EXITED, then.because, "", exited(container, then.because)


def _awaited(seen: Survey, container: Container) -> bool:
    """Whether somebody depends on its completion, or on a line that it has printed."""
    enough = {"service_completed_successfully"}
    if container.run is not None and container.run.log_ready:
        enough.add("service_log_ready")
    return any(
        dependency.service == container.service and dependency.condition in enough
        for dependent in seen.layout.dependents.get(container.service, ())
        for dependency in seen.layout.needs[dependent]
    )


def _ending_row(seen: Survey, container: Container) -> SeatProgress:
    running = container.state is State.RUNNING
    stopping = running and container.run is not None and container.run.stopping is not None
    fate = seen.fate(container)
    return SeatProgress(
        name=container.name,
        service=container.service,
        phase=Phase.STOPPING if stopping else Phase.STARTED if running else Phase.STOPPED,
        wanted=Wanted.ABSENT if fate is Fate.REMOVE else Wanted.STOPPED,
        because=seen.fates[container.id].because,
        exit_code=container.run.exit_code if container.run is not None else None,
    )


_Told = tuple[str | None, int, str]
"""How far something has come (see _Seat), and the exit code and hint that go with a failure."""


def _verdict(stands: list[_Told]) -> Verdict:
    failed = [(sentence, code, hint) for sentence, code, hint in stands if sentence]
    # Who waits in vain for what is told of anyway has nothing to add.
    causes = {DEPENDENCY + sentence for sentence, _, _ in failed}
    failed = [one for one in failed if one[0] not in causes]
    return Verdict(
        done=all(sentence is not None for sentence, _, _ in stands),
        failures=tuple(dict.fromkeys(sentence for sentence, _, _ in failed)),
        exit_code=failed[0][1] if failed else 0,
        hint=failed[0][2] if failed else "",
    )


def _failure(wait: Wait) -> _Told:
    kind, _, name = wait.target.partition(":")
    return (about(name, wait.because) if kind == "container" else wait.because), wait.exit_code, wait.hint


def _end_verdict(left: list[Container], refusals: dict[str, Wait]) -> Verdict:
    targets = [f"container:{container.name}" for container in left]
    return _verdict([_failure(refusals[t]) if t in refusals else (None, 1, "") for t in targets])


def _gone(
    desired: Desired, observation: Observation, left: list[Container], refusals: dict[str, Wait]
) -> Verdict:
    if not desired.down:
        return _end_verdict(left, refusals)
    if finished(desired, observation):
        return Verdict(done=True)
    if refusals:
        return _verdict([_failure(wait) for wait in refusals.values()])
    return Verdict(done=False)
