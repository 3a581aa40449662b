"""The machine sleeps for an hour: boot time has gone on (clock_gettime(2)), and programs have not."""

from __future__ import annotations

from orchestrator.model.action import verb
from orchestrator.model.frozen import replace
from orchestrator.model.observation import Health, HealthStatus, Observation, ProbeResult
from orchestrator.planner.plan import plan
from tests.kit.stacks import apply_all, check, converge, nothing, service, stack, up

WISH = up(
    stack(
        web=service(healthcheck=check(interval=30.0, retries=1), restart="always"),
        slow=service(healthcheck=check(interval=1.0, retries=3, start_period=20.0)),
        late=service(after={"slow": "healthy"}),
        crash=service(restart="always"),
    )
)
SLEPT = 3600.0


def before_the_sleep(now: float) -> Observation:
    """One is healthy, one has failed twice and is starting still, one waits for that, one for its back-off."""
    world = converge(WISH, nothing())
    changed = []
    for container in world.containers:
        run = container.run
        if container.service == "web":
            good = ProbeResult(started=now - 1.1, ended=now - 1, exit_code=0)
            run = replace(run, started=now - 100, health=Health(status=HealthStatus.HEALTHY, results=(good,)))
        elif container.service == "slow":
            bad = ProbeResult(started=now - 0.6, ended=now - 0.5, exit_code=1)
            run = replace(run, started=now - 2, health=Health(status=HealthStatus.STARTING, results=(bad,)))
        elif container.service == "crash":
            run = replace(run, started=now - 2, finished=now - 1.9, exit_code=3, attempt=8, restarts=7, pid=0)
        changed.append(replace(container, run=run))
    return replace(world, containers=tuple(changed))


def test_after_an_hour_s_sleep_each_timer_is_due_once_and_nobody_is_stopped_for_it() -> None:
    now = 10_000.0
    world = before_the_sleep(now)
    assert [action.target for action in plan(WISH, world, now).actions] == []
    awake = now + SLEPT
    due = sorted(f"{verb(action)} {action.target}" for action in plan(WISH, world, awake).actions)
    assert due == ["probe probe:shop-slow-1", "probe probe:shop-web-1", "start container:shop-crash-1"]
    after = apply_all(world, plan(WISH, world, awake).actions, awake)
    assert plan(WISH, after, awake + 0.01).actions == ()
    states = {container.service: container.state.value for container in after.containers}
    assert states["web"] == states["slow"] == states["crash"] == "running"
