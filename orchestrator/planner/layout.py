"""What follows from the desired stack alone. Made once: a pass must not digest a hundred services."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.model import fingerprint, graph, steps
from orchestrator.model.frozen import dataclass, field
from orchestrator.model.observation import Container
from orchestrator.model.stack import Attachment, Dependency, FileMount, Private, Service, Stack, VolumeMount


class Memory:
    """What the latest pass looked at, and what it found of each service in which circumstances. With it or
    without, a plan is the same: see `seating`."""

    __slots__ = ("by_service", "circumstances", "containers", "content", "seatings")

    def __init__(self) -> None:
        self.containers: tuple[Container, ...] = ()
        self.by_service: Mapping[str, tuple[Container, ...]] = {}
        self.circumstances: object = None
        self.seatings: dict[str, object] = {}
        self.content: tuple[object, Mapping[str, str]] | None = None
        """Containers and files of the host of which all content was found to be as it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """`networks`: service -> network names on the machine, in order of connection."""

    stack: Stack
    whole: Stack
    """With the steps of `pre_start` as services; all that follows counts them."""
    steps: Mapping[str, tuple[str, ...]]
    """Service -> names of its steps, in order; services without any are left out."""
    order: tuple[str, ...]
    judged: tuple[str, ...]
    """The same, but steps last: where they sit follows from where their service does."""
    needs: Mapping[str, tuple[Dependency, ...]]
    dependents: Mapping[str, tuple[str, ...]]
    shares: Mapping[str, Mapping[str, str]]
    fingerprints: Mapping[str, str]
    networks: Mapping[str, tuple[str, ...]]
    volumes: Mapping[str, tuple[str, ...]]
    """Service -> keys of the named volumes it mounts."""
    files: Mapping[str, tuple[FileMount, ...]]
    """Service -> its configs and secrets, of those that have any. One-offs and steps are left with what they
    began with: a signal would end many of them."""
    network_fingerprints: Mapping[str, str]
    """By name on the machine."""
    static_addresses: Mapping[str, frozenset[str]]
    """Network name on the machine -> addresses that services ask for by number."""
    memory: Memory = field(default_factory=Memory, compare=False)


_kept: dict[int, Layout] = {}
_KEPT_LAYOUTS = 64


def layout(stack: Stack) -> Layout:
    """The layout of a stack. Raises UserError for a cycle.

    The memory is keyed by identity (a Stack holds mappings and has no hash) and holds the stack itself, so
    an identity can't be taken over by another.
    """
    found = _kept.get(id(stack))
    if found is not None and found.stack is stack:
        return found
    made = _make(stack)
    if len(_kept) >= _KEPT_LAYOUTS:
        _kept.pop(next(iter(_kept)))
    _kept[id(stack)] = made
    return made


def attachments(service: Service) -> tuple[Attachment, ...]:
    """In order of connection: by priority, then by key (Compose Specification, networks.priority)."""
    if not isinstance(service.network_mode, Private):
        return ()
    return tuple(sorted(service.networks, key=lambda found: (-found.priority, found.network)))


def _make(stack: Stack) -> Layout:
    whole = steps.with_steps(stack)
    services = whole.services
    sorted_by = steps.in_order(whole) if whole is not stack else stack
    order = graph.order(sorted_by)
    return Layout(
        stack=stack,
        whole=whole,
        steps={
            name: tuple(step.name for step in steps.of(one))
            for name, one in services.items()
            if one.pre_start
        },
        order=order,
        judged=tuple(sorted(order, key=lambda name: services[name].step is not None)),
        needs={name: _present_needs(whole, service) for name, service in services.items()},
        dependents=graph.dependents(sorted_by),
        shares={name: graph.shares(service) for name, service in services.items()},
        fingerprints={name: _fingerprint(whole, service) for name, service in services.items()},
        networks={
            name: tuple(stack.networks[found.network].name for found in attachments(service))
            for name, service in services.items()
        },
        volumes={name: tuple(sorted(_named_volumes(service))) for name, service in services.items()},
        files={name: files for name, service in services.items() if (files := _files(service))},
        network_fingerprints={
            network.name: fingerprint.of_network(network) for network in stack.networks.values()
        },
        static_addresses=_static_addresses(stack),
    )


def _fingerprint(stack: Stack, service: Service) -> str:
    """A step of `pre_start` is run again when anything of its service has changed."""
    own = fingerprint.of_service(service)
    if service.step is None:
        return own
    return fingerprint.joined(own, fingerprint.of_service(stack.services[service.step.of]))


def _files(service: Service) -> tuple[FileMount, ...]:
    if service.oneoff:
        return ()
    return tuple(mount for mount in service.mounts if isinstance(mount, FileMount))


def _named_volumes(service: Service) -> set[str]:
    mounts = (mount for mount in service.mounts if isinstance(mount, VolumeMount))
    return {mount.source for mount in mounts if mount.source is not None}


def _present_needs(stack: Stack, service: Service) -> tuple[Dependency, ...]:
    """An optional dependency of an inactive profile is as if it were not written (Compose, depends_on)."""
    return tuple(found for found in graph.needs(service) if found.service in stack.services)


def _static_addresses(stack: Stack) -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for service in stack.services.values():
        for attachment in attachments(service):
            if attachment.ipv4_address:
                name = stack.networks[attachment.network].name
                found.setdefault(name, set()).add(attachment.ipv4_address)
    return {name: frozenset(addresses) for name, addresses in found.items()}
