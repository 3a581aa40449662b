"""Which health checks are due, and which go with them."""

from __future__ import annotations

from orchestrator.model.desired import Desired
from orchestrator.model.frozen import replace
from orchestrator.model.observation import Health, HealthStatus, Observation, ProbeResult
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
