"""A container -> OCI bundle: config.json (runtime-spec 1.0.2) and launch.json (what OCI does not describe).

Pure: everything that had to be looked up comes in as `Ground`. Defaults are Docker's, so that an image
finds what it expects; each can be changed by the service.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from orchestrator.engines.local.places import Places
from orchestrator.engines.local.program import (
    arguments,
    capabilities,
    environment,
    hostname,
    user_numbers,
    user_text,
)
from orchestrator.images.config import ImageConfig
from orchestrator.kernel.reading import LIMIT
from orchestrator.model.errors import EngineError, ExitCode
from orchestrator.model.frozen import dataclass, field
from orchestrator.model.observation import Container
from orchestrator.model.stack import (
    BindMount,
    FileMount,
    Isolated,
    OfHost,
    OfService,
    Private,
    Service,
    TmpfsMount,
    VolumeMount,
)

INIT = "/sbin/docker-init"

MASKED_PATHS = (
    "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug "
    "/proc/scsi /proc/timer_list /proc/timer_stats /sys/firmware /sys/devices/virtual/powercap"
).split()
READONLY_PATHS = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger".split()
SHM = "/dev/shm"  # noqa: S108
SHM_SIZE = 64 * 1024 * 1024
NETWORK_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}
EVERY_GROUP = 2147483647
"""GID_T_MAX, the end of net.ipv4.ping_group_range."""
TTY_GROUP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RootLayer:
    """One overlay of the root: `target` below the root, lower directories topmost first."""

    target: str
    lower: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDevice:
    """A device node of the host, as stat(2) saw it."""

    path: str
    kind: Literal["b", "c"]
    major: int
    minor: int
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeding:
    """A volume to fill from the root's content at `target` before it is first bound."""

    target: str
    data: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """Another runtime that runs the container (kernel/foreign)."""

    path: str
    enter: bool
    """Whether its containers are plain namespaces, which we enter ourselves for `exec`."""
    cgroups: tuple[str, ...] = ()
    """What its own processes join."""
    hidden: str = ""
    """The unified hierarchy, where it is not the runtime's business."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What was looked up or prepared on the machine for one container."""

    places: Places
    image: ImageConfig | None
    root: tuple[RootLayer, ...]
    volumes: Mapping[str, str] = field(default_factory=dict)
    """Target -> directory of the host, for every volume mount."""
    written_files: Mapping[str, str] = field(default_factory=dict)
    """Target -> file of the host, for configs and secrets with content."""
    etc: Mapping[str, str] = field(default_factory=dict)
    """/etc/hosts, /etc/hostname, /etc/resolv.conf -> file of the host."""
    seeds: tuple[Seeding, ...] = ()
    devices: tuple[HostDevice, ...] = ()
    cgroups: tuple[str, ...] = ()
    above: str = ""
    """The group in which all of ours lie: where systemd keeps them, a scope."""
    resources: Mapping[str, Any] = field(default_factory=dict)
    """`linux.resources`: the limits once more, for whoever reads the bundle."""
    seccomp: str | None = None
    """The compiled filter."""
    policy: str = ""
    """`linux.seccomp`, from which it was compiled: as JSON, for it is long and always the same."""
    joined: frozenset[str] = frozenset()
    """Kinds of namespace that are there before the container."""
    runtime: Foreign | None = None
    no_new_privileges: bool = False
    unmasked: bool = False
    thermal: tuple[str, ...] = ()
    """The thermal_throttle directory of each processor: how hot neighbours run it (a side channel)."""
    init: str | None = None
    stdin: bool = False
    all_capabilities: tuple[str, ...] = ()
    host_name: str = ""
    """The machine's own."""
    highest_group: int = EVERY_GROUP
    """The last group id that can be had: a user without privileges has those of a map, or only 0."""


Json = dict[str, Any]


def texts(container: Container, ground: Ground) -> dict[str, str]:
    """The two documents, by name. Raises EngineError when there is nothing to run or too much to say."""
    told = _config(container, ground)
    config = json.dumps(told, separators=(",", ":"))
    if len(config) + len(ground.policy) > LIMIT:
        raise _too_much(told["process"])
    about = launch(container, ground)
    if ground.policy:
        assert config.endswith("}}")  # `linux` stands last
        head = f'{config[:-2]},"seccomp":'
        if ground.runtime is None:
            about["policy"] = {"start": len(head), "end": len(head) + len(ground.policy)}
        config = f"{head}{ground.policy}}}}}"
    return {"config": config, "launch": json.dumps(about, separators=(",", ":"))}


def _too_much(process: Json) -> EngineError:
    longest = max((one.partition("=") for one in process["env"]), key=lambda one: len(one[2]))
    size = sum(len(word) + 1 for word in (*process["args"], *process["env"]))
    return EngineError(
        f"command and environment take {size} bytes, which is more than can be passed on; "
        f"the largest variable is {longest[0]}, {len(longest[2])} bytes",
        retryable=False,
        exit_code=ExitCode.NOT_EXECUTABLE,
    )


def config(container: Container, ground: Ground) -> Json:
    """config.json as a document."""
    document: Json = json.loads(texts(container, ground)["config"])
    return document


