"""Looks at containers, networks and volumes, and says in what they differ from what they should be.

Nothing is changed here: `drift` shows what comes out, `mending` puts it right.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from orchestrator.engines.local import facts, limiting, segments, sighting
from orchestrator.engines.local.facts import Fact, Owner
from orchestrator.engines.local.shared import Shared
from orchestrator.engines.local.table import Live
from orchestrator.kernel import cgroups, holding, interfaces
from orchestrator.kernel.limits import Setting
from orchestrator.kernel.links import Link
from orchestrator.model.drift import Difference
from orchestrator.model.errors import EngineError
from orchestrator.model.observation import Container, NetworkState, VolumeState

Found = dict[Fact, Difference]


class Gathering:
    """All methods are quick, and belong to the trio thread: nothing can begin or end meanwhile."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._wiring = shared.wiring
        self._table = shared.table
        self.accepted: dict[str, frozenset[Fact]] = {}
        """Container id -> limits that this kernel did not take when its run began: they are no drift. Where
        nobody knows (we were restarted since), what a kernel may lack is not looked at."""

    def everything(self, stack: str) -> Found:
        """Of one stack: its networks, volumes and containers."""
        there = self._wiring.our_links()
        found: Found = {}
        lives = [live for live in self._table.of_stack(stack) if not live.handled]
        used = {name for live in lives for name in live.container.addresses}
        for state in self._table.networks.values():
            if state.stack == stack or state.name in used:
                found |= self.network(state, there)
        mounted = {one.volume for live in lives for one in live.built.volumes}
        for volume in self._table.volumes.values():
            if volume.stack == stack or volume.name in mounted:
                found |= self.volume(volume)
        for live in lives:
            found |= self.links(live, there) | self.inside(live) | self.run(live) | self.home(live)
        return found

    # --- networks ----------------------------------------------------------------------------------

    def network(self, state: NetworkState, there: Mapping[str, Link]) -> Found:
        target = f"network:{state.name}"
        owners = {target: Owner(stack=state.stack)}
        further = self.segments(state)
        found = sighting.network(state, there.get(self._wiring.bridge_of(state)))
        for number in further:
            found |= sighting.segment(state, number, there, self._wiring.tag)
        return facts.differences(facts.of_network(state, further), found, owners)

    def segments(self, state: NetworkState) -> list[int]:
        """The further bridges of a network that its running containers need."""
        steady = (live.container for live in self._table.containers.values() if live.wires is not None)
        on_it = (one for one in steady if state.name in one.addresses and facts.is_steady(one))
        return segments.needed(state.subnet, (one.addresses[state.name] for one in on_it))

    def links(self, live: Live, there: Mapping[str, Link]) -> Found:
        """A container's links, on the host's side."""
        container = live.container
        if not facts.is_steady(container) or live.wires is None:
            return {}
        found: dict[Fact, str] = {}
        for name, address in container.addresses.items():
            state = self._table.networks.get(name)
            bridge = there.get(self._wiring.bridge_of(state, address)) if state is not None else None
            if bridge is not None:
                port = there.get(interfaces.port(self._wiring.tag, container.id, name))
                found |= sighting.link(container, name, port, bridge)
        return facts.differences(facts.of_links(container), found, owners_of(container))

    def inside(self, live: Live) -> Found:
        """In its network namespace."""
        container = live.container
        if not facts.is_steady(container) or live.wires is None:
            return {}
        wanted = facts.of_inside(
            container,
            self._table.networks,
            self._wiring.gateway(container),
            resolves=bool(live.wires.resolver),
        )
        try:
            found = sighting.inside(container, live.wires, wanted)
        except OSError:
            return {}  # it ends at this moment
        return facts.differences(wanted, found, owners_of(container))

    # --- processes and files -----------------------------------------------------------------------

    def run(self, live: Live) -> Found:
        """Where its processes are, whether they may go on, and what they may use."""
        container = live.container
        if not facts.is_steady(container) or container.definition.runtime or live.handled:
            return {}  # another runtime's groups are its own
        groups = self._shared.watching.groups.get(container.id, ())
        found = sighting.processes(container, self._shared.hierarchies, self.group(container), groups)
        differing = facts.differences(facts.of_processes(container, groups), found, owners_of(container))
        if not any(fact.kind == "group" for fact in differing):
            differing |= self._limits(live)
        return differing

    def _limits(self, live: Live) -> Found:
        container = live.container
        target = facts.target_of(container)
        accepted = self.accepted.get(container.id)
        wanted: dict[Fact, str] = {}
        found: dict[Fact, str] = {}
        for setting, text in self.limits(container).items():
            fact = Fact(target, "limit", setting.file)
            if not (setting.without if accepted is None else fact in accepted):
                wanted[fact] = setting.value
                holds = holding.holds(setting, text)
                found[fact] = setting.value if holds else holding.shown(setting, text)
        return facts.differences(wanted, found, owners_of(container))

    def limits(self, container: Container) -> Mapping[Setting, str]:
        """What its control files should say -> what they do."""
        hierarchies = self._shared.hierarchies
        if hierarchies.mode == "none":
            return {}
        try:
            asked = holding.wanted(hierarchies, limiting.limits(container))
        except (cgroups.CgroupError, EngineError):
            return {}
        return holding.look(hierarchies, self.group(container), asked)

    def accept(self, live: Live) -> None:
        """Whatever a run begins with is as the kernel would have it."""
        self.accepted[live.container.id] = frozenset()
        if not live.container.definition.runtime:
            self.accepted[live.container.id] = frozenset(self._limits(live))

    def home(self, live: Live) -> Found:
        """Its own directories."""
        if live.handled:
            return {}
        container = live.container
        paths = self._shared.watching.directories.get(container.id, ())
        wanted = facts.of_directories(container, paths)
        return facts.differences(wanted, sighting.existing(container, paths), owners_of(container))

    def volume(self, state: VolumeState) -> Found:
        if state.name in self._table.going:
            return {}
        owners = {f"volume:{state.name}": Owner(stack=state.stack)}
        return facts.differences(facts.of_volume(state), sighting.volume(state), owners)

    def group(self, container: Container) -> str:
        return f"{self._shared.places.cgroup}/{container.stack}/{container.id}"


def owners_of(container: Container) -> Mapping[str, Owner]:
    owner = Owner(stack=container.stack, service=container.service, id=container.id)
    return {facts.target_of(container): owner}


@contextlib.contextmanager
def handled(live: Live) -> Iterator[None]:
    """For the block's length we are changing it ourselves: what comes of it is no drift."""
    live.handled += 1
    try:
        yield
    finally:
        live.handled -= 1
