"""What an action is expected to change: expect(observation, action, now) -> Observation.

The rehearsal and the simulated engine live by it, and the contract suite holds every real engine to it.
Applying an action a second time changes nothing, as with a real engine after a crash.
"""

from __future__ import annotations

import hashlib

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
    SignalContainer,
    StartContainer,
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
from orchestrator.model.stack import Volume, VolumeMount

SIGKILL = 9


def expect(observation: Observation, action: Action, now: float) -> Observation:
    """The observation after `action` succeeded at boot time `now`.

    Programs are not part of it: a run goes on until `expect_exit`, and a probe succeeds.
    """
    match action:
        case CreateNetwork():
            return _create_network(observation, action)
        case RemoveNetwork():
            return _remove_network(observation, action.name)
        case CreateVolume():
            return _create_volume(observation, action)
        case RemoveVolume():
            return _with_volumes(observation, without=action.name)
        case PullImage():
            return _pull_image(observation, action, now)
        case CreateContainer():
            return _create_container(observation, action, now)
        case StartContainer():
            return _start_container(observation, action, now)
        case SignalContainer():
            return _signal_container(observation, action, now)
        case RemoveContainer():
            return _remove_container(observation, action)
        case ProbeContainer():
            result = ProbeResult(started=now, ended=now, exit_code=0)
            return expect_probe(observation, action.id, action.run_started, result)


def _pull_image(observation: Observation, action: PullImage, now: float) -> Observation:
    """What is here already is found to be up to date."""
    before = observation.images.get(action.reference)
    made = f"sha256:{hashlib.sha256(action.reference.encode()).hexdigest()}"
    image = replace(before or ImageState(id=made), checked=now)
    return replace(observation, images={**observation.images, action.reference: image})


def expect_exit(
    observation: Observation, container_id: str, now: float, exit_code: int | None
) -> Observation:
    """The run of `container_id` has ended by itself or by a signal. Its host ports are free again."""
    container = find(observation, container_id)
    if container is None or container.run is None or container.run.finished is not None:
        return observation
    ended = replace(container, run=replace(container.run, finished=now, exit_code=exit_code, pid=0))
    freed = tuple(port for port in observation.ports_taken if port not in container.ports)
    return _with_container(replace(observation, ports_taken=freed), ended)


def expect_failed_start(
    observation: Observation, action: StartContainer, now: float, exit_code: int, error: str
) -> Observation:
    """The command could not be executed: an ended run says why (126 not executable, 127 not found)."""
    container = find(observation, action.id)
    if container is None:
        return observation
    run = replace(_new_run(action, container, now), finished=now, exit_code=exit_code, error=error)
    return _with_container(observation, replace(container, run=run))


def expect_probe(
    observation: Observation, container_id: str, run_started: float, result: ProbeResult
) -> Observation:
    """One probe of the run that started at `run_started` has ended. Results for another run are dropped."""
    container = find(observation, container_id)
    if container is None or container.run is None or container.healthcheck is None:
        return observation
    run = container.run
    if run.started != run_started or run.finished is not None:
        return observation
    health = advance(run.health or Health(), result, run, container.healthcheck)
    return _with_container(observation, replace(container, run=replace(run, health=health)))


def find(observation: Observation, container_id: str) -> Container | None:
    return next((container for container in observation.containers if container.id == container_id), None)


def _create_network(observation: Observation, action: CreateNetwork) -> Observation:
    state = NetworkState(
        name=action.network.name,
        subnet=action.subnet,
        gateway=action.gateway,
        fingerprint=action.fingerprint,
        stack=action.stack,
        key=action.network.key,
    )
    if observation.networks.get(state.name) is not None:
        return observation
    return replace(
        observation,
        networks={**observation.networks, state.name: state},
        subnets_taken=(*observation.subnets_taken, action.subnet),
    )


def _remove_network(observation: Observation, name: str) -> Observation:
    state = observation.networks.get(name)
    if state is None:
        return observation
    networks = {other: found for other, found in observation.networks.items() if other != name}
    subnets = tuple(subnet for subnet in observation.subnets_taken if subnet != state.subnet)
    return replace(observation, networks=networks, subnets_taken=subnets)


