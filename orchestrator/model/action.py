"""One repeatable step on one target, with its reason.

An action leaves no choice to the engine: every name, address, port and id stands in it. It may be applied
again after a crash at any point. No action waits for anything but its own completion.

The reason is not part of an action's identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from orchestrator.model.frozen import dataclass, field
from orchestrator.model.observation import Container, PublishedPort
from orchestrator.model.stack import FileMount, Healthcheck, Network, Service, Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateNetwork:
    """Make a network; one that is there with the same range is taken as it is."""

    network: Network
    stack: str
    subnet: str
    gateway: str
    fingerprint: str
    because: str = field(default="", compare=False)

    @property
    def target(self) -> str:
        return f"network:{self.network.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNetwork:
    """Take a network away that nobody uses."""

    name: str
    because: str = field(default="", compare=False)

    @property
    def target(self) -> str:
        return f"network:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVolume:
    """Make a volume; one of this name that is there is left as it is."""

    volume: Volume
    stack: str
    fingerprint: str
    because: str = field(default="", compare=False)

    @property
    def target(self) -> str:
        return f"volume:{self.volume.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveVolume:
    """Take a volume away that nobody uses, with its content."""

    name: str
    because: str = field(default="", compare=False)

    @property
    def target(self) -> str:
        return f"volume:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PullImage:
    """Bring what the registry has under a name, or find that it is here; the name is as the user wrote it."""

    reference: str
    stack: str
    platform: str = ""
    """OS/ARCHITECTURE[/VARIANT]; "" is this machine's."""
    because: str = field(default="", compare=False)

    @property
    def target(self) -> str:
        return f"image:{self.reference}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateContainer:
    """Build the occupant of a slot: layers, files, addresses; no process yet."""

    id: str
    name: str
    stack: str
    service: Service
    slot: int
    fingerprint: str
    generation: int
    image_id: str
    networks: Mapping[str, str]
    """Key in the stack -> name on the machine, of the networks attached, in order of connection."""
    addresses: Mapping[str, str]
    """Network name on the machine -> IPv4 address."""
    volumes: Mapping[str, str]
    """Volume key in the stack -> name on the machine."""
    anonymous_volumes: Mapping[str, str]
    """Target path -> name on the machine, for volumes that have no key; made if missing."""
    ports: tuple[PublishedPort, ...]
    healthcheck: Healthcheck | None
    stop_signal: int
    peers: Mapping[str, str] = field(default_factory=dict)
    """Service -> id of the container whose namespace it is made to join; to be kept with the container."""
    because: str = field(default="", compare=False)

    @property
    def target(self) -> str:
        return f"container:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContainer:
    """Begin a run. `peers` names the containers whose namespaces it joins: service -> container id."""

    id: str
    name: str
    turn: int
    attempt: int = 1
    restarts: int = 0
    peers: Mapping[str, str] = field(default_factory=dict)
    because: str = field(default="", compare=False)

    @property
    def target(self) -> str:
        return f"container:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalContainer:
    """Send `signal` to the container's first process.

    `stopping` says that the run is meant to end (it is recorded before the signal is sent); SIGKILL with
    `stopping` goes to every process of the container.
    """

    id: str
    name: str
    signal: int
    stopping: bool
    by: Literal["planner", "user"] = "planner"
    because: str = field(default="", compare=False)

    @property
    def target(self) -> str:
        return f"container:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePorts:
    """From now on new connections to host ports that containers of a service share go to `members` (ids).

    Every other running container of the service leaves the rotation; what it serves already, it goes on
    serving. A port that no member holds goes to whoever holds it.
    """

    stack: str
    service: str
    members: tuple[str, ...]
    because: str = field(default="", compare=False)

    @property
    def target(self) -> str:
        return f"ports:{self.service}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapFiles:
    """Exchange configs and secrets of a container, each as a whole, and then send its process the signals.

    Repeated after a crash, the signals are sent again. One that does not run gets the files alone.
    """

    id: str
    name: str
    files: tuple[FileMount, ...]
    signals: tuple[int, ...]
    because: str = field(default="", compare=False)

    @property
    def target(self) -> str:
        return f"container:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveContainer:
    """Take away everything of a container that does not run."""

    id: str
    name: str
    anonymous_volumes: bool = False
    """Its anonymous volumes go too."""
    because: str = field(default="", compare=False)

    @property
    def target(self) -> str:
        return f"container:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeContainer:
    """Run the health check once and record the result. A target of its own: it never delays a stop."""

    id: str
    name: str
    healthcheck: Healthcheck
    run_started: float
    because: str = field(default="", compare=False)

    @property
    def target(self) -> str:
        return f"probe:{self.name}"


Action = (
    CreateNetwork
    | RemoveNetwork
    | CreateVolume
    | RemoveVolume
    | PullImage
    | CreateContainer
    | StartContainer
    | SignalContainer
    | RoutePorts
    | SwapFiles
    | RemoveContainer
    | ProbeContainer
)


def occupant(action: CreateContainer, *, created: float, created_at: str = "") -> Container:
    """The container that `action` makes. When: boot time, and the wall clock's (as Container has them)."""
    return Container(
        id=action.id,
        name=action.name,
        stack=action.stack,
        service=action.service.name,
        slot=action.slot,
        definition=action.service,
        fingerprint=action.fingerprint,
        generation=action.generation,
        image_id=action.image_id,
        created=created,
        created_at=created_at,
        addresses=dict(action.addresses),
        ports=action.ports,
        healthcheck=action.healthcheck,
        stop_signal=action.stop_signal,
        anonymous_volumes=dict(action.anonymous_volumes),
        peers=dict(action.peers),
    )


def verb(action: Action) -> str:
    """The word for an action that plans, progress and events show."""
    match action:
        case CreateNetwork() | CreateVolume() | CreateContainer():
            return "create"
        case RemoveNetwork() | RemoveVolume() | RemoveContainer():
            return "remove"
        case PullImage():
            return "pull"
        case StartContainer():
            return "start"
        case SignalContainer(signal=9, stopping=True):
            return "kill"
        case SignalContainer(stopping=True):
            return "stop"
        case SignalContainer():
            return "signal"
        case RoutePorts():
            return "route"
        case SwapFiles():
            return "swap"
        case ProbeContainer():
            return "probe"
