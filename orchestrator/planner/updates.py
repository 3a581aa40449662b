"""Updates by steps: which out-of-date containers make room now, and how many new ones are made.

With r replicas, parallelism p, and new containers that are ready (and rested for `delay`):

stop-first   of the old, at least r - p - ready - failed stay; the others are replaced in their seats
start-first  at most p new ones are on their way, on free slots; of the old, r - ready stay

Who comes first follows from what is seen alone, so that a crash in the middle changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count as count_from
from itertools import islice

from orchestrator.model.desired import Intent, Rollout, Wanted
from orchestrator.model.errors import ExitCode
from orchestrator.model.frozen import dataclass, replace
from orchestrator.model.observation import Container
from orchestrator.model.stack import ImageRoot, OfHost, OfService, Service
from orchestrator.planner import images
from orchestrator.planner.changes import cut_off
from orchestrator.planner.draft import Draft
from orchestrator.planner.layout import attachments
from orchestrator.planner.rollouts import Scene, course, follow, moments, said, serves
from orchestrator.planner.survey import Fate, Survey

_NO_IMAGE = "but the image is not here"
_LATER = "but its turn is still to come"


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """What becomes of the containers of a service that is being updated; reasons are by container id."""

    seats: tuple[Container, ...]
    replaced: dict[str, str]
    removed: dict[str, str]
    outdated: dict[str, str]
    """Who stays for now: why it is out of date, and what it waits for."""
    goes_on: bool
    """The turn of those will come; else they are treated as if they were up to date."""
    vacant: tuple[int, ...]


def divide(
    survey: Survey,
    draft: Draft,
    service: Service,
    intent: Intent,
    containers: tuple[Container, ...],
    reasons: Mapping[str, str],
) -> Division | None:
    """None: nothing is being updated step by step."""
    scene = _scene(survey, service, intent, containers, reasons)
    if scene is None:
        return None
    record = follow(scene)
    scene = _by_course(draft, scene, record.kind)
    if record != scene.record:
        draft.note(service.name, record)
    for at in moments(scene, record):
        if at > survey.now:
            draft.wake(at)
    held = _held(survey, service)
    _tell(draft, scene, record, held)
    return _divided(
        scene,
        reasons=reasons if record.kind == "update" else _taken_back(scene, reasons),
        goes_on=record is scene.record and record.outcome == "" and not held,
        outlook="but the update is paused" if record.outcome == "paused" else held or _LATER,
    )


def _tell(draft: Draft, scene: Scene, record: Rollout, held: str) -> None:
    """How far it has come, or why it can't go on: for whoever waits for it."""
    survey, service = scene.survey, scene.service
    sentence, target = said(service.name, record), f"service:{service.name}"
    if record.outcome == "paused":
        draft.refuse(target, sentence)
    elif record.outcome == "" and held is _NO_IMAGE:
        survey.rolling[service.name] = images.absent(service)
        draft.refuse(target, f"service {service.name}: {images.absent(service)}", ExitCode.IMAGE)
    elif record.outcome == "":
        goal = "as before" if record.kind == "rollback" else "new"
        failed = f"{len(record.failed)} {'has' if len(record.failed) == 1 else 'have'} failed"
        made = f"{_made(scene)} of {service.replicas} containers are {goal}"
        far = ", ".join([made, *([failed] if record.failed else ()), *([held] if held else ())])
        survey.rolling[service.name] = f"{sentence}; {far}" if sentence else far
        draft.wait(target, survey.rolling[service.name])


def _scene(
    survey: Survey,
    service: Service,
    intent: Intent,
    containers: tuple[Container, ...],
    reasons: Mapping[str, str],
) -> Scene | None:
    deploy = service.deploy
    if deploy is None or deploy.update is None or service.oneoff or service.replicas == 0:
        return None
    if intent.wanted is not Wanted.RUNNING or intent.keep_stale:
        return None
    record = survey.desired.rollouts.get(service.name)
    if not any(reasons[one.id] for one in containers) and (record is None or record.outcome == "done"):
        return None
    lost = tuple(
        one
        for one in containers
        if reasons[one.id] and service.name not in survey.pulls and cut_off(survey, service, intent, one)
    )
    gone = {one.id for one in lost}
    names = {one.name for one in containers}
    making = (one for one in survey.being_made() if one.service.name == service.name)
    return Scene(
        survey=survey,
        service=service,
        intent=intent,
        record=record,
        course=course(service, record.kind if record is not None else "update"),
        current=tuple(one for one in containers if not reasons[one.id]),
        stale=tuple(one for one in containers if reasons[one.id] and one.id not in gone),
        lost=lost,
        coming=frozenset(one.slot for one in making if one.name not in names),
    )


