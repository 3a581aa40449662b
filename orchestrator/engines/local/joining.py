"""Whose namespaces a run joins."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.engines.local.table import Live, Table
from orchestrator.model.errors import EngineError
from orchestrator.model.observation import Container
from orchestrator.model.stack import OfService, Sharing


def joined(table: Table, live: Live, peers: Mapping[str, str]) -> dict[str, int]:
    """Kind -> descriptor: our own network namespace, and those of peers (service -> container id).

    Raises EngineError when a peer does not run.
    """
    service = live.container.definition
    found: dict[str, int] = {}
    owner = network_owner(table, live.container, peers) or live
    if owner.wires is not None:
        found["network"] = owner.wires.namespace
    elif owner is not live and owner.pidfd is not None:
        found["network"] = owner.pidfd  # it uses the host's, and so do we
    modes: dict[str, Sharing] = {"pid": service.pid, "ipc": service.ipc, "uts": service.uts}
    for kind, mode in modes.items():
        if isinstance(mode, OfService):
            found[kind] = _running_pidfd(table, peers, mode.service)
    return found


def network_owner(table: Table, container: Container, peers: Mapping[str, str]) -> Live | None:
    """Whose network it shares, over any number of hands; None when it is its own or the host's."""
    owner: Live | None = None
    mode = container.definition.network_mode
    while isinstance(mode, OfService):
        owner = table.containers.get(peers.get(mode.service, ""))
        if owner is None or owner.pidfd is None:
            raise EngineError(f"service {mode.service}, whose network is to be shared, does not run")
        mode, peers = owner.container.definition.network_mode, owner.container.peers
    return owner


def _running_pidfd(table: Table, peers: Mapping[str, str], service: str) -> int:
    live = table.containers.get(peers.get(service, ""))
    if live is None or live.pidfd is None:
        raise EngineError(f"service {service}, whose namespace is to be shared, does not run")
    return live.pidfd
