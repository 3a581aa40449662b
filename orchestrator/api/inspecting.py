"""The verb `inspect`: all that is known of containers, volumes and networks, with the fields of docker."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import Any

from orchestrator.api import show, volumes
from orchestrator.api.session import Session
from orchestrator.api.stacks import Stacks
from orchestrator.engines.local import clock, program
from orchestrator.engines.local.names import attachment, known_as
from orchestrator.engines.local.table import Live
from orchestrator.images.config import ImageConfig
from orchestrator.kernel import links
from orchestrator.model.errors import EngineError, PystackError
from orchestrator.model.frozen import dataclass
from orchestrator.model.observation import Container, Health, NetworkState, Run
from orchestrator.model.sections import HttpProbe, TcpProbe
from orchestrator.model.stack import (
    BindMount,
    DirectoryRoot,
    FileMount,
    Healthcheck,
    HostRoot,
    ImageRoot,
    Isolated,
    Mount,
    OfHost,
    OfService,
    RestartPolicy,
    Service,
    Sharing,
    TmpfsMount,
    VolumeMount,
)

Document = dict[str, Any]
NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time, which docker shows for what has not happened."""
_NAMES_LIMIT = 1000


async def inspect(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    """{"containers": {word: document}, "volumes": ..., "networks": ...} for the words of "names" they fit.

    In place of a document a text may say why a word names none.
    """
    table = stacks.machine.table
    found: dict[str, dict[str, Document | str]] = {"containers": {}, "volumes": {}, "networks": {}}
    for word in list(request.get("names") or ())[:_NAMES_LIMIT]:
        lives = _named(word, table.containers)
        if len(lives) == 1:
            found["containers"][word] = container(seen(stacks, lives[0]))
        elif lives:
            found["containers"][word] = f"{word} is the beginning of the id of {len(lives)} containers"
        if word in table.volumes:
            state = table.volumes[word]
            users = sorted(
                table.containers[one].container.name for one in state.users if one in table.containers
            )
            found["volumes"][word] = volume(volumes.row(state, users))
        if word in table.networks:
            found["networks"][word] = network(table.networks[word], table.containers)
    await session.end(found)


def _named(word: str, containers: Mapping[str, Live]) -> list[Live]:
    """By name, else by the beginning of an id."""
    name = word.removeprefix("/")
    by_name = [live for live in containers.values() if live.container.name == name]
    return by_name or [live for key, live in containers.items() if word and key.startswith(word)]


# --- containers ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A container with what its document needs of the machine."""

    container: Container
    image: ImageConfig | None
    status: str
    bundle: str
    log: str
    layer: str
    """Directory of its own files."""
    lowers: tuple[str, ...]
    volumes: Mapping[str, tuple[str, str]]
    """Target -> (name, directory) of each volume in it."""
    networks: Mapping[str, NetworkState]
    aliases: Mapping[str, list[str]]
    """Network -> the names that others know it by there."""
    host_name: str
    offset: float
    """What has to be added to boot time for the wall clock."""


def seen(stacks: Stacks, live: Live) -> Seen:
    """Look at what there is of a container."""
    machine, one = stacks.machine, live.container
    places, table = machine.places, machine.table
    image, lowers = None, []
    if one.image_id:
        try:
            image = machine.store.config(one.image_id)
            lowers = machine.store.layers(one.image_id)
        except (PystackError, OSError):
            pass  # it has lost its image, and goes on without
    supervised = stacks.get(one.stack)
    restarting = show.restarts(one, supervised.loop.desired if supervised else None, clock.now())
    return Seen(
        container=one,
        image=image,
        status="restarting" if restarting else show.state(one),
        bundle=str(places.bundle(one.id)),
        log=str(machine.containers.log_path(one)),
        layer=str(places.container(one.stack, one.id)),
        lowers=tuple(str(path) for path in lowers),
        volumes={
            mounted.target: (mounted.volume, table.volumes[mounted.volume].path)
            for mounted in live.built.volumes
            if mounted.volume in table.volumes
        },
        networks={name: table.networks[name] for name in one.addresses if name in table.networks},
        aliases={
            name: [*dict.fromkeys(wanted.aliases if wanted else ()), *dict.fromkeys(known_as(live, name))]
            for name in one.addresses
            for wanted in [attachment(live.built, name)]
        },
        host_name=os.uname().nodename,
        offset=clock.wall_offset(),
    )


def container(seen: Seen) -> Document:
    """The document of one container. Pure."""
    one, service = seen.container, seen.container.definition
    try:
        argv = program.arguments(service, seen.image)
    except EngineError:
        argv = [""]
    return {
        "Id": one.id,
        "Created": one.created_at,
        "Path": argv[0],
        "Args": argv[1:],
        "State": state(one.run, seen.status, seen.offset),
        "Image": one.image_id,
        "ResolvConfPath": f"{seen.bundle}/etc/resolv.conf",
        "HostnamePath": f"{seen.bundle}/etc/hostname",
        "HostsPath": f"{seen.bundle}/etc/hosts",
        "LogPath": seen.log,
        "Name": f"/{one.name}",
        "RestartCount": one.run.restarts if one.run else 0,
        "Driver": "overlay",
        "Platform": "linux",
        "HostConfig": host_config(one),
        "GraphDriver": {"Data": _root(seen), "Name": "overlay"},
        "Mounts": [_mount(mount, seen.volumes) for mount in service.mounts],
        "Config": config(seen),
        "NetworkSettings": network_settings(seen),
        "Pystack": {
            "Stack": one.stack,
            "Service": one.service,
            "Slot": one.slot,
            "Fingerprint": one.fingerprint,
            "Directory": seen.layer,
        },
    }


def _root(seen: Seen) -> dict[str, str]:
    """The overlay that is its root; the one made of the host's directories has several."""
    match seen.container.definition.root:
        case HostRoot():
            return {}
        case DirectoryRoot(path=path):
            lower = path
        case ImageRoot():
            lower = ":".join(seen.lowers)
    own = f"{seen.layer}/layers/root"
    return {"LowerDir": lower, "UpperDir": f"{own}/upper", "WorkDir": f"{own}/work"}


def state(run: Run | None, status: str, offset: float) -> Document:
    """`State`. Times are told by the wall clock as it goes now. Pure."""
    ended = run is not None and run.finished is not None
    return {
        "Status": status,
        "Running": run is not None and not ended,
        "Paused": status == "paused",
        "Restarting": status == "restarting",
        "OOMKilled": bool(run and run.oom_killed),
        "Dead": False,
        "Pid": run.pid if run is not None and not ended else 0,
        "ExitCode": (run.exit_code or 0) if run is not None and ended else 0,
        "Error": run.error if run is not None else "",
        "StartedAt": _time(_since(run), offset) if run is not None else NEVER,
        "FinishedAt": _time(run.finished, offset) if run is not None and run.finished is not None else NEVER,
        **({"Health": health(run.health, offset)} if run is not None and run.health is not None else {}),
    }


def health(health: Health, offset: float) -> Document:
    """`State.Health`. Pure."""
    return {
        "Status": health.status.value,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": _time(result.started, offset),
                "End": _time(result.ended, offset),
                "ExitCode": result.exit_code,
                "Output": result.output,
            }
            for result in health.results
        ],
    }