def _taken_back(scene: Scene, reasons: Mapping[str, str]) -> dict[str, str]:
    """On the way back, what differs in a definition is what the update had brought."""
    brought = (one.id for one in scene.stale if one.fingerprint != scene.fingerprint)
    return {**reasons, **dict.fromkeys(brought, "its update failed and is taken back")}


def _made(scene: Scene) -> int:
    return min(sum(scene.ready(one) for one in scene.current), scene.service.replicas)


def _held(survey: Survey, service: Service) -> str:
    """Why nothing may be replaced at present: there would be nothing to put in its place."""
    if isinstance(service.root, ImageRoot):
        if service.name in survey.pulls:
            return "but first the image has to be here"
        if not images.is_here(survey, service):
            return _NO_IMAGE
    for dependency in survey.layout.needs[service.name]:
        name = dependency.service
        going = any(survey.fate(one) is Fate.REPLACE for one in survey.seats.get(name, ()))
        if name in survey.rolling or going:
            return f"but first {name} is updated"
    return ""


# --- the order of things -------------------------------------------------------------------------------


def _by_course(draft: Draft, scene: Scene, kind: str) -> Scene:
    """Start-first is not possible where two containers can't live at the same time."""
    found = course(scene.service, kind)
    obstacle = _obstacle(scene) if found.start_first else ""
    if obstacle:
        draft.warn(
            f"service {scene.service.name} can't be updated start-first, as {obstacle}: "
            "the old container stops first"
        )
        found = replace(found, start_first=False)
    return replace(scene, course=found)


def _obstacle(scene: Scene) -> str:
    service = scene.service
    if service.container_name:
        return "it has a container_name"
    if any(one.ipv4_address for one in attachments(service)):
        return "it has an ipv4_address"
    if any(one.mac_address for one in attachments(service)):
        return "it has a mac_address"
    if isinstance(service.network_mode, OfHost):
        return "it is on the network of the machine"
    if isinstance(service.network_mode, OfService):
        return f"it is on the network of {service.network_mode.service}"
    for other, shares in scene.survey.layout.shares.items():
        if service.name in shares:
            return f"{other} shares its {shares[service.name]}"
    for port in service.ports:
        low, high = port.published
        if low == high != 0 and port.mode == "host":
            return "it publishes a port with mode: host"
        if low != high and high - low < service.replicas:
            return f"its ports {low}-{high}/{port.protocol} have no room for one more"
    return ""


# --- how many ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Count:
    """All numbers that decide what happens next."""

    wanted: int
    steps: int
    """So many may be on their way."""
    stale: int
    useless: int
    """Stale ones that do not serve."""
    current: int
    coming: int
    lost: int
    ready: int
    finished: int
    """New ones that have ended as jobs do: they will never serve."""
    rested: int
    failed: int
    """Put up with, and long enough ago."""
    idle: int
    """There before the update, and not serving."""

    @property
    def surplus(self) -> int:
        return max(0, self.current + self.stale + self.lost + self.coming - self.wanted)

    @property
    def relieved(self) -> int:
        """Stale ones that are needed no more, as so many new ones are good."""
        return max(0, self.stale - max(0, self.wanted - self.ready - self.finished))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """Of the stale ones, in the order in which they go: `leaving` go for good, the next `replaced` are
    replaced in their seats. `fresh` are made on free numbers."""

    leaving: int
    replaced: int = 0
    fresh: int = 0


def _stop_first(count: _Count) -> _Turn:
    needed = count.wanted - count.steps - count.rested - count.failed
    going = max(0, count.stale - max(0, needed))
    # Who was there before the update and does not serve is no part of it: it holds up only those that do.
    going = max(going, min(count.useless, count.stale - max(0, needed - count.idle)))
    leaving = min(count.surplus, going)
    return _Turn(leaving=leaving, replaced=going - leaving)


def _start_first(count: _Count) -> _Turn:
    on_their_way = count.current - count.rested - count.failed - count.idle + count.coming
    lacking = count.wanted - count.current - count.coming - count.lost
    fresh = max(0, min(lacking, count.steps - on_their_way))
    return _Turn(leaving=count.relieved, fresh=fresh)


def _standing_still(count: _Count, start_first: bool) -> _Turn:
    return _Turn(leaving=count.relieved if start_first else min(count.surplus, count.relieved))


