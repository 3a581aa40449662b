"""A resolved stack -> a copy that can live beside others like it. Pure.

What only one stack of a machine can have is let go: published ports (any free one is taken), names of
containers, networks and volumes, fixed subnets and addresses. What is external stays what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Resolved = dict[str, Any]
"""The canonical form of a stack, as `pystack config --format json` prints it."""

_ADDRESSES = ("ipv4_address", "ipv6_address", "mac_address", "link_local_ips")


def copy(stack: Resolved, name: str, *, keep_ports: bool = False) -> Resolved:
    """The same stack under another name. `keep_ports`: published ports stay, and may be taken."""
    return {
        **stack,
        "name": name,
        "services": {
            key: _service(service, keep_ports=keep_ports)
            for key, service in stack.get("services", {}).items()
        },
        "networks": {key: _network(network) for key, network in stack.get("networks", {}).items()},
        "volumes": {key: _named(volume) for key, volume in stack.get("volumes", {}).items()},
    }


def _service(service: Mapping[str, Any], *, keep_ports: bool) -> Resolved:
    made = {key: value for key, value in service.items() if key not in ("container_name", "mac_address")}
    if made.get("ports") and not keep_ports:
        made["ports"] = [_port(port) for port in made["ports"]]
    if isinstance(made.get("networks"), Mapping):
        made["networks"] = {key: _attachment(one) for key, one in made["networks"].items()}
    return made


def _port(port: Mapping[str, Any]) -> Resolved:
    return {key: value for key, value in port.items() if key != "published"}


def _attachment(attachment: Mapping[str, Any] | None) -> Resolved | None:
    if attachment is None:
        return None
    return {key: value for key, value in attachment.items() if key not in _ADDRESSES}


def _network(network: Mapping[str, Any] | None) -> Resolved | None:
    if network is None or network.get("external"):
        return dict(network) if network is not None else None
    return {key: value for key, value in (_named(network) or {}).items() if key != "ipam"}


def _named(thing: Mapping[str, Any] | None) -> Resolved | None:
    if thing is None or thing.get("external"):
        return dict(thing) if thing is not None else None
    return {key: value for key, value in thing.items() if key != "name"}
