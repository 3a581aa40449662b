"""Nothing is ended without a reason, out of order, or before its grace is over. Pure.

The reasons are worked out from the file, the orders and what is there; the planner is not asked.
"""

from __future__ import annotations

import ipaddress
import math

from orchestrator.engines.guarding import UnsafeError
from orchestrator.model import fingerprint
from orchestrator.model.action import RemoveContainer, SignalContainer
from orchestrator.model.desired import Desired, Wanted
from orchestrator.model.graph import needs, shares
from orchestrator.model.observation import Container, HealthStatus, Observation, State
from orchestrator.model.stack import ImageRoot, Private, Service, VolumeMount
from orchestrator.simulation.parts import up_to_date
from orchestrator.simulation.tables import tables

SIGKILL = 9
GRACE = 0.01
"""Seconds by which a clock may be read too early."""


def demand_end(
    desired: Desired, world: Observation, action: SignalContainer | RemoveContainer, now: float
) -> None:
    """`desired` and `world` are what was wanted and known when `action`, which begins `now`, was decided.

    Raises UnsafeError.
    """
    container = tables(world).by_id.get(action.id)
    if container is None:
        return
    if isinstance(action, RemoveContainer):
        if not _reasons(desired, world).of(container):
            raise UnsafeError(f"{action.name} is removed for no reason ({action.because})")
        return
    if not action.stopping or container.run is None:
        return
    begun = container.run.stopping
    if begun is None:
        if not _reasons(desired, world).of(container):
            raise UnsafeError(f"{action.name} is stopped for no reason ({action.because})")
        _demand_order(desired, world, container)
    if action.signal == SIGKILL and (begun is None or not begun.killed):
        waited = now - begun.since if begun is not None else 0.0
        allowed = _grace(desired, container)
        if waited + GRACE < allowed:
            raise UnsafeError(f"{action.name} is killed after {waited:.2f} s in place of {allowed:g} s")


def _grace(desired: Desired, container: Container) -> float:
    """What the user has said last beats the file."""
    if desired.down and desired.stop_timeout is not None:
        return desired.stop_timeout
    intent = desired.intents.get(container.service)
    if intent is not None and intent.stop_timeout is not None:
        return intent.stop_timeout
    return container.definition.stop_grace_period


def _demand_order(desired: Desired, world: Observation, container: Container) -> None:
    """Of what is taken down together, dependents end first."""
    if not _goes(desired, container.service):
        return
    reached, open_ends = {container.service}, [container.service]
    while open_ends:
        name = open_ends.pop()
        for other, service in desired.stack.services.items():
            if other not in reached and any(one.service == name for one in needs(service)):
                reached.add(other)
                open_ends.append(other)
    for name in reached - {container.service}:
        for one in tables(world).by_service.get(name, ()):
            if one.state is not State.RUNNING or not _goes(desired, name):
                continue
            raise UnsafeError(f"{container.name} is stopped before {one.name}, which depends on it")


def _is_ill(container: Container) -> bool:
    """Its definition asks for more than to be told of it (`x-on-unhealthy`)."""
    health = container.run.health if container.run is not None else None
    ill = health is not None and health.status is HealthStatus.UNHEALTHY
    return ill and container.definition.restart.unhealthy != "ignore"


def _goes(desired: Desired, service: str) -> bool:
    intent = desired.intents.get(service)
    if service not in desired.stack.services:
        return False
    return desired.down or (intent is not None and intent.wanted in (Wanted.STOPPED, Wanted.ABSENT))


_latest: list[Reasons] = []


def _reasons(desired: Desired, world: Observation) -> Reasons:
    """Made once for each moment: many actions are decided on one look."""
    if not _latest or not _latest[0].about(desired, world):
        _latest[:] = [Reasons(desired, world)]
    return _latest[0]