def _since(run: Run) -> float:
    """When it started, by this boot's clock; of a run before it no more is known than that it is over."""
    return run.finished if run.before_boot and run.finished is not None else run.started


def _time(boot: float, offset: float) -> str:
    return clock.rfc3339(boot + offset)


def config(seen: Seen) -> Document:
    """`Config`: what was asked for, over what the image says. Pure."""
    one, service, image = seen.container, seen.container.definition, seen.image
    env = program.environment(one, image, seen.host_name)
    ports = {*(image.exposed_ports if image else ()), *map(_port, service.expose)}
    ports |= {f"{port.target}/{port.protocol}" for port in service.ports}
    entrypoint = service.entrypoint
    command = service.command
    if entrypoint is None and image is not None:
        entrypoint = image.entrypoint
        command = command if command is not None else image.command
    return {
        "Hostname": program.hostname(one, seen.host_name),
        "Domainname": service.domainname or "",
        "User": program.user_text(service, image),
        "Tty": service.tty,
        "OpenStdin": service.stdin_open,
        **({"ExposedPorts": {port: {} for port in sorted(ports)}} if ports else {}),
        "Env": [f"{key}={value}" for key, value in env.items()],
        "Cmd": _list(command),
        "Image": show.root_name(service.root),
        "Volumes": {path: {} for path in image.volumes} if image and image.volumes else None,
        "WorkingDir": service.working_dir or (image.working_dir if image else ""),
        "Entrypoint": _list(entrypoint),
        "Labels": show.labels(one, image),
        "StopSignal": service.stop_signal or (image.stop_signal if image else None) or "SIGTERM",
        "StopTimeout": int(service.stop_grace_period),
        **({"Healthcheck": _healthcheck(one.healthcheck)} if one.healthcheck else {}),
    }


