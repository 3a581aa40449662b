"""Networks: which exist as wanted, which range a new one gets, which address a container gets."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.model.action import CreateNetwork, RemoveNetwork
from orchestrator.model.desired import Wanted
from orchestrator.model.errors import ExitCode
from orchestrator.model.observation import Container, NetworkState
from orchestrator.model.ranges import DEFAULT_PREFIX
from orchestrator.model.stack import Network, Subnet
from orchestrator.planner import images
from orchestrator.planner.draft import Draft
from orchestrator.planner.survey import Segment, Survey

Range = ipaddress.IPv4Network

POOLS = (("172.28.0.0/14", DEFAULT_PREFIX), ("192.168.0.0/16", DEFAULT_PREFIX))
"""Private ranges (RFC 1918) for networks that name none, each cut into ranges of 4094 addresses. They stay
clear of 172.17.0.0/16, which a docker on the same machine takes first."""


def assess(survey: Survey) -> dict[str, Segment]:
    """By name on the machine: the networks that wanted services are on."""
    found: dict[str, Segment] = {}
    by_name = {network.name: network for network in survey.desired.stack.networks.values()}
    for service in survey.layout.order:
        if survey.wanted(service) in (Wanted.RUNNING, Wanted.CREATED):
            for name in survey.layout.networks[service]:
                if name not in found:
                    found[name] = _assess_one(survey, by_name[name])
    return found


def _assess_one(survey: Survey, network: Network) -> Segment:
    state = survey.observation.networks.get(network.name)
    if f"network:{network.name}" in survey.in_flight:
        # It comes or goes at this moment. What the observation says of it is about to be wrong.
        return Segment(network=network, state=state, because=f"waiting for network {network.name}")
    if state is None:
        if network.external:
            because = f"external network {network.name} does not exist"
            return Segment(network=network, state=None, because=because, refused=True)
        return Segment(network=network, state=None, because=f"waiting for network {network.name}")
    if network.external:
        return Segment(network=network, state=state)
    if state.stack != survey.desired.stack.name:
        because = f"a network named {network.name} exists already and was made by stack {state.stack or '?'}"
        return Segment(
            network=network, state=state, because=because, refused=True, exit_code=ExitCode.CONFLICT
        )
    if state.fingerprint == survey.layout.network_fingerprints[network.name]:
        return Segment(network=network, state=state)
    holder = _obstacle(survey, state)
    if holder:
        warning = f"network {network.name} has another definition now, but {holder} uses it: left as it was"
        return Segment(network=network, state=state, warning=warning)
    because = f"network {network.name} has changed and is made anew"
    return Segment(network=network, state=state, because=because, remake=True)


def _obstacle(survey: Survey, state: NetworkState) -> str:
    """Who would be cut off if the network were made anew; "" when all its users can be replaced."""
    ours = {container.id: container for container in survey.observation.containers}
    for user in state.users:
        container = ours.get(user)
        if container is None:
            return "a container of another stack"
        if not _replaceable(survey, container):
            return f"container {container.name}"
    return ""


def _replaceable(survey: Survey, container: Container) -> bool:
    intent = survey.intent(container.service)
    if intent is None or container.service not in survey.desired.stack.services:
        return False
    if intent.wanted is Wanted.ABSENT:
        return True
    if images.is_out_of_reach(survey, survey.desired.stack.services[container.service]):
        return False  # it stays as it was
    return intent.wanted in (Wanted.RUNNING, Wanted.CREATED) and not intent.keep_stale


def arrange(survey: Survey, draft: Draft) -> None:
    """Make what is missing, take away what is to be made anew."""
    taken = [*survey.observation.subnets_taken]
    taken += [action.subnet for action in survey.in_flight.values() if isinstance(action, CreateNetwork)]
    for name, segment in sorted(survey.segments.items()):
        if segment.warning:
            draft.warn(segment.warning)
        if segment.refused:
            draft.refuse(f"network:{name}", segment.because, segment.exit_code)
        elif segment.remake or segment.state is None:
            # One that serves until its new image is here is on it still, though it is to leave.
            on_it = segment.state.users if segment.state is not None else ()
            users = [c.name for c in survey.observation.containers if c.id in on_it]
            users += [c.name for c in survey.leaving() if name in c.addresses] + _coming(survey, name)
            if users:
                draft.wait(f"network:{name}", f"{users[0]} is still attached to it")
            elif segment.remake:
                draft.act(RemoveNetwork(name=name, because="definition changed"))
            else:
                _create(survey, draft, segment.network, taken)


def _create(survey: Survey, draft: Draft, network: Network, taken: list[str]) -> None:
    target = f"network:{network.name}"
    if target in survey.in_flight:
        return
    wish = configured(network)
    subnet = wish.subnet if wish else free_subnet(taken)
    if subnet is None:
        because = "no address range is free; give the network a subnet"
        draft.refuse(target, because, ExitCode.CONFLICT)
        return
    rival = next((other for other in taken if overlap(subnet, other)), None)
    if wish and rival:
        draft.refuse(target, f"subnet {subnet} overlaps {rival}, which is in use", ExitCode.CONFLICT)
        return
    taken.append(subnet)
    gateway = wish.gateway if wish and wish.gateway else str(_range(subnet)[1])
    draft.act(
        CreateNetwork(
            network=network,
            stack=survey.desired.stack.name,
            subnet=subnet,
            gateway=gateway,
            fingerprint=survey.layout.network_fingerprints[network.name],
            because="missing",
        )
    )


def configured(network: Network) -> Subnet | None:
    """The first IPv4 range that the file gives the network."""
    return next((found for found in network.subnets if ":" not in found.subnet), None)


def free_subnet(taken: Sequence[str]) -> str | None:
    """The first range of the pools that overlaps nothing taken."""
    used = [_range(subnet) for subnet in taken if ":" not in subnet]
    spans = [(int(found.network_address), int(found.broadcast_address)) for found in used if found.prefixlen]
    for pool, prefix in POOLS:
        size = 1 << (32 - prefix)
        whole = _range(pool)
        for first in range(int(whole.network_address), int(whole.broadcast_address), size):
            if all(high < first or low >= first + size for low, high in spans):
                return f"{ipaddress.IPv4Address(first)}/{prefix}"
    return None


def overlap(left: str, right: str) -> bool:
    """A default route (prefix 0) takes nothing."""
    if ":" in left or ":" in right:
        return False
    a, b = _range(left), _range(right)
    return bool(a.prefixlen and b.prefixlen) and a.overlaps(b)


@functools.lru_cache(maxsize=1024)
def _range(subnet: str) -> Range:
    return ipaddress.IPv4Network(subnet, strict=False)


def contains(subnet: str, address: str) -> bool:
    first, last = _span(subnet)
    return first <= _number(address) <= last


@functools.lru_cache(maxsize=1 << 16)
def _number(address: str) -> int:
    """Asked of every container in every pass: a memory that holds fewer than there are is none."""
    return int(ipaddress.IPv4Address(address))


@functools.lru_cache(maxsize=1024)
def _span(subnet: str) -> tuple[int, int]:
    whole = _range(subnet)
    return int(whole.network_address), int(whole.broadcast_address)


# --- addresses -----------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Addresses:
    """Hands out addresses in one pass. `taken` is by network name."""

    survey: Survey
    taken: dict[str, set[str]] = field(default_factory=dict)
    next: dict[str, Iterator[int]] = field(default_factory=dict)

    def pick(self, segment: Segment, wish: str | None) -> tuple[str, str]:
        """(address, "") or ("", why not)."""
        state = segment.state
        assert state is not None, "addresses are picked on networks that exist"
        taken = self._taken(state)
        if wish is not None:
            reason = _objection(state, wish, taken)
            if not reason:
                taken.add(wish)
            return ("", reason) if reason else (wish, "")
        reserved = self.survey.layout.static_addresses.get(state.name, frozenset())
        if state.name not in self.next:
            self.next[state.name] = _hosts(state, segment.network)
        for number in self.next[state.name]:
            address = f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
            if address not in taken and address not in reserved:
                return address, ""  # the next one is asked for the next
        return "", f"no address is left on network {state.name}"

    def _taken(self, state: NetworkState) -> set[str]:
        found = self.taken.get(state.name)
        if found is None:
            found = {state.gateway, *state.addresses}
            found.update(
                c.addresses[state.name]
                for c in self.survey.observation.containers
                if state.name in c.addresses
            )
            found.update(
                action.addresses[state.name]
                for action in self.survey.being_made()
                if state.name in action.addresses
            )
            self.taken[state.name] = found
        return found


def _objection(state: NetworkState, wish: str, taken: set[str]) -> str:
    if not contains(state.subnet, wish):
        return f"address {wish} is not within {state.subnet} of network {state.name}"
    if wish == state.gateway:
        return f"address {wish} is the gateway of network {state.name}"
    if wish in taken:
        return f"address {wish} on network {state.name} is taken"
    return ""


def _hosts(state: NetworkState, network: Network) -> Iterator[int]:
    """Candidates from low to high, so that a replaced container tends to get its address back."""
    whole = _range(state.subnet)
    wish = configured(network)
    part = _range(wish.ip_range) if wish and wish.ip_range else whole
    lowest = int(whole.network_address) + 1
    highest = int(whole.broadcast_address) - 1
    first = max(lowest, int(part.network_address))
    last = min(highest, int(part.broadcast_address))
    return iter(range(first, last + 1))


def gone(survey: Survey, container: Container, names: Sequence[str]) -> str:
    """Why a container has lost one of its networks, in words; "" when all are as they were."""
    for name in names:
        segment = survey.segments.get(name)
        if segment is None or segment.refused:
            continue
        if segment.remake:
            return f"network {name} has changed"
        address = container.addresses.get(name)
        if address is None:
            return f"it is not on network {name}"
        if segment.state is None:
            return f"network {name} is gone"
        if not contains(segment.state.subnet, address):
            return f"network {name} was made anew"
    return ""


def _coming(survey: Survey, network: str) -> list[str]:
    return [action.name for action in survey.being_made() if network in action.addresses]


def leave(survey: Survey, draft: Draft, ours: Mapping[str, Container]) -> None:
    """`down`: the networks of the stack go when the last container of it has gone."""
    for name, state in sorted(survey.observation.networks.items()):
        if state.stack != survey.desired.stack.name:
            continue
        users = [user for user in state.users if user not in ours]
        mine = [c.name for c in ours.values() if name in c.addresses or c.id in state.users]
        mine += _coming(survey, name)
        if users:
            others = {c.id: c.name for c in survey.observation.containers}
            shown = ", ".join(sorted(others.get(user, user[:12]) for user in users))
            draft.warn(f"network {name} is left: still in use by {shown}")
        elif mine:
            draft.wait(f"network:{name}", f"{min(mine)} is still attached to it")
        else:
            draft.act(RemoveNetwork(name=name, because="the stack goes down"))
