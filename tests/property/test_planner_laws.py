"""Laws of the planner over generated stacks, worlds and moments."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.model import effects, graph
from orchestrator.model.action import (
    Action,
    CreateContainer,
    RemoveContainer,
    RemoveNetwork,
    SignalContainer,
    StartContainer,
)
from orchestrator.model.desired import Desired, Wanted
from orchestrator.model.observation import HealthStatus, Observation, State
from orchestrator.model.plan import Plan
from orchestrator.model.stack import OfService, Service, Stack
from orchestrator.planner.plan import finished, plan
from orchestrator.planner.progress import progress
from orchestrator.planner.rehearse import rehearse
from tests.kit.stacks import check, converge, down, nothing, service, stack, up

LAWS = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CONDITIONS = ["started", "started!", "healthy", "completed", "started?", "healthy?", "completed?"]


@st.composite
def stacks(draw: st.DrawFn) -> Stack:
    names = [f"s{number}" for number in range(draw(st.integers(1, 6)))]
    services: dict[str, Service] = {}
    for number, name in enumerate(names):
        earlier = names[:number]
        after = (
            draw(st.dictionaries(st.sampled_from(earlier), st.sampled_from(CONDITIONS), max_size=3))
            if earlier
            else {}
        )
        shared = draw(st.sampled_from(["", "", "", *earlier]))
        fields: dict[str, object] = {"network_mode": OfService(service=shared)} if shared else {}
        services[name] = service(
            after=after,
            restart=draw(st.sampled_from(["no", "always", "on-failure:2"])),
            ports=()
            if shared
            else draw(st.sampled_from([(), (":80",), ("9000-9003:80", ":81"), ("8080:80",)])),
            networks=draw(st.sampled_from([("default",), ("back",), ("default", "back"), ()])),
            volumes=draw(st.sampled_from([(), ("data:/d",), ("/scratch",)])),
            healthcheck=draw(st.sampled_from([None, check()])),
            replicas=draw(st.integers(0, 3)),
            user=draw(st.sampled_from([None, "1"])),
            stop_grace_period=draw(st.sampled_from([0.0, 2.0])),
            **fields,  # type: ignore[arg-type]
        )
    return stack(**services)


@st.composite
def wishes(draw: st.DrawFn) -> Desired:
    turn = draw(st.integers(1, 3))
    desired = up(draw(stacks()), turn=turn)
    if draw(st.integers(0, 9)) == 0:
        return down(desired.stack, remove_orphans=True, remove_volumes=draw(st.booleans()))
    intents = {
        name: replace(
            intent,
            wanted=draw(st.sampled_from([Wanted.RUNNING] * 5 + list(Wanted))),
            generation=draw(st.sampled_from([0, 0, 0, turn])),
            restart_turn=draw(st.sampled_from([0, 0, 0, turn])),
        )
        for name, intent in desired.intents.items()
    }
    return replace(desired, intents=intents, remove_orphans=draw(st.booleans()))


class Walk:
    """A random walk through what can happen; `step` returns the plan that was made on the way."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.world = nothing()
        self.now = 100.0
        self.in_flight: dict[str, Action] = {}

    def step(self, desired: Desired) -> Plan:
        decided = plan(desired, self.world, self.now, self.in_flight)
        for action in decided.actions:
            if self.data.draw(st.booleans()):
                self.in_flight[action.target] = action
        for action in list(self.in_flight.values()):
            if self.data.draw(st.booleans()):
                del self.in_flight[action.target]
                self.world = effects.expect(self.world, action, self.now)
        for container in self.world.containers:
            if container.state is State.RUNNING and self.data.draw(st.integers(0, 4)) == 0:
                code = self.data.draw(st.sampled_from([0, 1, None]))
                self.world = effects.expect_exit(self.world, container.id, self.now, code)
        self.now += self.data.draw(st.sampled_from([0.01, 0.5, 5.0, 100.0]))
        return decided


def walk(data: st.DataObject, steps: int = 12) -> list[tuple[Desired, Observation, Plan, dict[str, Action]]]:
    seen = []
    road = Walk(data)
    desired = data.draw(wishes())
    for _ in range(steps):
        if data.draw(st.integers(0, 5)) == 0:
            desired = data.draw(wishes())
        before, busy = road.world, dict(road.in_flight)
        seen.append((desired, before, road.step(desired), busy))
    return seen


@LAWS
@given(st.data())
def test_no_action_on_a_busy_target_and_one_at_most_on_each(data: st.DataObject) -> None:
    for _, _, decided, busy in walk(data):
        targets = Counter(action.target for action in decided.actions)
        assert all(count == 1 for count in targets.values())
        assert not targets.keys() & busy.keys()


@LAWS
@given(st.data())
def test_every_action_and_every_wait_has_a_reason(data: st.DataObject) -> None:
    for _, _, decided, _ in walk(data):
        assert all(action.because for action in decided.actions)
        assert all(wait.because for wait in decided.waits)


@LAWS
@given(st.data())
def test_nothing_starts_twice_and_nothing_is_removed_while_it_runs(data: st.DataObject) -> None:
    for _, world, decided, _ in walk(data):
        running = {c.id for c in world.containers if c.state is State.RUNNING}
        for action in decided.actions:
            if isinstance(action, StartContainer | RemoveContainer):
                assert action.id not in running
            if isinstance(action, SignalContainer):
                assert action.id in running


@LAWS
@given(st.data())
def test_no_first_start_before_its_gates(data: st.DataObject) -> None:
    for desired, world, decided, _ in walk(data):
        for action in decided.actions:
            if isinstance(action, StartContainer) and action.attempt == 1:
                found = next((one for one in world.containers if one.id == action.id), None)
                assert found is not None
                for dependency in graph.needs(desired.stack.services[found.service]):
                    if dependency.required:
                        _is_open(desired, world, dependency.service, dependency.condition)


