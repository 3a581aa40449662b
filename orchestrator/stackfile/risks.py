"""Rules of `pystack check` about what lets others in: images, secrets, ports, isolation."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from orchestrator.stackfile.finding import Found, Look, Path, bodies, items, part, text
from orchestrator.stackfile.problem import Mark
from orchestrator.stackfile.tree import Map, Node, Seq

_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound


# --- images ----------------------------------------------------------------------------------------


def unpinned_image(look: Look) -> Iterator[Found]:
    for name, service in look.services():
        image = text(service, "image")
        if not image or "@" in image or "build" in service:
            continue
        tag = image.rpartition("/")[2].partition(":")[2]
        if tag in ("", "latest"):
            said = "has no tag" if not tag else "has the tag latest"
            yield Found(
                path=("services", name, "image"),
                mark=service.mark("image"),
                message=f"image {image!r} {said}: what it means changes over time",
            )


def unnamed_build(look: Look) -> Iterator[Found]:
    for name, service in look.services():
        if "build" in service and not service.get("image"):
            yield Found(
                path=("services", name, "build"),
                mark=service.key_mark("build"),
                message=f"what is built for {name} has no name of its own, so no version",
            )


# --- secrets ---------------------------------------------------------------------------------------

_SECRET_NAME = re.compile(
    r"(^|[_.-])(pass(word|wd|phrase)?|pwd|secret|token|api_?key|(access|private|secret|auth|encryption|signing)"
    r"_?key|credentials?)($|[_.-](?!file|path|dir|url|name|id|ttl|length|expir|host))",
    re.IGNORECASE,
)
"""`DB_PASSWORD`, `API_KEY`; not `DB_PASSWORD_FILE`, which names a file."""
_NO_SECRET = re.compile(
    r"|true|false|yes|no|on|off|none|null|\d{1,4}|/.*|<.*>|x{3,}|\*{3,}|change[-_ ]?me",
    re.IGNORECASE | re.DOTALL,
)
"""Values that hide nothing: switches, small numbers, paths, and what asks to be replaced."""
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"|gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60}"
    r"|glpat-[A-Za-z0-9_-]{20}"
    r"|xox[abprs]-[A-Za-z0-9-]{20}"
    r"|[sr]k_live_[A-Za-z0-9]{20}"
    r"|AIza[A-Za-z0-9_-]{35}"
    r"|npm_[A-Za-z0-9]{36}"
    r"|eyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16}"
    r"|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
)
"""The published forms of keys of common services; each names itself by its first letters."""
_URL_SECRET = re.compile(r"[a-z][a-z0-9+.-]*://[^\s:@/]*:([^\s:@/$]+)@", re.IGNORECASE)
_RANDOM = re.compile(r"[A-Za-z0-9+/=_-]{24,}")
_HEX = re.compile(r"[0-9a-fA-F]+")
_MOST = 10_000
"""Characters of a text that are looked at."""


def secret_in_environment(look: Look) -> Iterator[Found]:
    for name, service in look.services():
        variables = part(service, "environment")
        for key, value in variables.items():
            mark = variables.mark(key)
            if not isinstance(value, str) or _TOKEN.search(value[:_MOST]) or not look.literal(mark):
                continue
            if why := _secret(key, value):
                yield Found(
                    path=("services", name, "environment", key),
                    mark=mark,
                    message=f"{key} of {name} {why}, and everybody who reads the file knows it",
                )


def _secret(key: str, value: str) -> str:
    if _SECRET_NAME.search(key) and not _NO_SECRET.fullmatch(value):
        return "looks like a secret"
    if _URL_SECRET.search(value[:_MOST]):
        return "holds the password of an address"
    return "looks like a key" if _looks_random(value) else ""


def _looks_random(value: str) -> bool:
    """Letters and digits mixed as only a machine mixes them: near the most bits a character can carry."""
    if not _RANDOM.fullmatch(value) or len(value) > 200:
        return False
    bits = -sum(n / len(value) * math.log2(n / len(value)) for n in map(value.count, set(value)))
    if _HEX.fullmatch(value):
        return len(value) >= 32 and bits > 3
    kinds = sum(any(map(test, value)) for test in (str.islower, str.isupper, str.isdigit))
    return kinds == 3 and bits > 4


def secret_in_text(look: Look) -> Iterator[Found]:
    for top in ("services", "configs"):
        for name, body in bodies(look.tree.get(top)):
            for path, mark, value in _texts(body, (top, name), None):
                found = _TOKEN.search(value[:_MOST])
                if found is not None and look.literal(mark):
                    kind = found.group()[:4].strip("-")
                    what = "a private key" if kind == "" else f"a key ({kind}...)"
                    yield Found(path=path, mark=mark, message=f"{what} stands in the file")


def _texts(node: Node, path: Path, mark: Mark | None) -> Iterator[tuple[Path, Mark | None, str]]:
    if isinstance(node, str):
        yield path, mark, node
    elif isinstance(node, Map):
        for key, value in node.items():
            yield from _texts(value, (*path, key), node.mark(key) or mark)
    elif isinstance(node, Seq):
        for index, value, at in items(node):
            yield from _texts(value, (*path, index), at or mark)


def secret_in_build(look: Look) -> Iterator[Found]:
    for name, service in look.services():
        arguments = part(part(service, "build"), "args")
        for key, value in arguments.items():
            if value is not None and value != "" and _SECRET_NAME.search(key):
                yield Found(
                    path=("services", name, "build", "args", key),
                    mark=arguments.mark(key),
                    message=f"the build argument {key} stays in the history of the image",
                )


# --- ports -----------------------------------------------------------------------------------------

_GUARDED = {
    22: "SSH",
    1433: "SQL Server",
    1521: "Oracle",
    2375: "an engine's API",
    2376: "an engine's API",
    2379: "etcd",
    3306: "MySQL",
    5432: "PostgreSQL",
    5672: "RabbitMQ",
    5984: "CouchDB",
    6379: "Redis",
    7000: "Cassandra",
    8086: "InfluxDB",
    8500: "Consul",
    9042: "Cassandra",
    9092: "Kafka",
    9200: "Elasticsearch",
    11211: "memcached",
    15672: "RabbitMQ's console",
    27017: "MongoDB",
}
"""What listens there, by the container's port; few of them ask who is there unless told to."""


