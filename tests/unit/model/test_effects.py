"""What actions are expected to change."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.model import effects
from orchestrator.model.action import (
    CreateNetwork,
    ProbeContainer,
    RemoveContainer,
    SignalContainer,
    StartContainer,
)
from orchestrator.model.fingerprint import of_volume
from orchestrator.model.observation import HealthStatus, Observation, ProbeResult, State
from orchestrator.model.stack import Volume
from orchestrator.model.world import World
from orchestrator.planner.plan import plan
from tests.kit.stacks import check, converge, nothing, service, stack, up

WISH = stack(web=service(ports=("8080:80",), volumes=("data:/data", "/scratch"), healthcheck=check()))


def test_applying_an_action_again_changes_nothing() -> None:
    """A loop that was killed between an act and its acknowledgement may ask again."""
    desired, world, now = up(WISH), nothing(), 1.0
    for _ in range(10):
        actions = plan(desired, world, now).actions
        for action in actions:
            world = effects.expect(world, action, now)
            if not isinstance(action, ProbeContainer):
                assert effects.expect(world, action, now + 1) == world
        now += 1
    assert world.containers[0].state is State.RUNNING


def test_a_network_takes_its_range_and_gives_it_back() -> None:
    create, *_ = plan(up(WISH), nothing(), 1.0).actions
    assert isinstance(create, CreateNetwork)
    world = effects.expect(nothing(), create, 1.0)
    assert world.subnets_taken == (create.subnet,)
    remove = effects.RemoveNetwork(name=create.network.name)
    assert effects.expect(world, remove, 2.0) == nothing()


def test_a_container_takes_address_volumes_and_when_it_starts_its_ports() -> None:
    world = converge(up(WISH), nothing())
    (container,) = world.containers
    network = world.networks["shop_default"]
    assert network.users == (container.id,)
    assert network.addresses == (container.addresses["shop_default"],)
    assert world.volumes["shop_data"].users == (container.id,)
    assert container.anonymous_volumes.keys() == {"/scratch"}
    assert world.ports_taken == container.ports


def test_removal_gives_back_everything_but_the_data() -> None:
    world = stopped(converge(up(WISH), nothing()))
    container = world.containers[0]
    world = effects.expect(world, RemoveContainer(id=container.id, name=container.name), 5.0)
    assert world.containers == ()
    assert world.networks["shop_default"].users == ()
    assert world.networks["shop_default"].addresses == ()
    assert world.ports_taken == ()
    assert len(world.volumes) == 2
    assert all(state.users == () for state in world.volumes.values())


def test_removal_with_anonymous_volumes_leaves_the_named_one() -> None:
    world = stopped(converge(up(WISH), nothing()))
    container = world.containers[0]
    action = RemoveContainer(id=container.id, name=container.name, anonymous_volumes=True)
    assert effects.expect(world, action, 5.0).volumes.keys() == {"shop_data"}


def test_a_running_container_is_not_removed() -> None:
    world = converge(up(WISH), nothing())
    container = world.containers[0]
    assert effects.expect(world, RemoveContainer(id=container.id, name=container.name), 5.0) == world


def test_a_second_signal_moves_the_clock_and_keeps_who_asked_first() -> None:
    world = converge(up(WISH), nothing())
    container = world.containers[0]
    for signal, by, at in ((15, "user", 5.0), (9, "planner", 8.0)):
        action = SignalContainer(id=container.id, name=container.name, signal=signal, stopping=True, by=by)  # type: ignore[arg-type]
        world = effects.expect(world, action, at)
    run = world.containers[0].run
    assert run is not None
    assert run.stopping is not None
    assert (run.stopping.since, run.stopping.by, run.stopping.killed) == (8.0, "user", True)


def test_a_signal_that_is_not_meant_to_end_it_leaves_no_trace() -> None:
    world = converge(up(WISH), nothing())
    container = world.containers[0]
    action = SignalContainer(id=container.id, name=container.name, signal=1, stopping=False)
    assert effects.expect(world, action, 5.0) == world


def test_a_result_for_an_earlier_run_is_dropped() -> None:
    world = converge(up(WISH), nothing())
    result = ProbeResult(started=1.0, ended=1.0, exit_code=0)
    assert effects.expect_probe(world, world.containers[0].id, -1.0, result) == world


def test_a_successful_probe_makes_it_healthy() -> None:
    world = converge(up(WISH), nothing())
    container = world.containers[0]
    assert container.run is not None
    assert container.healthcheck is not None
    action = ProbeContainer(
        id=container.id,
        name=container.name,
        healthcheck=container.healthcheck,
        run_started=container.run.started,
    )
    run = effects.expect(world, action, 200.0).containers[0].run
    assert run is not None
    assert run.health is not None
    assert run.health.status is HealthStatus.HEALTHY


def test_a_failed_start_is_an_ended_run_that_says_why() -> None:
    world = converge(up(WISH), nothing())
    container = world.containers[0]
    action = StartContainer(id=container.id, name=container.name, turn=2)
    run = effects.expect_failed_start(world, action, 7.0, 127, "no such command").containers[0].run
    assert run is not None
    assert (run.turn, run.exit_code, run.error, run.finished) == (2, 127, "no such command", 7.0)


def test_actions_on_what_is_gone_change_nothing() -> None:
    world = nothing()
    for action in (
        StartContainer(id="x", name="x", turn=1),
        SignalContainer(id="x", name="x", signal=15, stopping=True),
        RemoveContainer(id="x", name="x"),
        effects.RemoveNetwork(name="x"),
        effects.RemoveVolume(name="x"),
    ):
        assert effects.expect(world, action, 1.0) == world


def stopped(world: Observation) -> Observation:
    return effects.expect_exit(world, world.containers[0].id, 4.0, 0)


def test_a_program_that_has_ended_has_no_process_and_never_logged_what_it_had_not() -> None:
    world = converge(up(stack(web=service(log_ready="ready"))), nothing())
    (run,) = (one.run for one in stopped(world).containers)
    assert run is not None
    assert (run.pid, run.exit_code, run.finished, run.log_ready) == (0, 0, 4.0, False)
    assert effects.expect_exit(stopped(world), world.containers[0].id, 9.0, 3) == stopped(world)


def test_a_line_counts_while_the_program_runs_where_somebody_looks_for_it() -> None:
    for said, before, after in (("ready", None, True), ("ready", False, False), (None, None, None)):
        seen = converge(up(stack(web=service(log_ready=said))), nothing())
        (web,) = seen.containers
        assert web.run is not None
        world = World(replace(seen, containers=(replace(web, run=replace(web.run, log_ready=before)),)))
        effects.log_ready(world, web.id)
        effects.log_ready(world, "nobody")
        (found,) = (one.run for one in world.observation().containers)
        assert found is not None
        assert found.log_ready is after
    ended = stopped(converge(up(stack(web=service(log_ready="ready"))), nothing()))
    for observed in (ended, replace(ended, containers=(replace(ended.containers[0], run=None),))):
        world = World(observed)
        effects.log_ready(world, ended.containers[0].id)
        assert world.observation() == observed


def test_volumes_are_made_empty_and_say_whose_they_are() -> None:
    world = converge(up(stack(web=service(volumes=("data:/data", "/scratch")))), nothing())
    data = world.volumes["shop_data"]
    assert (data.path, data.stack, data.key) == ("", "shop", "data")
    (scratch,) = (state for name, state in world.volumes.items() if name != "shop_data")
    assert (scratch.path, scratch.stack, scratch.key) == ("", "shop", "")
    assert scratch.fingerprint == of_volume(Volume(key="", name=scratch.name))
