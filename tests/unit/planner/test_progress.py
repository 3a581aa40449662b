"""How far a stack has come."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model import effects
from orchestrator.model.desired import Desired
from orchestrator.model.observation import Health, HealthStatus, Observation, ProbeResult
from orchestrator.planner.plan import plan
from orchestrator.planner.progress import Progress, progress
from tests.kit.stacks import check, converge, down, nothing, service, stack, up, wanting

NOW = 1000.0


def told(desired: Desired, world: Observation, at: float = NOW) -> Progress:
    world = replace(world, at=at)
    return progress(desired, world, plan(desired, world, at))


def phases(found: Progress) -> dict[str, str]:
    return {row.name: row.phase.value for row in found.seats}


def exits(world: Observation, name: str, code: int, at: float = NOW) -> Observation:
    (container,) = (c for c in world.containers if c.name == name)
    return effects.expect_exit(world, container.id, at, code)


def health(world: Observation, status: str, output: str = "", exit_code: int = 0) -> Observation:
    last = ProbeResult(started=NOW, ended=NOW, exit_code=exit_code, output=output)

    def turned(container):  # type: ignore[no-untyped-def]
        if container.run is None or container.run.health is None:
            return container
        found = Health(status=HealthStatus(status), results=(last,) if exit_code else ())
        return replace(container, run=replace(container.run, health=found))

    return replace(world, containers=tuple(turned(c) for c in world.containers))


def test_nothing_is_there_yet() -> None:
    found = told(up(stack(web=service(replicas=2))), nothing())
    assert phases(found) == {"shop-web-1": "pending", "shop-web-2": "pending"}
    assert (found.started.done, found.ready.done) == (False, False)


def test_running_without_a_health_check_is_started_and_ready() -> None:
    desired = up(stack(web=service()))
    found = told(desired, converge(desired, nothing()))
    assert phases(found) == {"shop-web-1": "started"}
    assert (found.started.done, found.ready.done, found.ready.failures) == (True, True, ())


@pytest.mark.parametrize(
    ("status", "phase", "ready", "failures"),
    [
        ("starting", "starting", False, ()),
        ("healthy", "healthy", True, ()),
        ("unhealthy", "unhealthy", True, ("container shop-web-1 is unhealthy",)),
    ],
)
def test_with_a_health_check(status: str, phase: str, ready: bool, failures: tuple[str, ...]) -> None:
    desired = up(stack(web=service(healthcheck=check(interval=1e6))))
    found = told(desired, health(converge(desired, nothing()), status))
    assert phases(found) == {"shop-web-1": phase}
    assert found.started.done
    assert (found.ready.done, found.ready.failures) == (ready, failures)


def test_a_one_shot_is_ready_only_if_somebody_waits_for_its_completion() -> None:
    wish = stack(job=service(), web=service(after={"job": "completed"}), lone=service())
    desired = up(wish)
    world = converge(desired, nothing())
    world = converge(desired, exits(exits(world, "shop-job-1", 0), "shop-lone-1", 0))
    found = told(desired, world)
    assert found.started.done
    assert found.ready.failures == ("container shop-lone-1 exited (0)",)
    codes = {row.name: row.exit_code for row in found.seats}
    assert codes == {"shop-job-1": 0, "shop-lone-1": 0, "shop-web-1": None}


def test_what_failed_is_said_once_with_a_hint_where_to_look() -> None:
    """Who waits for it in vain has nothing to add; the hint shows what the health check said last."""
    desired = up(stack(db=service(healthcheck=check(interval=1e6)), web=service(after={"db": "healthy"})))
    world = converge(wanting(desired, "web", wanted="created"), nothing())
    world = health(world, "unhealthy", output="connection\nrefused", exit_code=7)
    found = told(desired, world)
    assert found.ready.failures == ("container shop-db-1 is unhealthy",)
    assert found.started.failures == ("dependency failed to start: container shop-db-1 is unhealthy",)
    hint = "its last health check (exit 7) said: connection refused; `pystack logs db` shows what it wrote"
    assert (found.ready.hint, found.started.hint) == (hint, hint)


def test_a_missing_image_fails_with_its_code_when_the_rest_has_started() -> None:
    desired = up(stack(web=service(image="web", pull_policy="never"), db=service()))
    early, late = told(desired, nothing()), told(desired, converge(desired, nothing()))
    assert not early.started.done
    assert early.started.exit_code == 6
    assert late.started.done
    assert phases(late) == {"shop-db-1": "started", "shop-web-1": "failed"}
    assert (len(late.started.failures), late.started.exit_code) == (1, 6)


def test_a_restart_that_is_due_later_counts_as_started() -> None:
    desired = up(stack(web=service(restart="always")))
    found = told(desired, exits(converge(desired, nothing()), "shop-web-1", 1))
    assert phases(found) == {"shop-web-1": "starting"}
    assert (found.started.done, found.ready.done) == (True, False)


def test_what_ended_in_an_earlier_turn_is_pending() -> None:
    desired = up(stack(web=service()))
    world = exits(converge(desired, nothing()), "shop-web-1", 0)
    assert told(desired, world).started.done
    assert not told(wanting(desired, "web", turn=2), world).started.done


def test_what_runs_since_an_earlier_turn_is_started() -> None:
    desired = up(stack(web=service()))
    assert told(wanting(desired, "web", turn=2), converge(desired, nothing())).started.done


def test_out_of_date_containers_are_not_what_was_wanted() -> None:
    world = converge(up(stack(web=service())), nothing())
    found = told(up(stack(web=service(user="1"))), world)
    assert phases(found) == {"shop-web-1": "stopping"}
    assert not found.started.done


def test_only_the_services_asked_about_count() -> None:
    desired = up(stack(web=service(image="web"), db=service()))
    world = replace(converge(desired, nothing()), at=NOW)
    found = progress(desired, world, plan(desired, world, NOW), ("db",))
    assert (found.started.done, found.started.failures) == (True, ())


def test_stopped_means_that_nothing_runs() -> None:
    wish = stack(web=service())
    desired = wanting(up(wish), "web", wanted="stopped")
    world = converge(up(wish), nothing())
    assert not told(desired, world).stopped.done
    assert told(desired, converge(desired, world)).stopped.done


def test_gone_means_that_networks_are_gone_too() -> None:
    wish = stack(web=service())
    world = converge(up(wish), nothing())
    assert not told(down(wish), world).gone.done
    bare = replace(world, containers=(), networks={
        name: replace(state, users=(), addresses=()) for name, state in world.networks.items()})  # fmt: skip
    assert not told(down(wish), bare).gone.done
    assert told(down(wish), converge(down(wish), world)).gone.done


def test_created_is_all_that_create_wants() -> None:
    desired = wanting(up(stack(web=service())), "web", wanted="created")
    found = told(desired, converge(desired, nothing()))
    assert phases(found) == {"shop-web-1": "created"}
    assert found.started.done
