"""Which health checks are due, and which go with them."""

from __future__ import annotations

import pytest

from orchestrator.model.desired import Desired
from orchestrator.model.frozen import replace
from orchestrator.model.observation import Health, HealthStatus, Observation, ProbeResult
from orchestrator.model.stack import RestartPolicy
from orchestrator.planner.plan import plan
from tests.kit.stacks import check, converge, nothing, service, stack, up

WISH = up(stack(web=service(healthcheck=check(interval=30.0), replicas=2)))


def probed(wish: Desired, *ends: float) -> Observation:
    """The containers' last checks ended at these times, and they were well."""
    world = converge(wish, nothing())
    changed = []
    for container, end in zip(world.containers, ends, strict=True):
        assert container.run is not None
        result = ProbeResult(started=end - 0.1, ended=end, exit_code=0)
        health = Health(status=HealthStatus.HEALTHY, results=(result,))
        changed.append(replace(container, run=replace(container.run, health=health)))
    return replace(world, containers=tuple(changed))


def names(wish: Desired, world: Observation, now: float) -> list[str]:
    return [action.target for action in plan(wish, world, now).actions]


def test_a_check_that_is_nearly_due_goes_with_one_that_is() -> None:
    """Five hundred checks of thirty seconds are then fifteen passes in that time, not a thousand."""
    world = probed(WISH, 1000.0, 1001.9)
    assert names(WISH, world, 1030.0) == ["probe:shop-web-1", "probe:shop-web-2"]


def test_no_check_comes_more_than_a_fifteenth_of_its_time_early() -> None:
    world = probed(WISH, 1000.0, 1002.1)
    decided = plan(WISH, world, 1030.0)
    assert [action.target for action in decided.actions] == ["probe:shop-web-1"]
    assert decided.wake_at == 1032.1


def test_nobody_is_early_alone() -> None:
    world = probed(WISH, 1000.0, 1001.0)
    decided = plan(WISH, world, 1029.9)
    assert decided.actions == ()
    assert decided.wake_at == 1030.0


@pytest.mark.parametrize(("age", "said"), [(20.0, "is unhealthy, and replaced in 40.0 s"), (60.0, "")])
def test_who_is_to_be_replaced_for_its_health_says_when(age: float, said: str) -> None:
    policy = RestartPolicy(condition="always", unhealthy="recreate")
    wish = up(stack(web=replace(service(healthcheck=check(interval=1e6)), restart=policy)))
    world = probed(wish, 1000.0)
    (web,) = world.containers
    assert web.run is not None
    sick = replace(
        web, created=1000.0 - age, run=replace(web.run, health=Health(status=HealthStatus.UNHEALTHY))
    )
    for desired, expected in (
        (wish, said),
        (up(stack(web=service(healthcheck=check(interval=1e6)))), ""),
        (replace(wish, intents={}), ""),
    ):
        decided = plan(desired, replace(world, containers=(sick,)), 1000.0)
        waits = [one.because for one in decided.waits if one.target == "container:shop-web-1"]
        assert waits == ([expected] if expected else [])
        if expected:
            assert decided.wake_at == 1040.0
            assert decided.actions == ()


def test_what_is_being_probed_is_not_waited_for() -> None:
    """Its check is over-due for as long as it takes; the others have their own time."""
    world = probed(WISH, 1000.0, 1020.0)
    (first,) = plan(WISH, world, 1030.0).actions
    decided = plan(WISH, world, 1031.0, {first.target: first})
    assert (decided.actions, decided.wake_at) == ((), 1050.0)
    later = plan(WISH, probed(WISH, 1000.0, 1001.9), 1030.0, {first.target: first})
    assert (later.actions, later.wake_at) == ((), 1031.9)
