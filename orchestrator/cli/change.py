"""Commands that change a stack by its name alone: down, start, stop, restart, kill, rm."""

from __future__ import annotations

import os

from orchestrator.api import client
from orchestrator.cli import painter, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.api.wire import Message
    from orchestrator.cli.scope import Scope
    from orchestrator.model.errors import PystackError


def down(scope: Scope, *, volumes: bool, remove_orphans: bool, timeout: float | None) -> int:
    """Stop and remove the containers and networks of a stack, with `volumes` its volumes."""
    name = scope.name()
    if not volumes and client.idle(scope.paths):
        return _nothing(name)
    request: Message = {
        "verb": "down",
        "stack": name,
        "remove_volumes": volumes,
        "remove_orphans": orphans_wanted(remove_orphans),
        "timeout": timeout,
    }
    shown, code = order(scope, request)
    return code if shown.board.acted else _nothing(name)


def start(scope: Scope, *, services: tuple[str, ...]) -> int:
    """Start existing containers, dependencies first."""
    return _order_existing(scope, {"verb": "start", "services": services})


def stop(scope: Scope, *, services: tuple[str, ...], timeout: float | None) -> int:
    """Stop containers, dependents first. Where nothing is there nothing has to be stopped."""
    name = scope.name()
    acted, code = False, 0
    if not client.idle(scope.paths):
        request: Message = {"verb": "stop", "stack": name, "services": services, "timeout": timeout}
        shown, code = order(scope, request)
        acted = shown.board.acted
    if not acted:
        demand_services(scope, name, services, [])
    return code


def restart(scope: Scope, *, services: tuple[str, ...], timeout: float | None, no_deps: bool) -> int:
    """Stop and start containers; a changed definition is not applied."""
    return _order_existing(
        scope, {"verb": "restart", "services": services, "timeout": timeout, "no_deps": no_deps}
    )


def kill(scope: Scope, *, services: tuple[str, ...], signal: str | None) -> int:
    """Send a signal to every container at once."""
    number = signal_name(signal or "SIGKILL")
    name = _existing(scope, services)
    shown = painter.Progress(scope, "Killing")
    try:
        told = client.call(
            scope.paths, {"verb": "kill", "stack": name, "services": services, "signal": number}
        )
    except Exception:
        demand_services(scope, name, services, [])
        raise
    names = (told or {}).get("killed") or []
    for container in names:
        verb = "kill" if number == "SIGKILL" else "signal"
        shown.take({"event": "action", "target": f"container:{container}", "verb": verb, "outcome": "done"})
    shown.finish()
    if not names:
        say.err("No container to kill\n")
    return 0


def rm(scope: Scope, *, services: tuple[str, ...], force: bool, stop: bool, volumes: bool) -> int:
    """Remove containers that do not run."""
    name = scope.name()
    if client.idle(scope.paths):
        demand_services(scope, name, services, [])
        say.err("No stopped containers\n")
        return 0
    client.ensure_supervisor(scope.paths)
    if stop:
        order(scope, {"verb": "stop", "stack": name, "services": services, "timeout": None})
    rows = client.call(scope.paths, {"verb": "ps", "stack": name, "all": True})
    demand_services(scope, name, services, rows)
    names = [
        row["name"]
        for row in rows
        if row["state"] not in ("running", "paused")
        and not row.get("oneoff")
        and (not services or row["service"] in services)
    ]
    if not names:
        say.err("No stopped containers\n")
        return 0
    if not force and not agreed(f"? Going to remove {', '.join(names)} Are you sure? [yN] "):
        return 0
    _, code = order(scope, {"verb": "rm", "stack": name, "services": services, "volumes": volumes})
    return code


def agreed(question: str) -> bool:
    """Whether the user says yes; at the end of the input it is no."""
    say.err(question)
    import sys

    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _order_existing(scope: Scope, request: Message) -> int:
    name = _existing(scope, request["services"])
    try:
        _, code = order(scope, {"stack": name, **request})
    except Exception:
        # Of a stack that is not there nobody could say that it has no such service.
        demand_services(scope, name, request["services"], [])
        raise
    return code


def _existing(scope: Scope, services: tuple[str, ...]) -> str:
    """The stack's name. Raises UserError when nothing of it can be there."""
    name = scope.name()
    if client.idle(scope.paths):
        demand_services(scope, name, services, [])
        from orchestrator.model.errors import no_containers

        raise no_containers(name)
    return name


def demand_services(scope: Scope, stack: str, services: tuple[str, ...], rows: list[Message]) -> None:
    """Raises UserError for a name that is neither a service of these rows of `ps` nor of the stack."""
    missing = set(services) - {row["service"] for row in rows}
    if not missing:
        return
    known: set[str] = set()
    if not client.idle(scope.paths):
        told = client.ask(scope.paths, {"verb": "stack", "stack": stack})
        told = (told or {}).get("stack") or {}
        known = {*told.get("services", ()), *told.get("disabled", ())}
    if missing - known and not scope.said_name():
        loaded = scope.load(strict=False, warn=False).stack
        known = {*known, *loaded.services, *loaded.disabled}
    for service in services:
        if service in missing - known:
            raise no_such_service(service)


def order(scope: Scope, request: Message, title: str = "Running") -> tuple[painter.Progress, int]:
    """Send a request and show its progress until the end. Raises PystackError as the end says."""
    shown = painter.Progress(scope, title)
    with client.summon(scope.paths, request) as connection:
        return shown, painter.settle(painter.watch(connection, shown), shown)


def _nothing(name: str) -> int:
    say.warning(f'No resource found to remove for project "{name}".')
    return 0


def _wish(variable: str) -> bool:
    """A switch in the environment (strconv.ParseBool of docker compose)."""
    return os.environ.get(variable, "").lower() in ("1", "t", "true")


def orphans_wanted(remove_orphans: bool) -> bool:
    """--remove-orphans or COMPOSE_REMOVE_ORPHANS. Raises UserError when COMPOSE_IGNORE_ORPHANS says the
    opposite (compose.md 2.1).
    """
    if remove_orphans and _wish("COMPOSE_IGNORE_ORPHANS"):
        raise usage("COMPOSE_IGNORE_ORPHANS and --remove-orphans cannot be combined")
    return remove_orphans or _wish("COMPOSE_REMOVE_ORPHANS")


def signal_name(text: str) -> str:
    """SIGTERM for "TERM", "sigterm", "15"; RTMIN+3 and 37 as they are. Raises UserError."""
    import re
    import signal

    word = text.upper()
    if word.isdecimal() and 0 < int(word) <= int(signal.SIGRTMAX):
        known = int(word) in signal.Signals._value2member_map_
        return signal.Signals(int(word)).name if known else word
    name = word.removeprefix("SIG")
    if re.fullmatch(r"RTMIN\+([0-9]|[12][0-9]|30)", name):
        return name
    if f"SIG{name}" not in signal.Signals.__members__:
        raise usage(f"there is no signal {text!r}", "as HUP, SIGTERM or 9")
    return signal.Signals[f"SIG{name}"].name


def usage(message: str, hint: str = "") -> PystackError:
    from orchestrator.model.errors import ExitCode, UserError

    return UserError(message, exit_code=ExitCode.USAGE, hint=hint)


def no_such_service(name: str) -> PystackError:
    from orchestrator.model.errors import UserError

    return UserError(f"no such service: {name}")
