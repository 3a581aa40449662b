"""Commands that change containers while they run: pause, unpause, update."""

from __future__ import annotations

from orchestrator.api import client
from orchestrator.cli import painter, say
from orchestrator.cli.change import demand_services, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.api.wire import Message
    from orchestrator.cli.scope import Scope


def pause(scope: Scope, *, services: tuple[str, ...]) -> int:
    """Let every process of the containers stand still."""
    return _order(scope, "pause", services)


def unpause(scope: Scope, *, services: tuple[str, ...]) -> int:
    """Let paused containers go on."""
    return _order(scope, "unpause", services)


def _order(scope: Scope, verb: str, services: tuple[str, ...]) -> int:
    name = scope.name()
    connection = client.find(scope.paths, {"verb": verb, "stack": name, "services": services})
    if connection is None:
        demand_services(scope, name, services, [])
        raise _nothing(name)
    shown = painter.Progress(scope, "Running")
    with connection:
        code = painter.settle(painter.watch(connection, shown), shown)
    if not shown.board.acted:
        say.err(f"No container to {verb}\n")
    return code


def update(
    scope: Scope,
    *,
    names: tuple[str, ...],
    memory: str | None,
    memory_swap: str | None,
    memory_reservation: str | None,
    cpus: float | None,
    cpu_shares: int | None,
    cpu_quota: str | None,
    cpu_period: int | None,
    cpuset_cpus: str | None,
    cpuset_mems: str | None,
    pids_limit: str | None,
    blkio_weight: int | None,
    restart: str | None,
) -> int:
    """Change limits and the restart policy of containers, running or not; the names of those that have them
    now are printed.
    """
    changes: Message = {
        "memory": _size("--memory", memory),
        "memory_swap": _size("--memory-swap", memory_swap, least=-1),
        "memory_reservation": _size("--memory-reservation", memory_reservation),
        "cpus": cpus,
        "cpu_shares": cpu_shares,
        "cpu_quota": _number("--cpu-quota", cpu_quota),
        "cpu_period": cpu_period,
        "cpuset": cpuset_cpus,
        "cpuset_mems": cpuset_mems,
        "pids": _number("--pids-limit", pids_limit),
        "blkio_weight": blkio_weight,
        "restart": restart,
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    if not changes:
        raise usage("You must provide one or more flags when using this command.", "`pystack update --help`")
    stack = stack_of(scope, names)
    request: Message = {"verb": "update", "stack": stack, "names": names, "changes": changes}
    connection = client.find(scope.paths, request)
    if connection is None:
        raise _nothing(stack)
    with connection:
        for message in connection.lines():
            if message.get("event") == "warning":
                say.warning(str(message.get("message", "")))
            elif message.get("event") == "action":
                say.out(str(message["target"]).partition(":")[2] + "\n")
            elif "end" in message:
                client.outcome(message["end"])
    return 0


def stack_of(scope: Scope, names: tuple[str, ...]) -> str:
    """The stack whose services are meant; "" where there is none, and containers are named."""
    from orchestrator.model.errors import PystackError

    try:
        return scope.name()
    except PystackError:
        if not names:
            raise
        return ""


def _nothing(stack: str) -> Exception:
    from orchestrator.model.errors import no_containers

    return no_containers(stack)


def _size(flag: str, text: str | None, least: int = 0) -> int | None:
    """Raises UserError."""
    if text is None:
        return None
    from orchestrator.stackfile.quantity import size_in_bytes

    try:
        value = size_in_bytes(text)
    except ValueError as error:
        raise usage(f"{flag}: {error}", "such as 64m or 1.5g") from None
    if value < least:
        raise usage(f"{flag}: {text!r} is not a size", "such as 64m or 1.5g; 0 lifts the limit")
    return value


def _number(flag: str, text: str | None) -> int | None:
    """A whole number, also a negative one. Raises UserError."""
    if text is None:
        return None
    if not text.removeprefix("-").isdecimal() or len(text) > 12:
        raise usage(f"{flag}: {text!r} is not a whole number")
    return int(text)