class Reasons:
    """Why containers have to end, of one moment."""

    def __init__(self, desired: Desired, world: Observation) -> None:
        self._desired = desired
        self._world = world
        self._known: dict[str, str] = {}
        self._fingerprints: dict[str, str] = {}

    def about(self, desired: Desired, world: Observation) -> bool:
        return self._desired is desired and self._world is world

    def of(self, container: Container) -> str:
        """The reason in a few words; "" when there is none."""
        if container.id not in self._known:
            self._known[container.id] = ""  # whoever asks in a circle gets no reason from it
            self._known[container.id] = self._find(container)
        return self._known[container.id]

    def _find(self, container: Container) -> str:
        desired, name = self._desired, container.service
        service, intent = desired.stack.services.get(name), desired.intents.get(name)
        if service is None:
            return self._stranger(container)
        if desired.down:
            return "down"
        if intent is None:
            return ""
        if intent.wanted in (Wanted.STOPPED, Wanted.ABSENT):
            return str(intent.wanted)
        if container.generation < intent.generation and not self._irreplaceable(service):
            return "to be recreated"
        run = container.run
        if intent.wanted is Wanted.RUNNING and run is not None and run.turn < intent.restart_turn:
            return "to be restarted"
        if _is_ill(container):
            return "unhealthy"
        if self._has_no_seat(container, service):
            return "too many"
        changed = (
            "" if intent.keep_stale or self._irreplaceable(service) else self._changed(container, service)
        )
        alone = intent.ignore_dependencies or intent.wanted is not Wanted.RUNNING
        return changed or self._with_others(container, service, ignore=alone)

    def _stranger(self, container: Container) -> str:
        desired = self._desired
        if container.definition.step is not None:
            return "no such step"
        known = container.service in desired.stack.disabled or container.definition.oneoff
        if desired.down:
            return "down" if known or desired.remove_orphans else ""
        return "orphan" if desired.remove_orphans and not known else ""

    def _has_no_seat(self, container: Container, service: Service) -> bool:
        by_service = tables(self._world).by_service
        if service.step is not None:
            owner = self._desired.stack.services[service.step.of]
            owners = by_service.get(owner.name, ())
            if not service.step.each:
                return owner.replicas == 0 or container.slot != 1
            return len(owners) > owner.replicas or container.slot not in {one.slot for one in owners}
        others = by_service[service.name]
        return len(others) > service.replicas or sum(one.slot == container.slot for one in others) > 1

    def _irreplaceable(self, service: Service) -> bool:
        """There is no image for another container."""
        pinned = self._desired.pins.get(service.name)
        root = service.root
        return isinstance(root, ImageRoot) and (pinned or root.reference) not in self._world.images

    def _changed(self, container: Container, service: Service) -> str:
        if service.name not in self._fingerprints:
            self._fingerprints[service.name] = up_to_date(self._desired, self._world, service)
        if container.fingerprint != self._fingerprints[service.name]:
            return "changed"
        if isinstance(service.root, ImageRoot):
            image = self._world.images.get(service.root.reference)
            if image is not None and image.id != container.image_id:
                return "another image"
        for mount in service.mounts:
            if isinstance(mount, VolumeMount) and mount.source is not None:
                volume = self._desired.stack.volumes[mount.source]
                if not volume.external and volume.name not in self._world.volumes:
                    return "its volume is gone"
        for other in shares(service):
            peer = min(
                tables(self._world).by_service.get(other, ()),
                key=lambda one: (one.slot, one.created, one.id),
                default=None,
            )
            if peer is not None and container.peers.get(other) not in (None, peer.id):
                return "another peer"
        return self._cut_off(container, service)

    def _cut_off(self, container: Container, service: Service) -> str:
        if not isinstance(service.network_mode, Private):
            return ""
        for attachment in service.networks:
            network = self._desired.stack.networks[attachment.network]
            state = self._world.networks.get(network.name)
            address = container.addresses.get(network.name)
            if state is None or address is None:
                return "" if network.external and state is None else "its network is gone"
            if ipaddress.IPv4Address(address) not in ipaddress.IPv4Network(state.subnet, strict=False):
                return "its network is another one"
            if not network.external and state.fingerprint != fingerprint.of_network(network):
                return "its network has changed"
        return ""

    def _with_others(self, container: Container, service: Service, *, ignore: bool) -> str:
        """Those that asked for it go with a dependency that goes, and follow one that crashed since."""
        began = container.run.started if container.run is not None else math.inf
        for dependency in needs(service):
            if not dependency.restart or (ignore and dependency.service not in shares(service)):
                continue
            there = tables(self._world).by_service.get(dependency.service, ())
            if any(self.of(one) for one in there):
                return f"with {dependency.service}"
            if any(one.run is not None and one.run.restarts and one.run.started > began for one in there):
                return f"after {dependency.service}"
        return ""