def _divided(scene: Scene, *, reasons: Mapping[str, str], goes_on: bool, outlook: str) -> Division:
    removed: dict[str, str] = {}
    current = _without_surplus(scene, removed)
    stale = _without_more_than_wanted(scene, removed)
    count = _counted(scene, current, stale)
    if not goes_on:
        turn = _standing_still(count, scene.course.start_first)
    else:
        turn = _start_first(count) if scene.course.start_first else _stop_first(count)
    leaving, staying = stale[: turn.leaving], stale[turn.leaving :]
    removed |= {one.id: f"{reasons[one.id]}; the new ones serve" for one in leaving}
    replaced = {one.id: reasons[one.id] for one in (*scene.lost, *staying[: turn.replaced])}
    seats = [*current, *staying, *scene.lost]
    missing = max(0, count.wanted - len(seats) - count.coming)
    free = islice(_free(scene), max(turn.fresh, missing))
    return Division(
        seats=tuple(sorted(seats, key=lambda one: one.slot)),
        replaced=replaced,
        removed=removed,
        outdated={one.id: f"{reasons[one.id]}, {outlook}" for one in staying[turn.replaced :]},
        goes_on=goes_on,
        vacant=tuple(sorted((*scene.coming, *free))),
    )


def _counted(scene: Scene, current: list[Container], stale: list[Container]) -> _Count:
    wanted = scene.service.replicas
    rested, failed = _rested(scene, current)
    return _Count(
        wanted=wanted,
        steps=min(scene.course.parallelism or wanted, wanted),
        stale=len(stale),
        useless=sum(not serves(one) for one in stale),
        current=len(current),
        coming=len(scene.coming),
        lost=len(scene.lost),
        ready=sum(scene.ready(one) for one in current),
        finished=len(_jobs_done(scene, current)),
        rested=rested,
        failed=failed,
        idle=sum(_there_before(scene, one) and not scene.ready(one) for one in current),
    )


def _free(scene: Scene) -> Iterator[int]:
    """Slots for new containers, lowest first. Start-first, one that was taken when the update began is not
    given anew: who gets which does not hang on how long an old one takes to go, and `plan` can tell it."""
    taken = {one.slot for one in (*scene.current, *scene.stale, *scene.lost)} | scene.coming
    if scene.record is not None and scene.course.start_first:
        taken |= {*scene.record.slots}
    return (slot for slot in count_from(1) if slot not in taken)


def _without_more_than_wanted(scene: Scene, removed: dict[str, str]) -> list[Container]:
    """The old ones, in the order in which they make room; scaled down, the highest numbers go."""
    wanted = scene.service.replicas
    ranked = sorted(scene.stale, key=lambda one: (serves(one), -one.slot))
    surplus = ranked[: max(0, len(ranked) - wanted)]
    removed.update((one.id, f"scaled to {wanted}") for one in surplus)
    return sorted((one for one in scene.stale if one.id not in removed), key=_first_to_go)


def _there_before(scene: Scene, container: Container) -> bool:
    return scene.record is not None and scene.record.ready.get(container.id) == 0.0


def _without_surplus(scene: Scene, removed: dict[str, str]) -> list[Container]:
    """Of the new ones those that are wanted, the good ones first; one for each slot."""
    kept: dict[int, Container] = {}
    for one in sorted(scene.current, key=lambda one: (not scene.ready(one), one.slot, -one.created)):
        if one.slot in kept:
            removed[one.id] = f"{kept[one.slot].name} has its place"
        elif len(kept) >= scene.service.replicas:
            removed[one.id] = f"scaled to {scene.service.replicas}"
        else:
            kept[one.slot] = one
    return [kept[slot] for slot in sorted(kept)]


def _rested(scene: Scene, current: list[Container]) -> tuple[int, int]:
    """How many of the new ones hold nothing up any more: ready ones, and failed ones that are put up with.
    The time between two steps has passed since."""
    record = scene.record
    if record is None:
        return 0, 0
    over = scene.now - scene.course.delay
    ready = [one for one in current if scene.ready(one)]
    failed = [one for one in current if one.name in record.failed and not scene.ready(one)]
    # Who was there before it began (0) has nothing to rest from, nor has a job that has ended.
    rested = sum(1 for one in ready if not record.ready[one.id] or record.ready[one.id] <= over)
    done = sum(1 for one in _jobs_done(scene, current) if one not in failed)
    return rested + done, sum(1 for one in failed if record.failed[one.name] <= over)


def _jobs_done(scene: Scene, current: list[Container]) -> list[Container]:
    """New ones that were found good and have ended as jobs do: they will never serve."""
    known = scene.record.ready if scene.record is not None else {}
    found = (one for one in current if one.id in known and not scene.ready(one))
    return [one for one in found if one.run is not None and one.run.exit_code == 0]


def _first_to_go(container: Container) -> tuple[bool, bool, int]:
    """Who is on the way out already, then who is of no use, then low slots."""
    run = container.run
    leaving = run is not None and run.stopping is not None
    return (not leaving, serves(container), container.slot)
