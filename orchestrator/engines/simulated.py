"""An engine in memory: does what model.effects expects, with delays, faults and programs that misbehave.

Everything that is random comes from the seed. Time is the caller's; with trio's autojump clock a day passes
in seconds. While it works it watches over the caller: an action on a busy target, a second run in one
container, an address given twice and the like are `UnsafeError`s, and kept in `violations`.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping

import trio

from orchestrator.engines.guarding import UnsafeError, guard
from orchestrator.model import effects
from orchestrator.model.action import (
    Action,
    ProbeContainer,
    PullImage,
    SignalContainer,
    StartContainer,
    verb,
)
from orchestrator.model.errors import EngineError, ExitCode
from orchestrator.model.frozen import dataclass, field, replace
from orchestrator.model.observation import (
    Container,
    ImageState,
    Observation,
    ProbeResult,
    State,
)
from orchestrator.model.world import World

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIGKILL = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """How the process of a service behaves."""

    exits_after: float | None = None
    """Seconds from start to exit; None: it runs until told."""
    exit_codes: tuple[int, ...] = (0,)
    """For the first run, the second, ...; the last one is repeated."""
    ends_within: float | None = 0.05
    """Seconds from the stop signal to exit; None: it ignores the signal."""
    probes: tuple[int, ...] = (0,)
    """Exit codes of the probes of one run; the last one is repeated."""
    probe_takes: float = 0.01
    refuses: tuple[int, str] | None = None
    """(126 or 127, why) when the command can't be executed."""
    starts_in: float = 0.0
    """Seconds that a start takes, beside the engine's own delay."""
    crashes_every: float | None = None
    """Mean seconds between crashes at random moments; None: none."""
    crash_code: int = 139
    healthy_after: float = 0.0
    """Seconds from start in which probes fail."""
    listens_after: float = 0.0
    """Seconds from start until it listens on its ports."""
    connections_last: float = 0.0
    """Seconds for which connections stay open that it has when it leaves the rotation of its ports."""
    hangs_after: float | None = None
    """Seconds from start after which probes fail."""
    log_ready_after: float | None = 0.02
    """Seconds from start to the line that says that it is ready, where its service has such a line (None:
    it never comes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong, in parts of one. Delays are seconds, uniformly between the two."""

    retryable: float = 0.0
    permanent: float = 0.0
    late: float = 0.0
    """The action takes effect and fails all the same, as when its acknowledgement is lost."""
    delay: tuple[float, float] = (0.001, 0.01)
    observe_delay: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """How an image comes here."""

    takes: float = 1.0
    fails: int = 0
    """So many tries fail before one succeeds."""


@dataclass(slots=True)
class _Due:
    at: float
    exit_code: int


