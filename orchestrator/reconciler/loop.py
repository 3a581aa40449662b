"""The loop of one stack: observe, plan, apply; sleep until the bell rings or the plan says to look again.

Three rules keep it right:

* A target is marked busy, synchronously, before the task that acts on it is spawned. Otherwise two passes
  that follow each other closely start the same thing twice.
* An observation that began before an action ended may show the world before or after it. So whatever was
  busy at any moment since the look began is left alone by the plan made from it.
* A bell says nothing but "look". The first one after a quiet time is followed at once; while actions are
  under way looks are at least `calm` apart, and as long as there is enough to do much further, so that a
  hundred starts cost a handful of passes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import trio

from orchestrator.engines.base import Engine
from orchestrator.model.action import Action, CreateContainer, ProbeContainer, PullImage, verb
from orchestrator.model.desired import Desired, Rollout
from orchestrator.model.errors import EngineError, PystackError
from orchestrator.model.frozen import dataclass, replace
from orchestrator.model.observation import Failure, Observation
from orchestrator.model.plan import Plan
from orchestrator.planner.plan import plan
from orchestrator.planner.rollouts import accept, told
from orchestrator.reconciler.history import Event, History, differences

CALM = 0.02
"""Seconds between two looks while actions are under way."""
CONCURRENCY = 16
MOST_CALM = 0.1
SHARE = 10
"""While there is enough to do, at most one part in so many of the time goes into looking and judging."""
LOOK_COST = 1e-5
"""Seconds that a look takes at least, by container and by action: a clock that jumps does not know. Looks
at ten thousand containers are a second apart, while there is enough to do."""
PROBE_CONCURRENCY = 64
"""Probes wait for programs, not for the machine, and must not hold up each other's deadlines."""
RESCAN = 32.0
"""The longest sleep: trio's clock does not count suspended time, boot time does. Longer than the usual
interval of health checks, which bring looks of their own."""
LEAST_SLEEP = 0.001
PATIENCE = 5.0
"""Seconds that actions under way get to finish when the loop is cancelled."""
AFTER_A_BUG = 1.0
MOST_NOTES = 8
"""Times in one look that the planner may have something to be written down before it goes on."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the latest pass saw and decided. `revision` is that of the wish it was made for."""

    number: int
    revision: int
    desired: Desired
    observation: Observation
    plan: Plan


@dataclass(slots=True, kw_only=True, eq=False)
class _Work:
    """An action under way."""

    action: Action
    scope: trio.CancelScope