def _is_open(desired: Desired, world: Observation, name: str, condition: str) -> None:
    there = [c for c in world.containers if c.service == name]
    if desired.stack.services[name].replicas == 0:
        return
    assert there
    if len(there) > desired.stack.services[name].replicas:
        return
    for container in there:
        assert container.run is not None
        if condition == "service_healthy":
            assert container.run.health is not None
            assert container.run.health.status is HealthStatus.HEALTHY
        if condition == "service_completed_successfully":
            assert container.run.exit_code == 0
        if condition == "service_log_ready":
            assert container.run.log_ready


@LAWS
@given(st.data())
def test_addresses_and_host_ports_are_given_once(data: st.DataObject) -> None:
    for _, world, decided, busy in walk(data):
        creates = [a for a in (*decided.actions, *busy.values()) if isinstance(a, CreateContainer)]
        there = {c.id for c in world.containers}
        creates = [a for a in creates if a.id not in there]
        given_now = [pair for a in creates for pair in a.addresses.items()]
        held = [pair for c in world.containers for pair in c.addresses.items()]
        gateways = [(state.name, state.gateway) for state in world.networks.values()]
        assert max(Counter(given_now + held + gateways).values(), default=1) == 1
        ports = {(p.host_port, a.service.name) for a in creates for p in a.ports}
        ports |= {(p.host_port, c.service) for c in world.containers for p in c.ports}
        assert max(Counter(number for number, _ in ports).values(), default=1) == 1, "but within a service"


@LAWS
@given(st.data())
def test_a_network_is_not_removed_under_anybody(data: st.DataObject) -> None:
    for _, world, decided, busy in walk(data):
        coming = {name for a in busy.values() if isinstance(a, CreateContainer) for name in a.addresses}
        for action in decided.actions:
            if isinstance(action, RemoveNetwork):
                assert world.networks[action.name].users == ()
                assert action.name not in coming


@LAWS
@given(st.data())
def test_planning_is_blind_to_the_order_of_mappings(data: st.DataObject) -> None:
    for desired, world, decided, busy in walk(data, steps=6):
        turned = replace(
            desired,
            stack=replace(
                desired.stack,
                services=dict(reversed(desired.stack.services.items())),
                networks=dict(reversed(desired.stack.networks.items())),
                volumes=dict(reversed(desired.stack.volumes.items())),
            ),
            intents=dict(reversed(desired.intents.items())),
        )
        other = replace(
            world,
            networks=dict(reversed(world.networks.items())),
            volumes=dict(reversed(world.volumes.items())),
        )
        again = plan(turned, other, world.at, busy)
        once = plan(desired, world, world.at, busy)
        assert [(a, a.because) for a in again.actions] == [(a, a.because) for a in once.actions]
        assert again.waits == once.waits
        assert decided is not again


@LAWS
@given(st.data())
def test_the_same_question_has_the_same_answer(data: st.DataObject) -> None:
    for desired, world, _, busy in walk(data, steps=6):
        assert plan(desired, world, 500.0, busy) == plan(desired, world, 500.0, busy)


@LAWS
@given(st.data())
def test_a_plan_made_with_what_is_remembered_is_the_one_made_without(data: st.DataObject) -> None:
    """Memory belongs to a stack by identity: an equal one has none."""
    road = Walk(data)
    desired = data.draw(wishes())
    for _ in range(12):
        if data.draw(st.integers(0, 9)) == 0:
            desired = replace(data.draw(wishes()), stack=desired.stack)
        if not road.in_flight and data.draw(st.integers(0, 9)) == 0:
            road.world = replace(road.world, networks={}, volumes={})
        before, now, busy = road.world, road.now, dict(road.in_flight)
        decided = road.step(desired)
        fresh = plan(replace(desired, stack=replace(desired.stack)), before, now, busy)
        assert decided == fresh
        assert [a.because for a in decided.actions] == [a.because for a in fresh.actions]


@LAWS
@given(st.data())
def test_from_anywhere_it_converges_and_then_nothing_is_left_to_do(data: st.DataObject) -> None:
    road = Walk(data)
    for _ in range(data.draw(st.integers(0, 8))):
        road.step(data.draw(wishes()))
    desired = data.draw(wishes())
    now = road.now + 1000.0
    world = converge(desired, road.world, now)
    left = plan(desired, world, now + 0.5)
    assert [a for a in left.actions if not a.target.startswith("probe:")] == []
    if desired.down:
        assert finished(desired, world)


@LAWS
@given(wishes())
def test_a_second_up_changes_nothing(desired: Desired) -> None:
    world = converge(desired, nothing())
    settled = {c.id for c in world.containers}
    intents = {name: replace(intent, turn=4) for name, intent in desired.intents.items()}
    again = converge(replace(desired, intents=intents), world, 2000.0)
    assert {c.id for c in again.containers} == settled


@LAWS
@given(wishes(), wishes())
def test_a_rehearsal_ends_and_says_when_in_order(first: Desired, second: Desired) -> None:
    lines = rehearse(second, converge(first, nothing()), 5000.0)
    assert [line.at for line in lines] == sorted(line.at for line in lines)
    assert len(lines) < 500


@LAWS
@given(st.data())
def test_progress_says_done_only_when_nothing_is_left_to_do(data: st.DataObject) -> None:
    for desired, world, decided, busy in walk(data):
        if desired.down or busy:
            continue
        told = progress(desired, replace(world, at=world.at), decided)
        if told.started.done and not told.started.failures:
            started = [a for a in decided.actions if isinstance(a, StartContainer) and a.attempt == 1]
            assert started == []
            assert not any(isinstance(a, CreateContainer) for a in decided.actions)