def _port(text: str) -> str:
    return text if "/" in text else f"{text}/tcp"


def _list(words: tuple[str, ...] | None) -> list[str] | None:
    return None if words is None else list(words)


def _test(check: Healthcheck) -> tuple[str, ...] | None:
    """Our own probes stand where Docker shows a command."""
    match check.probe:
        case TcpProbe(port=port):
            return ("X-TCP", f"127.0.0.1:{port}")
        case HttpProbe() as http:
            url = f"{http.scheme}://127.0.0.1:{http.port}{http.path}"
            return ("X-HTTP", url, f"{http.lowest}-{http.highest}")
        case None:
            return check.test


def _healthcheck(check: Healthcheck) -> Document:
    def nanoseconds(seconds: float | None) -> int:
        return int((seconds or 0) * 1_000_000_000)

    return {
        "Test": ["NONE"] if check.disable else _list(_test(check)),
        "Interval": nanoseconds(check.interval),
        "Timeout": nanoseconds(check.timeout),
        "Retries": check.retries or 0,
        "StartPeriod": nanoseconds(check.start_period),
        "StartInterval": nanoseconds(check.start_interval),
    }


def host_config(one: Container) -> Document:
    """`HostConfig`: what it may and how much. Pure."""
    service, limits = one.definition, one.definition.resources
    bindings: dict[str, list[Document]] = {}
    for port in one.ports:
        row = {"HostIp": port.host_ip, "HostPort": str(port.host_port)}
        bindings.setdefault(f"{port.target}/{port.protocol}", []).append(row)
    return {
        "Binds": [_bind(mount) for mount in service.mounts if isinstance(mount, BindMount)] or None,
        "LogConfig": {"Type": service.logging.driver, "Config": dict(service.logging.options)},
        "NetworkMode": _mode(service.network_mode, one, "bridge"),
        "PortBindings": bindings,
        "RestartPolicy": _restart(service.restart),
        "AutoRemove": service.remove_on_exit,
        "CapAdd": list(service.cap_add) or None,
        "CapDrop": list(service.cap_drop) or None,
        "Dns": list(service.dns),
        "DnsOptions": list(service.dns_opt),
        "DnsSearch": list(service.dns_search),
        "ExtraHosts": [f"{name}:{address}" for name, address in service.extra_hosts],
        "GroupAdd": list(service.group_add) or None,
        "IpcMode": _mode(service.ipc, one, "private"),
        "OomScoreAdj": service.oom_score_adj or 0,
        "PidMode": _mode(service.pid, one, ""),
        "Privileged": service.privileged,
        "ReadonlyRootfs": service.read_only,
        "SecurityOpt": list(service.security_opt) or None,
        "Tmpfs": {
            mount.target: ",".join(mount.options) for mount in service.mounts if isinstance(mount, TmpfsMount)
        },
        "UTSMode": _mode(service.uts, one, ""),
        "UsernsMode": service.userns_mode or "",
        "ShmSize": service.shm_size if service.shm_size is not None else 64 << 20,
        "Sysctls": dict(service.sysctls),
        "Runtime": service.runtime or "pystack",
        "Init": service.init,
        "CpuShares": limits.cpu_shares or 0,
        "Memory": limits.memory or 0,
        "MemorySwap": limits.memory_swap or 0,
        "MemoryReservation": limits.memory_reservation or 0,
        "NanoCpus": int((limits.cpus or 0) * 1_000_000_000),
        "CpusetCpus": limits.cpuset or "",
        "CpusetMems": limits.cpuset_mems or "",
        "PidsLimit": limits.pids,
        "OomKillDisable": limits.oom_kill_disable,
        "Ulimits": [{"Name": one.name, "Soft": one.soft, "Hard": one.hard} for one in service.ulimits],
        "Devices": _devices(service),
    }


def _devices(service: Service) -> list[Document]:
    return [
        {"PathOnHost": one.source, "PathInContainer": one.target, "CgroupPermissions": one.permissions}
        for one in service.devices
    ]


def _restart(policy: RestartPolicy) -> Document:
    return {"Name": policy.condition, "MaximumRetryCount": policy.max_attempts or 0}


