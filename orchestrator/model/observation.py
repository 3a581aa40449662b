"""What an engine reported at one moment. Never edited; a newer one replaces it.

Times are seconds of CLOCK_BOOTTIME (time_namespaces(7)): they go on during suspend and never jump.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from orchestrator.model.frozen import dataclass, field
from orchestrator.model.stack import Healthcheck, Service


class HealthStatus(StrEnum):
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """One finished probe. `exit_code` -1 means that it was killed at its timeout."""

    started: float
    ended: float
    exit_code: int
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Where a run stands with its health check; `results` are the last five probes, oldest first."""

    status: HealthStatus = HealthStatus.STARTING
    was_healthy: bool = False
    """At any time in this run."""
    failing_streak: int = 0
    results: tuple[ProbeResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """Somebody has asked the run to end: since when, how, and who."""

    since: float
    """When the latest signal was recorded: the stop signal first, later the SIGKILL."""
    signal: int
    by: Literal["planner", "user"]
    killed: bool = False
    """SIGKILL has been sent."""
    sent: bool = True
    """Whether the signal is known to be sent: it is written down before it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """Whether a run is among those that get the connections to the host ports its container shares."""

    member: bool
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One life of a container's process, from start to exit.

    `attempt` counts starts in quick succession (1 = the first; it sets the back-off); `restarts` counts
    restarts by policy since the user last asked for the service.
    """

    turn: int
    started: float
    attempt: int = 1
    restarts: int = 0
    pid: int = 0
    finished: float | None = None
    exit_code: int | None = None
    """128+n when killed by signal n; 126, 127 when the command could not be executed; None while running
    or when the code was lost."""
    oom_killed: bool = False
    before_boot: bool = False
    """The machine was restarted since: times are of an earlier life of it, and say nothing now."""
    paused: bool = False
    """Its processes stand still (`pause`)."""
    error: str = ""
    """Why the process could not be started."""
    stopping: Stopping | None = None
    health: Health | None = None
    """None when the container has no health check."""
    log_ready: bool | None = None
    """Whether it has printed the line that its service's `log_ready` is about; None: not so far. After its
    end that turns into False once all that it had printed has been looked at."""
    log_trouble: str = ""
    """Why its lines are looked at no more, though it runs."""
    rotation: Rotation | None = None
    """None: nothing was said (RoutePorts), and it gets connections if nobody else can (model.rotation)."""


class State(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPort:
    """A host port in use by a container. `host_ip` "" is every address of the host."""

    host_ip: str
    host_port: int
    target: int
    protocol: Literal["tcp", "udp"] = "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPort:
    """A host port that a running container of some stack holds."""

    port: PublishedPort
    stack: str
    container: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What was built to fill a slot: root filesystem, addresses, fingerprint; and its latest run."""

    id: str
    """64 hex digits."""
    name: str
    stack: str
    service: str
    slot: int
    """1, 2, ... ; 0 for a one-off."""
    definition: Service
    """The recipe it was made from."""
    fingerprint: str
    generation: int
    image_id: str
    """"" for a root that is not an image."""
    created: float
    created_at: str = ""
    """Wall clock (RFC 3339), for showing only."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Network name on the machine -> IPv4 address."""
    ports: tuple[PublishedPort, ...] = ()
    healthcheck: Healthcheck | None = None
    """In force: the service's over the image's over the defaults, no field None; None: no check."""
    stop_signal: int = 15
    anonymous_volumes: Mapping[str, str] = field(default_factory=dict)
    """Target path -> name on the machine."""
    peers: Mapping[str, str] = field(default_factory=dict)
    """As in CreateContainer: service -> id of the container whose namespace it was made to join."""
    broken: str = ""
    """Why it can't go on as it is (its directory was deleted); "" while nothing is wrong with it."""
    run: Run | None = None

    @property
    def state(self) -> State:
        if self.run is None:
            return State.CREATED
        return State.RUNNING if self.run.finished is None else State.EXITED


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkState:
    """A network that exists on this machine."""

    name: str
    subnet: str
    gateway: str
    fingerprint: str
    stack: str = ""
    """The stack that made it."""
    key: str = ""
    internal: bool = False
    users: tuple[str, ...] = ()
    """Ids of the containers attached, of any stack."""
    addresses: tuple[str, ...] = ()
    """Addresses taken, of any stack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeState:
    """A volume that exists on this machine."""

    name: str
    path: str
    fingerprint: str
    stack: str = ""
    key: str = ""
    """"" for an anonymous one."""
    users: tuple[str, ...] = ()
    created_at: str = ""
    """Wall clock (RFC 3339), for showing only."""
    labels: Mapping[str, str] = field(default_factory=dict)
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    lost: str = ""
    """What became of its directory ("its directory /x is gone"). Never made anew empty: its users wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageState:
    """What the planner must know of an image that is here."""

    id: str
    healthcheck: Healthcheck | None = None
    stop_signal: str | None = None
    volumes: tuple[str, ...] = ()
    """Paths that the image declares as volumes."""
    checked: float | None = None
    """When its registry was last asked (boot time; before this boot: negative). None: never, or nobody needs
    to know, as no service has a `pull_policy` that asks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An action that failed: how often in a row, when last, and why."""

    target: str
    verb: str = ""
    """What failed (`action.verb`); "" is anything. A start that fails does not hold up a removal."""
    count: int
    at: float
    because: str
    retryable: bool = True
    lasting: bool = False
    """Retryable, but not soon: said at once, and tried again at the slowest pace."""
    exit_code: int = 1
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One look at everything that matters to one stack."""

    at: float
    containers: tuple[Container, ...] = ()
    """Of this stack, orphans and one-offs included."""
    networks: Mapping[str, NetworkState] = field(default_factory=dict)
    """By name on the machine; all stacks'."""
    volumes: Mapping[str, VolumeState] = field(default_factory=dict)
    """By name on the machine; all stacks'."""
    images: Mapping[str, ImageState] = field(default_factory=dict)
    """By the references that the stack's services use."""
    subnets_taken: tuple[str, ...] = ()
    """Every range in use on this machine, ours and others' (routes, interfaces), in CIDR form."""
    ports_taken: tuple[PublishedPort, ...] = ()
    """Host ports in use, by containers of any stack and by other programs."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Host files that configs and secrets of the stack's containers come from -> SHA-256 of what they hold
    now; "": gone, or not to be read. What has not been looked at yet is missing."""
    ports_held: tuple[HeldPort, ...] = ()
    """Who holds those of `ports_taken` that containers hold, as far as the engine knows."""
    connections: Mapping[str, int] = field(default_factory=dict)
    """By id of a container that has left the rotation of its host ports: connections to it that are open."""
    deaf: frozenset[str] = frozenset()
    """Ids of containers without a health check that share a host port and do not listen on theirs yet."""
    failures: Mapping[str, Failure] = field(default_factory=dict)
    """By target; an entry goes when an action on the target succeeds."""