@dataclass(slots=True, kw_only=True)
class SimulatedEngine:
    """One stack's machine. Outlives any loop that works on it, as a machine does."""

    now: Callable[[], float]
    seed: int = 0
    programs: Mapping[str, Program] = field(default_factory=dict)
    """By service; others run until told."""
    behaves: Callable[[Container], Program | None] | None = None
    """Asked first: a container of a changed definition may behave otherwise than its service did before."""
    faults: Faults = field(default_factory=Faults)
    pulls: Mapping[str, Pull] = field(default_factory=dict)
    """By reference; others come at once."""
    failing: dict[str, float] = field(default_factory=dict)
    """Verb -> until when every action of that kind fails."""
    images: Mapping[str, ImageState] = field(default_factory=dict)
    begins: Observation = field(default_factory=lambda: Observation(at=0.0))
    """The machine as it is at first."""
    applied: list[tuple[float, Action]] = field(default_factory=list)
    """Actions that took effect, with the time they did."""
    violations: list[str] = field(default_factory=list)
    watch: Callable[[Action], None] | None = None
    """Asked when each action begins; raises UnsafeError for what is wrong."""
    _world: World = field(init=False)
    _random: random.Random = field(init=False)
    _busy: set[str] = field(default_factory=set)
    _exits: dict[str, _Due] = field(default_factory=dict)
    _agenda: list[tuple[float, str]] = field(default_factory=list)
    """When which container may exit, as a heap; what `_exits` does not say (any more) is void."""
    _lines: dict[str, float] = field(default_factory=dict)
    """Container id -> when it prints the line that says that it is ready."""
    _runs: dict[str, int] = field(default_factory=dict)
    _pulled: dict[str, int] = field(default_factory=dict)
    _probes: dict[tuple[str, float], int] = field(default_factory=dict)
    _observed: int = -1
    """The version of the world that was looked at last."""
    _bell: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 (repeatable on purpose)
        self._world = World(replace(self.begins, images={**self.begins.images, **self.images}))

    # --- the port -----------------------------------------------------------------------------------

    async def observe(self) -> Observation:
        self._settle()
        self._observed = self._world.version
        found = replace(self.world, at=self.now(), connections=self._connections(), deaf=self._deaf())
        await trio.sleep(self._random.uniform(*self.faults.observe_delay))
        return found

    async def apply(self, action: Action) -> None:
        target = action.target
        if target in self._busy:
            self.violations.append(f"{target} is busy already")
            raise UnsafeError(self.violations[-1])
        self._busy.add(target)
        try:
            if self.watch is not None:
                self.watch(action)
            delay = self._random.uniform(*self.faults.delay)
            share = min(2 * self._random.random(), 1.0)  # of every other action the answer comes at once
            if isinstance(action, ProbeContainer):
                await self._probe(action)
                return
            if isinstance(action, StartContainer):
                starts_in = self._program(self._world.containers.get(action.id)).starts_in
                if starts_in:
                    await trio.sleep(starts_in)
            if isinstance(action, PullImage):
                await self._pull(action)
            await trio.sleep(delay * share)
            self._fail_while_it_lasts(action)
            self._perhaps_fail(self.faults.retryable, action, retryable=True)
            self._perhaps_fail(self.faults.permanent, action, retryable=False)
            self._take_effect(action)
            if share < 1.0:
                await trio.sleep(delay * (1 - share))
            self._perhaps_fail(self.faults.late, action, retryable=True)
        except UnsafeError as error:
            self.violations.append(str(error))
            raise
        finally:
            self._busy.discard(target)

    async def changed(self) -> None:
        while True:
            self._settle()
            if self._world.version != self._observed:
                await trio.lowlevel.checkpoint()
                return
            bell = self._bell
            exit_at = self._next_exit()
            following = min((*self._lines.values(), *(() if exit_at is None else (exit_at,))), default=None)
            if following is None:
                await bell.wait()
            else:
                with trio.move_on_after(max(following - self.now(), 0.0)):
                    await bell.wait()

    # --- what a test may do to the machine --------------------------------------------------------

    @property
    def world(self) -> Observation:
        """Everything, as it is now."""
        return self._world.observation()

    def container(self, name: str) -> Container:
        self._settle()
        return next(found for found in self._world.containers.values() if found.name == name)

    def kill(self, name: str, exit_code: int = 137, *, oom: bool = False) -> None:
        """The process dies without anybody of ours having asked."""
        container = self.container(name)
        if container.state is not State.RUNNING:
            return
        self._exits.pop(container.id, None)
        effects.end(self._world, container.id, self.now(), exit_code)
        if oom:
            self._change_run(container.id, oom_killed=True)
        self._ring()

    def kill_by_user(self, name: str) -> None:
        """As `pystack kill` does it: past the planner, and recorded as the user's will."""
        container = self.container(name)
        action = SignalContainer(
            id=container.id, name=name, signal=SIGKILL, stopping=True, by="user", because="kill"
        )
        effects.perform(self._world, action, self.now())
        self._signalled(action)
        self._ring()

    def cure(self, programs: Mapping[str, Program]) -> None:
        """From now on programs behave like this, those that run already too."""
        self._settle()
        self.programs = programs
        for container in tuple(self._world.containers.values()):
            if container.run is None or container.state is not State.RUNNING:
                continue
            program = self._program(container)
            if container.run.stopping is None:
                self._exits.pop(container.id, None)
            if program.exits_after is not None:
                self._schedule(container.id, _Due(self.now() + program.exits_after, program.exit_codes[-1]))
        self._ring()

    def power_cut(self, *, boot: bool = False) -> None:
        """Every process dies; records stay. `boot`: the runs are known to be from before the boot."""
        for container_id in tuple(self._world.containers):
            effects.end(self._world, container_id, self.now(), None)
            if boot:
                self._change_run(container_id, before_boot=True, finished=self.now())
        self._exits.clear()
        self._ring()

    def disturb(self, world: Observation) -> None:
        """Replace the world (a network removed by hand, a port taken)."""
        version = self._world.version
        self._world = World(world)
        self._world.version = version + 1
        self._ring()

    # --- inside ---------------------------------------------------------------------------------------

    def _ring(self) -> None:
        """The world has changed, perhaps."""
        if self._world.version != self._observed:
            bell, self._bell = self._bell, trio.Event()
            bell.set()

    def _change_run(self, container_id: str, **fields: Any) -> None:
        container = self._world.containers[container_id]
        if container.run is not None:
            self._world.put(replace(container, run=replace(container.run, **fields)))

    def _settle(self) -> None:
        """Let every line and every exit happen that is due."""
        now = self.now()
        for container_id in [key for key, moment in self._lines.items() if moment <= now]:
            line, ended = self._lines.pop(container_id), self._exits.get(container_id)
            if ended is None or line <= ended.at:
                effects.log_ready(self._world, container_id)
                self._ring()
        while (at := self._next_exit()) is not None and at <= now:
            _, container_id = heapq.heappop(self._agenda)
            due = self._exits.pop(container_id)
            effects.end(self._world, container_id, due.at, due.exit_code)
            self._ring()

    def _next_exit(self) -> float | None:
        while self._agenda:
            at, container_id = self._agenda[0]
            due = self._exits.get(container_id)
            if due is not None and due.at == at:
                return at
            heapq.heappop(self._agenda)
        return None

    def _schedule(self, container_id: str, due: _Due) -> None:
        """The process ends then, unless it is to end earlier anyway."""
        before = self._exits.get(container_id)
        if before is None or due.at < before.at:
            self._exits[container_id] = due
            heapq.heappush(self._agenda, (due.at, container_id))

    def _connections(self) -> Mapping[str, int]:
        """Of those that have left the rotation."""
        return {
            one.id: int(self.now() < run.rotation.since + self._program(one).connections_last)
            for one in self._world.containers.values()
            if (run := one.run) is not None
            and run.finished is None
            and run.rotation is not None
            and not run.rotation.member
        }

    def _deaf(self) -> frozenset[str]:
        return frozenset(
            one.id
            for one in self._world.containers.values()
            if one.ports and one.run is not None and one.run.finished is None and one.healthcheck is None
            if self.now() < one.run.started + self._program(one).listens_after
        )

    def _perhaps_fail(self, chance: float, action: Action, *, retryable: bool) -> None:
        if chance and self._random.random() < chance:
            raise EngineError(f"fault on {action.target}", retryable=retryable)

    def _fail_while_it_lasts(self, action: Action) -> None:
        word = verb(action)
        if self.failing.get(word, 0.0) > self.now():
            raise EngineError(f"can't {word} {action.target}")

    async def _pull(self, action: PullImage) -> None:
        pull = self.pulls.get(action.reference)
        if pull is None or action.reference in self._world.images:
            return
        await trio.sleep(pull.takes)
        tries = self._pulled[action.reference] = self._pulled.get(action.reference, 0) + 1
        if tries <= pull.fails:
            raise EngineError(f"{action.reference}: the registry does not answer")

    def _take_effect(self, action: Action) -> None:
        self._settle()
        guard(self._world, action)
        self.applied.append((self.now(), action))
        if isinstance(action, StartContainer) and self._refuse(action):
            return
        effects.perform(self._world, action, self.now())
        self._ring()
        if isinstance(action, StartContainer):
            self._begin(action)
        elif isinstance(action, SignalContainer):
            self._signalled(action)

    def _refuse(self, action: StartContainer) -> bool:
        container = self._world.containers.get(action.id)
        program = self._program(container)
        if program.refuses is None:
            return False
        code, error = program.refuses
        effects.fail_start(self._world, action, self.now(), code, error)
        self._ring()
        raise EngineError(error, retryable=False, exit_code=ExitCode(code))

    def _begin(self, action: StartContainer) -> None:
        program = self._program(self._world.containers.get(action.id))
        run = self._runs[action.id] = self._runs.get(action.id, 0) + 1
        self._exits.pop(action.id, None)
        self._lines.pop(action.id, None)
        definition = self._world.containers[action.id].definition
        if definition.log_ready and program.log_ready_after is not None:
            self._lines[action.id] = self.now() + program.log_ready_after
        if program.exits_after is not None:
            code = program.exit_codes[min(run, len(program.exit_codes)) - 1]
            self._schedule(action.id, _Due(self.now() + program.exits_after, code))
        if program.crashes_every is not None:
            after = self._random.expovariate(1 / program.crashes_every)
            self._schedule(action.id, _Due(self.now() + after, program.crash_code))

    def _signalled(self, action: SignalContainer) -> None:
        container = self._world.containers.get(action.id)
        if container is None or container.state is not State.RUNNING:
            return
        program = self._program(container)
        wait = 0.001 if action.signal == SIGKILL else program.ends_within
        if wait is None:
            return
        self._schedule(action.id, _Due(self.now() + wait, 128 + action.signal))

    async def _probe(self, action: ProbeContainer) -> None:
        started = self.now()
        program = self._program(self._world.containers.get(action.id))
        limit = action.healthcheck.timeout or 30.0
        await trio.sleep(min(program.probe_takes, limit))
        key = (action.id, action.run_started)
        count = self._probes[key] = self._probes.get(key, 0) + 1
        age = self.now() - action.run_started
        code = program.probes[min(count, len(program.probes)) - 1]
        if age < program.healthy_after or (program.hangs_after is not None and age >= program.hangs_after):
            code = code or 1
        late = program.probe_takes > limit
        result = ProbeResult(
            started=started,
            ended=self.now(),
            exit_code=-1 if late else code,
            output="Health check exceeded timeout" if late else "",
        )
        self._settle()
        effects.judge_probe(self._world, action.id, action.run_started, result)
        self._ring()

    def _program(self, container: Container | None) -> Program:
        if container is None:
            return Program()
        found = self.behaves(container) if self.behaves is not None else None
        # A step of pre_start ends by itself.
        usual = Program(exits_after=1.0) if container.definition.step is not None else Program()
        return found or self.programs.get(container.service, usual)
