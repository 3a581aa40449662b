"""What a stack file asks for, fully resolved: no text, no variable, no short form is left.

Field names follow the Compose Specification (https://github.com/compose-spec/compose-spec).
Durations are seconds, sizes are bytes, paths are absolute unless said otherwise.
`None` means "not said": the image's value or the engine's default applies.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.model.errors import Place
from orchestrator.model.frozen import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from orchestrator.model.sections import (
        BlockIo,
        Build,
        ClusterFile,
        CredentialSpec,
        Deploy,
        DeviceRequest,
        Hook,
        HttpProbe,
        ImageMount,
        InitContainer,
        Model,
        ModelUse,
        Provider,
        TcpProbe,
        Watch,
    )


def __getattr__(name: str) -> object:
    """The nouns of `sections`, imported when a value has one: the codec asks for them by annotation."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from orchestrator.model import sections

    return getattr(sections, name)


# --- namespaces a service may share -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Private:
    """A namespace of the container's own (for the network: a veth on each of its networks)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfHost:
    """The host's namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfService:
    """The namespace of another service's container (`service:NAME`)."""

    service: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolated:
    """A namespace of its own with nothing in it but loopback (`network_mode: none`)."""


Sharing = Private | OfHost | OfService | Isolated

# --- root filesystems ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRoot:
    """The layers of an image, by reference as the user wrote it."""

    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoot:
    """A root assembled from this machine's own /usr and the harmless part of /etc (`x-rootfs: host`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryRoot:
    """A directory of this machine, read-only below a private writable layer (`x-rootfs: {path: DIR}`)."""

    path: str


RootFilesystem = ImageRoot | HostRoot | DirectoryRoot

# --- mounts ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BindMount:
    """A file or directory of the host."""

    source: str
    target: str
    read_only: bool = False
    create_host_path: bool = True
    propagation: str = "rprivate"
    recursive: str = "enabled"
    selinux: str = ""
    consistency: str = ""
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeMount:
    """A named volume (`source` is a key of Stack.volumes), or an anonymous one (`source` is None)."""

    source: str | None
    target: str
    read_only: bool = False
    nocopy: bool = False
    subpath: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of an anonymous volume."""
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TmpfsMount:
    """Memory that vanishes with the container. `options` are mount(8) options such as uid=, noexec."""

    target: str
    size: int | None = None
    mode: int | None = None
    options: tuple[str, ...] = ()
    read_only: bool = False
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMount:
    """A config or a secret: one read-only file in the container.

    Exactly one of `path` (a host file, bound as it is) and `content` (written when the container is
    created, with `uid`, `gid`, `mode`). With `on_change` (a signal) the container has a copy of a host file,
    too, and when the content changes, the file is exchanged and the signal sent: the container stays.
    """

    kind: Literal["config", "secret"]
    name: str
    target: str
    path: str | None = None
    content: str | None = None
    digest: str = ""
    """SHA-256 of what the host file held when the stack was loaded; "": not known, or too much to read."""
    on_change: str | None = None
    uid: int = 0
    gid: int = 0
    mode: int = 0o444
    place: Place | None = field(default=None, compare=False)


Mount = BindMount | VolumeMount | TmpfsMount | FileMount

# --- parts of a service ----------------------------------------------------------------------------