def _mode(sharing: Sharing, one: Container, own: str) -> str:
    match sharing:
        case OfHost():
            return "host"
        case OfService(service=name):
            return f"container:{one.peers.get(name, name)}"
        case Isolated():
            return "none"
    return next(iter(one.addresses), own) if own == "bridge" else own


def _bind(mount: BindMount) -> str:
    return f"{mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'}"


def _mount(mount: Mount, named: Mapping[str, tuple[str, str]]) -> Document:
    """One of `Mounts`."""
    row: Document = {
        "Type": "bind",
        "Source": "",
        "Destination": mount.target,
        "Mode": "",
        "RW": True,
        "Propagation": "",
    }
    match mount:
        case BindMount():
            row |= {"Source": mount.source, "RW": not mount.read_only, "Propagation": mount.propagation}
        case VolumeMount():
            name, path = named.get(mount.target, (mount.source or "", ""))
            row = {
                "Type": "volume",
                "Name": name,
                "Source": path,
                "Destination": mount.target,
                "Driver": "local",
            }
            row |= {"Mode": "", "RW": not mount.read_only, "Propagation": ""}
        case TmpfsMount():
            row |= {"Type": "tmpfs", "RW": not mount.read_only}
        case FileMount():
            row |= {"Source": mount.path or "", "RW": False}
    return row


def network_settings(seen: Seen) -> Document:
    """`NetworkSettings`. Pure."""
    one = seen.container
    runs = one.run is not None and one.run.finished is None
    ports: dict[str, list[Document] | None] = {}
    for text in config(seen).get("ExposedPorts") or ():
        ports[text] = None
    for port in one.ports if runs else ():
        row = {"HostIp": port.host_ip or "0.0.0.0", "HostPort": str(port.host_port)}  # noqa: S104 - shown
        ports[f"{port.target}/{port.protocol}"] = [*(ports.get(f"{port.target}/{port.protocol}") or ()), row]
    networks = {name: _endpoint(seen, name, runs=runs) for name in one.addresses}
    first: Document = next(iter(networks.values()), {})
    return {
        "SandboxKey": f"/proc/{one.run.pid}/ns/net" if runs and one.run else "",
        "Ports": ports if runs else {},
        "IPAddress": first.get("IPAddress", ""),
        "IPPrefixLen": first.get("IPPrefixLen", 0),
        "Gateway": first.get("Gateway", ""),
        "MacAddress": first.get("MacAddress", ""),
        "Networks": networks,
    }


def _endpoint(seen: Seen, name: str, *, runs: bool) -> Document:
    state, address = seen.networks.get(name), seen.container.addresses[name]
    prefix = ipaddress.ip_network(state.subnet).prefixlen if state is not None and state.subnet else 0
    return {
        "Aliases": seen.aliases.get(name) or None,
        "NetworkID": name,
        "Gateway": state.gateway if state is not None and runs else "",
        "IPAddress": address if runs else "",
        "IPPrefixLen": prefix if runs else 0,
        "MacAddress": links.mac(address) if runs and address else "",
        "DNSNames": seen.aliases.get(name) or None,
    }


# --- volumes and networks ------------------------------------------------------------------------


def volume(row: Mapping[str, Any]) -> Document:
    """The document of one volume, made of its row. Pure."""
    return {
        "CreatedAt": row["created"],
        "Driver": row["driver"],
        "Labels": row["labels"],
        "Mountpoint": row["mountpoint"],
        "Name": row["name"],
        "Options": row["options"] or None,
        "Scope": "local",
        "UsedBy": row["users"],
    }


def network(state: NetworkState, containers: Mapping[str, Live]) -> Document:
    """The document of one network. Pure."""
    members = {}
    for key in state.users:
        live = containers.get(key)
        if live is not None and live.container.run is not None and live.container.run.finished is None:
            address = live.container.addresses.get(state.name, "")
            prefix = state.subnet.rpartition("/")[2]
            row = {"Name": live.container.name, "MacAddress": links.mac(address) if address else ""}
            members[key] = {**row, "IPv4Address": f"{address}/{prefix}" if address else ""}
    own = {"com.docker.compose.network": state.key, "com.docker.compose.project": state.stack}
    return {
        "Name": state.name,
        "Id": state.name,
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Config": [{"Subnet": state.subnet, "Gateway": state.gateway}]},
        "Internal": state.internal,
        "Containers": members,
        "Options": {},
        "Labels": {key: value for key, value in own.items() if value},
    }
