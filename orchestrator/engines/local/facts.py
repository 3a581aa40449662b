"""What should be true of the kernel's objects, and in what it differs from what is. Pure.

Both sides are written down as facts: what is wanted follows from the table, what is there was looked up (see
sighting). Who mends and who only shows what is wrong ask the same function, so they can't disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.model.drift import Difference
from orchestrator.model.frozen import dataclass
from orchestrator.model.observation import Container, NetworkState, State, VolumeState
from orchestrator.model.stack import Service

THERE, MISSING, UP, DOWN = "there", "missing", "up", "down"
ATTACHED, LOOSE = "on the bridge", "off the bridge"
RUNNING, FROZEN = "running", "frozen"
LISTENING, CLOSED = "listening", "closed"
INSIDE, OUTSIDE = "in it", "outside of it"
NONE = "none"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that can be right or wrong: of whom, what, and of which of several."""

    target: str
    kind: str
    of: str = ""


Facts = Mapping[Fact, str]

_WORDS: Mapping[str, tuple[str, str]] = {
    "bridge": ("bridge", "its bridge was deleted"),
    "bridge state": ("bridge", "its bridge was set down"),
    "bridge address": ("address of the bridge", "its bridge had lost its address"),
    "segment": ("bridge {of}", "its further bridge {of} was set down"),
    "trunk": ("link to bridge {of}", "the link to its further bridge {of} was taken off a bridge"),
    "link": ("link to {of}", "its link to network {of} was deleted"),
    "port": ("link to {of}", "its link to network {of} was taken off the bridge"),
    "interface": ("interface on {of}", "its interface on network {of} was set down"),
    "address": ("address on {of}", "its address on network {of} was removed"),
    "loopback": ("loopback", "its loopback interface was set down"),
    "route": ("default route", "its default route was removed"),
    "resolver": ("name server", "the socket of its name server was closed"),
    "redirect": ("way to the name server", "the rules that lead to its name server were removed"),
    "limit": ("{of}", "{of} was changed from {wanted} to {found}"),
    "state": ("processes", "it was frozen"),
    "group": ("control group {of}", "it was moved out of its control group {of}"),
    "directory": ("directory {of}", "its directory {of} was deleted"),
    "volume": ("directory {of}", "its directory {of} is gone"),
    "firewall": ("rules", "its rules were changed"),
}
"""Kind -> what it is called, and what is said when it is not as it should be."""
_OTHERWISE: Mapping[tuple[str, str], str] = {
    ("segment", MISSING): "its further bridge {of} was deleted",
    ("trunk", MISSING): "the link to its further bridge {of} was deleted",
    ("state", RUNNING): "it is paused, and was made to go on",
    ("group", MISSING): "its control group {of} was removed",
    ("interface", MISSING): "its interface on network {of} was taken away",
}
"""What is said when it was found so."""
KINDS = tuple(_WORDS)
_LEFT_TO_THE_USER = frozenset(("volume",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whom a target belongs to."""

    stack: str = ""
    service: str = ""
    id: str = ""


def differences(wanted: Facts, found: Facts, owners: Mapping[str, Owner]) -> dict[Fact, Difference]:
    """Every fact that was looked for and found otherwise. What nobody has looked for is no difference."""
    return {
        fact: difference(fact, value, found[fact], owners.get(fact.target, _NOBODY))
        for fact, value in wanted.items()
        if fact in found and found[fact] != value
    }


_NOBODY = Owner()


def difference(fact: Fact, wanted: str, found: str, owner: Owner) -> Difference:
    what, because = _WORDS[fact.kind]
    if fact.kind == "route" and found != NONE:
        because = "its default route was changed to {found}"
    because = _OTHERWISE.get((fact.kind, found), because)
    return Difference(
        target=fact.target,
        what=what.format(of=fact.of),
        wanted=wanted,
        found=found,
        because=because.format(of=fact.of, wanted=wanted, found=found),
        stack=owner.stack,
        service=owner.service,
        id=owner.id,
        mendable=fact.kind not in _LEFT_TO_THE_USER,
    )


# --- what is wanted ----------------------------------------------------------------------------------


def of_network(state: NetworkState, segments: Iterable[int] = ()) -> dict[Fact, str]:
    """`segments`: the further bridges that it must have."""
    target = f"network:{state.name}"
    length = state.subnet.rpartition("/")[2]
    return {
        Fact(target, "bridge"): THERE,
        Fact(target, "bridge state"): UP,
        Fact(target, "bridge address"): f"{state.gateway}/{length}",
        **{Fact(target, "segment", str(number)): UP for number in segments},
        **{Fact(target, "trunk", str(number)): ATTACHED for number in segments},
    }


def of_links(container: Container) -> dict[Fact, str]:
    """On the host's side."""
    target = target_of(container)
    return {
        Fact(target, kind, name): value
        for name in container.addresses
        for kind, value in (("link", THERE), ("port", ATTACHED))
    }


def of_inside(
    container: Container, networks: Mapping[str, NetworkState], gateway: str | None, *, resolves: bool
) -> dict[Fact, str]:
    """In its own network namespace; nothing when that is its own affair."""
    target = target_of(container)
    if minds_its_own_network(container.definition):
        return {}
    found = {Fact(target, "loopback"): UP}
    for name, address in container.addresses.items():
        if name in networks:
            found[Fact(target, "interface", name)] = UP
            found[Fact(target, "address", name)] = f"{address}/{networks[name].subnet.rpartition('/')[2]}"
    if gateway is not None:
        found[Fact(target, "route")] = gateway
    if resolves:
        found |= {Fact(target, "resolver"): LISTENING, Fact(target, "redirect"): THERE}
    return found


def minds_its_own_network(service: Service) -> bool:
    """A program that was given CAP_NET_ADMIN may change addresses and routes (a VPN does)."""
    given = {name.upper().removeprefix("CAP_") for name in service.cap_add}
    taken = {name.upper().removeprefix("CAP_") for name in service.cap_drop}
    return service.privileged or ("NET_ADMIN" in given or ("ALL" in given and "NET_ADMIN" not in taken))


def of_processes(container: Container, groups: Iterable[str]) -> dict[Fact, str]:
    """`groups`: the directories of its control group."""
    target = target_of(container)
    paused = container.run is not None and container.run.paused
    return {
        **{Fact(target, "group", directory): INSIDE for directory in groups},
        Fact(target, "state"): FROZEN if paused else RUNNING,
    }


def of_directories(container: Container, directories: Iterable[str]) -> dict[Fact, str]:
    return {Fact(target_of(container), "directory", directory): THERE for directory in directories}


def of_volume(state: VolumeState) -> dict[Fact, str]:
    return {Fact(f"volume:{state.name}", "volume", state.path): THERE}


def target_of(container: Container) -> str:
    return f"container:{container.name}"


def is_steady(container: Container) -> bool:
    """Whether a container's running state is nobody's business at the moment but its own."""
    run = container.run
    return container.state is State.RUNNING and run is not None and run.pid > 0 and run.stopping is None
