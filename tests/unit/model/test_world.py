"""A world that changes in place."""

from __future__ import annotations

import random

from orchestrator.model import effects
from orchestrator.model.action import Action, CreateContainer
from orchestrator.model.frozen import replace
from orchestrator.model.observation import Observation, ProbeResult
from orchestrator.model.world import World
from orchestrator.planner.plan import plan
from tests.kit.stacks import check, converge, down, nothing, service, stack, up

WISH = stack(
    db=service(volumes=("data:/data", "/scratch"), healthcheck=check(), replicas=2),
    web=service(ports=("8080-8089:80",), replicas=3, volumes=("data:/data",)),
)


def test_what_is_taken_from_it_is_the_same_value_until_something_changes() -> None:
    world = World(converge(up(WISH), nothing()))
    before = world.observation()
    assert world.observation() is before
    effects.end(world, before.containers[0].id, 9.0, 1)
    assert world.observation() is not before
    assert before.containers[0].run.finished is None
    assert world.observation().containers[0].run.exit_code == 1


def test_a_world_that_goes_on_is_what_each_step_from_an_observation_gives() -> None:
    """Whatever is done in whatever order, also what makes no sense: no table goes its own way."""
    for seed in range(20):
        dice = random.Random(seed)
        seen = nothing() if dice.random() < 0.5 else converge(up(WISH), nothing())
        world = World(seen)
        made: list[Action] = []
        for step in range(60):
            now = 2000.0 + step
            desired = up(WISH) if dice.random() < 0.7 else down(WISH, remove_volumes=True)
            made.extend(plan(desired, seen, now).actions)
            seen = _one_step(dice, world, seen, made, now)
            assert world.observation() == seen, f"seed {seed}, step {step}"
            assert set(world.names) == {one.name for one in seen.containers}


def _one_step(
    dice: random.Random, world: World, seen: Observation, made: list[Action], now: float
) -> Observation:
    if seen.containers and dice.random() < 0.3:
        one = dice.choice(seen.containers)
        if dice.random() < 0.5:
            effects.end(world, one.id, now, 3)
            return effects.expect_exit(seen, one.id, now, 3)
        began = one.run.started if one.run is not None else 0.0
        result = ProbeResult(started=now, ended=now, exit_code=dice.choice((0, 1)))
        effects.judge_probe(world, one.id, began, result)
        return effects.expect_probe(seen, one.id, began, result)
    if not made:
        return seen
    action = made.pop(dice.randrange(len(made)))
    if isinstance(action, CreateContainer):
        held = any(one.name == action.name and one.id != action.id for one in seen.containers)
        if held or not action.addresses.keys() <= seen.networks.keys():
            return seen  # no engine does that
    effects.perform(world, action, now)
    return effects.expect(seen, action, now)


def test_what_has_no_table_goes_through_it_unchanged() -> None:
    world = World(replace(nothing(), subnets_taken=("10.0.0.0/8",)))
    world.rest = replace(world.rest, subnets_taken=())
    assert world.observation().subnets_taken == ()
