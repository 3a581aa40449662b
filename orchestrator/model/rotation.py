"""Who gets the connections to a host port that several containers of a service share.

The planner says who is in the rotation (RoutePorts); what follows from that for a port is computed here, so
that every engine does the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.model.frozen import replace
from orchestrator.model.observation import Container, PublishedPort, Rotation, State

EVERYWHERE = "0.0.0.0"  # noqa: S104 (compared, not bound)
PortKey = tuple[str, int, str]
"""(host_ip, host_port, protocol): what containers of one service may share, whatever it leads to."""


def key_of(port: PublishedPort) -> PortKey:
    return "" if port.host_ip == EVERYWHERE else port.host_ip, port.host_port, port.protocol


def takers(holders: Sequence[Container]) -> tuple[Container, ...]:
    """Of the containers that hold one host port, those that new connections go to, in order of age.

    Members of the rotation that run. When there is none, the one whose run is the oldest: so the first to
    start gets all, as long as nothing else was said, and nobody is asked about a container that is alone.
    """
    if len(holders) < 2:
        return tuple(holders)
    ordered = sorted(holders, key=_age)
    chosen = tuple(one for one in ordered if _is_member(one))
    return chosen or tuple(ordered[:1])


def routed(container: Container, *, member: bool, now: float) -> Container:
    """The container once it was said whether it is in the rotation. Saying it again changes nothing."""
    run = container.run
    if run is None or run.finished is not None:
        return container
    if run.rotation is not None and run.rotation.member is member:
        return container
    return replace(container, run=replace(run, rotation=Rotation(member=member, since=now)))


def _is_member(container: Container) -> bool:
    run = container.run
    return run is not None and run.finished is None and run.rotation is not None and run.rotation.member


def _age(container: Container) -> tuple[bool, float, int, str]:
    """Those that run come first."""
    run = container.run
    if run is None or container.state is not State.RUNNING:
        return True, container.created, container.slot, container.id
    return False, run.started, container.slot, container.id
