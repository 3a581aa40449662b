"""What somebody has changed of our network behind our back: the kernel announces it, and it is put right.

Bridges, the containers' links to them, and the firewall's table. Everything is named, computed and recorded,
so what is missing can be made again as it was; no container is restarted. What is on its way in or out (a
network being removed, a container being started or taken away) is not looked at: it is in no table, or does
not run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from socket import socket

import trio

from orchestrator.engines.local.table import Live, Table
from orchestrator.engines.local.trouble import report
from orchestrator.engines.local.wiring import Wiring
from orchestrator.kernel import firewall, interfaces, links
from orchestrator.kernel.links import Link
from orchestrator.model.errors import EngineError
from orchestrator.model.observation import NetworkState, State

COMPANY = 0.1
"""Seconds to wait for more announcements of the same: one deletion is several."""
CALM = 0.5
"""Seconds between two looks at least: our own work is announced as well."""
_READ = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """One thing that was put right, and what had been wrong with it."""

    target: str
    because: str
    container: Live | None = None


class Mending:
    """Watches while `run` runs; `told` hears of everything that was put right."""

    def __init__(self, wiring: Wiring, table: Table) -> None:
        self._wiring = wiring
        self._table = table
        self._bell = trio.Event()
        self.told: Callable[[Mended], None] = lambda _: None

    async def run(self) -> None:
        with links.events() as of_links, firewall.events() as of_firewall:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, of_links)
                nursery.start_soon(self._listen, of_firewall)
                while True:
                    await self._bell.wait()
                    await trio.sleep(COMPANY)
                    self._bell = trio.Event()
                    await self._look()
                    await trio.sleep(CALM)

    async def _listen(self, announced: socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(announced)
            with contextlib.suppress(OSError):  # ENOBUFS: much has changed; EAGAIN: all is read
                while announced.recv(_READ):
                    pass
            self._bell.set()

    async def _look(self) -> None:
        try:
            mended = list(self._links())
            if await self._wiring.restore_firewall():
                mended.append(Mended(target="firewall", because="its rules were changed"))
        except (OSError, EngineError) as error:
            report(error)
            return
        for one in mended:
            self.told(one)

    # --- links ------------------------------------------------------------------------------------------

    def _links(self) -> Iterator[Mended]:
        """In the trio thread, without a pause: nothing else can begin or end meanwhile."""
        if not self._table.networks:
            return
        found = self._wiring.our_links()
        for state in tuple(self._table.networks.values()):
            why = _bridge_fault(found.get(self._wiring.bridge_of(state.name)), state)
            if why:
                self._wiring.make_bridge(state)
                yield Mended(target=f"network:{state.name}", because=why)
                found = self._wiring.our_links()
        for live in tuple(self._table.containers.values()):
            run = live.container.run
            if live.container.state is State.RUNNING and live.wires is not None and run and not run.stopping:
                yield from self._ports(live, found)

    def _ports(self, live: Live, found: dict[str, Link]) -> Iterator[Mended]:
        for number, name in enumerate(live.container.addresses):
            bridge = found.get(self._wiring.bridge_of(name))
            if bridge is None or name not in self._table.networks:
                continue
            port = found.get(interfaces.port(self._wiring.tag, live.container.id, name))
            because = ""
            if port is None:
                self._wiring.plug_in_again(live, number, name)
                because = f"its link to network {name} was deleted"
            elif port.master != bridge.index or not port.up:
                self._wiring.attach_again(live)
                because = f"its link to network {name} was taken off the bridge"
            if because:
                yield Mended(target=f"container:{live.container.name}", because=because, container=live)


def _bridge_fault(bridge: Link | None, state: NetworkState) -> str:
    """What is wrong with a network's bridge, in words; "" when nothing is."""
    if bridge is None:
        return "its bridge was deleted"
    if not bridge.up:
        return "its bridge was set down"
    length = state.subnet.rpartition("/")[2]
    if f"{state.gateway}/{length}" not in bridge.addresses:
        return "its bridge had lost its address"
    return ""
