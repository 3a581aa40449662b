"""What an ordinary user's stacks can't have on this machine: found, and named, before anything is done.

What is refused here would fail at the start of a container; what this machine's root may have, and all that
an ordinary user may have as well, is no business of this file. The table for readers is docs/rootless.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.engines.local import limiting
from orchestrator.kernel import cgroups
from orchestrator.kernel.limits import missing
from orchestrator.model.frozen import dataclass
from orchestrator.model.stack import OfHost, Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What the user has of the machine."""

    hierarchies: cgroups.Hierarchies
    first_port: int
    """The lowest port of the host that they may bind."""
    score: int
    """Their own oom_score_adj: less can't be given."""


def refusals(services: Iterable[Service], rights: Rights) -> list[str]:
    """One sentence for everything that can't be, by service."""
    return [
        f"{f'{service.place}: ' if service.place else ''}service {service.name}: {said}"
        for service in services
        for said in (*_limits(service, rights), *_sharing(service), *_ports(service, rights))
    ]


def _limits(service: Service, rights: Rights) -> Iterator[str]:
    yield from missing(rights.hierarchies, limiting.limits_of(service))
    score = service.oom_score_adj
    if score is not None and score < rights.score:
        yield f"oom_score_adj {score}: an ordinary user can't go below their own, which is {rights.score}"


def _sharing(service: Service) -> Iterator[str]:
    for key, mode in (("network_mode", service.network_mode), ("pid", service.pid), ("ipc", service.ipc)):
        if isinstance(mode, OfHost):
            yield f"{key}: host: an ordinary user's containers can't have the host's; only root's can"


def _ports(service: Service, rights: Rights) -> Iterator[str]:
    for port in service.ports:
        first, last = port.published
        if first and last < rights.first_port:
            yield (
                f"port {first}/{port.protocol}: an ordinary user can publish ports from "
                f"{rights.first_port} on (sysctl net.ipv4.ip_unprivileged_port_start)"
            )
