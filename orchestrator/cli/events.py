"""The command `events`: what has been done, and what is done from now on."""

from __future__ import annotations

import time

from orchestrator.api import client
from orchestrator.api.wire import dumps
from orchestrator.cli import clock, say
from orchestrator.cli.logs import moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.api.wire import Message
    from orchestrator.cli.scope import Scope


def events(
    scope: Scope,
    *,
    services: tuple[str, ...],
    json: bool,
    since: str | None,
    until: str | None,
) -> int:
    """Print the actions on a stack, each with its reason: from now on, or from --since on; without --until it
    goes on until Ctrl-C.
    """
    bounds = (moment("--since", since).decode(), moment("--until", until).decode())
    name = scope.name()
    if services:
        from orchestrator.cli.change import demand_services

        demand_services(scope, name, services, [])
    seconds = None if until is None else max(clock.parse(bounds[1]) / 1e9 - time.time(), 0.0)
    request: Message = {
        "verb": "events",
        "stack": name,
        "history": since is not None or until is not None,
        "follow": seconds != 0,
    }
    connection = client.find(scope.paths, request)
    if connection is None:
        from orchestrator.model.errors import no_containers

        raise no_containers(name)
    with connection:
        for message in until_then(connection, seconds):
            if "end" in message:
                client.outcome(message["end"])
                return 0
            if matches(message, services, bounds):
                say.out(render(message, as_json=json))
    return 0


def until_then(connection: client.Connection, seconds: float | None) -> Iterator[Message]:
    """What comes, for so long at most (None or 0: until its end)."""
    if not seconds:
        yield from connection.lines()
        return
    import select

    end = time.monotonic() + seconds
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    while waiting.poll(max(end - time.monotonic(), 0.0) * 1000):
        messages = connection.receive()
        if not messages:
            raise client.lost()
        yield from messages


def matches(event: Message, services: tuple[str, ...], bounds: tuple[str, str]) -> bool:
    """Whether an event is asked for. Pure; times compare as text up to the second."""
    when = str(event.get("time", ""))
    width = min(len(when), 19)
    if bounds[0] and when[:width] < bounds[0][:width]:
        return False
    if bounds[1] and when[:width] >= bounds[1][:width]:
        return False
    if not services:
        return True
    service = str(event.get("service") or "")
    return (service.rpartition("-run-")[0] or service) in services


_ACTIONS = {
    "remove": "destroy",
    "exit": "die",
    "signal": "kill",
    "healthy": "health_status: healthy",
    "unhealthy": "health_status: unhealthy",
}
"""Verb -> the word of docker compose, where it is another."""


def render(event: Message, *, as_json: bool) -> str:
    """One line. Pure. The object has the fields of docker compose, and ours."""
    if as_json:
        kind, _, name = str(event.get("target", "")).partition(":")
        verb = str(event.get("verb", ""))
        told: Message = {
            "time": event.get("time"),
            "type": kind,
            "service": event.get("service"),
            "id": event.get("id"),
            "action": _ACTIONS.get(verb, verb),
            "attributes": {"name": name},
        }
        kept = ("stack", "target", "verb", "outcome", "because", "error")
        told.update({key: event.get(key) for key in kept})
        return dumps({key: value for key, value in told.items() if value}) + "\n"
    words = [str(event.get(key) or "") for key in ("time", "target", "verb", "outcome")]
    because = str(event.get("error") or event.get("because") or "")
    return say.printable(" ".join(words) + (f" ({because})" if because else "")) + "\n"
