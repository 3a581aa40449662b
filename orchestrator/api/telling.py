"""What a client that waits is told: actions as they happen, and what keeps others waiting."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection
from typing import Any

import trio

from orchestrator.api import orders
from orchestrator.api.session import Session
from orchestrator.engines.local.pulls import Progress, Pulls
from orchestrator.images import reference as references
from orchestrator.model.action import PullImage
from orchestrator.model.desired import Wanted
from orchestrator.model.plan import Wait
from orchestrator.reconciler.history import Event
from orchestrator.reconciler.loop import Loop, View

OUTCOMES = {"ok": "done", "failed": "failed", "begun": "begun"}
GATHER_SECONDS = 0.015
PULL_SECONDS = 0.2
WORTH_TELLING = 0.3
"""Seconds that something has to wait before the client hears of it."""
_FIGURES = re.compile(r"[\d.]+")


def concerns(view: View, wait: Wait, services: Collection[str], *, starting: bool) -> bool:
    """Whether who waits is any business of a command about `services` (none: all). One that stops or removes
    (not `starting`) does not care for what could not be started."""
    kind, _, name = wait.target.partition(":")
    if kind == "image" and not wait.failed:
        return False  # how far it is, is told by figures
    if kind != "container":
        return True
    found = [
        one.definition.step.of if one.definition.step is not None else one.service
        for one in view.observation.containers
        if one.name == name
    ]
    found += [one.service for one in orders.bearers(view.desired) if one.name == name]
    if not found:
        return True
    intent = view.desired.intents.get(found[0])
    wanted = intent is not None and intent.wanted in (Wanted.RUNNING, Wanted.CREATED)
    if wanted and not starting and not view.desired.down:
        return False
    return not services or found[0] in services


class Telling:
    """Turns events and waits of one stack into lines for one client."""

    def __init__(
        self, session: Session, stack: str, began: float, services: Collection[str] = (), *, waits: bool
    ) -> None:
        """`services`: whom the command is about (none: all). `waits`: it waits for them to start, so that
        also what is merely not done yet is told, and not only what can't be done."""
        self._patient = waits
        self._services = services
        self._events: trio.MemoryReceiveChannel[Event] | None = None
        self._session = session
        self._stack = stack
        self._began = began
        self._waits: dict[str, tuple[float, str, bool]] = {}
        """Target -> since when, for what reason, and whether the client knows."""
        self._warned: set[str] = set()

    async def events(self, events: trio.MemoryReceiveChannel[Event]) -> None:
        """What happens in one moment goes into one message: a hundred starts are four hundred events."""
        self._events = events
        async for event in events:
            await self._tell([event])
            await trio.sleep(GATHER_SECONDS)
            await self.rest(events)

    async def rest(self, events: trio.MemoryReceiveChannel[Event]) -> None:
        """What has happened already and is not told yet."""
        found: list[Event] = []
        with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                found.append(events.receive_nowait())
        await self._tell(found)

    async def _tell(self, events: list[Event]) -> None:
        lines = [self._line(event) for event in events if self._matters(event)]
        if lines:
            # What was taken from the channel must arrive, even if the verdict comes in between.
            with trio.CancelScope(shield=True):
                await self._session.send(*lines)

    def _matters(self, event: Event) -> bool:
        return event.stack == self._stack and event.outcome in OUTCOMES and event.at >= self._began

    def _line(self, event: Event) -> dict[str, Any]:
        return {
            "event": "action",
            "at": round(event.at - self._began, 4),
            "target": event.target,
            "verb": event.verb,
            "because": event.because,
            "outcome": OUTCOMES[event.outcome],
            "error": event.because if event.outcome == "failed" else None,
        }

    async def pulls(self, loop: Loop, pulls: Pulls) -> None:
        """How far images are that are being pulled, a few times a second."""
        last: dict[str, Progress] = {}
        while True:
            await trio.sleep(PULL_SECONDS)
            lines = []
            for target, action in loop.in_flight.items():
                if not isinstance(action, PullImage):
                    continue
                now = pulls.progress.get(references.familiar(action.reference))
                if now is not None and now != last.get(target):
                    last[target] = now
                    figures = {"here": now.here, "size": now.size, "extracting": now.extracting}
                    lines.append({"event": "progress", "target": target, **figures})
            if lines:
                await self._session.send(*lines)

    async def view(self, view: View) -> None:
        if self._events is not None:
            await self.rest(self._events)  # what was done comes before what it now waits for
        waiting = {wait.target for wait in view.plan.waits}
        self._waits = {target: told for target, told in self._waits.items() if target in waiting}
        for wait in view.plan.waits:
            await self._wait(wait, view)
        for warning in view.plan.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                await self._session.send({"event": "warning", "message": warning})

    async def _wait(self, wait: Wait, view: View) -> None:
        now = view.observation.at
        # A count-down is one reason, however often its figures change.
        reason = _FIGURES.sub("", wait.because)
        since, told, said = self._waits.get(wait.target, (now, "", False))
        if told != reason:
            since, said = now, False
        lasts = wait.failed or (self._patient and now - since >= WORTH_TELLING)
        if lasts and not said and concerns(view, wait, self._services, starting=self._patient):
            line = {"event": "wait", "target": wait.target, "because": wait.because, "failed": wait.failed}
            await self._session.send(line)
        self._waits[wait.target] = (since, reason, said or lasts)
