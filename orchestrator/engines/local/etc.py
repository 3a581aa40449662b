"""Writes /etc/hosts, /etc/hostname and /etc/resolv.conf of a container; their texts come from resolvconf."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from orchestrator.engines.local import records, resolvconf
from orchestrator.engines.local.bundle import shares_names
from orchestrator.engines.local.places import Places
from orchestrator.engines.local.program import hostname
from orchestrator.model.observation import Container, NetworkState
from orchestrator.model.stack import OfHost

NAMES = ("hosts", "hostname", "resolv.conf")
HOST_GATEWAY = "host-gateway"


def etc_files(
    places: Places, container: Container, peer: Container | None, networks: Mapping[str, NetworkState]
) -> dict[str, str]:
    """Target in the container -> file of the host. One that shares a peer's network shares its files."""
    owner = peer or container
    home = places.bundle(owner.id) / "etc"
    if peer is None:
        home.mkdir(exist_ok=True, mode=0o755)
        for name, text in _texts(container, networks).items():
            records.write_plain(home / name, text.encode(), mode=0o644)
    return {f"/etc/{name}": str(home / name) for name in NAMES}


def _texts(container: Container, networks: Mapping[str, NetworkState]) -> dict[str, str]:
    service = container.definition
    own_name = hostname(container, os.uname().nodename)
    gateways = [networks[name].gateway for name in container.addresses if name in networks]
    extra = [
        (name, (gateways[0] if gateways else "127.0.0.1") if address == HOST_GATEWAY else address)
        for name, address in service.extra_hosts
    ]
    if isinstance(service.network_mode, OfHost):
        own_hosts = Path("/etc/hosts").read_text()
        own_hosts += "".join(f"{address}\t{name}\n" for name, address in extra)
    else:
        own_hosts = resolvconf.hosts(
            hostname=own_name,
            domainname=service.domainname,
            addresses=list(container.addresses.values()),
            extra=extra,
        )
    if shares_names(service):
        resolver = resolvconf.embedded(search=service.dns_search, options=service.dns_opt)
    else:
        resolver = resolvconf.plain(
            host_text=_host_resolver(),
            servers=service.dns,
            search=service.dns_search,
            options=service.dns_opt,
        )
    return {
        "hosts": own_hosts,
        "hostname": own_name + "\n",
        "resolv.conf": resolver,
    }


def _host_resolver() -> str:
    try:
        return Path("/etc/resolv.conf").read_text()
    except OSError:
        return ""
