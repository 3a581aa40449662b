"""The command `events`: what has been done, and what is done from now on."""

from __future__ import annotations

from orchestrator.api import client
from orchestrator.api.wire import dumps
from orchestrator.cli import say
from orchestrator.cli.logs import moment

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    """Print the actions on a stack, each with its reason. Without --until it goes on until Ctrl-C."""
    bounds = (moment("--since", since).decode(), moment("--until", until).decode())
    name = scope.name()
    if services:
        from orchestrator.cli.change import demand_services

        demand_services(scope, name, services, [])
    request: Message = {"verb": "events", "stack": name, "since": since, "follow": until is None}
    connection = client.find(scope.paths, request)
    if connection is None:
        from orchestrator.cli.change import no_containers

        raise no_containers(name)
    with connection:
        for message in connection.lines():
            if "end" in message:
                client.outcome(message["end"])
                return 0
            if matches(message, name, services, bounds):
                say.out(render(message, as_json=json))
    return 0


def matches(event: Message, stack: str, services: tuple[str, ...], bounds: tuple[str, str]) -> bool:
    """Whether an event is asked for. Pure; times compare as text up to the second."""
    time = str(event.get("time", ""))
    width = min(len(time), 19)
    if bounds[0] and time[:width] < bounds[0][:width]:
        return False
    if bounds[1] and time[:width] >= bounds[1][:width]:
        return False
    if not services:
        return True
    name = str(event.get("target", "")).partition(":")[2]
    return any(name.startswith(f"{stack}-{service}-") for service in services)


def render(event: Message, *, as_json: bool) -> str:
    """One line. Pure."""
    if as_json:
        kept = ("time", "stack", "target", "verb", "outcome", "because", "error")
        return dumps({key: event[key] for key in kept if event.get(key) is not None}) + "\n"
    words = [str(event.get(key) or "") for key in ("time", "target", "verb", "outcome")]
    because = str(event.get("error") or event.get("because") or "")
    return say.printable(" ".join(words) + (f" ({because})" if because else "")) + "\n"
