"""What is there, arranged for one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Literal

from orchestrator.model import fingerprint, names
from orchestrator.model.action import Action, CreateContainer, StartContainer
from orchestrator.model.desired import Desired, Intent, Wanted
from orchestrator.model.frozen import dataclass, field, replace
from orchestrator.model.observation import Container, ImageState, NetworkState, Observation, Run, State
from orchestrator.model.stack import ImageRoot, Network, Service
from orchestrator.planner.layout import Layout, layout


class Fate(Enum):
    """What is to become of a container."""

    LEAVE = "leave"
    """Nobody has asked for anything."""
    KEEP = "keep"
    STOP = "stop"
    """Its run ends, the container stays."""
    CYCLE = "cycle"
    """Its run ends and another one begins."""
    REPLACE = "replace"
    """It goes, and its seat gets a new occupant."""
    REMOVE = "remove"


ENDING = (Fate.STOP, Fate.CYCLE, Fate.REPLACE, Fate.REMOVE)
"""Of those that run: somebody will be told to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is to become of a container, and why."""

    fate: Fate
    because: str = ""
    by: Literal["planner", "user"] = "planner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One network of the stack as found. `because` says why containers can't be attached now ("" if they
    can), `refused` that waiting won't help; `remake` asks for its removal first."""

    network: Network
    state: NetworkState | None
    because: str = ""
    refused: bool = False
    remake: bool = False
    warning: str = ""
    exit_code: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Turnout:
    """Containers of a service that share host ports, by id: who gets new connections now, and who should."""

    now: frozenset[str]
    wanted: frozenset[str]


