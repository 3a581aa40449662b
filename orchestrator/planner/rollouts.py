"""Updates by steps: how far one has come, what is a failure, and what then becomes of it.

Compose Deploy Specification, update_config and rollback_config. What it leaves open is as in docker's swarm
mode, or more careful: docs/semantics.md says it in a table.

What is found out here is first written down (`Plan.rollouts`, `accept`), then acted on (`updates`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from orchestrator.model.desired import Desired, Edition, Intent, Rollout, Wanted
from orchestrator.model.frozen import dataclass, replace
from orchestrator.model.observation import Container, Failure, HealthStatus, State
from orchestrator.model.stack import OfService, Service, VolumeMount
from orchestrator.planner.draft import WORTH_SAYING
from orchestrator.planner.gates import called
from orchestrator.planner.layout import attachments, layout
from orchestrator.planner.restarts import sequel
from orchestrator.planner.survey import Survey, name_of, succeeded

MONITOR = 5.0
"""Seconds for which a new container is watched, unless said; 0 means the same (docker's documentation)."""
ACTIONS = ("pause", "continue", "rollback")


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How an update goes, with the defaults of the specification. `parallelism` 0 is all at once."""

    parallelism: int
    delay: float
    monitor: float
    ratio: float
    action: str
    start_first: bool


def course(service: Service, kind: str) -> Course:
    """What `update_config`, or `rollback_config` for the way back, says."""
    deploy = service.deploy
    said = None if deploy is None else deploy.rollback if kind == "rollback" else deploy.update
    if said is None:
        return Course(parallelism=1, delay=0.0, monitor=MONITOR, ratio=0.0, action="pause", start_first=False)
    return Course(
        parallelism=1 if said.parallelism is None else max(said.parallelism, 0),
        delay=said.delay,
        monitor=said.monitor or MONITOR,
        ratio=said.max_failure_ratio,
        action=said.failure_action if said.failure_action in ACTIONS else "pause",
        start_first=said.order == "start-first",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that is looked at of one service that is being updated. `lost` can't wait for their turn."""

    survey: Survey
    service: Service
    intent: Intent
    record: Rollout | None
    course: Course
    current: tuple[Container, ...]
    stale: tuple[Container, ...]
    lost: tuple[Container, ...]
    coming: frozenset[int]
    """Slots of containers that are being made at this moment."""

    @property
    def now(self) -> float:
        return self.survey.now

    @property
    def image_id(self) -> str:
        image = self.survey.image(self.service)
        return self.survey.desired.pins.get(self.service.name, image.id if image is not None else "")

    @property
    def fingerprint(self) -> str:
        return self.survey.layout.fingerprints[self.service.name]

    def same(self, record: Rollout) -> bool:
        """Whether that is what is to be brought out now."""
        target = (self.fingerprint, self.image_id, self.intent.generation)
        return (record.fingerprint, record.image_id, record.generation) == target

    def ready(self, container: Container) -> bool:
        """It was found good, and serves at this moment."""
        record = self.record
        return record is not None and container.id in record.ready and serves(container)


def serves(container: Container) -> bool:
    """It runs, is not about to end, and is healthy if anybody asks."""
    run = container.run
    if run is None or container.state is not State.RUNNING or run.stopping is not None:
        return False
    if container.healthcheck is None:
        return True
    return run.health is not None and run.health.status is HealthStatus.HEALTHY


# --- how far it has come -------------------------------------------------------------------------------


def follow(scene: Scene) -> Rollout:
    """The record as it should be now. Something is out of date, or an update is under way."""
    record = scene.record
    if record is None or record.outcome == "done":
        return _begin(scene)
    if not scene.same(record):
        if scene.stale or scene.lost:
            return _begin(scene)
        return replace(record, outcome="done", fingerprint=None, before=None, slots=(), ready={}, failed={})
    ready = _found_good(scene, record)
    record = record if ready == record.ready else replace(record, ready=ready)
    if record.outcome == "paused":
        return _perhaps_done(scene, record)
    return _judge_failures(scene, record) or _perhaps_stuck(scene, record) or _perhaps_done(scene, record)


def _begin(scene: Scene) -> Rollout:
    """An update that did not come to its end is no state to go back to: what was before it is."""
    old = scene.record if scene.record is not None and scene.record.outcome != "done" else Rollout()
    back = old.kind == "rollback" and old.fingerprint is None
    return Rollout(
        kind="rollback" if back else "update",
        because=old.because if back else "",
        fingerprint=scene.fingerprint,
        image_id=scene.image_id,
        generation=scene.intent.generation,
        before=old.before or _edition(scene),
        total=len(scene.stale) + len(scene.lost),
        slots=tuple(sorted(one.slot for one in scene.stale)),
        turn=old.turn if back else scene.intent.turn,
        began=scene.now,
        ready={container.id: 0.0 for container in scene.current if serves(container)},
    )


def _edition(scene: Scene) -> Edition:
    """What most of those were made of that are to be replaced."""
    old = (*scene.stale, *scene.lost)
    kinds = Counter((one.fingerprint, one.image_id) for one in old)
    best = max(old, key=lambda one: (kinds[one.fingerprint, one.image_id], serves(one), one.created, one.id))
    return Edition(
        service=best.definition,
        fingerprint=best.fingerprint,
        image_id=best.image_id,
        generation=best.generation,
    )


def _found_good(scene: Scene, record: Rollout) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for container in scene.current:
        if container.id in record.ready:
            found[container.id] = record.ready[container.id]
        elif _good(scene, container):
            found[container.id] = scene.now
    return found


def _good(scene: Scene, container: Container) -> bool:
    """Healthy; or, where nobody can ask, it has run for the time in which it is watched. A job that has
    succeeded is good if there is nothing that serves in its place."""
    run = container.run
    if run is not None and run.finished is not None:
        return _completed(scene, container) and not any(serves(one) for one in scene.stale)
    if run is None or not serves(container):
        return False
    return container.healthcheck is not None or run.started + scene.course.monitor <= scene.now


def _completed(scene: Scene, container: Container) -> bool:
    run = container.run
    if run is None or not succeeded(run):
        return False
    return sequel(run, container.definition.restart, scene.intent, scene.now).kind == "rest"


def moments(scene: Scene, record: Rollout) -> Iterable[float]:
    """When the next thing will be known, or may be done, by time alone."""
    course = scene.course
    for container in scene.current:
        at = record.ready.get(container.id)
        run = container.run
        if at:
            yield at + course.delay
            yield at + course.monitor
        elif at is None and run is not None and container.healthcheck is None and run.finished is None:
            yield run.started + course.monitor
    for at in record.failed.values():
        yield at + course.delay


def _perhaps_done(scene: Scene, record: Rollout) -> Rollout:
    """All are new, each was good and has been watched for its time, or has failed and that is put up with."""
    if scene.stale or scene.lost or scene.coming or len(scene.current) != scene.service.replicas:
        return record
    for container in scene.current:
        at = record.ready.get(container.id)
        if at == 0.0:
            continue  # it was there before
        failed = container.name in record.failed and record.outcome != "paused"
        if not failed and (at is None or not (scene.ready(container) or _completed(scene, container))):
            return record
        if at and container.healthcheck is not None and at + scene.course.monitor > scene.now:
            return record
    because = record.because if record.kind == "rollback" else ""
    return replace(record, outcome="done", because=because, before=None, slots=(), ready={}, failed={})


def _perhaps_stuck(scene: Scene, record: Rollout) -> Rollout | None:
    """Start-first, going on whatever fails: who has failed has an old one that serves in its place, and has
    it for good."""
    if not scene.course.start_first or not scene.stale or scene.coming:
        return None
    bad = [one.name for one in scene.current if not scene.ready(one)]
    if len(scene.current) < scene.service.replicas or not bad or not set(bad) <= record.failed.keys():
        return None
    because = f"container {bad[0]} has failed, and the old one stays in its place"
    return replace(record, outcome="paused", because=because)


# --- what is a failure ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """All that the rules look at: one of the new containers."""

    scene: Scene
    record: Rollout
    container: Container


Rule = Callable[[Suspect], str | None]
"""None: ask the next rule. "": no failure. Anything else: what has failed."""


def _judge_failures(scene: Scene, record: Rollout) -> Rollout | None:
    """The record with those that have failed since; None: nobody."""
    found = dict(_failures(scene, record))
    new = [name for name in found if name not in record.failed]
    if not new:
        return None
    record = replace(record, failed={**record.failed, **dict.fromkeys(new, scene.now)})
    if scene.course.action == "continue" or len(record.failed) / record.total <= scene.course.ratio + 1e-9:
        return record
    because = found[new[0]]
    if record.total > 1:
        because += f" ({len(record.failed)} of {record.total} failed)"
    return _verdict(scene, record, because)


def _verdict(scene: Scene, record: Rollout, because: str) -> Rollout:
    if scene.course.action != "rollback" or record.kind == "rollback":
        return replace(record, outcome="paused", because=because)  # from the way back there is none
    problem = _no_way_back(scene, record.before)
    if problem:
        return replace(record, outcome="paused", because=f"{because}, and {problem}")
    return Rollout(kind="rollback", because=because, before=record.before, turn=record.turn, began=scene.now)


def _failures(scene: Scene, record: Rollout) -> Iterable[tuple[str, str]]:
    """(name, sentence) of each container that has failed."""
    for container in scene.current:
        if record.ready.get(container.id) == 0.0:
            continue  # it was there before
        suspect = Suspect(scene=scene, record=record, container=container)
        # The last rule always speaks.
        because = next(said for rule in FAILURES if (said := rule(suspect)) is not None)
        if because:
            yield container.name, because
    there = {one.name for one in (*scene.stale, *scene.lost)}
    for target, failure in scene.survey.observation.failures.items():
        name = target.removeprefix("container:")
        if name != target and name not in there and _is_ours(scene, name):
            because = _could_not(name, failure)
            if because:
                yield name, because


def _is_ours(scene: Scene, name: str) -> bool:
    """Whether a container of that name, which may not exist, is one of the service."""
    if scene.service.container_name:
        return name == scene.service.container_name
    stem = name_of(scene.survey.desired.stack.name, scene.service, 0).removesuffix("0")
    return name.startswith(stem) and name.removeprefix(stem).isdecimal()


def _could_not(name: str, failure: Failure) -> str:
    """Why a container could not be made or started, if that is for good, or goes on for seconds."""
    if failure.verb not in ("create", "start") or failure.lasting:
        return ""
    if failure.retryable and failure.count < WORTH_SAYING:
        return ""
    return failure.because if name in failure.because else f"container {name}: {failure.because}"


def _unprepared(suspect: Suspect) -> str | None:
    """A step of `pre_start` that it waits for has failed for good."""
    container, survey = suspect.container, suspect.scene.survey
    if container.run is not None:
        return None
    for name in survey.layout.steps.get(container.service, ()):
        service = survey.desired.stack.services[name]
        slot = container.slot if service.step is not None and service.step.each else 1
        for one in survey.by_service.get(name, ()):
            up_to_date = one.slot == slot and one.fingerprint == survey.fingerprint(service)
            if up_to_date and one.run is not None and one.run.finished is not None and not succeeded(one.run):
                intent = survey.intent(name) or suspect.scene.intent
                then = sequel(one.run, service.restart, intent, survey.now)
                if then.kind in ("rest", "broken"):
                    how = f": {one.run.error}" if one.run.error else f" exited ({one.run.exit_code})"
                    return called(service) + how
    return None


def _by_our_hand(suspect: Suspect) -> str | None:
    """Somebody has stopped it, or the machine was restarted. Who does not come back after that never will."""
    scene, container, run = suspect.scene, suspect.container, suspect.container.run
    if run is None or run.stopping is not None:
        return ""
    if not run.before_boot:
        return None
    comes_back = sequel(run, container.definition.restart, scene.intent, scene.now).kind != "rest"
    if comes_back or _completed(scene, container):
        return ""
    return f"container {container.name} has ended with the machine, and is not started again"


def _unhealthy(suspect: Suspect) -> str | None:
    """At any time until the update is done: nobody goes on with what makes things worse."""
    container, run = suspect.container, suspect.container.run
    if run is None or run.finished is not None or container.healthcheck is None or run.health is None:
        return None
    unhealthy = run.health.status is HealthStatus.UNHEALTHY
    return f"container {container.name} is unhealthy" if unhealthy else None


def _not_executable(suspect: Suspect) -> str | None:
    run = suspect.container.run
    return f"container {suspect.container.name}: {run.error}" if run is not None and run.error else None


def _ended(suspect: Suspect) -> str | None:
    """Before it was good, or soon after that; or for good. A job that has succeeded has not failed, unless it
    is the successor of something that serves."""
    scene, record, container, run = suspect.scene, suspect.record, suspect.container, suspect.container.run
    if run is None or run.finished is None or run.finished < record.began:
        return ""
    at = record.ready.get(container.id)
    # Who has no health check was watched before it was found good.
    watched = scene.course.monitor if container.healthcheck is not None else 0.0
    if _completed(scene, container) and (at is not None or not any(serves(one) for one in scene.stale)):
        return ""
    comes_back = sequel(run, container.definition.restart, scene.intent, scene.now).kind != "rest"
    if at is not None and comes_back and run.finished > at + watched:
        return ""
    how = ": its exit code was lost" if run.exit_code is None else f" exited ({run.exit_code})"
    return f"container {container.name}{how} after {run.finished - run.started:.1f} s"


FAILURES: tuple[Rule, ...] = (_unprepared, _by_our_hand, _not_executable, _unhealthy, _ended)


def _no_way_back(scene: Scene, before: Edition | None) -> str:
    if before is None:
        return "there is nothing to go back to"
    if (before.fingerprint, before.image_id) == (scene.fingerprint, scene.image_id):
        return "what was before is the same"
    stack = scene.survey.desired.stack
    for attachment in attachments(before.service):
        if attachment.network not in stack.networks:
            return f"network {attachment.network}, which it was on before, is gone"
    for mount in before.service.mounts:
        if isinstance(mount, VolumeMount) and mount.source is not None and mount.source not in stack.volumes:
            return f"volume {mount.source}, which it had before, is gone"
    old = before.service
    for shared in (old.network_mode, old.pid, old.ipc, old.uts):
        if isinstance(shared, OfService) and shared.service not in stack.services:
            return f"service {shared.service}, beside which it was before, is gone"
    return ""


# --- what is written down ------------------------------------------------------------------------------


def accept(desired: Desired, notes: Mapping[str, Rollout]) -> Desired:
    """What is desired once `notes` (`Plan.rollouts`) are written down.

    With a verdict to go back, the service's definition is the one before; when an update is done, those
    that asked for it by `depends_on.restart` are to be restarted, once.
    """
    for name, rollout in notes.items():
        before = desired.rollouts.get(name)
        if rollout.kind == "rollback" and rollout.fingerprint is None and rollout.before is not None:
            desired = _reverted(desired, name, rollout.before)
        if rollout.outcome == "done" and rollout.fingerprint is not None and before != rollout:
            desired = _with_dependents(desired, name)
        desired = replace(desired, rollouts={**desired.rollouts, name: rollout})
    return desired


def _reverted(desired: Desired, name: str, before: Edition) -> Desired:
    """How many there are, after whom they start and how they are updated is as the file says now."""
    now = desired.stack.services[name]
    service = replace(
        before.service,
        replicas=now.replicas,
        depends_on=now.depends_on,
        deploy=now.deploy,
        pull_policy=now.pull_policy,
        place=now.place,
    )
    intent = desired.intents.get(name, Intent())
    pins = {key: image for key, image in desired.pins.items() if key != name}
    if before.image_id:
        pins[name] = before.image_id
    return replace(
        desired,
        stack=replace(desired.stack, services={**desired.stack.services, name: service}),
        intents={**desired.intents, name: replace(intent, generation=before.generation)},
        pins=pins,
    )


def _with_dependents(desired: Desired, name: str) -> Desired:
    intents, rollouts = dict(desired.intents), dict(desired.rollouts)
    for other in layout(desired.stack).dependents.get(name, ()):
        if other not in desired.stack.services:
            continue  # a step of one
        intent = intents.get(other)
        asked = any(one.restart and one.service == name for one in desired.stack.services[other].depends_on)
        if not asked or intent is None or intent.wanted is not Wanted.RUNNING or intent.ignore_dependencies:
            continue
        turn = max(intent.turn, intent.restart_turn) + 1
        because = f"{name} was updated"
        intents[other] = replace(intent, turn=turn, restart_turn=turn, restart_because=because)
        rollout = rollouts.get(other)
        if rollout is not None and rollout.turn == intent.turn:
            rollouts[other] = replace(rollout, turn=turn)  # whoever waits for it waits on
    return replace(desired, intents=intents, rollouts=rollouts)


def said(service: str, rollout: Rollout) -> str:
    """The sentence that `up`, `ps`, `plan` and `events` have for what became of an update; "" while all is
    well."""
    if rollout.outcome == "paused":
        what = "rollback" if rollout.kind == "rollback" else "update"
        return f"the {what} of {service} is paused: {rollout.because}"
    if rollout.kind == "rollback":
        word = "was" if rollout.outcome == "done" else "is being"
        return f"the update of {service} {word} rolled back: {rollout.because}"
    return ""


def told(service: str, before: Rollout | None, after: Rollout) -> tuple[str, str, str] | None:
    """(verb, sentence, outcome) of what has just been decided, for the history; None: not worth a line."""
    if after.outcome == "paused" and (before is None or before.outcome != "paused"):
        return after.kind, said(service, after), "failed"
    if after.kind == "rollback" and after.fingerprint is None and after.before is not None:
        return "update", said(service, after), "failed"  # the way back only begins
    if after.outcome == "done" and after.fingerprint is not None:
        failed = (
            f"; failed: {', '.join(sorted(before.failed))}" if before is not None and before.failed else ""
        )
        return after.kind, f"all are {'as before' if after.kind == 'rollback' else 'new'}{failed}", "ok"
    if after.outcome == "" and (before is None or before.fingerprint is None or before.began != after.began):
        containers = "1 container is" if after.total == 1 else f"{after.total} containers are"
        return after.kind, f"{containers} to be replaced, step by step", "begun"
    return None