DependencyCondition: TypeAlias = (
    'Literal["service_started", "service_healthy", "service_completed_successfully", "service_log_ready"]'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """`service` must have reached `condition` before the dependent starts."""

    service: str
    condition: DependencyCondition = "service_started"
    required: bool = True
    restart: bool = False
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """How to ask a container whether it works. Fields that are None come from the image, then from
    Docker's defaults: interval 30 s, timeout 30 s, retries 3, start_period 0 s, start_interval 5 s.

    `test` is ("CMD", argv...) or ("CMD-SHELL", text); None keeps the image's; `disable` switches any off.
    `probe` is asked by ourselves in the container's network, in place of any `test`.
    """

    test: tuple[str, ...] | None = None
    probe: HttpProbe | TcpProbe | None = None
    interval: float | None = None
    timeout: float | None = None
    retries: int | None = None
    start_period: float | None = None
    start_interval: float | None = None
    disable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """When a run that ended by itself is followed by another.

    `max_attempts` bounds restarts in a row; `delay` replaces the doubling back-off; a run of at least
    `window` seconds counts as a success and starts the count anew (10 s unless said).
    """

    condition: Literal["no", "always", "on-failure", "unless-stopped"] = "no"
    max_attempts: int | None = None
    delay: float | None = None
    window: float | None = None
    unhealthy: Literal["ignore", "restart", "recreate"] = "ignore"
    """What is done with a run whose health check fails, whatever `condition` is (`x-on-unhealthy`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A published port. `published` is an inclusive host range; (0, 0) asks for any free port.

    A range wider than one port means: the first free one in it.
    """

    target: int
    published: tuple[int, int] = (0, 0)
    host_ip: str = ""
    protocol: Literal["tcp", "udp"] = "tcp"
    mode: Literal["ingress", "host"] = "ingress"
    """ingress: containers of the service share a single port (for a port to be load balanced, as the Compose
    Specification says); host: one container has it."""
    name: str = ""
    app_protocol: str = ""
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One service on one network (`network` is a key of Stack.networks)."""

    network: str
    aliases: tuple[str, ...] = ()
    ipv4_address: str | None = None
    ipv6_address: str | None = None
    link_local_ips: tuple[str, ...] = ()
    interface_name: str | None = None
    mac_address: str | None = None
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    gw_priority: int = 0
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Limits and reservations, in bytes, cores and processes. None and -1 in the file both mean no limit."""

    memory: int | None = None
    memory_reservation: int | None = None
    memory_swap: int | None = None
    """memory + swap in bytes; -1 for unlimited swap; None for the engine's default (twice the memory)."""
    cpus: float | None = None
    cpu_period: int | None = None
    """Microseconds in which the share of `cpus` is given out, where the user says so."""
    cpu_shares: int | None = None
    cpuset: str | None = None
    cpuset_mems: str | None = None
    """Memory nodes, which only `pystack update` can name."""
    cpu_rt_period: int | None = None
    cpu_rt_runtime: int | None = None
    cpu_count: int | None = None
    cpu_percent: int | None = None
    pids: int | None = None
    mem_swappiness: int | None = None
    oom_kill_disable: bool = False
    blkio: BlockIo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit:
    """setrlimit(2) by Compose's name ("nofile"). -1 is RLIM_INFINITY."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device node of the host made available inside; `permissions` is a subset of "rwm"."""

    source: str
    target: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Logging:
    """Where output goes. Only json-file/local (our own format) and none are honoured."""

    driver: str = "json-file"
    options: Mapping[str, str] = field(default_factory=dict)


DRAIN = 5.0
"""Seconds for `Service.drain` when nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Of a recipe made from `pre_start`: whose it is, which one (from 1), and whether each container of that
    service has one of its own."""

    of: str
    number: int
    each: bool = False


# --- the nouns -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One recipe: what to run, how many, what it needs first."""

    name: str
    root: RootFilesystem
    replicas: int = 1
    oneoff: bool = False
    """A `run` container: no restart, no service name in DNS, not counted by `up`, `ps` or `logs`."""
    remove_on_exit: bool = False
    step: Step | None = None
    """It is part of another service, and in no stack file."""
    attach: bool = True
    # process
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    working_dir: str | None = None
    user: str | None = None
    group_add: tuple[str, ...] = ()
    init: bool = False
    tty: bool = False
    stdin_open: bool = False
    stop_signal: str | None = None
    stop_grace_period: float = 10.0
    drain: float = DRAIN
    """Seconds that connections to a shared host port get to end before their container is told to stop."""
    # identity
    hostname: str | None = None
    domainname: str | None = None
    container_name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    # life
    depends_on: tuple[Dependency, ...] = ()
    healthcheck: Healthcheck | None = None
    log_ready: str | None = None
    """A regular expression (re.search): a line of output in which it is found says that a run is ready."""
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    logging: Logging = field(default_factory=Logging)
    pull_policy: str = ""
    """always, never, missing, build, refresh, daily, weekly, every_...; "" (not said) is missing in `up`."""
    platform: str | None = None
    build: Build | None = None
    provider: Provider | None = None
    pre_start: tuple[InitContainer, ...] = ()
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()
    watch: tuple[Watch, ...] = ()
    deploy: Deploy | None = None
    models: tuple[ModelUse, ...] = ()
    # files
    mounts: tuple[Mount, ...] = ()
    read_only: bool = False
    shm_size: int | None = None
    storage_opt: Mapping[str, str] = field(default_factory=dict)
    image_mounts: tuple[ImageMount, ...] = ()
    volumes_from: tuple[str, ...] = ()
    """As written; the mounts they stand for are in `mounts` already, where they can be known."""
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    device_requests: tuple[DeviceRequest, ...] = ()
    # network
    network_mode: Sharing = field(default_factory=Private)
    networks: tuple[Attachment, ...] = ()
    ports: tuple[Port, ...] = ()
    expose: tuple[str, ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()
    """(host name, address) pairs in order; the address may be the word host-gateway."""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    external_links: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    """(service, name) pairs: names that this service alone has for containers of others."""
    # isolation and limits
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    pid: Sharing = field(default_factory=Private)
    ipc: Sharing = field(default_factory=Private)
    uts: Sharing = field(default_factory=Private)
    userns_mode: str | None = None
    cgroup: str | None = None
    cgroup_parent: str | None = None
    runtime: str | None = None
    isolation: str | None = None
    credential_spec: CredentialSpec | None = None
    use_api_socket: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)
    ulimits: tuple[Ulimit, ...] = ()
    resources: Resources = field(default_factory=Resources)
    oom_score_adj: int | None = None
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """One address range of a network, in CIDR form. `gateway` None means its first address."""

    subnet: str
    gateway: str | None = None
    ip_range: str | None = None
    aux_addresses: Mapping[str, str] = field(default_factory=dict)
    """Addresses that something else has, by a name for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A named private segment that containers share. `name` is the name on the machine."""

    key: str
    name: str
    external: bool = False
    internal: bool = False
    driver: str = "bridge"
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    subnets: tuple[Subnet, ...] = ()
    subnets6: tuple[Subnet, ...] = ()
    """Those of IPv6."""
    ipam_driver: str | None = None
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    attachable: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Named storage that outlives containers. `name` is the name on the machine."""

    key: str
    name: str
    external: bool = False
    driver: str = "local"
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Everything one stack file asks for, under one name. Mappings are keyed by the file's keys."""

    name: str
    services: Mapping[str, Service] = field(default_factory=dict)
    networks: Mapping[str, Network] = field(default_factory=dict)
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    configs: Mapping[str, ClusterFile] = field(default_factory=dict)
    secrets: Mapping[str, ClusterFile] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    disabled: tuple[str, ...] = ()
    """Services of the file whose profiles are not active: neither wanted nor orphans."""
    working_dir: str = ""
    files: tuple[str, ...] = ()
