"""What every engine does. The simulated one is only worth something if the real one does the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from orchestrator.engines.local.engine import LocalEngine
from orchestrator.model import effects
from orchestrator.model.action import (
    Action,
    CreateContainer,
    CreateNetwork,
    ProbeContainer,
    PullImage,
    RemoveContainer,
    RoutePorts,
    SignalContainer,
    StartContainer,
    SwapFiles,
)
from orchestrator.model.desired import Desired
from orchestrator.model.errors import EngineError
from orchestrator.model.observation import Container, HealthStatus, Observation, Run, State
from orchestrator.model.stack import FileMount, OfHost
from orchestrator.planner.plan import plan
from orchestrator.reconciler.loop import Loop
from tests.contract.machines import MACHINES, STACK, Factory, Machine
from tests.kit.archives import Entry, Image, layer
from tests.kit.faults import Faults
from tests.kit.patience import patient
from tests.kit.programs import free_port
from tests.kit.stacks import down, service, stack, up

LONG = patient(10.0)
"""Seconds after which something that should happen soon has not."""


@pytest.fixture(
    params=[pytest.param(factory, id=name, marks=marks) for name, (factory, marks) in MACHINES.items()]
)
async def machine(request: pytest.FixtureRequest, state_root: Path) -> AsyncIterator[Machine]:
    factory: Factory = request.param
    async with factory(state_root) as found:
        yield found
        await converge(found, down(found.wish, remove_volumes=True, stop_timeout=0.0))
        left = shown(await found.engine.observe())
        assert left == shown(Observation(at=0.0))


async def converge(machine: Machine, desired: Desired) -> Observation:
    """Let the real loop bring the machine to what is desired."""
    loop = Loop(machine.engine, desired, now=machine.now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        with trio.fail_after(LONG):
            found = await loop.until(lambda view: view.observation if view.plan.settled else None)
        nursery.cancel_scope.cancel()
    return found


def shown(observation: Observation) -> dict[str, object]:
    """What two observations must agree on: everything but times, process ids and texts."""
    return {
        "containers": sorted(_container(c) for c in observation.containers),
        "networks": sorted(
            (
                n.name,
                n.subnet,
                n.gateway,
                n.fingerprint,
                n.key,
                tuple(sorted(n.users)),
                tuple(sorted(n.addresses)),
            )
            for n in observation.networks.values()
            if n.stack == STACK
        ),
        "volumes": sorted(
            (v.name, v.fingerprint, v.key, tuple(sorted(v.users)))
            for v in observation.volumes.values()
            if v.stack == STACK
        ),
    }


def _container(c: Container) -> tuple[object, ...]:
    kept = (c.id, c.name, c.service, c.slot, c.fingerprint, c.generation, c.image_id, c.stop_signal)
    taken = (sorted(c.addresses.items()), c.ports, repr(c.healthcheck), sorted(c.anonymous_volumes.items()))
    files = [(m.target, m.content, m.digest) for m in c.definition.mounts if isinstance(m, FileMount)]
    return (*kept, *taken, *files, c.state.value, *_run(c.run))


def _run(run: Run | None) -> tuple[object, ...]:
    if run is None:
        return ()
    stopping = (run.stopping.signal, run.stopping.by, run.stopping.killed) if run.stopping else ()
    health = run.health.status.value if run.health else ""
    serving = run.rotation.member if run.rotation else None
    ended = (repr(run.exit_code), bool(run.error))
    return (run.turn, run.attempt, run.restarts, *ended, repr(stopping), health, serving)


@dataclass
class Script:
    """Applies actions one by one and holds the engine to what is expected of each."""

    machine: Machine

    async def act(self, action: Action) -> Observation:
        engine = self.machine.engine
        before = await engine.observe()
        with trio.fail_after(LONG):
            await engine.apply(action)
        after = await engine.observe()
        assert shown(after) == shown(effects.expect(before, action, self.machine.now()))
        return after

    async def act_all(self, desired: Desired, *kinds: type) -> Observation:
        """Everything the planner asks for, or those of `kinds`, until it asks for no more."""
        world = await self.machine.engine.observe()
        for _ in range(50):
            decided = plan(desired, world, self.machine.now())
            actions = [a for a in decided.actions if not kinds or isinstance(a, kinds)]
            if not actions:
                return world
            for action in actions:
                world = await self.act(action)
        raise AssertionError("no end")

    async def exited(self, name: str) -> Run:
        """The run of a container, once it has ended; the bell has to ring for it."""
        with trio.fail_after(LONG):
            while True:
                (found,) = (c for c in (await self.machine.engine.observe()).containers if c.name == name)
                if found.run is not None and found.run.finished is not None:
                    return found.run
                await self.machine.engine.changed()


@pytest.fixture
def script(machine: Machine) -> Script:
    return Script(machine)


def only(machine: Machine, name: str, **fields: object) -> Desired:
    return up(machine.wish, name, **fields)  # type: ignore[arg-type]


async def test_each_step_up_changes_what_is_expected_of_it(machine: Machine, script: Script) -> None:
    world = await script.act_all(only(machine, "forever"), CreateNetwork, CreateContainer, StartContainer,
                                 effects.CreateVolume)  # fmt: skip
    (container,) = world.containers
    assert container.state is State.RUNNING
    assert container.definition == machine.wish.services["forever"]
    assert container.run is not None
    assert abs(container.run.started - machine.now()) < LONG


async def test_each_step_down_changes_what_is_expected_of_it(machine: Machine, script: Script) -> None:
    await script.act_all(only(machine, "forever"))
    world = await machine.engine.observe()
    for action in plan(down(machine.wish), world, machine.now()).actions:
        await machine.engine.apply(action)
    run = await script.exited("contract-forever-1")
    assert run.exit_code in (143, 0)
    world = await script.act_all(down(machine.wish, remove_volumes=True))
    assert shown(world) == shown(Observation(at=0.0))


async def test_every_action_may_be_repeated(machine: Machine, script: Script) -> None:
    """We may be killed after the act and before we know of it."""
    desired = only(machine, "forever")
    for _ in range(5):
        for action in plan(desired, await machine.engine.observe(), machine.now()).actions:
            after = await script.act(action)
            if not isinstance(action, StartContainer):
                await machine.engine.apply(action)
                assert shown(await machine.engine.observe()) == shown(after)
    world = await converge(machine, replace(desired, intents={}, down=True, remove_volumes=True))
    assert world.containers == ()


async def test_removing_what_is_not_there_is_no_error(machine: Machine) -> None:
    for action in (
        RemoveContainer(id="f" * 64, name="contract-nobody-1"),
        effects.RemoveNetwork(name="contract_nothing"),
        effects.RemoveVolume(name="contract_nothing"),
    ):
        await machine.engine.apply(action)


async def test_the_exit_code_is_kept_and_the_bell_rings(machine: Machine, script: Script) -> None:
    await script.act_all(only(machine, "once"), CreateNetwork, CreateContainer)
    world = await machine.engine.observe()
    (start,) = plan(only(machine, "once"), world, machine.now()).actions
    await machine.engine.apply(start)
    run = await script.exited("contract-once-1")
    assert (run.exit_code, run.stopping, run.error) == (3, None, "")
    assert run.finished is not None
    assert run.finished >= run.started


async def test_a_signal_that_stops_is_recorded_before_it_is_sent(machine: Machine, script: Script) -> None:
    world = await script.act_all(only(machine, "forever"))
    container = world.containers[0]
    action = SignalContainer(id=container.id, name=container.name, signal=15, stopping=True, by="user")
    asked = machine.now()
    await machine.engine.apply(action)
    run = await script.exited(container.name)
    assert run.stopping is not None
    assert (run.stopping.by, run.stopping.signal, run.stopping.killed) == ("user", 15, False)
    assert asked <= run.stopping.since <= machine.now()


async def test_who_ignores_the_stop_signal_is_ended_by_kill(machine: Machine, script: Script) -> None:
    world = await script.act_all(only(machine, "stubborn"))
    (container,) = world.containers
    for signal in (15, 9):
        asked = machine.now()
        await machine.engine.apply(
            SignalContainer(id=container.id, name=container.name, signal=signal, stopping=True)
        )
    run = await script.exited(container.name)
    assert run.exit_code == 137
    assert run.stopping is not None
    assert run.stopping.killed
    assert run.stopping.since >= asked


async def test_a_command_that_does_not_exist_is_127_for_good(machine: Machine, script: Script) -> None:
    await script.act_all(only(machine, "missing"), CreateNetwork, CreateContainer)
    (start,) = plan(only(machine, "missing"), await machine.engine.observe(), machine.now()).actions
    with pytest.raises(EngineError) as caught:
        await machine.engine.apply(start)
    assert (caught.value.retryable, caught.value.exit_code) == (False, 127)
    run = await script.exited("contract-missing-1")
    assert run.exit_code == 127
    assert run.error


async def test_a_probe_is_recorded_with_its_run(machine: Machine, script: Script) -> None:
    world = await script.act_all(only(machine, "forever"))
    (container,) = world.containers
    assert container.run is not None
    assert container.healthcheck is not None
    action = ProbeContainer(
        id=container.id,
        name=container.name,
        healthcheck=container.healthcheck,
        run_started=container.run.started,
    )
    after = await script.act(action)
    run = after.containers[0].run
    assert run is not None
    assert run.health is not None
    assert run.health.status is HealthStatus.HEALTHY
    (result,) = run.health.results
    assert result.started <= result.ended <= machine.now()


async def test_files_are_swapped_and_the_run_goes_on(machine: Machine, script: Script) -> None:
    before = await script.act_all(only(machine, "forever"))
    forever = machine.wish.services["forever"]
    mounts = tuple(
        replace(mount, content="new") if isinstance(mount, FileMount) else mount for mount in forever.mounts
    )
    services = {**machine.wish.services, "forever": replace(forever, mounts=mounts)}
    desired = up(replace(machine.wish, services=services), "forever")
    (action,) = plan(desired, before, machine.now()).actions
    assert isinstance(action, SwapFiles)
    for _ in range(2):
        after = await script.act(action)
        assert after.containers[0].definition.mounts == mounts
        assert plan(desired, after, machine.now()).actions == ()
    assert (before.containers[0].run, after.containers[0].run) == (after.containers[0].run,) * 2


async def test_the_line_of_a_run_is_noted_and_the_bell_rings(machine: Machine, script: Script) -> None:
    await script.act_all(only(machine, "talker"), CreateNetwork, CreateContainer)
    (start,) = plan(only(machine, "talker"), await machine.engine.observe(), machine.now()).actions
    await machine.engine.apply(start)
    with trio.fail_after(LONG):
        while True:
            (found,) = (await machine.engine.observe()).containers
            assert found.run is not None
            if found.run.log_ready is not None:
                break
            await machine.engine.changed()
    assert (found.run.log_ready, found.run.log_trouble) == (True, "")


async def test_the_loop_brings_it_up_keeps_it_and_takes_it_down(machine: Machine) -> None:
    world = await converge(machine, up(machine.wish, "forever", "stubborn"))
    assert sorted(c.name for c in world.containers) == ["contract-forever-1", "contract-stubborn-1"]
    assert all(c.state is State.RUNNING for c in world.containers)
    again = await converge(machine, up(machine.wish, "forever", "stubborn", turn=2))
    assert {c.id: c.run.started if c.run else 0 for c in again.containers} == {
        c.id: c.run.started if c.run else 0 for c in world.containers
    }
    gone = await converge(machine, down(machine.wish, stop_timeout=0.0))
    assert gone.containers == ()
    assert [v for v in gone.volumes.values() if v.stack == STACK]


async def test_who_shares_a_port_leaves_the_rotation_before_it_stops(
    machine: Machine, script: Script
) -> None:
    """The port stays taken as long as one of them runs; whoever has left is asked for its connections."""
    asleep = machine.wish.services["forever"].command
    port = free_port()
    web = service(command=asleep, pid=OfHost(), ports=(f"127.0.0.1:{port}:80",), replicas=2)
    wish, fewer = (stack(STACK, web=replace(web, replicas=count)) for count in (2, 1))
    if isinstance(machine.engine, LocalEngine):
        machine.engine.watch(wish)
    world = await script.act_all(up(wish), CreateNetwork, CreateContainer, StartContainer)
    assert [takes(one) for one in world.containers] == [None, None]
    world = await script.act_all(up(wish))
    assert [takes(one) for one in world.containers] == [True, True]
    assert world.connections == {}
    (route,) = [one for one in plan(up(fewer), world, machine.now()).actions if isinstance(one, RoutePorts)]
    world = await script.act(route)
    assert {one.slot: takes(one) for one in world.containers} == {1: True, 2: False}
    (left,) = [one.id for one in world.containers if one.slot == 2]
    assert world.connections == {left: 0}
    since = world.containers
    await machine.engine.apply(route)
    assert (await machine.engine.observe()).containers == since, "said again, it means the same"
    with trio.fail_after(LONG):
        await converge(machine, up(fewer))
    world = await machine.engine.observe()
    assert [one.slot for one in world.containers] == [1]
    assert [one.host_port for one in world.ports_taken if one.host_port == port] == [port]
    await converge(machine, down(fewer, stop_timeout=0.0))


def takes(container: Container) -> bool | None:
    run = container.run
    return run.rotation.member if run is not None and run.rotation is not None else None


async def test_an_image_is_here_after_it_was_pulled_and_may_be_pulled_again(
    machine: Machine, shelf: Faults
) -> None:
    shelf.put_image("a/b:1", Image((layer(Entry("etc/motd", b"hello")),)))
    reference = shelf.name("a/b:1")
    if isinstance(machine.engine, LocalEngine):
        machine.engine.watch(stack(STACK, web=service(image=reference)))
    action = PullImage(reference=reference, stack=STACK)
    for _ in range(2):
        before = await machine.engine.observe()
        expected = effects.expect(before, action, machine.now())
        await machine.engine.apply(action)
        after = await machine.engine.observe()
        assert set(after.images) == set(expected.images) == {reference}
        assert not before.images or after.images[reference].id == before.images[reference].id
