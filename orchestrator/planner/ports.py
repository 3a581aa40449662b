"""Host ports: fixed ones, the first free of a range, or any free one.

Containers of one service share a fixed one, unless it is of `mode: host`; who gets the connections is said in
`rotation`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from orchestrator.model.frozen import dataclass, field
from orchestrator.model.observation import Container, PublishedPort
from orchestrator.model.rotation import key_of
from orchestrator.model.stack import Port, Private, Service
from orchestrator.planner.survey import Fate, Survey

FIRST_RANDOM, LAST_RANDOM = 32768, 60999
"""Linux's default ip_local_port_range (Documentation/networking/ip-sysctl.rst), as docker takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """`passing`: the holder is about to go."""

    because: str
    passing: bool
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Holder:
    """Who holds a host port."""

    port: PublishedPort
    who: str
    leaving: bool
    foreign: bool
    """Not of this stack."""
    stack: str
    """Whose it is, when it is another stack's."""
    service: str
    """Of this stack, whose container holds it; "" for a foreign one."""


@dataclass(slots=True, kw_only=True)
class HostPorts:
    """Hands out host ports in one pass."""

    survey: Survey
    _held: dict[tuple[str, int], list[_Holder]] = field(default_factory=dict)
    _filled: bool = False

    def pick(self, name: str, service: Service) -> tuple[PublishedPort, ...] | Refusal:
        """Ports for a new container called `name`; all of them or none."""
        if not service.ports or not isinstance(service.network_mode, Private):
            return ()
        self._fill()
        picked: list[PublishedPort] = []
        for port in service.ports:
            found = self._pick_one(name, port, picked, service.name if is_shared(port) else "")
            if isinstance(found, Refusal):
                return found
            picked.append(found)
        for found in picked:
            self._hold(found, f"container {name}", leaving=False, service=service.name)
        return tuple(picked)

    def clash(self, container: Container) -> Refusal | None:
        """Why `container`, which does not run, can't get its ports back now."""
        if not container.ports:
            return None
        self._fill()
        shared = {port.published[0] for port in container.definition.ports if is_shared(port)}
        for port in container.ports:
            friend = container.service if port.host_port in shared else ""
            holder = self._holder(port, but=f"container {container.name}", friend=friend)
            if holder is not None:
                return _refusal(port, holder)
        return None

    def _pick_one(
        self, name: str, port: Port, picked: list[PublishedPort], friend: str
    ) -> PublishedPort | Refusal:
        first: Refusal | None = None
        for number in _candidates(name, port):
            wish = PublishedPort(
                host_ip=port.host_ip, host_port=number, target=port.target, protocol=port.protocol
            )
            if any(_clash(wish, other) for other in picked):
                continue
            holder = self._holder(wish, friend=friend)
            if holder is None:
                return wish
            first = first or _refusal(wish, holder)
        low, high = port.published
        nothing = Refusal(because=f"no port of {low}-{high}/{port.protocol} is free", passing=False)
        return first if first is not None and low == high else nothing

    def _holder(self, wish: PublishedPort, but: str = "", friend: str = "") -> _Holder | None:
        """Who is in the way. `friend`: the service whose containers hold the very same port without harm."""
        for holder in self._held.get((wish.protocol, wish.host_port), ()):
            shared = friend and holder.service == friend and key_of(holder.port) == key_of(wish)
            if _clash(wish, holder.port) and holder.who != but and not shared:
                return holder
        return None

    def _fill(self) -> None:
        if self._filled:
            return
        self._filled = True
        ours: set[PublishedPort] = set()
        for container in self.survey.observation.containers:
            leaving = self.survey.fate(container) in (Fate.REMOVE, Fate.REPLACE)
            ours.update(container.ports)
            for port in container.ports:
                who = f"container {container.name}"
                self._hold(port, who, leaving=leaving, service=container.service)
        for action in self.survey.being_made():
            for port in action.ports:
                who = f"container {action.name}"
                self._hold(port, who, leaving=False, service=action.service.name)
        stack = self.survey.desired.stack.name
        foreign = [held for held in self.survey.observation.ports_held if held.stack != stack]
        for held in foreign:
            who = f"container {held.container} of stack {held.stack}"
            self._hold(held.port, who, leaving=False, foreign=True, stack=held.stack)
        known = ours | {held.port for held in foreign}
        for port in self.survey.observation.ports_taken:
            if port not in known:
                self._hold(port, "another program", leaving=False, foreign=True)

    def _hold(
        self,
        port: PublishedPort,
        who: str,
        *,
        leaving: bool,
        service: str = "",
        foreign: bool = False,
        stack: str = "",
    ) -> None:
        holder = _Holder(port=port, who=who, leaving=leaving, service=service, foreign=foreign, stack=stack)
        self._held.setdefault((port.protocol, port.host_port), []).append(holder)


def is_shared(port: Port) -> bool:
    """Whether containers of a service may all have it: a fixed port, to be load balanced (Compose
    Specification, ports.mode: ingress). Of a range each takes one."""
    low, high = port.published
    return low == high != 0 and port.mode != "host"


def _candidates(name: str, port: Port) -> Iterator[int]:
    """For a random port: a walk round the range that begins where name and target say. So the same container
    tends to get the same port again, and no two planners disagree."""
    low, high = port.published
    if (low, high) != (0, 0):
        yield from range(low, high + 1)
        return
    count = LAST_RANDOM - FIRST_RANDOM + 1
    seed = hashlib.sha256(f"{name}\0{port.target}\0{port.protocol}\0{port.host_ip}".encode()).digest()
    first = int.from_bytes(seed[:8], "big")
    for step in range(count):
        yield FIRST_RANDOM + (first + step) % count


def _refusal(wish: PublishedPort, holder: _Holder) -> Refusal:
    where = f"{wish.host_ip}:{wish.host_port}" if wish.host_ip else str(wish.host_port)
    if holder.leaving:
        return Refusal(
            because=f"port {where}/{wish.protocol} is free when {holder.who} has gone", passing=True
        )
    return Refusal(
        because=f"port {where}/{wish.protocol} is in use by {holder.who}",
        passing=False,
        hint=_hint(wish, holder),
    )


def _hint(wish: PublishedPort, holder: _Holder) -> str:
    if holder.stack:
        return f"`pystack -p {holder.stack} stop` frees it; or publish another port"
    if holder.foreign:
        table = "-lntp" if wish.protocol == "tcp" else "-lnup"
        return f"`ss {table} 'sport = :{wish.host_port}'` shows which; or publish another port"
    return ""


def _clash(left: PublishedPort, right: PublishedPort) -> bool:
    return (
        left.host_port == right.host_port
        and left.protocol == right.protocol
        and _same_address(left.host_ip, right.host_ip)
    )


def _same_address(left: str, right: str) -> bool:
    """ "" is every address, 0.0.0.0 every IPv4 one, :: every IPv6 one."""
    if left == right or not left or not right:
        return True
    if (":" in left) != (":" in right):
        return False
    return bool({left, right} & {"0.0.0.0", "::"})  # noqa: S104 (compared, not bound)
