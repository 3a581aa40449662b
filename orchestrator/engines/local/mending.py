"""What somebody has changed behind our back: the kernel announces it, and it is put right, or reported.

Everything is named, computed and recorded, so what is missing can be made again as it was; no container is
restarted for it. What is on its way in or out (a network being removed, a container being started or taken
away) is not looked at: it is in no table, or does not run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from socket import socket
from typing import Literal

import trio

from orchestrator.engines.local.facts import Fact
from orchestrator.engines.local.gathering import Found, Gathering
from orchestrator.engines.local.repairs import Repairs
from orchestrator.engines.local.shared import Shared
from orchestrator.engines.local.table import Live
from orchestrator.engines.local.trouble import report
from orchestrator.engines.local.watching import Subject
from orchestrator.kernel import cgroups, firewall, links
from orchestrator.kernel.netlink import Heard, heard
from orchestrator.model.drift import Difference
from orchestrator.model.errors import EngineError
from orchestrator.model.frozen import dataclass, field, replace
from orchestrator.model.observation import State

COMPANY = 0.1
"""Seconds to wait for more announcements of the same: one deletion is several."""
BREATH = 0.02
"""Seconds between two readings of what is announced."""
CALM = 0.5
"""Seconds between two looks at least: our own work is announced as well."""
RESCAN = 300.0
"""Seconds between two looks at everything: for what nobody announces (a process that is moved to another
group of v1), and for what we have missed."""
AFTER_MISSING = 10.0
"""Seconds between two such looks at least, when announcements were missed: a container that may administer
its network can bring forth more of them than anybody reads."""
OFTEN = 5
"""So many repairs of the same within a minute, and somebody else wants it otherwise: then it is left."""
_MINUTE = 60.0

Outcome = Literal["repaired", "seen", "failed", "back"]
Told = Callable[[Difference, Outcome], None]

_INSIDE = ("loopback", "interface", "address", "route", "resolver", "redirect")
_RUN = ("group", "state", "limit")
_NETWORK = ("bridge", "bridge state", "bridge address", "segment", "trunk")
_LINKS = ("link", "port")
_TROUBLE = (OSError, EngineError, cgroups.CgroupError)


@dataclass(slots=True, kw_only=True)
class Suspects:
    """What has to be looked at."""

    everything: bool = False
    links: bool = False
    firewall: bool = False
    inside: set[str] = field(default_factory=set)
    """Containers, by id, in whose network namespace something has changed."""
    subjects: set[Subject] = field(default_factory=set)


class Mending:
    """Watches while `run` runs; `told` hears of everything that was put right, or was not."""

    def __init__(self, shared: Shared, gathering: Gathering, lend: Callable[[Live], None]) -> None:
        self._wiring = shared.wiring
        self._table = shared.table
        self._watching = shared.watching
        self._gathering = gathering
        self._repairs = Repairs(shared, gathering, lend)
        self._bell = trio.Event()
        self._suspects = Suspects(everything=bool(shared.table.containers or shared.table.volumes))
        self._standing: dict[Fact, Difference] = {}
        """What was told of and still is as it is."""
        self._repaired: dict[Fact, list[float]] = {}
        self._missed = False
        self._full = 0.0
        """When everything was looked at."""
        self.told: Told = lambda _difference, _outcome: None
        self.may_repair: Callable[[str], bool] = lambda _stack: True
        """Whether what belongs to a stack ("": to all of them) is put right."""
        self._wiring.deaf = self._deaf
        if self._suspects.everything:
            self._bell.set()

    async def run(self) -> None:
        with links.events() as of_links, firewall.events() as of_firewall:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, of_links, self._heard_links)
                nursery.start_soon(self._listen, of_firewall, self._heard_firewall)
                nursery.start_soon(self._listen_to_files)
                self._full = trio.current_time()
                while True:
                    with trio.move_on_at(self._full + (AFTER_MISSING if self._missed else RESCAN)):
                        await self._bell.wait()
                        await trio.sleep(COMPANY)
                    await self._turn()
                    await trio.sleep(CALM)

    def look_at_all(self) -> None:
        """Something else is to be done about what is wrong now: look soon."""
        self._standing = {fact: one for fact, one in self._standing.items() if not one.mendable}
        self._suspects.everything = True
        self._bell.set()

    # --- who has to be looked at --------------------------------------------------------------------

    async def _listen(self, announced: socket, take: Callable[[Heard], bool]) -> None:
        while True:
            await trio.lowlevel.wait_readable(announced)
            news = heard(announced)
            self._missed = self._missed or news.missed
            if take(news) or news.missed:
                self._bell.set()
            await trio.sleep(BREATH)

    def _heard_links(self, news: Heard) -> bool:
        ours = bool(news.ours - links.ROUTES)
        self._suspects.links = self._suspects.links or ours
        return self._those(news.others) or ours

    def _heard_firewall(self, news: Heard) -> bool:
        self._suspects.firewall = self._suspects.firewall or bool(news.ours)
        return self._those(news.others) or bool(news.ours)

    def _those(self, numbers: Iterable[int]) -> bool:
        """The containers that these network namespaces are of. One that is still being set up is none."""
        numbers = set(numbers)
        if not numbers:
            return False
        found = False
        for live in self._table.containers.values():
            steady = live.container.state is State.RUNNING and live.container.run
            if steady and steady.pid and live.wires is not None and self._number(live) in numbers:
                self._suspects.inside.add(live.container.id)
                found = True
        return found

    def _number(self, live: Live) -> int | None:
        try:
            return self._wiring.number_of(live)
        except OSError:
            return None

    def _deaf(self, live: Live) -> None:
        self._suspects.inside.add(live.container.id)
        self._bell.set()

    async def _listen_to_files(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._watching.fileno())
            noticed = self._watching.heard()
            self._missed = self._missed or noticed.missed
            wanted = {one for one in noticed.subjects if self._matters(one)}
            self._suspects.subjects |= wanted
            if wanted or noticed.missed:
                self._bell.set()
            await trio.sleep(COMPANY)  # a limit that is reached again and again is announced as often

    def _matters(self, subject: Subject) -> bool:
        kind, name = subject
        if kind == "volume":
            return name not in self._table.going
        live = self._table.containers.get(name)
        return live is not None and not live.handled

    # --- looking ------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        suspects, self._suspects, self._bell = self._suspects, Suspects(), trio.Event()
        now = trio.current_time()
        due = now >= self._full + (AFTER_MISSING if self._missed else RESCAN)
        everything = suspects.everything or due
        if everything:
            self._full, self._missed = now, False
        if due:  # what could not be put right is tried once more
            self._standing = {
                fact: wrong
                for fact, wrong in self._standing.items()
                if not wrong.mendable or not self.may_repair(wrong.stack)
            }
        try:
            if everything or suspects.links:
                self._look_at_links()
            if everything or suspects.firewall:
                await self._look_at_firewall()
            chosen = list(self._table.containers) if everything else []
            for container_id in chosen or sorted(suspects.inside):
                self._look_inside(container_id)
                await trio.lowlevel.checkpoint()
            subjects = self._all_subjects() if everything else sorted(suspects.subjects)
            for subject in subjects:
                self._look_at(subject)
                await trio.lowlevel.checkpoint()
        except _TROUBLE as error:
            report(error)

    def _all_subjects(self) -> list[Subject]:
        ids = list(self._table.containers)
        return [
            *(("volume", name) for name in self._table.volumes),
            *((kind, one) for one in ids for kind in ("home", "run")),
        ]

    def _look_at_links(self) -> None:
        """In the trio thread, without a pause: nothing else can begin or end meanwhile."""
        if not self._table.networks:
            return
        there = self._wiring.our_links()
        for state in tuple(self._table.networks.values()):
            target = f"network:{state.name}"
            if self._settle(target, _NETWORK, self._gathering.network(state, there), None):
                there = self._wiring.our_links()
        for live in tuple(self._table.containers.values()):
            self._settle_container(live, _LINKS, self._gathering.links(live, there))

    async def _look_at_firewall(self) -> None:
        fact = Fact("firewall", "firewall")
        if await self._wiring.is_whole():
            self._standing.pop(fact, None)
            return
        wrong = FIREWALL
        if self._is_told(fact, wrong):
            return
        if not self.may_repair(""):
            self._stands(fact, wrong, "seen")
        elif self._too_often(fact):
            self._stands(fact, _left(wrong), "failed")
        else:
            await self._wiring.restore_firewall()
            self.told(wrong, "repaired")

    def _look_inside(self, container_id: str) -> None:
        live = self._table.containers.get(container_id)
        if live is not None:
            self._settle_container(live, _INSIDE, self._gathering.inside(live))

    def _look_at(self, subject: Subject) -> None:
        kind, name = subject
        live = self._table.containers.get(name)
        match kind:
            case "volume":
                self._look_at_volume(name)
            case "home" if live is not None:
                self._look_at_home(live)
            case "run" if live is not None:
                self._settle_container(live, _RUN, self._gathering.run(live))
                self._look_at_home(live)  # its directories grow as it runs

    # --- what is done about it ----------------------------------------------------------------------

    def _settle_container(self, live: Live, kinds: tuple[str, ...], found: Found) -> None:
        self._settle(f"container:{live.container.name}", kinds, found, live)

    def _settle(self, target: str, kinds: tuple[str, ...], found: Found, live: Live | None) -> bool:
        """Repair or tell what was `found`, of these kinds; whether anything was repaired."""
        done = False
        for fact, wrong in found.items():
            if self._is_told(fact, wrong):
                continue
            if not self.may_repair(wrong.stack):
                self._stands(fact, wrong, "seen")
            elif self._too_often(fact):
                self._stands(fact, _left(wrong), "failed")
            else:
                done = self._repair(fact, wrong, live) or done
        self._forget(target, kinds, found)
        return done

    def _repair(self, fact: Fact, wrong: Difference, live: Live | None) -> bool:
        try:
            if live is not None:
                self._repairs.container(fact, live)
            else:
                self._repairs.network(fact.target.partition(":")[2])
        except _TROUBLE as error:
            self._stands(
                fact, replace(wrong, because=f"{wrong.because}; it can't be put right: {error}"), "failed"
            )
            return False
        self.told(wrong, "repaired")
        return True

    def _is_told(self, fact: Fact, wrong: Difference) -> bool:
        before = self._standing.get(fact)
        return before is not None and (before.wanted, before.found) == (wrong.wanted, wrong.found)

    def _stands(self, fact: Fact, wrong: Difference, outcome: Outcome) -> None:
        self._standing[fact] = wrong
        self.told(wrong, outcome)

    def _forget(
        self, target: str, kinds: tuple[str, ...], found: Mapping[Fact, Difference]
    ) -> list[Difference]:
        """What stood and is no more as it was."""
        gone = [f for f in self._standing if f.target == target and f.kind in kinds and f not in found]
        return [self._standing.pop(fact) for fact in gone]

    def _too_often(self, fact: Fact) -> bool:
        now = trio.current_time()
        lately = [at for at in self._repaired.get(fact, ()) if now - at < _MINUTE]
        if len(lately) >= OFTEN:
            return True
        self._repaired[fact] = [*lately, now]
        if len(self._repaired) > 10_000:
            self._repaired.clear()
        return False

    # --- what can't be put right --------------------------------------------------------------------

    def _look_at_home(self, live: Live) -> None:
        """The planner replaces a container that has lost its files; what was in them is lost with it."""
        found = self._gathering.home(live)
        because = next((wrong.because for wrong in found.values()), "")
        for fact, wrong in found.items():
            if not self._is_told(fact, wrong):
                self._stands(fact, wrong, "seen")
        self._forget(f"container:{live.container.name}", ("directory",), found)
        if live.container.broken != because and not live.handled:
            live.container = replace(live.container, broken=because)
            self._table.ring(live.container.stack)

    def _look_at_volume(self, name: str) -> None:
        """Reported, and never made anew: the user may have it somewhere."""
        state = self._table.volumes.get(name)
        if state is None or name in self._table.going:
            return
        self._watching.follow_volume(state)
        found = self._gathering.volume(state)
        lost = next((wrong.because for wrong in found.values()), "")
        for fact, wrong in found.items():
            if not self._is_told(fact, wrong):
                self._stands(fact, wrong, "failed")
        for wrong in self._forget(f"volume:{name}", ("volume",), found):
            self.told(replace(wrong, because="its directory is there again"), "back")
        if state.lost != lost:
            self._table.volumes[name] = replace(state, lost=lost)
            self._table.ring()


FIREWALL = Difference(
    target="firewall",
    what="rules",
    wanted="as we wrote them",
    found="changed",
    because="its rules were changed",
)


def _left(wrong: Difference) -> Difference:
    again = f"; it was put right {OFTEN} times within a minute, and is left as it is until the minute is over"
    return replace(wrong, because=f"{wrong.because}{again}")