_SHORT = re.compile(r"[^\s:]*:(-[^\s:]*:)?\d+(/\w+)?")
"""`8080:80`, `${PORT:-8080}:80`: a port of the machine and one of the container."""


def _public(look: Look) -> Iterator[tuple[str, int, Map, Mark | None]]:
    for name, service in look.services():
        for index, port, mark in items(service.get("ports")):
            if isinstance(port, Map) and text(port, "host_ip") in _EVERYWHERE:
                yield name, index, port, mark


def public_port(look: Look) -> Iterator[Found]:
    for name, index, port, mark in _public(look):
        if port.get("target") not in _GUARDED:
            yield Found(
                path=("services", name, "ports", index),
                mark=mark,
                message=f"port {_shown(port)} of {name} can be reached from every network of this machine",
                hint=_only_here(look, port, mark),
            )


def public_store(look: Look) -> Iterator[Found]:
    for name, index, port, mark in _public(look):
        what = _GUARDED.get(target) if isinstance(target := port.get("target"), int) else None
        if what is not None:
            yield Found(
                path=("services", name, "ports", index),
                mark=mark,
                message=f"port {_shown(port)} of {name} ({what}) can be reached from every network of this "
                "machine",
                hint=f"services of the stack reach it without; or, {_only_here(look, port, mark)}",
            )


def _shown(port: Map) -> str:
    return text(port, "published") or str(port.get("target"))


def _only_here(look: Look, port: Map, mark: Mark | None) -> str:
    written = look.written(mark).strip("\"'")
    short = written if _SHORT.fullmatch(written) else f"{text(port, 'published')}:{port.get('target')}"
    return f'for this machine only: "127.0.0.1:{short}"'


# --- isolation -------------------------------------------------------------------------------------