class Loop:
    """Keeps one stack converged while `run` runs. Everything here is called from the trio thread only."""

    def __init__(
        self,
        engine: Engine,
        desired: Desired,
        *,
        now: Callable[[], float],
        history: History | None = None,
        on_bug: Callable[[BaseException], None] | None = None,
        write: Callable[[Desired, Desired], Awaitable[None]] | None = None,
        calm: float = CALM,
        concurrency: int = CONCURRENCY,
        patience: float = PATIENCE,
    ) -> None:
        """`now` is boot time in seconds; `on_bug` is told of every exception that is no EngineError.

        `write`: keeps what the planner has decided of an update (in place of what was desired, if that is
        what it still is) before it is acted on.
        """
        self.history = history if history is not None else History()
        self._engine = engine
        self._desired = desired
        self._now = now
        self._on_bug = on_bug or (lambda _: None)
        self._write = write
        self._calm = calm
        self._pause = calm
        self._breath = calm
        self._looked = -math.inf
        self._concurrency = concurrency
        self._patience = patience
        self._revision = 1
        self._passes = 0
        self._view: View | None = None
        self._busy: dict[str, _Work] = {}
        self._touched: dict[str, Action] = {}
        self._backlog: deque[Action] = deque()
        self._probes: deque[Action] = deque()
        self._probing = 0
        """So many of those under way are probes."""
        self._failures: dict[str, Failure] = {}
        self._said: set[tuple[str, str]] = set()
        self._known: dict[str, tuple[str, str]] = {}
        """Target -> service and id of the containers last seen."""
        self._urgent = True
        self._pausing = False
        """The bell rings only for what can't wait until the next look is due."""
        self._bell = trio.Event()
        self._seen = trio.Event()
        self._looking = trio.Event()
        self._workers: trio.Nursery | None = None

    # --- what others may ask ----------------------------------------------------------------------

    @property
    def desired(self) -> Desired:
        return self._desired

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def view(self) -> View | None:
        """The latest pass; None before the first."""
        return self._view

    @property
    def in_flight(self) -> Mapping[str, Action]:
        """Target -> action under way."""
        return {target: work.action for target, work in self._busy.items()}

    @property
    def failures(self) -> Mapping[str, Failure]:
        return dict(self._failures)

    def want(self, desired: Desired) -> int:
        """Replace what is desired; returns the revision to wait for. What had failed is tried again."""
        self._desired = desired
        for work in self._busy.values():
            if desired.down and isinstance(work.action, PullImage):
                work.scope.cancel()
        self._revision += 1
        self._failures.clear()
        self._said.clear()
        self._backlog.clear()
        self._probes.clear()
        self.wake(urgent=True)
        return self._revision

    def wake(self, *, urgent: bool = False) -> None:
        """Look again soon (at once, if urgent)."""
        self._urgent = self._urgent or urgent
        if self._urgent or not self._pausing or self._hungry():
            self._bell.set()

    async def until(self, predicate: Callable[[View], T | None], *, revision: int = 0) -> T:
        """The first true answer of `predicate` about a view that is at least of `revision`."""
        while True:
            seen = self._seen
            if self._view is not None and self._view.revision >= revision:
                answer = predicate(self._view)
                if answer:
                    return answer
            await seen.wait()

    # --- the loop -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Converge until cancelled. Then actions under way get `patience` seconds to finish."""
        async with trio.open_nursery() as workers:
            self._workers = workers
            workers.start_soon(self._listen)
            try:
                while True:
                    await self._rest(await self._look())
            finally:
                self._backlog.clear()
                self._probes.clear()
                for work in self._busy.values():
                    work.scope.deadline = trio.current_time() + self._patience
                self._workers = None

    async def _listen(self) -> None:
        """Turn the engine's bell into ours. It rings until somebody looks: it is asked again after that."""
        while True:
            looking = self._looking
            try:
                await self._engine.changed()
            except Exception as error:
                self._bug("engine", "listen", error)
                await trio.sleep(AFTER_A_BUG)
            self.wake()
            await looking.wait()

    async def _look(self) -> float:
        """One pass. Returns when to look again at the latest."""
        self._urgent = False
        self._bell = trio.Event()
        self._looking.set()
        self._looking = trio.Event()
        self._touched = {target: work.action for target, work in self._busy.items()}
        began = self._now()
        try:
            decided = None
            while decided is None:
                observation = await self._engine.observe()
                observation = replace(observation, failures=dict(self._failures))
                decided = await self._decide(observation)
            view = self._judge(observation, *decided)
        except Exception as error:
            self._bug("stack", "observe", error)
            return self._now() + AFTER_A_BUG
        self._dispatch()
        self._space_out(
            self._now() - began, LOOK_COST * (len(observation.containers) + len(view.plan.actions))
        )
        return math.inf if view.plan.wake_at is None else view.plan.wake_at

    def _space_out(self, took: float, least: float) -> None:
        """How long to leave it at that, with enough to do (`pause`) and without (`breath`)."""
        took = max(took, least)
        self._pause = min(max(self._calm, SHARE * took), max(MOST_CALM, SHARE * least))
        self._breath = min(max(self._calm, took), MOST_CALM)

    async def _decide(self, observation: Observation) -> tuple[Desired, int, Plan] | None:
        """What is desired, its revision and the plan; None when a service has another definition now, so that
        other images matter. What the planner wants to be known after a crash is written down first; if that
        fails, it goes on with what does not depend on it."""
        for _ in range(MOST_NOTES):
            desired, revision = self._desired, self._revision
            decided = plan(desired, observation, self._now(), self._touched)
            if not decided.rollouts:
                break
            noted = accept(desired, decided.rollouts)
            try:
                if self._write is not None:
                    await self._write(desired, noted)
            except Exception as error:
                self._bug("stack", "update", error)
                again = self._now() + AFTER_A_BUG
                wake_at = again if decided.wake_at is None else min(again, decided.wake_at)
                return desired, revision, replace(decided, wake_at=wake_at)
            if self._desired is desired:
                self._desired = noted
                self._note_updates(desired.rollouts, decided.rollouts)
            if self._desired.stack is not desired.stack:
                return None
        return desired, revision, decided

    def _judge(self, observation: Observation, desired: Desired, revision: int, decided: Plan) -> View:
        busy = self._touched
        self._passes += 1
        before = self._view
        self._view = View(
            number=self._passes, revision=revision, desired=desired, observation=observation, plan=decided
        )
        self._known = {f"container:{one.name}": (one.service, one.id) for one in observation.containers}
        self._note(before, self._view)
        self._backlog, self._probes = deque(), deque()
        for action in decided.actions:
            if action.target not in busy:
                (self._probes if isinstance(action, ProbeContainer) else self._backlog).append(action)
        seen, self._seen = self._seen, trio.Event()
        seen.set()
        return self._view

    async def _rest(self, wake_at: float) -> None:
        self._looked = trio.current_time()
        sleep = min(max(wake_at - self._now(), LEAST_SLEEP), RESCAN)
        with trio.move_on_after(sleep):
            await self._bell.wait()
        self._pausing = True
        while not self._urgent and trio.current_time() < self._next_look():
            self._bell = trio.Event()
            with trio.move_on_at(self._next_look()):
                await self._bell.wait()
        self._pausing = False

    def _next_look(self) -> float:
        """When to look again although actions are under way: soon, once there is room for others."""
        return self._looked + (self._breath if self._hungry() else self._pause)

    def _hungry(self) -> bool:
        """There is room for more than is known to be done. Not after probes alone: of those there may be some
        at any moment of a stack that has all it wants."""
        if self._backlog or len(self._busy) > self._concurrency // 2:
            return False
        return any(not isinstance(action, ProbeContainer) for action in self._touched.values())

    # --- the actions --------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Begin what there is room for. The rest waits for room, or for the next plan, which replaces it."""
        if self._backlog:
            self._begin(self._backlog, self._concurrency - (len(self._busy) - self._probing))
        if self._probes:
            self._begin(self._probes, PROBE_CONCURRENCY - self._probing)

    def _begin(self, waiting: deque[Action], room: int) -> None:
        while waiting and room > 0 and self._workers is not None:
            action = waiting.popleft()
            if action.target in self._busy:
                continue  # the next plan knows better
            room -= 1
            probe = isinstance(action, ProbeContainer)
            # What may take minutes, and leaves nothing half done, ends with the loop.
            brief = not isinstance(action, ProbeContainer | PullImage)
            work = _Work(action=action, scope=trio.CancelScope(shield=brief))
            self._busy[action.target] = work
            self._probing += probe
            if not probe:
                self._record(action.target, verb(action), action.because, "begun")
            self._touched[action.target] = action
            self._workers.start_soon(self._perform, work, name=action.target)

    async def _perform(self, work: _Work) -> None:
        action, told = work.action, True
        try:
            with work.scope:
                await self._engine.apply(action)
                self._succeeded(action)
                # What a check found rings the engine's bell, if it is news.
                told = not isinstance(action, ProbeContainer)
        except EngineError as error:
            self._failed(action, error)
        except Exception as error:
            self._on_bug(error)
            self._failed(action, EngineError(f"internal error: {type(error).__name__}: {error}"))
        finally:
            del self._busy[action.target]
            self._probing -= isinstance(action, ProbeContainer)
            self._dispatch()
            if told:
                self.wake(urgent=not self._busy)

    def _succeeded(self, action: Action) -> None:
        self._failures.pop(action.target, None)
        if not isinstance(action, ProbeContainer):
            self._record(action.target, verb(action), action.because, "ok")

    def _failed(self, action: Action, error: EngineError) -> None:
        before = self._failures.get(action.target)
        same = before is not None and before.verb == verb(action)
        failure = Failure(
            target=action.target,
            verb=verb(action),
            count=before.count + 1 if before is not None and same else 1,
            at=self._now(),
            because=error.message,
            retryable=error.retryable,
            lasting=error.lasting,
            exit_code=int(error.exit_code),
            hint=error.hint,
        )
        self._failures[action.target] = failure
        self._record(action.target, failure.verb, error.message, "failed")

    # --- the history --------------------------------------------------------------------------------

    def _note(self, before: View | None, after: View) -> None:
        for event in differences(
            before.observation if before else None, after.observation, after.desired.stack.name
        ):
            self.history.record(event)
        for wait in after.plan.waits:
            if wait.failed:
                self._say_once(wait.target, "refuse", wait.because, "refused")
        for warning in after.plan.warnings:
            self._say_once("stack", "warn", warning, "seen")

    def _note_updates(self, before: Mapping[str, Rollout], after: Mapping[str, Rollout]) -> None:
        for name, rollout in after.items():
            news = told(name, before.get(name), rollout)
            if news is not None:
                self._record(f"service:{name}", *news)

    def _say_once(self, target: str, word: str, because: str, outcome: str) -> None:
        if (target, because) not in self._said and len(self._said) < 10_000:
            self._said.add((target, because))
            self._record(target, word, because, outcome)

    def _record(self, target: str, word: str, because: str, outcome: str) -> None:
        service, container_id = self._whose(target)
        self.history.record(
            Event(
                at=self._now(),
                target=target,
                verb=word,
                because=because,
                outcome=outcome,
                stack=self._desired.stack.name,
                service=service,
                id=container_id,
            )
        )

    def _whose(self, target: str) -> tuple[str, str]:
        """(service, id) of the container that a target is; of one that is being made, too."""
        kind, _, name = target.partition(":")
        if kind in ("service", "ports"):
            return name, ""
        work = self._busy.get(target)
        if work is not None and isinstance(work.action, CreateContainer):
            return work.action.service.name, work.action.id
        return self._known.get(target, ("", ""))

    def _bug(self, target: str, word: str, error: Exception) -> None:
        """Anything that keeps us from looking: say it, and try again later; the loop never ends by it."""
        if not isinstance(error, PystackError):
            self._on_bug(error)
        self._record(target, word, str(error) or type(error).__name__, "failed")