def _config(container: Container, ground: Ground) -> Json:
    service = container.definition
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": service.read_only},
        **_host_names(container, ground),
        "process": process(container, ground),
        "mounts": mounts(container, ground),
        "annotations": {
            "io.pystack.stack": container.stack,
            "io.pystack.service": container.service,
            "io.pystack.name": container.name,
            **service.annotations,
        },
        "linux": _linux(container, ground),
    }


def _host_names(container: Container, ground: Ground) -> Json:
    """Left out without a uts namespace of the container's own: they would rename the host, or a peer."""
    service = container.definition
    if not isinstance(service.uts, Private):
        return {}
    return {
        "hostname": hostname(container, ground.host_name),
        **({"domainname": service.domainname} if service.domainname else {}),
    }


def launch(container: Container, ground: Ground) -> Json:
    """launch.json as a document; see kernel/launch for its meaning."""
    bundle = ground.places.bundle(container.id)
    layers = ground.places.container(container.stack, container.id)
    document = {
        "format": 1,
        "stdin": str(bundle / "stdin") if ground.stdin else None,
        "stdout": str(bundle / "stdout"),
        "stderr": str(bundle / "stderr"),
        "cgroups": list(ground.cgroups),
        "seccomp": ground.seccomp,
        "user": user_text(container.definition, ground.image),
        "groups": list(container.definition.group_add),
        "root": [
            {
                "target": layer.target,
                "lower": list(layer.lower),
                "upper": str(layers / "layers" / (layer.target.replace("/", "-") or "root") / "upper"),
                "work": str(layers / "layers" / (layer.target.replace("/", "-") or "root") / "work"),
            }
            for layer in ground.root
        ],
        "subpaths": {
            mount.target: mount.subpath
            for mount in container.definition.mounts
            if isinstance(mount, VolumeMount) and mount.subpath
        },
        "seed": [{"target": seed.target, "data": seed.data, "state": seed.state} for seed in ground.seeds],
    }
    if ground.runtime is not None:
        document |= _handed_over(container, ground, ground.runtime)
    return document


def _handed_over(container: Container, ground: Ground, runtime: Foreign) -> Json:
    """What launch.json says besides when another runtime runs the container."""
    return {
        "subpaths": {},
        "sources": [
            {
                "at": _part(container, ground, mount),
                "source": ground.volumes[mount.target],
                "beneath": mount.subpath,
            }
            for mount in container.definition.mounts
            if isinstance(mount, VolumeMount) and mount.subpath
        ],
        "runtime": {
            "path": runtime.path,
            "state": str(ground.places.bundle(container.id) / "runtime"),
            "cgroups": list(runtime.cgroups),
            "hidden": runtime.hidden,
            "enter": runtime.enter,
        },
    }


def _part(container: Container, ground: Ground, mount: VolumeMount) -> str:
    """Where another runtime finds part of a volume: under a path that no container can bend."""
    number = [one.target for one in container.definition.mounts].index(mount.target)
    return str(ground.places.bundle(container.id) / "sources" / str(number))


# --- process ---------------------------------------------------------------------------------------


def process(container: Container, ground: Ground) -> Json:
    service = container.definition
    return {
        "terminal": service.tty,
        "user": user_numbers(user_text(service, ground.image)),
        "args": [*([INIT, "--"] if ground.init else []), *arguments(service, ground.image)],
        "env": [
            f"{key}={value}" for key, value in environment(container, ground.image, ground.host_name).items()
        ],
        "cwd": service.working_dir or (ground.image.working_dir if ground.image else "") or "/",
        "capabilities": _capability_sets(service, ground),
        "rlimits": [
            {"type": f"RLIMIT_{limit.name.upper()}", "soft": _rlimit(limit.soft), "hard": _rlimit(limit.hard)}
            for limit in service.ulimits
        ],
        "noNewPrivileges": ground.no_new_privileges,
        **({"oomScoreAdj": service.oom_score_adj} if service.oom_score_adj is not None else {}),
    }


def _rlimit(value: int) -> int:
    """-1 is RLIM_INFINITY, which is 2^64-1 to the kernel."""
    return value if value >= 0 else 2**64 - 1


def _capability_sets(service: Service, ground: Ground) -> Json:
    held = capabilities(service, ground.all_capabilities)
    # Inheritable and ambient stay empty: a non-empty inheritable set was CVE-2022-24769.
    return {"bounding": held, "effective": held, "permitted": held, "inheritable": [], "ambient": []}


# --- mounts ----------------------------------------------------------------------------------------


def mounts(container: Container, ground: Ground) -> list[Json]:
    """Ours first, then the service's by depth of their target, so that none hides another."""
    service = container.definition
    chosen = {mount.target: mount for mount in service.mounts}
    for target in ground.volumes:
        chosen.setdefault(target, VolumeMount(source=None, target=target))
    own = [row for row in _own_mounts(service, ground) if row["destination"] not in chosen]
    etc = [
        _bind(source, target, read_only=False)
        for target, source in ground.etc.items()
        if target not in chosen
    ]
    if ground.init:
        etc.append(_bind(ground.init, INIT, read_only=True))
    users = [
        _user_mount(mount, container, ground)
        for mount in sorted(chosen.values(), key=lambda m: m.target.count("/"))
    ]
    return [*own, *etc, *users]


