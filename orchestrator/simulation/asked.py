"""Nothing is done that nobody has asked for, and nothing is lost. Pure.

Every action has to follow from the stack file and from what the user has said. The planner is not asked.
"""

from __future__ import annotations

from orchestrator.engines.guarding import UnsafeError
from orchestrator.model import fingerprint
from orchestrator.model.action import (
    Action,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    PullImage,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    StartContainer,
)
from orchestrator.model.desired import Desired, Wanted
from orchestrator.model.observation import Container, Observation
from orchestrator.model.stack import ImageRoot
from orchestrator.simulation.tables import tables

THERE = (Wanted.RUNNING, Wanted.CREATED)
NEVER_PULLED = ("never", "build")


def demand_asked(desired: Desired, world: Observation, action: Action) -> None:
    """`desired` and `world` are what was wanted and known when `action` was decided.

    Raises UnsafeError.
    """
    why = _objection(desired, world, action)
    if why:
        raise UnsafeError(f"{action.target} {why}")


def _objection(desired: Desired, world: Observation, action: Action) -> str:
    match action:
        case CreateContainer():
            return _creation(desired, world, action)
        case StartContainer():
            return _start(desired, world, action)
        case RemoveContainer():
            return _removal(desired, world, action)
        case CreateNetwork() | CreateVolume() | PullImage() if desired.down:
            return "is made while the stack goes down"
        case CreateNetwork():
            return "is made, and is external" if action.network.external else ""
        case CreateVolume():
            return "is made, and is external" if action.volume.external else ""
        case PullImage():
            return _pull(desired, action)
        case RemoveNetwork():
            return _network(desired, world, action)
        case RemoveVolume():
            return _volume(desired, world, action)
        case _:
            return ""


def _creation(desired: Desired, world: Observation, action: CreateContainer) -> str:
    service = desired.stack.services.get(action.service.name)
    intent = desired.intents.get(action.service.name)
    if desired.down or service is None or intent is None or intent.wanted not in THERE:
        return "is made, and nobody has asked for it"
    if action.generation != intent.generation:
        return "is made for an order of before"
    absent = [name for name in action.addresses if name not in world.networks]
    absent += [name for name in action.volumes.values() if name not in world.volumes]
    if absent:
        return f"is attached to {absent[0]}, which does not exist"
    return ""


def _start(desired: Desired, world: Observation, action: StartContainer) -> str:
    container = tables(world).by_id.get(action.id)
    if container is None:
        return "is started, and was not there"
    intent = desired.intents.get(container.service)
    if desired.down or intent is None or intent.wanted is not Wanted.RUNNING:
        return "is started, and nobody has asked for it"
    if container.service not in desired.stack.services:
        return "is started, and is an orphan"
    for service, peer_id in action.peers.items():
        peer = tables(world).by_id.get(peer_id)
        if peer is None or peer.run is None or peer.run.finished is not None:
            return f"is started beside {service}, which does not run"
    return _another_run(container, intent.turn, intent.restart_turn, intent.under_way, action)


def _another_run(
    container: Container, turn: int, restart_turn: int, under_way: tuple[float, ...], action: StartContainer
) -> str:
    """A run that has ended is followed by another by order, by policy, or because we ended it."""
    run = container.run
    if run is None:
        return ""
    ordered = run.turn < restart_turn or (run.turn < turn and run.started not in under_way)
    if ordered:
        return ""
    if run.stopping is not None and run.stopping.by == "user":
        return "is started, and the user had stopped it"
    if run.stopping is not None:
        return ""
    policy = container.definition.restart
    if policy.condition == "no":
        return "is started again, and its policy is never to"
    if policy.condition == "on-failure" and run.exit_code == 0:
        return "is started again although it has succeeded"
    if run.before_boot or (container.definition.step is not None and run.exit_code is None):
        return ""
    if action.attempt < 2:
        return "is started again as if it were the first time"
    if policy.max_attempts is not None and action.attempt - 1 > policy.max_attempts:
        return f"is started again {action.attempt - 1} times in place of {policy.max_attempts}"
    return ""


def _removal(desired: Desired, world: Observation, action: RemoveContainer) -> str:
    container = tables(world).by_id.get(action.id)
    if container is None or not action.anonymous_volumes or container.definition.remove_on_exit:
        return ""
    intent = desired.intents.get(container.service)
    down = desired.down and desired.remove_volumes
    if down or (intent is not None and intent.wanted is Wanted.ABSENT and intent.remove_volumes):
        return ""
    return "is removed with its anonymous volumes, and nobody has asked for that"


def _pull(desired: Desired, action: PullImage) -> str:
    users = [
        service
        for name, service in desired.stack.services.items()
        if isinstance(service.root, ImageRoot)
        and service.root.reference == action.reference
        and name in desired.intents
        and desired.intents[name].wanted in THERE
    ]
    if not users:
        return "is pulled, and nobody needs it"
    if all(service.pull_policy in NEVER_PULLED for service in users):
        return "is pulled although that was forbidden"
    return ""


def _network(desired: Desired, world: Observation, action: RemoveNetwork) -> str:
    state = world.networks.get(action.name)
    if state is not None and state.stack != desired.stack.name:
        return f"is removed, and is of stack {state.stack}"
    mine = [network for network in desired.stack.networks.values() if network.name == action.name]
    if desired.down or state is None or not mine:
        return "" if desired.down or state is None else "is removed, and nobody has asked for that"
    if mine[0].external:
        return "is removed, and is external"
    return "is removed as it was asked for" if state.fingerprint == fingerprint.of_network(mine[0]) else ""


def _volume(desired: Desired, world: Observation, action: RemoveVolume) -> str:
    if not (desired.down and desired.remove_volumes):
        return "is removed with its data, and nobody has said down -v"
    state = world.volumes.get(action.name)
    if state is not None and state.stack != desired.stack.name:
        return f"is removed with its data, and is of stack {state.stack}"
    if any(volume.external for volume in desired.stack.volumes.values() if volume.name == action.name):
        return "is removed with its data, and is external"
    return ""
