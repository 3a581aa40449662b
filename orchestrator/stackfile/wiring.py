"""What a service shares with others, which networks it is on, and what it publishes."""

from __future__ import annotations

from orchestrator.model import stack as model
from orchestrator.model.frozen import replace
from orchestrator.stackfile import problem
from orchestrator.stackfile.ports import LAST, host_address, port_range
from orchestrator.stackfile.reader import Reader

_NOT_PRIVATE: dict[str, model.Sharing] = {"host": model.OfHost(), "none": model.Isolated()}
_MODES: dict[str, tuple[str, ...]] = {
    "network_mode": ("none", "host"),
    "pid": ("host",),
    "ipc": ("none", "host", "private", "shareable"),
    "uts": ("host",),
}


def sharing(said: Reader, key: str) -> model.Sharing:
    mode = said.text(key)
    if mode is None or mode in ("private", "shareable") or (key == "network_mode" and mode == "bridge"):
        return model.Private()
    if mode.startswith("service:") and key != "uts":
        return model.OfService(service=mode.removeprefix("service:"))
    if mode in _MODES[key]:
        return _NOT_PRIVATE[mode]
    said.refuse(
        f"{mode!r} is not supported",
        key=key,
        code=problem.UNSUPPORTED,
        hint=f"one of {', '.join(_MODES[key])}" + ("" if key == "uts" else " or service:NAME"),
    )
    return model.Private()


def attachments(said: Reader) -> tuple[model.Attachment, ...]:
    if said.has("network_mode") and said.text("network_mode") != "bridge" and said.part("networks").node:
        said.wrong("network_mode and networks exclude each other", key="network_mode")
    main_mac = said.text("mac_address")
    found = [
        model.Attachment(
            network=key,
            aliases=entry.texts("aliases"),
            ipv4_address=entry.text("ipv4_address"),
            ipv6_address=entry.text("ipv6_address"),
            link_local_ips=entry.texts("link_local_ips"),
            interface_name=entry.text("interface_name"),
            driver_opts=entry.pairs("driver_opts"),
            mac_address=entry.text("mac_address"),
            priority=entry.whole("priority") or 0,
            gw_priority=entry.whole("gw_priority") or 0,
            place=entry.place or said.place,
        )
        for key, entry in said.named("networks")
    ]
    if main_mac and found:
        found = _with_mac(said, found, main_mac)
    return tuple(found)


def _with_mac(said: Reader, found: list[model.Attachment], mac: str) -> list[model.Attachment]:
    """The service's own mac_address belongs to its main network: the one of the highest priority."""
    main = max(range(len(found)), key=lambda index: found[index].priority)
    if found[main].mac_address not in (None, mac):
        said.refuse(f"differs from that of the network {found[main].network!r}", key="mac_address")
    found[main] = replace(found[main], mac_address=mac)
    return found


def ports(said: Reader, mode: model.Sharing) -> tuple[model.Port, ...]:
    if isinstance(mode, model.OfService) and said.has("ports"):
        said.refuse(
            f"a service in the network of {mode.service!r} can't publish ports",
            key="ports",
            code=problem.CONFLICT,
            hint=f"publish them on {mode.service!r}",
        )
    if isinstance(mode, model.OfHost | model.Isolated) and said.has("ports"):
        said.warn(f"has no effect with network_mode {said.text('network_mode')}", key="ports")
        return ()
    found: list[model.Port] = []
    for port in said.listed("ports"):
        protocol = port.text("protocol") or "tcp"
        target = port.whole("target") or 0
        if protocol not in ("tcp", "udp"):
            known = protocol == "sctp"
            message = (
                f"the protocol {protocol} is not supported yet" if known else f"{protocol!r} is no protocol"
            )
            port.refuse(message, code=problem.UNSUPPORTED if known else problem.WRONG_VALUE)
        if not 0 < target <= LAST:
            port.refuse(f"{target} is not a container port", key="target")
        manner = port.text("mode") or "ingress"
        if manner not in ("ingress", "host"):
            port.refuse(f"{manner!r} is neither ingress nor host", key="mode")
        found.append(
            model.Port(
                target=target,
                published=_published(port),
                host_ip=_host_ip(port),
                protocol="udp" if protocol == "udp" else "tcp",
                mode="host" if manner == "host" else "ingress",
                name=port.text("name") or "",
                app_protocol=port.text("app_protocol") or "",
                place=port.place,
            )
        )
    return tuple(found)


def _published(port: Reader) -> tuple[int, int]:
    published = port.text("published") or "0"
    try:
        return port_range(published, "host")
    except ValueError as error:
        port.refuse(str(error), key="published")
        return (0, 0)


def _host_ip(port: Reader) -> str:
    try:
        return host_address(port.text("host_ip") or "")
    except ValueError as error:
        port.refuse(str(error), key="host_ip")
        return ""


def extra_hosts(said: Reader) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for entry in said.texts("extra_hosts"):
        host, _, address = entry.partition("=")
        pairs.append((host, address))
    return tuple(pairs)
