"""The command `top`: the processes in containers, as ps -ef lists them. Rendering is pure."""

from __future__ import annotations

import time

from orchestrator.api import client
from orchestrator.cli import columns, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.api.wire import Message
    from orchestrator.cli.scope import Scope

HEAD = ("SERVICE", "#", "UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
_DAY = 86400


def top(scope: Scope, *, services: tuple[str, ...]) -> int:
    """List the processes of the running containers, with their numbers on this machine."""
    name = scope.name()
    told = client.ask(scope.paths, {"verb": "top", "stack": name, "names": services})
    if told is None:
        from orchestrator.model.errors import no_containers

        raise no_containers(name)
    if told["rows"]:
        say.out(render(told["rows"], boot_now=told["now"], now=time.time(), user=_user))
    return 0


def render(rows: list[Message], *, boot_now: float, now: float, user: Callable[[int], str]) -> str:
    """`boot_now` and `now` are the same moment, since the boot and since the epoch."""
    cells = [
        (
            row["service"],
            str(row["slot"]),
            user(process["uid"]),
            str(process["pid"]),
            str(process["parent"]),
            _percent(process["cpu"], boot_now - process["started"]),
            _began(now - boot_now + process["started"], now),
            process["terminal"],
            _spent(process["cpu"]),
            say.printable(process["command"].replace("\n", " ").replace("\t", " ")),
        )
        for row in rows
        for process in row["processes"]
    ]
    return columns.table(HEAD, cells)


def _percent(cpu: float, lived: float) -> str:
    """Of one core since it began."""
    return str(int(min(100 * cpu / lived, 9999))) if lived > 0 else "0"


def _began(at: float, now: float) -> str:
    """The time of day; the day where that is a while ago; then the year."""
    form = "%H:%M" if now - at < _DAY else "%b%d" if now - at < 365 * _DAY else "%Y"
    return time.strftime(form, time.localtime(at))


def _spent(cpu: float) -> str:
    hours, rest = divmod(int(cpu), 3600)
    return f"{hours:02}:{rest // 60:02}:{rest % 60:02}"


def _user(uid: int) -> str:
    """The name on this machine."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
