"""The long forms of what a service lists: ports, mounts, files, devices, hosts, networks, dependencies."""

from __future__ import annotations

import posixpath

from orchestrator.stackfile import mounts, ports, problem
from orchestrator.stackfile.forms import (
    Keyed,
    Rule,
    Spot,
    between,
    boolean,
    entries,
    fields,
    integer,
    mapping,
    named,
    section,
    size,
    text,
    values,
    whole,
)
from orchestrator.stackfile.problem import Mark
from orchestrator.stackfile.scalar import text_of
from orchestrator.stackfile.tree import Map, Node, Seq

_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104
_STARTED = (("condition", "service_started"), ("required", True))


def _map(**values_: Node) -> Map:
    result = Map()
    for key, value in values_.items():
        if value is not None and value != "":
            result[key] = value
    return result


_PORT_WORK = 400
"""What a port counts as, in characters of text."""


def port_list(node: Node, spot: Spot) -> Node:
    result = Keyed()
    for index, entry, mark in entries(node, spot.mark):
        here = spot.inside(index, mark)
        for port in _long_port(entry, here) if isinstance(entry, Map) else _short_port(entry, here):
            address = port.get("host_ip") or _EVERY_ADDRESS
            result.put((address, port.get("target"), port.get("published"), port.get("protocol")), port, mark)
    return result.listed


def _short_port(entry: Node, spot: Spot) -> list[Map]:
    written = text_of(entry if isinstance(entry, str | int) else None)
    try:
        found = ports.parse(written)
    except ValueError as error:
        spot.wrong(
            f"{written!r} is not a port: {error}", hint="ports look like 80, 8080:80 or 127.0.0.1:53:53/udp"
        )
        return []
    # A line of ten characters can stand for 65,535 ports: a whole range is fine, hundreds of them are a bomb.
    spot.report.spend(spot.mark, _PORT_WORK * len(found))
    return [
        _map(
            mode="ingress",
            host_ip=port.host_ip,
            target=port.target,
            published=port.published,
            protocol=port.protocol,
        )
        for port in found
    ]


_PORT = section({"target": between(0), "published": text, "host_ip": text, "protocol": text})


def _long_port(entry: Map, spot: Spot) -> list[Map]:
    port = _PORT(entry, spot)
    assert isinstance(port, Map)
    for key, usual in (("mode", "ingress"), ("protocol", "tcp")):
        if key not in entry:
            port[key] = usual
    protocol, host_ip = port.get("protocol"), entry.get("host_ip")
    if isinstance(host_ip, str):
        try:
            port["host_ip"] = ports.host_address(host_ip or "nothing")
        except ValueError as error:
            spot.wrong(str(error))
    if isinstance(protocol, str):
        port["protocol"] = protocol.lower()
    return [port]


_MOUNT = section(
    {
        "read_only": boolean,
        "target": lambda node, _spot: mounts.clean(node or ".") if isinstance(node, str) else node,
        "bind": section({"create_host_path": boolean}, kept=("create_host_path",)),
        "volume": section({"nocopy": boolean, "labels": mapping}),
        "tmpfs": section({"size": size, "mode": whole}),
        "image": section({}),
    },
    kept=("bind", "volume", "tmpfs", "image"),
)


def mount_list(node: Node, spot: Spot) -> Node:
    result = Keyed()
    for index, entry, mark in entries(node, spot.mark):
        here = spot.inside(index, mark)
        mount = _MOUNT(entry, here) if isinstance(entry, Map) else _short_mount(entry, here)
        if isinstance(mount, Map):
            _check_mount(mount, here)
            # as it is written: docker compose finds /a and /a/ to be one place only when it is too late
            result.put((entry if isinstance(entry, Map) else mount).get("target"), mount, mark)
    return result.listed


def _short_mount(entry: Node, spot: Spot) -> Map | None:
    written = entry if isinstance(entry, str) else ""
    try:
        short = mounts.parse(written)
    except ValueError as error:
        spot.wrong(
            f"{written!r} is not a mount: {error}",
            hint="mounts look like data:/var/lib/data or ./dir:/dir:ro",
        )
        return None
    for option in short.unknown:
        spot.warn(f"unknown mount option {option!r} is ignored")
    part = _map(nocopy=short.nocopy or None, subpath=short.subpath)
    if short.bind:
        part = _map(propagation=short.propagation, selinux=short.selinux, create_host_path=True)
    mount = _map(
        type="bind" if short.bind else "volume",
        source=short.source,
        target=short.target,
        read_only=short.read_only or None,
    )
    if len(written) > 2:  # docker compose, too, says less of /d than of /dd
        mount["bind" if short.bind else "volume"] = part
    return mount


def _check_mount(mount: Map, spot: Spot) -> None:
    source = mount.get("source")
    if mount.get("type") == "bind" and not source:
        spot.wrong("a bind mount needs a source", code=problem.MISSING_KEY)
    if isinstance(source, str) and source.startswith("~") and source[1:2] not in ("", "/"):
        spot.wrong(f"{source!r}: only your own home directory has a short form", hint="write the path out")


def depends_on(node: Node, spot: Spot) -> Node:
    result = Map()
    if isinstance(node, Seq):
        for index, name in enumerate(node):
            if isinstance(name, str):
                result.put(name, _dependency(Map(), spot), node.mark(index))
    elif isinstance(node, Map):
        rule = fields({"required": boolean, "restart": boolean})
        for name, entry in node.items():
            mark = node.key_at.get(name)
            long = rule(entry, spot.inside(name, mark))
            result.put(name, _dependency(long if isinstance(long, Map) else Map(), spot), mark)
    return result