@dataclass(slots=True, kw_only=True)
class Survey:
    """Everything a pass reads. `fates` (by container id), `seats`, `vacant` and `rolling` are filled in by
    `fates.judge`, `segments` by `networks.assess`; nothing is changed after that."""

    desired: Desired
    observation: Observation
    now: float
    in_flight: Mapping[str, Action]
    layout: Layout
    by_service: Mapping[str, tuple[Container, ...]]
    starting: frozenset[str]
    """Ids of containers whose start is under way."""
    segments: Mapping[str, Segment] = field(default_factory=dict)
    fates: dict[str, Judgement] = field(default_factory=dict)
    seats: dict[str, tuple[Container, ...]] = field(default_factory=dict)
    """Service -> those who keep their seat (or are replaced in it)."""
    compared: bool = False
    """Whether what is remembered of the pass before has been compared with this one's circumstances."""
    vacant: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Service -> slots without an occupant that should have one."""
    pulls: dict[str, str] = field(default_factory=dict)
    """Service -> why its image has to be pulled before containers are made of it."""
    turnouts: dict[str, Turnout] = field(default_factory=dict)
    """Service -> who shares its host ports, where running containers do (filled in by `rotation`)."""

    rolling: dict[str, str] = field(default_factory=dict)
    """Service -> how far its update by steps has come, while it is under way."""

    def intent(self, service: str) -> Intent | None:
        return self.desired.intents.get(service)

    def wanted(self, service: str) -> Wanted | None:
        intent = self.desired.intents.get(service)
        return intent.wanted if intent is not None else None

    def fate(self, container: Container) -> Fate:
        return self.fates[container.id].fate

    def being_made(self) -> tuple[CreateContainer, ...]:
        """Containers whose creation is under way: not to be seen yet, but what they use is in use."""
        return tuple(a for a in self.in_flight.values() if isinstance(a, CreateContainer))

    def leaving(self) -> Iterator[Container]:
        """Containers that have to go before what they use can be made anew. One that is only stopped holds
        nothing: it is looked at again when it is wanted."""
        going = (Fate.REPLACE, Fate.REMOVE)
        return (c for c in self.observation.containers if self.fates[c.id].fate in going)

    def fingerprint(self, service: Service) -> str:
        """By which it is told whether a container is up to date. A step of `pre_start` is run again also when
        its service has another image; one that is gone counts as the one that the containers have."""
        own = self.layout.fingerprints[service.name]
        if service.step is None:
            return own
        owner = self.desired.stack.services[service.step.of]
        image, peer = self.image(owner), self.peer(owner.name)
        found = image.id if image is not None else peer.image_id if peer is not None else ""
        return own if owner.root == service.root else fingerprint.joined(own, found)

    def slots(self, service: Service) -> tuple[int, ...]:
        """The seats of a service. A step has one for each container of its service, or one in all; that one
        is judged first."""
        step = service.step
        if step is None:
            return slots_of(service)
        of = {container.slot for container in self.seats.get(step.of, ())} | {*self.vacant.get(step.of, ())}
        return tuple(sorted(of)) if step.each else (1,) if of else ()

    def image(self, service: Service) -> ImageState | None:
        """What new containers of `service` are made of; None: it is not here, or its root is no image."""
        if not isinstance(service.root, ImageRoot):
            return None
        pinned = self.desired.pins.get(service.name)
        return self.observation.images.get(pinned if pinned is not None else service.root.reference)

    def peer(self, service: str) -> Container | None:
        """The container of `service` that others share namespaces with: the one on its lowest seat."""
        return next(iter(self.by_service.get(service, ())), None)

    def live(self, container: Container) -> bool:
        """It runs, or will in a moment."""
        return container.state is State.RUNNING or container.id in self.starting


def survey(desired: Desired, observation: Observation, now: float, in_flight: Mapping[str, Action]) -> Survey:
    """Raises UserError when the stack has a cycle."""
    arranged = layout(desired.stack)
    memory = arranged.memory
    if memory.containers != observation.containers:
        memory.containers = observation.containers
        memory.by_service = _by_service(observation.containers)
    if arranged.steps:
        intents = _with_steps(desired, arranged, memory.by_service)
        desired = replace(desired, stack=arranged.whole, intents=intents)
    return Survey(
        desired=desired,
        observation=observation,
        now=now,
        in_flight=in_flight,
        layout=arranged,
        by_service=memory.by_service,
        starting=frozenset(a.id for a in in_flight.values() if isinstance(a, StartContainer)),
    )


def _by_service(containers: tuple[Container, ...]) -> dict[str, tuple[Container, ...]]:
    """In order of their seats."""
    found: dict[str, list[Container]] = {}
    for container in containers:
        found.setdefault(container.service, []).append(container)
    return {
        name: tuple(sorted(found[name], key=lambda c: (c.slot, c.created, c.id))) for name in sorted(found)
    }


def _with_steps(
    desired: Desired, arranged: Layout, found: Mapping[str, tuple[Container, ...]]
) -> dict[str, Intent]:
    """Steps of `pre_start` are wanted as their service is. A new turn is for those that have not succeeded; a
    restart is none."""
    intents = dict(desired.intents)
    for name, steps in arranged.steps.items():
        intent = desired.intents.get(name)
        for step in steps if intent is not None else ():
            runs = [container.run for container in found.get(step, ()) if container.run is not None]
            intents[step] = replace(
                intent or Intent(),
                turn=max(intent.turn, intent.restart_turn) if intent else 0,
                restart_turn=0,
                remove_volumes=False,
                under_way=tuple(run.started for run in runs if succeeded(run)),
            )
    return intents


def succeeded(run: Run) -> bool:
    """It has ended with 0, by itself."""
    return run.finished is not None and run.exit_code == 0 and not run.error and run.stopping is None


def slots_of(service: Service) -> tuple[int, ...]:
    """The seats of a service when it is new. A one-off sits on none that counts."""
    return (0,) if service.oneoff else tuple(range(1, service.replicas + 1))


def name_of(stack: str, service: Service, slot: int) -> str:
    if service.step is not None:
        step = service.step
        return names.step_name(stack, step.of, step.number, slot if step.each else None)
    return service.container_name or names.container_name(stack, service.name, slot)
