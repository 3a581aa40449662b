"""Laws of updates by steps over generated courses, paces, faults and crashes."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.api import orders
from orchestrator.model import effects
from orchestrator.model.action import Action, CreateContainer, ProbeContainer, SignalContainer, StartContainer
from orchestrator.model.desired import Desired
from orchestrator.model.observation import Container, Observation, ProbeResult, State
from orchestrator.model.plan import Plan
from orchestrator.planner.plan import plan
from orchestrator.planner.rollouts import accept, serves
from tests.kit.stacks import check, converge, nothing, service, stack, steps

LAWS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
COURSES = st.fixed_dictionaries(
    {
        "parallelism": st.integers(0, 3),
        "delay": st.sampled_from([0.0, 3.0]),
        "monitor": st.sampled_from([0.5, 4.0]),
        "order": st.sampled_from(["start-first", "stop-first"]),
        "failure_action": st.sampled_from(["pause", "continue", "rollback"]),
        "max_failure_ratio": st.sampled_from([0.0, 0.3, 1.0]),
    }
)


class Update:
    """An update from user 1 to user 2, at a pace that is drawn; new ones on `bad` slots never get healthy."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.course = data.draw(COURSES)
        self.count = data.draw(st.integers(1, 4))
        self.bad = data.draw(st.sets(st.integers(1, 5)))
        self.checked = data.draw(st.booleans())
        before, after = (orders.up(None, self.wish(one), orders.UpOptions()) for one in "12")
        self.world = converge(before, nothing(), 10.0)
        self.now = 100.0
        self.busy: dict[str, Action] = {}
        self.desired: Desired = orders.acknowledge(before, after, self.world.containers, self.now)
        for one in self.world.containers:
            self.probe(one, self.now, 0)

    def wish(self, user: str):  # type: ignore[no-untyped-def]
        checked = check(interval=1.0, retries=2) if self.checked else None
        deploy = steps(rollback={"monitor": 0.5}, **self.course)
        web = service(user=user, replicas=self.count, healthcheck=checked, deploy=deploy, restart="always")
        return stack(web=web)

    @property
    def steps(self) -> int:
        return min(self.course["parallelism"] or self.count, self.count)

    def probe(self, container: Container, started: float, code: int) -> None:
        if container.run is None:
            return
        result = ProbeResult(started=started, ended=started + 0.01, exit_code=code)
        self.world = effects.expect_probe(self.world, container.id, container.run.started, result)

    def broken(self, container: Container | None) -> bool:
        return container is not None and container.definition.user == "2" and container.slot in self.bad

    def decide(self) -> Plan:
        while True:
            decided = plan(self.desired, self.world, self.now, self.busy)
            if not decided.rollouts:
                return decided
            self.desired = accept(self.desired, decided.rollouts)

    def perform(self, action: Action) -> None:
        found = next(
            (one for one in self.world.containers if one.name == action.target.partition(":")[2]), None
        )
        if isinstance(action, ProbeContainer):
            if found is not None and found.id == action.id:
                self.probe(found, self.now, int(self.broken(found)))
            return
        self.world = effects.expect(self.world, action, self.now)
        if isinstance(action, SignalContainer):
            self.world = effects.expect_exit(self.world, action.id, self.now, 143)
        if isinstance(action, StartContainer) and not self.checked and self.broken(found):
            self.world = effects.expect_exit(self.world, action.id, self.now + 0.1, 1)

    def step(self, *, quick: bool = False) -> None:
        decided = self.decide()
        self.demand(decided)
        for action in decided.actions:
            if quick or self.data.draw(st.booleans()):
                self.busy[action.target] = action
        for action in list(self.busy.values()):
            if quick or self.data.draw(st.booleans()):
                del self.busy[action.target]
                self.perform(action)
        if not quick and self.data.draw(st.integers(0, 6)) == 0:
            self.busy.clear()  # the supervisor is killed: what was under way has not happened
        self.now += 0.5 if quick else self.data.draw(st.sampled_from([0.02, 0.3, 1.0, 5.0]))

    def demand(self, decided: Plan) -> None:
        """The laws, of what is decided now on top of what is under way."""
        doing = [*decided.actions, *self.busy.values()]
        ending = {one.id for one in doing if isinstance(one, SignalContainer)}
        serving = [one for one in self.world.containers if serves(one)]
        left = sum(one.id not in ending for one in serving)
        way = self.desired.rollouts["web"]
        first = self.course["order"] == "start-first" and way.kind == "update"
        p = self.steps if way.kind == "update" else 1
        floor = self.count if first else self.count - p
        if self.course["failure_action"] == "continue" or self.course["max_failure_ratio"]:
            floor -= 0 if first else len(way.failed)
        if ending & {one.id for one in serving}:
            assert left >= floor, (way, decided)
        making = {one.name for one in doing if isinstance(one, CreateContainer)}
        fresh = {one.name for one in self.world.containers if self.new(one) and not self.good(one)}
        if way.kind == "update" and way.outcome == "":
            assert len((making | fresh) - way.failed.keys()) <= p, (way, making, fresh)
        assert len(self.world.containers) + len(making) <= 2 * self.count + p

    def new(self, one: Container) -> bool:
        return one.definition.user == "2"

    def good(self, one: Container) -> bool:
        return one.id in self.desired.rollouts["web"].ready and one.state is State.RUNNING


@LAWS
@given(st.data())
def test_no_step_takes_more_than_it_may_and_the_end_is_one_of_three(data: st.DataObject) -> None:
    update = Update(data)
    for _ in range(data.draw(st.integers(0, 12))):
        update.step()
    for _ in range(160):
        update.step(quick=True)
    way = update.desired.rollouts["web"]
    users = [one.definition.user for one in update.world.containers]
    assert way.outcome in ("done", "paused"), way
    if way.outcome == "done":
        assert set(users) == {"1" if way.kind == "rollback" else "2"}
        assert len(users) == update.count
    if not update.bad:
        assert (way.kind, way.outcome) == ("update", "done")
    if way.kind == "rollback":
        assert (update.course["failure_action"], way.outcome) == ("rollback", "done")


@LAWS
@given(st.data())
def test_a_verdict_follows_from_what_is_seen_and_written_alone(data: st.DataObject) -> None:
    """Whoever comes back after a crash, with the same record and the same world, decides the same."""
    update = Update(data)
    for _ in range(data.draw(st.integers(1, 15))):
        update.step()
        seen: tuple[Desired, Observation, float] = update.desired, update.world, update.now
        assert plan(*seen, {}) == plan(*seen, {})
        again = accept(update.desired, plan(*seen, {}).rollouts)
        assert again.rollouts["web"].failed.keys() >= update.desired.rollouts["web"].failed.keys() or (
            again.rollouts["web"].outcome == "done" or again.rollouts["web"].kind == "rollback"
        )
