"""What becomes of a container: the edges of each rule, and by whom it is said to end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model import effects
from orchestrator.model.action import Action, SignalContainer, StartContainer, SwapFiles, verb
from orchestrator.model.desired import Desired
from orchestrator.model.observation import Container, Health, HealthStatus, Observation
from orchestrator.model.plan import Plan
from orchestrator.model.sections import InitContainer
from orchestrator.model.stack import FileMount, OfService, RestartPolicy, Service, Stack
from orchestrator.planner.plan import plan
from orchestrator.planner.progress import progress
from tests.kit.stacks import apply_all, check, converge, down, nothing, service, stack, steps, up, wanting

NOW = 1000.0


def said(decided: Plan) -> list[str]:
    return [f"{verb(one)} {one.target.partition(':')[2]}: {one.because}" for one in decided.actions]


def changed(world: Observation, name: str, **fields: object) -> Observation:
    """The world with another run (or `created`) of one container."""

    def turned(one: Container) -> Container:
        if one.name != name or one.run is None:
            return one
        kept = {key: value for key, value in fields.items() if key == "created"}
        run = {key: value for key, value in fields.items() if key != "created"}
        return replace(one, run=replace(one.run, **run), **kept)  # type: ignore[arg-type]

    return replace(world, containers=tuple(turned(one) for one in world.containers))


def unhealthy(**fields: object) -> dict[str, object]:
    return {"health": Health(status=HealthStatus.UNHEALTHY), **fields}


# --- who has said so -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("desired", "because", "by"),
    [
        (wanting(up(stack(web=service())), "web", wanted="stopped"), "asked to stop", "user"),
        (wanting(up(stack(web=service())), "web", wanted="absent"), "it is not wanted any more", "user"),
        (down(stack(web=service())), "the stack goes down", "user"),
        (
            replace(up(stack(db=service())), remove_orphans=True),
            "orphan: the stack file has no such service",
            "user",
        ),
        (up(stack(web=service(replicas=0))), "scaled to 0", "planner"),
        (up(stack(web=service(user="1"))), "definition changed: user", "planner"),
        (wanting(up(stack(web=service())), "web", restart_turn=2), "asked to restart", "planner"),
    ],
)
def test_who_has_said_that_it_ends(desired: Desired, because: str, by: str) -> None:
    """What the user has stopped stays so, by whatever policy."""
    world = converge(up(stack(web=service())), nothing())
    (stop,) = [one for one in plan(desired, world, NOW).actions if isinstance(one, SignalContainer)]
    assert (stop.because, stop.by, stop.stopping) == (because, by, True)


def test_a_service_that_nobody_asked_for_is_left_with_its_old_files() -> None:
    def wish(content: str) -> Stack:
        file = FileMount(
            kind="config", name="a", target="/a", content=content, digest=content, on_change="SIGHUP"
        )
        return stack(web=replace(service(), mounts=(file,)), db=service())

    world = converge(up(wish("1")), nothing())
    for desired, swaps in ((up(wish("2")), 1), (up(wish("2"), "db"), 0)):
        found = [one for one in plan(desired, world, NOW).actions if isinstance(one, SwapFiles)]
        assert len(found) == swaps


def test_a_restart_that_is_done_is_done() -> None:
    desired = wanting(up(stack(web=service())), "web", restart_turn=2)
    world = converge(up(stack(web=service())), nothing())
    assert said(plan(desired, world, NOW)) == ["stop shop-web-1: asked to restart"]
    assert said(plan(desired, changed(world, "shop-web-1", turn=2), NOW)) == []


# --- who shares a namespace ------------------------------------------------------------------------------


def shared(replicas: int = 1) -> Desired:
    return up(stack(db=service(replicas=replicas), web=service(network_mode=OfService(service="db"))))


def test_who_shares_a_namespace_lives_on_until_another_one_is_made() -> None:
    world = converge(shared(), nothing())
    alone = replace(world, containers=tuple(one for one in world.containers if one.service == "web"))
    assert said(plan(shared(), alone, NOW)) == ["create shop-db-1: missing"]


def test_only_the_first_container_of_a_service_shares_its_namespace() -> None:
    world = converge(shared(2), nothing())
    for name, because in (
        ("shop-db-2", "db is replaced"),  # restarted, as whatever depends on it
        ("shop-db-1", "db, whose network it shares, is replaced"),
    ):
        astray = replace(
            world,
            containers=tuple(
                replace(one, addresses={}) if one.name == name else one for one in world.containers
            ),
        )
        decided = plan(shared(2), astray, NOW)
        assert said(decided) == [f"stop shop-web-1: {because}"]
    rows = {row.name: row for row in progress(shared(2), replace(astray, at=NOW), decided).seats}
    row = rows["shop-web-1"]
    assert (row.wanted, row.because) == ("running", "db, whose network it shares, is replaced")


# --- health ----------------------------------------------------------------------------------------------


def ailing(remedy: str) -> Stack:
    policy = RestartPolicy(condition="always", unhealthy=remedy)  # type: ignore[arg-type]
    return stack(web=replace(service(healthcheck=check(interval=1e6)), restart=policy))


def test_who_is_restarted_for_its_health_stays_the_same_container() -> None:
    wish = up(ailing("restart"))
    world = changed(converge(wish, nothing()), "shop-web-1", **unhealthy())
    (stop,) = plan(wish, world, NOW).actions
    assert stop.because == "is unhealthy (x-on-unhealthy: restart)"
    ended = apply_all(world, [stop], NOW)
    for seconds in (0.1, 1.0):
        actions: tuple[Action, ...] = plan(wish, ended, NOW + seconds).actions
        assert [type(one) for one in actions] == [StartContainer]


def test_who_is_recreated_for_its_health_is_old_enough() -> None:
    """Nothing was asked lately: a minute after it was made, and not before."""
    wish = up(ailing("recreate"))
    world = changed(converge(wish, nothing()), "shop-web-1", created=NOW - 60, **unhealthy())
    assert said(plan(wish, world, NOW - 0.1)) == []
    decided = plan(wish, world, NOW)
    assert said(decided) == ["stop shop-web-1: is unhealthy (x-on-unhealthy: recreate)"]
    (row,) = progress(wish, replace(world, at=NOW), decided).seats
    assert row.wanted == "running"
    gone = converge(wish, world, NOW)
    assert gone.containers[0].id != world.containers[0].id


# --- who follows a dependency ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "restarted"),
    [
        ({"restarts": 1, "started": 500.1}, True),
        ({"restarts": 1, "started": 500.0}, False),  # it is no younger
        ({"restarts": 0, "started": 500.1}, False),  # it was not restarted by its policy
        ({"restarts": 1, "started": 500.1, "finished": 600.0, "exit_code": 0}, False),
    ],
)
def test_who_follows_a_dependency_that_came_back(own: dict[str, object], restarted: bool) -> None:
    wish = up(stack(db=service(restart="on-failure"), web=service(after={"db": "started!"})))
    world = changed(converge(wish, nothing()), "shop-web-1", started=500.0)
    found = said(plan(wish, changed(world, "shop-db-1", **own), NOW))
    because = "db was restarted after it had ended, and is back"
    assert found == ([f"stop shop-web-1: {because}"] if restarted else [])


def test_nobody_follows_a_dependency_that_is_being_stopped() -> None:
    wish = up(stack(db=service(restart="on-failure"), web=service(after={"db": "started!"})))
    world = changed(converge(wish, nothing()), "shop-web-1", started=500.0)
    world = changed(world, "shop-db-1", restarts=1, started=600.0)
    found = said(plan(wanting(wish, "db", wanted="stopped"), world, NOW))
    assert found == ["stop shop-db-1: asked to stop"]


# --- steps of pre_start ----------------------------------------------------------------------------------


def prepared(user: str, **fields: object) -> Service:
    step = InitContainer(command=("prepare",), per_replica=True)
    return service(user=user, replicas=2, pre_start=(step,), deploy=steps(), restart="always", **fields)  # type: ignore[arg-type]


def test_a_step_of_each_container_is_replaced_with_that_one() -> None:
    """The second has not had its turn yet: neither has its step."""
    before = up(stack(web=prepared("1")))
    world, now = nothing(), NOW - 100
    for _ in range(30):
        world = apply_all(world, plan(before, world, now).actions, now)
        for one in world.containers:
            if one.service != "web" and one.run is not None:
                world = effects.expect_exit(world, one.id, now, 0)
        now += 1
    assert len(world.containers) == 4
    after = wanting(up(stack(web=prepared("2"))), "web", turn=2)
    notes = plan(after, world, NOW).rollouts
    decided = plan(replace(after, rollouts=notes), world, NOW)
    ends = [one.target for one in decided.actions]
    assert "container:shop-web-1" in ends
    (first, second) = sorted(one.name for one in world.containers if one.service != "web")
    assert f"container:{first}" in ends
    assert f"container:{second}" not in ends


@pytest.mark.parametrize(
    ("replicas", "each", "because"),
    [
        (1, True, "web has no container 2"),
        (2, False, "one is enough for all of web"),
        (0, False, "web has no container 2"),
    ],
)
def test_why_a_step_goes_that_has_no_seat_any_more(replicas: int, each: bool, because: str) -> None:
    world = converge(wanting(up(stack(web=prepared("1"))), "web", wanted="created"), nothing())
    (second,) = (one.name for one in world.containers if one.service != "web" and one.slot == 2)
    step = InitContainer(command=("prepare",), per_replica=each)
    wish = stack(web=replace(prepared("1"), replicas=replicas, pre_start=(step,)))
    assert f"remove {second}: {because}" in said(plan(up(wish), world, NOW))
