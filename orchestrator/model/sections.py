"""The larger sections of a service that the engine of this machine does not, or not yet, act on.

They are part of the Stack all the same: nothing of a stack file is lost on the way. Most stacks have none of
them, and making a dataclass costs a millisecond, so `stack` imports this module only when one is asked for.
Field names follow the Compose Specification; durations are seconds, sizes are bytes, paths are absolute.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.model.errors import Place
from orchestrator.model.frozen import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSecret:
    """A secret (a key of Stack.secrets) that steps of a build may mount. `mode` is a number, 0o400."""

    source: str
    target: str | None = None
    uid: str | None = None
    gid: str | None = None
    mode: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How to make the image. `context` is an absolute path or a URL; None when the file says "".

    `ssh` maps "default" or a name to a path ("" for the agent); `additional_contexts` maps a name to a path,
    a URL or `service:NAME`.
    """

    context: str | None = None
    dockerfile: str | None = None
    dockerfile_inline: str | None = None
    args: Mapping[str, str] = field(default_factory=dict)
    ssh: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    additional_contexts: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    pull: bool = False
    network: str | None = None
    target: str | None = None
    secrets: tuple[BuildSecret, ...] = ()
    shm_size: int | None = None
    tags: tuple[str, ...] = ()
    ulimits: tuple[tuple[str, int, int], ...] = ()
    """(name, soft, hard), as Ulimit has them."""
    platforms: tuple[str, ...] = ()
    privileged: bool = False
    extra_hosts: tuple[tuple[str, str], ...] = ()
    isolation: str | None = None
    entitlements: tuple[str, ...] = ()
    provenance: str | None = None
    sbom: str | None = None
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A command run in a running container beside its process. None: as the service has it."""

    command: tuple[str, ...] | None = None
    user: str | None = None
    privileged: bool = False
    working_dir: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProbe:
    """A GET request to the container's own loopback (x-http). A status from `lowest` to `highest` is success;
    `host` is what the request calls the server."""

    port: int
    path: str = "/"
    scheme: Literal["http", "https"] = "http"
    host: str = "localhost"
    lowest: int = 200
    highest: int = 399


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpProbe:
    """A connection to the container's own loopback (x-tcp)."""

    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InitContainer:
    """A container that must run to exit code 0 before the service starts: once, or for each replica."""

    image: str | None = None
    command: tuple[str, ...] | None = None
    user: str | None = None
    privileged: bool = False
    working_dir: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    per_replica: bool = False
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What to do when something below `path` changes. `target` is None only where nothing is copied."""

    path: str
    action: Literal["rebuild", "sync", "restart", "sync+restart", "sync+exec"]
    target: str | None = None
    ignore: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exec: Hook | None = None
    initial_sync: bool = False
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """How containers are replaced, or a failed update undone. `parallelism` 0 is all at once."""

    parallelism: int | None = None
    delay: float = 0.0
    failure_action: str | None = None
    monitor: float = 0.0
    max_failure_ratio: float = 0.0
    order: Literal["start-first", "stop-first"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """On which machines of a cluster; `spread` are the labels that containers are spread over."""

    constraints: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()
    max_replicas_per_node: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy:
    """What `deploy` says besides the number of containers, their limits and their restarts."""

    mode: str | None = None
    endpoint_mode: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    update: Update | None = None
    rollback: Update | None = None
    placement: Placement | None = None
    reserved_cpus: float | None = None
    generic_resources: tuple[tuple[str, int], ...] = ()
    """(kind, how many) pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequest:
    """Devices that a container must have, by what they can do. `count` -1 is all of them."""

    capabilities: tuple[str, ...] = ()
    driver: str | None = None
    count: int = 0
    device_ids: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockIo:
    """Weights and limits of block devices; pairs of a device's path and its weight or rate."""

    weight: int | None = None
    weight_device: tuple[tuple[str, int], ...] = ()
    device_read_bps: tuple[tuple[str, int], ...] = ()
    device_write_bps: tuple[tuple[str, int], ...] = ()
    device_read_iops: tuple[tuple[str, int], ...] = ()
    device_write_iops: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A program outside that provides the service; an option with several values is given several times."""

    type: str
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """A model (a key of Stack.models) and the variables that tell the service of it."""

    model: str
    endpoint_var: str | None = None
    model_var: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A language model that services use."""

    key: str
    model: str
    name: str | None = None
    context_size: int | None = None
    runtime_flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialSpec:
    """An account of a Windows domain; `config` is a key of Stack.configs."""

    config: str | None = None
    file: str | None = None
    registry: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMount:
    """The content of an image, read-only, at a path of the container."""

    source: str
    target: str
    subpath: str = ""
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFile:
    """What a config or a secret says besides its content, which is in the mounts of the services."""

    key: str
    name: str
    external: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    driver: str | None = None
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    template_driver: str | None = None
