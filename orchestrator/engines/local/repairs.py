"""Puts one thing right that somebody has changed behind our back, with the least disturbance: no repair here
restarts a program. Plain, synchronous."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping

from orchestrator.engines.local import limiting
from orchestrator.engines.local.facts import Fact
from orchestrator.engines.local.gathering import Gathering
from orchestrator.engines.local.resolver import open_sockets
from orchestrator.engines.local.shared import Shared
from orchestrator.engines.local.table import Live
from orchestrator.kernel import cgroups, controls, holding, links, redirect, usage
from orchestrator.model.errors import EngineError
from orchestrator.model.stack import Private

Repair = Callable[[Fact, Live], None]


class Repairs:
    """By the kind of fact that is wrong (see facts). Repeatable; each may raise EngineError, OSError or
    CgroupError."""

    def __init__(self, shared: Shared, gathering: Gathering, lend: Callable[[Live], None]) -> None:
        """`lend`: have the keeper hold what is new of a container."""
        self._shared = shared
        self._gathering = gathering
        self._lend = lend
        self._of: Mapping[str, Repair] = {
            "link": self._link,
            "port": self._port,
            "interface": self._inside,
            "address": self._inside,
            "loopback": self._inside,
            "route": self._inside,
            "resolver": self._resolver,
            "redirect": self._redirect,
            "limit": self._limit,
            "state": self._state,
            "group": self._group,
        }

    def network(self, name: str) -> None:
        state = self._shared.table.networks.get(name)
        if state is not None:
            self._shared.wiring.make_bridge(state)
            for segment in self._gathering.segments(state):
                self._shared.wiring.make_segment(state, segment)

    def container(self, fact: Fact, live: Live) -> None:
        self._of[fact.kind](fact, live)

    # --- its network -------------------------------------------------------------------------------

    def _link(self, fact: Fact, live: Live) -> None:
        self._shared.wiring.plug_in_again(live, list(live.container.addresses).index(fact.of), fact.of)

    def _port(self, _: Fact, live: Live) -> None:
        self._shared.wiring.attach_again(live)

    def _inside(self, fact: Fact, live: Live) -> None:
        try:
            self._configure(live)
        except OSError:
            if fact.kind != "interface":
                raise
            self._link(fact, live)  # it has gone elsewhere, or has another name now

    def _configure(self, live: Live) -> None:
        assert live.wires is not None
        container, networks = live.container, self._shared.table.networks
        addresses = [
            (f"eth{number}", f"{address}/{networks[name].subnet.rpartition('/')[2]}")
            for number, (name, address) in enumerate(container.addresses.items())
            if name in networks
        ]
        links.configure(live.wires.namespace, addresses, self._shared.wiring.gateway(container))

    def _resolver(self, _: Fact, live: Live) -> None:
        """Other sockets: those it had were closed from inside."""
        wires = live.wires
        assert wires is not None
        opened = tuple(sock.detach() for sock in open_sockets(wires.namespace))
        if wires.serving is not None:
            wires.serving.cancel()
            wires.serving = None
        for fd in wires.resolver:
            os.close(fd)
        wires.resolver = opened
        self._shared.wiring.serve_names(live)
        self._lend(live)

    def _redirect(self, _: Fact, live: Live) -> None:
        assert live.wires is not None
        udp, tcp = (socket.socket(fileno=os.dup(fd)) for fd in live.wires.resolver)
        with udp, tcp:
            redirect.lay(live.wires.namespace, udp.getsockname()[1], tcp.getsockname()[1])

    # --- its processes -----------------------------------------------------------------------------

    def _limit(self, _: Fact, live: Live) -> None:
        """All of them at once: some kernels want one before the other."""
        hierarchies, group = self._shared.hierarchies, self._gathering.group(live.container)
        wrong = tuple(
            setting
            for setting, text in self._gathering.limits(live.container).items()
            if not holding.holds(setting, text)
        )
        where = {one.controller: holding.directory(hierarchies, group, one.controller) for one in wrong}
        controls.write_all(where, wrong, lambda _: None)

    def _state(self, _: Fact, live: Live) -> None:
        paused = live.container.run is not None and live.container.run.paused
        group = self._gathering.group(live.container)
        while not paused and group.count("/") > 0:  # the stack's group may be frozen, too
            cgroups.freeze(self._shared.hierarchies, group, frozen=False)
            group = group.rpartition("/")[0]
        if paused:
            cgroups.freeze(self._shared.hierarchies, group, frozen=True)

    def _group(self, _: Fact, live: Live) -> None:
        hierarchies, group = self._shared.hierarchies, self._gathering.group(live.container)
        limits = limiting.limits(live.container, limiting.device_rules(live.container))
        cgroups.rejoin(hierarchies, group, limits, lambda: self._processes(live, group))
        self._shared.watching.leave_run(live)
        self._shared.watching.follow_run(live)

    def _processes(self, live: Live, group: str) -> Iterable[int]:
        """Everybody of its pid namespace; of a container that shares it, those that are still together."""
        run = live.container.run
        if run is None:
            raise EngineError(f"container {live.container.name} has ended")
        together = cgroups.pids(self._shared.hierarchies, group)
        if not isinstance(live.container.definition.pid, Private):
            return (*together, run.pid)
        return (*together, *usage.sharing_pids_with(run.pid))
