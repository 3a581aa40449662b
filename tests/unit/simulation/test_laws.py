"""Each law, broken and kept, on worlds made for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.engines.guarding import UnsafeError
from orchestrator.engines.simulated import Program
from orchestrator.model import effects
from orchestrator.model.action import CreateContainer, ProbeContainer, StartContainer
from orchestrator.model.desired import Desired
from orchestrator.model.observation import Container, Observation, ProbeResult
from orchestrator.model.plan import Plan, Wait
from orchestrator.model.stack import RestartPolicy
from orchestrator.planner.plan import plan
from orchestrator.simulation import laws
from tests.kit.stacks import apply_all, check, converge, nothing, service, stack, up, wanting


def shop(**web: object) -> Desired:
    return up(stack("shop", db=service(healthcheck=check()), web=service(after={"db": "healthy"}, **web)))  # type: ignore[arg-type]


def start(container: Container, attempt: int = 1) -> StartContainer:
    return StartContainer(id=container.id, name=container.name, turn=1, attempt=attempt)


def called(world: Observation, name: str) -> Container:
    return next(one for one in world.containers if one.name == name)


@pytest.fixture
def made() -> tuple[Desired, Observation]:
    """A stack whose containers are made and whose db runs, not yet healthy."""
    desired, world = shop(), nothing()
    for moment in range(4):
        actions = plan(desired, world, float(moment)).actions
        world = apply_all(
            world, [one for one in actions if not isinstance(one, ProbeContainer)], float(moment)
        )
    return desired, world


def test_no_start_before_the_gates_are_open(made: tuple[Desired, Observation]) -> None:
    desired, world = made
    web, db = called(world, "shop-web-1"), called(world, "shop-db-1")
    with pytest.raises(UnsafeError, match=r"shop-web-1 starts while shop-db-1 is (starting|not checked)"):
        laws.demand_safe(desired, world, start(web), 9.0)
    assert db.run is not None
    well = ProbeResult(started=world.at, ended=world.at, exit_code=0)
    laws.demand_safe(desired, effects.expect_probe(world, db.id, db.run.started, well), start(web), 9.0)


def test_no_second_occupant_of_a_slot(made: tuple[Desired, Observation]) -> None:
    desired, world = made
    empty = replace(world, containers=())
    first = next(one for one in plan(desired, empty, 0.0).actions if isinstance(one, CreateContainer))
    laws.demand_safe(desired, empty, first, 9.0)
    with pytest.raises(UnsafeError, match=f"{first.name} is made for the slot that {first.name} is in"):
        laws.demand_safe(desired, world, replace(first, id="f" * 64), 9.0)


@pytest.mark.parametrize(
    ("policy", "attempt", "lasted", "delay"),
    [
        (RestartPolicy(condition="always"), 1, 0.5, 0.1),
        (RestartPolicy(condition="always"), 4, 0.5, 0.8),
        (RestartPolicy(condition="always"), 30, 0.5, 60.0),
        (RestartPolicy(condition="always"), 4, 11.0, 0.1),
        (RestartPolicy(condition="always", delay=7.0), 4, 0.5, 7.0),
        (RestartPolicy(condition="always", window=0.2), 4, 0.5, 0.1),
    ],
)
def test_no_restart_before_its_delay_is_over(
    made: tuple[Desired, Observation], policy: RestartPolicy, attempt: int, lasted: float, delay: float
) -> None:
    desired, world = made
    db = called(world, "shop-db-1")
    assert db.run is not None
    run = replace(db.run, attempt=attempt, started=100.0, finished=100.0 + lasted, exit_code=1)
    ended = replace(db, run=run, definition=replace(db.definition, restart=policy))
    then, early = replace(world, containers=(ended,)), 100.0 + lasted + delay - 0.05
    with pytest.raises(UnsafeError, match=r"starts again after [0-9.]+ s in place of"):
        laws.demand_safe(desired, then, start(ended, attempt=2), early)
    laws.demand_safe(desired, then, start(ended, attempt=2), early + 0.05)
    ordered = wanting(desired, "db", turn=2)
    laws.demand_safe(ordered, then, start(ended, attempt=1), early)
    with pytest.raises(UnsafeError, match="is started again as if it were the first time"):
        laws.demand_safe(desired, then, start(ended, attempt=1), early)


def test_the_restless_and_those_that_need_them() -> None:
    desired = up(
        stack(
            "shop",
            db=service(restart="always"),
            web=service(after="db"),
            job=service(restart="on-failure"),
            other=service(),
        )
    )
    assert laws.restless(desired, {}) == set()
    assert laws.restless(desired, {"db": Program(crashes_every=10.0)}) == {"db", "web"}
    assert laws.restless(desired, {"job": Program(exits_after=1.0)}) == set()
    assert laws.restless(desired, {"job": Program(exits_after=1.0, exit_codes=(1, 0))}) == {"job"}
    assert laws.restless(desired, {"other": Program(exits_after=1.0, exit_codes=(1,))}) == set()
    assert laws.restless(desired, {"other": Program(probes=(0, 1))}) == {"other"}


def test_what_is_not_as_it_was_asked_for_is_said() -> None:
    desired = shop(replicas=2)
    world = converge(desired, nothing())
    idle = Plan()
    assert laws.unconverged(desired, world, idle, set()) == ()
    fewer = replace(world, containers=world.containers[1:])
    name = world.containers[0].service
    assert any(f"{name} has" in said for said in laws.unconverged(desired, fewer, idle, set()))
    assert laws.unconverged(desired, fewer, idle, {name}) == ()
    waiting = Plan(waits=(Wait(target="container:shop-web-2", because="db is not healthy yet"),))
    assert laws.unconverged(desired, world, waiting, set()) == (
        "container:shop-web-2 waits: db is not healthy yet",
    )
    assert laws.unconverged(desired, world, waiting, {"web"}) == ()
    gone = replace(desired, down=True)
    assert "shop-db-1 is still there" in laws.unconverged(gone, world, idle, set())
