"""What is there, arranged for one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Literal

from orchestrator.model import names
from orchestrator.model.action import Action, CreateContainer, StartContainer
from orchestrator.model.desired import Desired, Intent, Wanted
from orchestrator.model.frozen import dataclass, field
from orchestrator.model.observation import Container, ImageState, NetworkState, Observation, State
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


def slots_of(service: Service) -> tuple[int, ...]:
    """The seats of a service when it is new. A one-off sits on none that counts."""
    return (0,) if service.oneoff else tuple(range(1, service.replicas + 1))


def name_of(stack: str, service: Service, slot: int) -> str:
    return service.container_name or names.container_name(stack, service.name, slot)
