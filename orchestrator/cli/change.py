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
    """Stop containers, dependents first."""
    if client.idle(scope.paths):
        scope.name()
        return 0
    return _order_existing(scope, {"verb": "stop", "services": services, "timeout": timeout})


def restart(scope: Scope, *, services: tuple[str, ...], timeout: float | None, no_deps: bool) -> int:
    """Stop and start containers; a changed definition is not applied."""
    return _order_existing(
        scope, {"verb": "restart", "services": services, "timeout": timeout, "no_deps": no_deps}
    )


def kill(scope: Scope, *, services: tuple[str, ...], signal: str | None) -> int:
    """Send a signal to every container at once."""
    return _order_existing(
        scope, {"verb": "kill", "services": services, "signal": signal_name(signal or "SIGKILL")}
    )


def rm(scope: Scope, *, services: tuple[str, ...], force: bool, stop: bool, volumes: bool) -> int:
    """Remove containers that do not run."""
    name = scope.name()
    if client.idle(scope.paths):
        say.err("No stopped containers\n")
        return 0
    client.ensure_supervisor(scope.paths)
    if stop:
        order(scope, {"verb": "stop", "stack": name, "services": services, "timeout": None})
    rows = client.call(scope.paths, {"verb": "ps", "stack": name, "all": True})
    known = {row["service"] for row in rows}
    for service in services:
        if service not in known:
            raise no_such_service(service)
    names = [
        row["name"]
        for row in rows
        if row["state"] != "running"
        and not row.get("oneoff")
        and (not services or row["service"] in services)
    ]
    if not names:
        say.err("No stopped containers\n")
        return 0
    if not force and not _agreed(names):
        return 0
    _, code = order(scope, {"verb": "rm", "stack": name, "services": services, "volumes": volumes})
    return code


def _agreed(names: list[str]) -> bool:
    say.err(f"? Going to remove {', '.join(names)} Are you sure? [yN] ")
    import sys

    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _order_existing(scope: Scope, request: Message) -> int:
    name = scope.name()
    if client.idle(scope.paths):
        raise no_containers(name)
    _, code = order(scope, {"stack": name, **request})
    return code


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
    """SIGTERM for "TERM", "sigterm", "15". Raises UserError."""
    import signal

    word = text.upper()
    try:
        if word.isdigit():
            return signal.Signals(int(word)).name
        return signal.Signals["SIG" + word.removeprefix("SIG")].name
    except (KeyError, ValueError):
        raise usage(f"there is no signal {text!r}") from None


def usage(message: str, hint: str = "") -> PystackError:
    from orchestrator.model.errors import ExitCode, UserError

    return UserError(message, exit_code=ExitCode.USAGE, hint=hint)


def no_such_service(name: str) -> PystackError:
    from orchestrator.model.errors import UserError

    return UserError(f"no such service: {name}")


def no_containers(stack: str) -> PystackError:
    from orchestrator.model.errors import UserError

    return UserError(f'no container found for project "{stack}"', hint="`pystack up` creates them")
