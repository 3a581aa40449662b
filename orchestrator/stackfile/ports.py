"""The short form of a published port: [[host_ip:][published]:]target[/protocol]."""

from __future__ import annotations

import re

from orchestrator.model.frozen import dataclass

PROTOCOLS = ("tcp", "udp", "sctp")
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
LAST = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortPort:
    """One container port; `published` is "" for any free host port, a number, or a range as text."""

    target: int
    published: str = ""
    host_ip: str = ""
    protocol: str = "tcp"


def port_range(text: str, what: str) -> tuple[int, int]:
    """First and last port of "80" or "80-90". Raises ValueError."""
    found = _RANGE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a {what} port or a range of ports")
    first = int(found.group(1))
    last = int(found.group(2) or first)
    if last > LAST:
        raise ValueError(f"{what} port {last} is above {LAST}")
    if last < first:
        raise ValueError(f"the range {text} of {what} ports runs backwards")
    return first, last


def parse(text: str) -> list[ShortPort]:
    """The ports a short form stands for: one for each port of a range. Raises ValueError."""
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise ValueError(f"{protocol!r} is not a protocol: tcp, udp or sctp")
    host_ip, published, target = _split(rest)
    if not target:
        raise ValueError("the container port is missing")
    first, last = port_range(target, "container")
    if first == 0:
        raise ValueError("0 is not a container port")
    if not published:
        return [ShortPort(target=port, host_ip=host_ip, protocol=protocol) for port in range(first, last + 1)]
    low, high = port_range(published, "host")
    if first == last:
        if low == high:
            published = str(low)
        return [ShortPort(target=first, published=published, host_ip=host_ip, protocol=protocol)]
    if high - low != last - first:
        raise ValueError(f"{published} and {target} are not equally many ports")
    return [
        ShortPort(target=first + step, published=str(low + step), host_ip=host_ip, protocol=protocol)
        for step in range(last - first + 1)
    ]


def _split(text: str) -> tuple[str, str, str]:
    """host_ip, published, target; an IPv6 address may stand in brackets or bare."""
    parts = text.rsplit(":", 2)
    if len(parts) == 1:
        return "", "", parts[0]
    if len(parts) == 2:
        return "", parts[0], parts[1]
    return host_address(parts[0]), parts[1], parts[2]


def host_address(text: str) -> str:
    """An address of the host without its brackets. Raises ValueError."""
    if text == "":
        return ""
    from ipaddress import AddressValueError, IPv4Address, IPv6Address

    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(IPv6Address(bare)) if ":" in bare else str(IPv4Address(bare))
    except AddressValueError:
        raise ValueError(f"{text!r} is not an address of this machine") from None
