"""What has happened, for `events` and for the supervisor's log: a short memory, and a way to follow it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import chain

import trio

from orchestrator.model.frozen import dataclass
from orchestrator.model.observation import Container, HealthStatus, Observation, Run, State

KEPT_EVENTS = 2000
FOLLOWER_BACKLOG = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that was done, refused or noticed. `at` is boot time in seconds.

    `outcome` is "begun" when an action is taken up, "ok" or "failed" when it has ended, "refused" for what
    can't be done as things are, "seen" for what happened by itself.
    """

    at: float
    target: str
    verb: str
    because: str
    outcome: str
    stack: str = ""
    service: str = ""
    id: str = ""
    """Service and id of the container that it happened to, if it was one and is known."""


class History:
    """The latest events, oldest first. A follower that does not keep up is dropped, never waited for."""

    def __init__(self, kept: int = KEPT_EVENTS) -> None:
        self._events: deque[Event] = deque(maxlen=kept)
        self._followers: list[trio.MemorySendChannel[Event]] = []

    def __iter__(self) -> Iterator[Event]:
        return iter(tuple(self._events))

    def record(self, event: Event) -> None:
        self._events.append(event)
        for follower in tuple(self._followers):
            try:
                follower.send_nowait(event)
            except (trio.WouldBlock, trio.BrokenResourceError):
                self._followers.remove(follower)
                follower.close()

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[trio.MemoryReceiveChannel[Event]]:
        """A channel of the events from now on. It ends when the reader was too slow."""
        send, receive = trio.open_memory_channel[Event](FOLLOWER_BACKLOG)
        self._followers.append(send)
        try:
            with receive:
                yield receive
        finally:
            if send in self._followers:
                self._followers.remove(send)
            send.close()


def differences(before: Observation | None, after: Observation, stack: str = "") -> list[Event]:
    """What happened by itself between two observations: exits, changes of health."""
    if before is None:
        return []
    known = {container.id: container for container in before.containers}
    found = (
        _of_container(known.get(container.id), container)
        for container in after.containers
        if known.get(container.id) is not container
    )
    return [
        Event(
            at=after.at,
            target=f"container:{container.name}",
            verb=word,
            because=because,
            outcome="seen",
            stack=stack,
            service=container.service,
            id=container.id,
        )
        for container, word, because in chain.from_iterable(found)
    ]


def _of_container(before: Container | None, after: Container) -> Iterator[tuple[Container, str, str]]:
    run = after.run
    if before is None or run is None:
        return
    if run.oom_killed and not _same_oom(before.run, run):
        yield after, "oom", "the kernel has killed a process of it: its memory limit was reached"
    if after.state is State.EXITED and not _same_end(before.run, run):
        yield after, "exit", describe_exit(run)
    status = run.health.status if run.health else None
    previous = before.run.health.status if before.run and before.run.health else None
    if status is not None and status is not previous and status is not HealthStatus.STARTING:
        failed = status is HealthStatus.UNHEALTHY
        yield after, status.value, "its probe failed repeatedly" if failed else "its probe succeeded"


def _same_end(before: Run | None, after: Run) -> bool:
    return before is not None and before.started == after.started and before.finished is not None


def _same_oom(before: Run | None, after: Run) -> bool:
    return before is not None and before.started == after.started and before.oom_killed


def describe_exit(run: Run) -> str:
    """How a run ended, in words."""
    if run.error:
        return run.error
    words = "exit code lost" if run.exit_code is None else f"exit {run.exit_code}"
    if run.oom_killed:
        return f"{words}, out of memory"
    return f"{words}, stopped by the {run.stopping.by}" if run.stopping else words
