"""What an action is expected to change: expect(observation, action, now) -> Observation.

The rehearsal and the simulated engine live by it, and the contract suite holds every real engine to it.
What an action changes is written once, for a `World` that changes in place (`perform`, `end`, ...): the
simulated engine keeps one, so that an action costs the same however many containers there are.
Applying an action a second time changes nothing, as with a real engine after a crash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from orchestrator.model import rotation
from orchestrator.model.action import (
    Action,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    ProbeContainer,
    PullImage,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    RoutePorts,
    SignalContainer,
    StartContainer,
    SwapFiles,
    occupant,
)
from orchestrator.model.fingerprint import of_volume
from orchestrator.model.frozen import replace
from orchestrator.model.health import advance
from orchestrator.model.observation import (
    Container,
    Health,
    ImageState,
    NetworkState,
    Observation,
    ProbeResult,
    Run,
    State,
    Stopping,
    VolumeState,
)
from orchestrator.model.stack import FileMount, Service, Volume, VolumeMount
from orchestrator.model.world import World

SIGKILL = 9


def expect(observation: Observation, action: Action, now: float) -> Observation:
    """The observation after `action` succeeded at boot time `now`.

    Programs are not part of it: a run goes on until `expect_exit`, and a probe succeeds.
    """
    world = World(observation)
    perform(world, action, now)
    return world.observation()


def expect_exit(
    observation: Observation, container_id: str, now: float, exit_code: int | None
) -> Observation:
    """The run of `container_id` has ended by itself or by a signal. Its host ports are free again, but for
    those that it shares with others."""
    world = World(observation)
    end(world, container_id, now, exit_code)
    return world.observation()


def expect_failed_start(
    observation: Observation, action: StartContainer, now: float, exit_code: int, error: str
) -> Observation:
    """The command could not be executed: an ended run says why (126 not executable, 127 not found)."""
    world = World(observation)
    fail_start(world, action, now, exit_code, error)
    return world.observation()


def expect_probe(
    observation: Observation, container_id: str, run_started: float, result: ProbeResult
) -> Observation:
    """One probe of the run that started at `run_started` has ended. Results for another run are dropped."""
    world = World(observation)
    judge_probe(world, container_id, run_started, result)
    return world.observation()


# --- the same, on a world that changes in place ----------------------------------------------------------


def perform(world: World, action: Action, now: float) -> None:
    """As `expect`."""
    match action:
        case CreateNetwork():
            _create_network(world, action)
        case RemoveNetwork():
            _remove_network(world, action.name)
        case CreateVolume():
            _create_volume(world, action)
        case RemoveVolume():
            if action.name in world.volumes:
                world.drop_volume(action.name)
        case PullImage():
            _pull_image(world, action, now)
        case _:
            _perform_on_container(world, action, now)


def _perform_on_container(world: World, action: Action, now: float) -> None:
    match action:
        case CreateContainer():
            _create_container(world, action, now)
        case StartContainer():
            _start_container(world, action, now)
        case SignalContainer():
            _signal_container(world, action, now)
        case RoutePorts():
            _route_ports(world, action, now)
        case SwapFiles():
            _swap_files(world, action)
        case RemoveContainer():
            _remove_container(world, action)
        case ProbeContainer():
            result = ProbeResult(started=now, ended=now, exit_code=0)
            judge_probe(world, action.id, action.run_started, result)


def end(world: World, container_id: str, now: float, exit_code: int | None) -> None:
    """As `expect_exit`."""
    container = world.containers.get(container_id)
    if container is None or container.run is None or container.run.finished is not None:
        return
    world.free_ports(container.ports)
    run = replace(container.run, finished=now, exit_code=exit_code, pid=0)
    if container.definition.log_ready and run.log_ready is None:
        run = replace(run, log_ready=False)
    world.put(replace(container, run=run))


def fail_start(world: World, action: StartContainer, now: float, exit_code: int, error: str) -> None:
    """As `expect_failed_start`."""
    container = world.containers.get(action.id)
    if container is not None:
        run = replace(_new_run(action, container, now), finished=now, exit_code=exit_code, error=error)
        world.put(replace(container, run=run))


def judge_probe(world: World, container_id: str, run_started: float, result: ProbeResult) -> None:
    """As `expect_probe`."""
    container = world.containers.get(container_id)
    if container is None or container.run is None or container.healthcheck is None:
        return
    run = container.run
    if run.started != run_started or run.finished is not None:
        return
    health = advance(run.health or Health(), result, run, container.healthcheck)
    world.put(replace(container, run=replace(run, health=health)))


def log_ready(world: World, container_id: str) -> None:
    """Its run has printed the line that says that it is ready."""
    container = world.containers.get(container_id)
    if container is None or container.run is None or container.run.finished is not None:
        return
    if container.definition.log_ready and container.run.log_ready is None:
        world.put(replace(container, run=replace(container.run, log_ready=True)))


def _pull_image(world: World, action: PullImage, now: float) -> None:
    """What is here already is found to be up to date."""
    before = world.images.get(action.reference)
    made = f"sha256:{hashlib.sha256(action.reference.encode()).hexdigest()}"
    world.put_image(action.reference, replace(before or ImageState(id=made), checked=now))


def _create_network(world: World, action: CreateNetwork) -> None:
    if action.network.name in world.networks:
        return
    world.put_network(
        NetworkState(
            name=action.network.name,
            subnet=action.subnet,
            gateway=action.gateway,
            fingerprint=action.fingerprint,
            stack=action.stack,
            key=action.network.key,
        )
    )
    world.rest = replace(world.rest, subnets_taken=(*world.rest.subnets_taken, action.subnet))


def _remove_network(world: World, name: str) -> None:
    row = world.networks.get(name)
    if row is None:
        return
    world.drop_network(name)
    left = tuple(subnet for subnet in world.rest.subnets_taken if subnet != row.state.subnet)
    world.rest = replace(world.rest, subnets_taken=left)


def _create_volume(world: World, action: CreateVolume) -> None:
    volume = action.volume
    if volume.name in world.volumes:
        return
    world.put_volume(
        VolumeState(
            name=volume.name, path="", fingerprint=action.fingerprint, stack=action.stack, key=volume.key
        )
    )


def _create_container(world: World, action: CreateContainer, now: float) -> None:
    if action.id in world.containers:
        return
    world.put(occupant(action, created=now))
    for name, address in action.addresses.items():
        world.attach(action.id, name, address)
    for name in action.anonymous_volumes.values():
        if name not in world.volumes:
            fingerprint = of_volume(Volume(key="", name=name))
            world.put_volume(VolumeState(name=name, path="", fingerprint=fingerprint, stack=action.stack))
    for name in _volume_names(action):
        if name in world.volumes:
            world.mount(action.id, name)


def _volume_names(action: CreateContainer) -> set[str]:
    named = {
        action.volumes[mount.source]
        for mount in action.service.mounts
        if isinstance(mount, VolumeMount) and mount.source is not None and mount.source in action.volumes
    }
    return named | set(action.anonymous_volumes.values())


def _new_run(action: StartContainer, container: Container, now: float) -> Run:
    return Run(
        turn=action.turn,
        started=now,
        attempt=action.attempt,
        restarts=action.restarts,
        health=Health() if container.healthcheck else None,
    )


def _start_container(world: World, action: StartContainer, now: float) -> None:
    container = world.containers.get(action.id)
    if container is None or container.state is State.RUNNING:
        return
    world.take_ports(container.ports)
    world.put(replace(container, run=_new_run(action, container, now)))


def _signal_container(world: World, action: SignalContainer, now: float) -> None:
    container = world.containers.get(action.id)
    if container is None or container.run is None or container.run.finished is not None:
        return
    if not action.stopping:
        return
    before = container.run.stopping
    stopping = Stopping(
        since=now,
        signal=action.signal,
        by=before.by if before is not None else action.by,
        killed=action.signal == SIGKILL,
    )
    world.put(replace(container, run=replace(container.run, stopping=stopping)))


def _route_ports(world: World, action: RoutePorts, now: float) -> None:
    for one in tuple(world.containers.values()):
        if one.service == action.service and one.ports:
            routed = rotation.routed(one, member=one.id in action.members, now=now)
            if routed is not one:
                world.put(routed)


def _swap_files(world: World, action: SwapFiles) -> None:
    container = world.containers.get(action.id)
    if container is not None:
        world.put(replace(container, definition=with_files(container.definition, action.files)))


def with_files(service: Service, files: Iterable[FileMount]) -> Service:
    """The recipe with these configs and secrets in place of those at the same targets."""
    fresh = {file.target: file for file in files}
    mounts = tuple(
        fresh.get(mount.target, mount) if isinstance(mount, FileMount) else mount for mount in service.mounts
    )
    return replace(service, mounts=mounts)


def _remove_container(world: World, action: RemoveContainer) -> None:
    container = world.containers.get(action.id)
    if container is None or container.state is State.RUNNING:
        return
    world.remove(action.id)
    for name, address in container.addresses.items():
        world.detach(action.id, name, address)
    if action.anonymous_volumes:
        for name in set(container.anonymous_volumes.values()) & world.volumes.keys():
            world.drop_volume(name)