def _own_mounts(service: Service, ground: Ground) -> list[Json]:
    tty = [f"gid={TTY_GROUP}"] if ground.highest_group >= TTY_GROUP else []
    sys_options = ["nosuid", "noexec", "nodev"] + ([] if service.privileged else ["ro"])
    shm = ["nosuid", "noexec", "nodev", "mode=1777", f"size={service.shm_size or SHM_SIZE}"]
    return [
        _mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *tty],
        ),
        _mount("/sys", "sysfs", "sysfs", sys_options),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", sys_options),
        _mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
        # Shared memory of POSIX is files: who uses the host's ipc namespace finds the host's.
        _bind(SHM, SHM, read_only=False)
        if isinstance(service.ipc, OfHost)
        else _mount(SHM, "tmpfs", "shm", shm),
    ]


def _mount(destination: str, kind: str, source: str, options: list[str]) -> Json:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def _bind(
    source: str, target: str, *, read_only: bool, options: tuple[str, ...] = ("rbind", "rprivate")
) -> Json:
    return _mount(target, "bind", source, [*options, "ro" if read_only else "rw"])


def _user_mount(
    mount: BindMount | VolumeMount | TmpfsMount | FileMount, container: Container, ground: Ground
) -> Json:
    match mount:
        case BindMount():
            kind = "bind" if mount.recursive == "disabled" else "rbind"
            return _bind(
                mount.source, mount.target, read_only=mount.read_only, options=(kind, mount.propagation)
            )
        case VolumeMount():
            apart = ground.runtime is not None and mount.subpath
            source = _part(container, ground, mount) if apart else ground.volumes[mount.target]
            return _bind(source, mount.target, read_only=mount.read_only)
        case FileMount():
            source = ground.written_files.get(mount.target) or mount.path or ""
            return _bind(source, mount.target, read_only=True)
        case TmpfsMount():
            return _mount(mount.target, "tmpfs", "tmpfs", _tmpfs_options(mount))


def _tmpfs_options(mount: TmpfsMount) -> list[str]:
    options = ["nosuid", "nodev", "noexec"] if "exec" not in mount.options else ["nosuid", "nodev"]
    if mount.read_only:
        options.append("ro")
    if mount.size is not None:
        options.append(f"size={mount.size}")
    if mount.mode is not None:
        options.append(f"mode={mount.mode:o}")
    return [*options, *(option for option in mount.options if option not in options)]


# --- isolation -------------------------------------------------------------------------------------


def _linux(container: Container, ground: Ground) -> Json:
    service = container.definition
    open_paths = service.privileged or ground.unmasked
    return {
        "namespaces": [_namespace(kind, container, ground) for kind in namespaces(service)],
        "devices": [_device(device) for device in ground.devices],
        "sysctl": sysctls(service, ground.highest_group),
        "cgroupsPath": f"{ground.above}/{ground.places.cgroup}/{container.stack}/{container.id}",
        "maskedPaths": [] if open_paths else [*MASKED_PATHS, *ground.thermal],
        "readonlyPaths": [] if open_paths else list(READONLY_PATHS),
        **({"resources": dict(ground.resources)} if ground.resources else {}),
    }


def _namespace(kind: str, container: Container, ground: Ground) -> Json:
    """One that is there already is given to our launcher as a descriptor; for another runtime it is bound
    to this path, in a mount namespace that only the start sees."""
    if kind not in ground.joined:
        return {"type": kind}
    return {"type": kind, "path": str(ground.places.bundle(container.id) / "namespaces" / kind)}


def namespaces(service: Service) -> list[str]:
    """Kinds of namespace that are the container's own or joined; absent ones are the host's."""
    kinds = ["mount", "cgroup"]
    sharing = {"pid": service.pid, "ipc": service.ipc, "uts": service.uts, "network": service.network_mode}
    kinds += [kind for kind, mode in sharing.items() if not isinstance(mode, OfHost)]
    return kinds


def sysctls(service: Service, highest_group: int = EVERY_GROUP) -> Json:
    """Docker's network defaults apply to a network namespace of the container's own only."""
    if isinstance(service.network_mode, OfHost | OfService):
        return dict(service.sysctls)
    return {**NETWORK_SYSCTLS, "net.ipv4.ping_group_range": f"0 {highest_group}", **service.sysctls}


def _device(device: HostDevice) -> Json:
    return {
        "path": device.path,
        "type": device.kind,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    }


def shares_names(service: Service) -> bool:
    """Whether our resolver serves the container: it has a network namespace with networks of its own."""
    return bool(service.networks) and not isinstance(service.network_mode, OfHost | OfService | Isolated)


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)


def size(text: str) -> int:
    """Bytes of a log option such as "10m" (docker's units, powers of 1024). Raises EngineError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise EngineError(f"logging option max-size: {text!r} is not a size such as 10m", retryable=False)
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower().replace("b", "") or " "))