def _dependency(entry: Map, _spot: Spot) -> Map:
    for key, value in _STARTED:
        entry.setdefault(key, value)
    if entry.get("restart") is False:
        del entry["restart"]
    return entry


def attachments(node: Node, spot: Spot) -> Node:
    if isinstance(node, Seq):
        result = Map()
        for index, name in enumerate(node):
            if isinstance(name, str):
                result.put(name, None, node.mark(index))
        return result
    rule = section(
        {
            "aliases": named,
            "link_local_ips": named,
            "priority": whole,
            "gw_priority": whole,
            "driver_opts": mapping,
        }
    )
    return values(lambda entry, here: rule(entry, here) if isinstance(entry, Map) else None)(node, spot)


def file_list(base: str, *, united: bool = True) -> Rule:
    """The configs or secrets of a service. Docker compose writes the target of a short secret out, and
    lets a later one take the place of one with the same target, but for those of a build.
    """
    rule = section({"uid": text, "gid": text, "mode": file_mode}, kept=("source",))

    def apply(node: Node, spot: Spot) -> Node:
        result = Keyed()
        for index, entry, mark in entries(node, spot.mark):
            if isinstance(entry, str):
                file: Node = _map(source=entry)
            else:
                file = rule(entry, spot.inside(index, mark))
            if isinstance(file, Map):
                target = file.get("target") or file.get("source")
                if base != "/" and not (isinstance(entry, Map) and "target" in entry):
                    file.setdefault("target", f"{base}/{target}")
                result.put(posixpath.join(base, str(target)) if united else index, file, mark)
        return result.listed

    return apply


def file_mode(node: Node, spot: Spot) -> Node:
    """0400, "0400", "400", 0o400 are what they look like; the bare number 400 is decimal, as in Compose."""
    if isinstance(node, int) and not isinstance(node, bool):
        value = node
    else:
        try:
            value = int(node, 8) if isinstance(node, str) and len(node) < 30 else -1
        except ValueError:
            spot.wrong(f"{node!r} is not a file mode", hint="modes look like 0440")
            return node
    if not 0 <= value <= 0o7777:
        spot.refuse(f"the file mode {value:o} is out of range")
    return f"0{value:o}"


_DEVICE = section({})


def device_list(node: Node, spot: Spot) -> Node:
    result = Keyed()
    for index, entry, mark in entries(node, spot.mark):
        device = Map()
        if isinstance(entry, str):
            try:
                source, target, permissions = mounts.parse_device(entry)
            except ValueError as error:
                spot.inside(index, mark).wrong(str(error))
                continue
            device = _map(source=source, target=target, permissions=permissions)
        elif isinstance(entry, Map):
            long = _DEVICE(entry, spot)
            device = long if isinstance(long, Map) else device
            if "target" not in entry:
                spot.inside(index, mark).wrong("a device needs a target", code=problem.MISSING_KEY)
        result.put(device.get("target"), device, mark)
    return result.listed


def extra_hosts(node: Node, spot: Spot) -> Node:
    """Entries host=address, sorted as texts. What stands there twice stays twice, as with docker compose."""
    rows: list[tuple[str, Node, Spot]] = []
    if isinstance(node, Map):
        for host in node:
            inside = spot.inside(host, node.mark(host))
            rows += [(host, one, inside) for _, one, _ in entries(node[host], inside.mark)]
    else:
        rows = [("", one, spot.inside(index, at)) for index, one, at in entries(node, spot.mark)]
    found: list[tuple[str, Mark | None]] = []
    for known, entry, here in rows:
        written = entry if isinstance(entry, str) else ""
        host, sign, address = written.partition("=" if "=" in written else ":")
        if known:
            host, sign, address = known, "=", written
        bracketed = len(address) > 2 and address.startswith("[") and address.endswith("]")
        address = address[1:-1] if bracketed else address
        if not (host and sign):
            here.wrong(f"{written or host!r} is not a line of hosts: name=address")
        found.append((f"{host}={address}", here.mark))
    result = Seq()
    for line, mark in sorted(found, key=lambda row: row[0]):
        result.add(line, mark)
    return result


def test(node: Node, spot: Spot) -> Node:
    """A health check's test: a text runs in the container's shell."""
    result = Seq()
    if isinstance(node, str):
        result.add("CMD-SHELL", spot.mark)
        result.add(node, spot.mark)
        return result
    if isinstance(node, Seq) and node and node[0] not in ("CMD", "CMD-SHELL", "NONE"):
        spot.wrong("the first word must be CMD, CMD-SHELL or NONE", hint='for example ["CMD", "true"]')
    return node


def env_file_list(node: Node, spot: Spot) -> Node:
    """A file named twice keeps its first place, as with docker compose."""
    result = Keyed()
    for index, entry, mark in entries(node, spot.mark):
        long: Node = _map(path=entry, required=True)
        if not isinstance(entry, str):
            long = fields({"required": boolean})(entry, spot.inside(index, mark))
        if isinstance(long, Map):
            long.setdefault("required", True)
            result.put(long.get("path"), long, mark)
    return result.listed


def ulimit(node: Node, spot: Spot) -> Node:
    if isinstance(node, Map):
        return fields({"soft": integer, "hard": integer})(node, spot)
    return integer(node, spot)