def _create_volume(observation: Observation, action: CreateVolume) -> Observation:
    volume = action.volume
    if volume.name in observation.volumes:
        return observation
    state = VolumeState(
        name=volume.name, path="", fingerprint=action.fingerprint, stack=action.stack, key=volume.key
    )
    return _with_volumes(observation, state)


def _create_container(observation: Observation, action: CreateContainer, now: float) -> Observation:
    if find(observation, action.id) is not None:
        return observation
    container = Container(
        id=action.id,
        name=action.name,
        stack=action.stack,
        service=action.service.name,
        slot=action.slot,
        definition=action.service,
        fingerprint=action.fingerprint,
        generation=action.generation,
        image_id=action.image_id,
        created=now,
        addresses=dict(action.addresses),
        ports=action.ports,
        healthcheck=action.healthcheck,
        stop_signal=action.stop_signal,
        anonymous_volumes=dict(action.anonymous_volumes),
        peers=dict(action.peers),
    )
    networks = dict(observation.networks)
    for name, address in action.addresses.items():
        networks[name] = replace(
            networks[name],
            users=(*networks[name].users, action.id),
            addresses=(*networks[name].addresses, address),
        )
    volumes = dict(observation.volumes)
    for name in action.anonymous_volumes.values():
        if name not in volumes:
            fingerprint = of_volume(Volume(key="", name=name))
            volumes[name] = VolumeState(name=name, path="", fingerprint=fingerprint, stack=action.stack)
    for name in _volume_names(action):
        if name in volumes:
            volumes[name] = replace(volumes[name], users=(*volumes[name].users, action.id))
    return replace(
        observation,
        containers=(*observation.containers, container),
        networks=networks,
        volumes=volumes,
    )


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


def _start_container(observation: Observation, action: StartContainer, now: float) -> Observation:
    container = find(observation, action.id)
    if container is None or container.state is State.RUNNING:
        return observation
    taken = (*observation.ports_taken, *container.ports)
    started = replace(container, run=_new_run(action, container, now))
    return _with_container(replace(observation, ports_taken=taken), started)


def _signal_container(observation: Observation, action: SignalContainer, now: float) -> Observation:
    container = find(observation, action.id)
    if container is None or container.run is None or container.run.finished is not None:
        return observation
    if not action.stopping:
        return observation
    before = container.run.stopping
    stopping = Stopping(
        since=now,
        signal=action.signal,
        by=before.by if before is not None else action.by,
        killed=action.signal == SIGKILL,
    )
    return _with_container(observation, replace(container, run=replace(container.run, stopping=stopping)))


def _remove_container(observation: Observation, action: RemoveContainer) -> Observation:
    container = find(observation, action.id)
    if container is None or container.state is State.RUNNING:
        return observation
    networks = dict(observation.networks)
    for name, address in container.addresses.items():
        state = networks.get(name)
        if state is not None:
            networks[name] = replace(
                state,
                users=tuple(user for user in state.users if user != action.id),
                addresses=tuple(taken for taken in state.addresses if taken != address),
            )
    doomed = set(container.anonymous_volumes.values()) if action.anonymous_volumes else set()
    volumes = {
        name: replace(state, users=tuple(user for user in state.users if user != action.id))
        if action.id in state.users
        else state
        for name, state in observation.volumes.items()
        if name not in doomed
    }
    return replace(
        observation,
        containers=tuple(other for other in observation.containers if other.id != action.id),
        networks=networks,
        volumes=volumes,
    )


def _with_container(observation: Observation, changed: Container) -> Observation:
    containers = tuple(changed if other.id == changed.id else other for other in observation.containers)
    return replace(observation, containers=containers)


def _with_volumes(
    observation: Observation, added: VolumeState | None = None, *, without: str = ""
) -> Observation:
    volumes = {name: state for name, state in observation.volumes.items() if name != without}
    if added is not None:
        volumes[added.name] = added
    return replace(observation, volumes=volumes)