_SOCKETS = ("docker.sock", "containerd.sock", "podman.sock", "crio.sock")
_STRONG = {
    "ALL": "everything that root may",
    "SYS_ADMIN": "mounts, namespaces, and most of what root may",
    "SYS_MODULE": "loads code into the kernel",
    "SYS_RAWIO": "reads and writes all memory and all disks",
    "SYS_PTRACE": "reads and changes other processes",
    "DAC_READ_SEARCH": "reads every file, also past the container's root",
    "SYS_BOOT": "restarts the machine",
    "SYS_TIME": "sets the machine's clock",
    "BPF": "loads programs into the kernel",
    "PERFMON": "watches the whole machine",
    "NET_ADMIN": "changes addresses, routes and filters",
    "MAC_ADMIN": "changes the security policy",
    "SYSLOG": "reads the kernel's log",
}
_SYSTEM = (
    "/etc",
    "/root",
    "/boot",
    "/proc",
    "/sys",
    "/dev",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/var/run",
    "/run",
)
_DISKS = re.compile(r"/dev/(mem|kmem|port|sd[a-z]|nvme|vd[a-z]|xvd|dm-|mapper/|disk/|md\d|loop)")


def privileged(look: Look) -> Iterator[Found]:
    for name, service in look.services():
        if service.get("privileged") is True:
            yield Found(
                path=("services", name, "privileged"),
                mark=service.mark("privileged"),
                message=f"{name} is privileged: its root is root of this machine",
            )


def _binds(look: Look) -> Iterator[tuple[str, int, Map, Mark | None]]:
    for name, service in look.services():
        for index, mount, mark in items(service.get("volumes")):
            if isinstance(mount, Map) and mount.get("type") == "bind":
                yield name, index, mount, mark


def engine_socket(look: Look) -> Iterator[Found]:
    for name, index, mount, mark in _binds(look):
        source = text(mount, "source")
        if source.rpartition("/")[2] in _SOCKETS:
            yield Found(
                path=("services", name, "volumes", index),
                mark=mark,
                message=f"{name} gets {source}: whoever has it is root of this machine",
            )


def host_directory(look: Look) -> Iterator[Found]:
    for name, index, mount, mark in _binds(look):
        source = text(mount, "source").rstrip("/") or "/"
        if not text(mount, "source").startswith("/") or source.rpartition("/")[2] in _SOCKETS:
            continue
        writable = mount.get("read_only") is not True
        if source == "/" or (writable and source in _SYSTEM):
            yield Found(
                path=("services", name, "volumes", index),
                mark=mark,
                message=f"{name} can {'change' if writable else 'read'} {source} of this machine",
            )


def raw_device(look: Look) -> Iterator[Found]:
    for name, service in look.services():
        for index, device, mark in items(service.get("devices")):
            source = text(device, "source") if isinstance(device, Map) else ""
            if _DISKS.match(source):
                yield Found(
                    path=("services", name, "devices", index),
                    mark=mark,
                    message=f"{name} gets {source}: all that is on it, past every permission",
                )


def strong_capability(look: Look) -> Iterator[Found]:
    for name, service in look.services():
        for index, value, mark in items(service.get("cap_add")):
            bare = value.upper().removeprefix("CAP_") if isinstance(value, str) else ""
            if bare in _STRONG:
                yield Found(
                    path=("services", name, "cap_add", index),
                    mark=mark,
                    message=f"{name} gets {bare}: {_STRONG[bare]}",
                )


def host_namespace(look: Look) -> Iterator[Found]:
    shared = {
        "network_mode": "every port and address",
        "pid": "every process",
        "ipc": "the shared memory",
        "uts": "the name",
        "userns_mode": "the users",
        "cgroup": "the limits",
    }
    for name, service in look.services():
        for key, what in shared.items():
            if service.get(key) == "host":
                yield Found(
                    path=("services", name, key),
                    mark=service.mark(key),
                    message=f"{name} shares {what} of this machine ({key}: host)",
                )


def unconfined(look: Look) -> Iterator[Found]:
    for name, service in look.services():
        for index, value, mark in items(service.get("security_opt")):
            option = value.replace(":", "=", 1) if isinstance(value, str) else ""
            if option.endswith("=unconfined") or option == "label=disable":
                yield Found(
                    path=("services", name, "security_opt", index),
                    mark=mark,
                    message=f"{name} runs without a protection that is on by default ({value})",
                )
