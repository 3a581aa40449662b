"""The command `stats`: what containers use, live or once. Rendering is pure."""

from __future__ import annotations

import os

from orchestrator.api import client
from orchestrator.cli import columns, progress, say, shape
from orchestrator.cli.steer import stack_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from orchestrator.api.wire import Message
    from orchestrator.cli.scope import Scope

    Samples = dict[str, Message]

HEADS = {
    "BlockIO": "BLOCK I/O",
    "CPUPerc": "CPU %",
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "MemPerc": "MEM %",
    "MemSource": "COUNTED BY",
    "MemUsage": "MEM USAGE / LIMIT",
    "Name": "NAME",
    "NetIO": "NET I/O",
    "PIDs": "PIDS",
    "Service": "SERVICE",
}
HEAD = ("CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS")


def stats(
    scope: Scope,
    *,
    names: tuple[str, ...],
    all: bool,  # noqa: A002 - the option's name
    format: str | None,  # noqa: A002 - the option's name
    no_stream: bool,
    no_trunc: bool,
) -> int:
    """Print what the running containers use: on a terminal a table that is renewed in place, else one table
    (or one JSON object a container) after another, until Ctrl-C.
    """
    stack = stack_of(scope, names)
    request: Message = {"verb": "stats", "stack": stack, "names": names, "all": all}
    if no_stream:
        request["count"] = 2
    connection = client.find(scope.paths, request)
    if connection is None:
        from orchestrator.model.errors import no_containers

        raise no_containers(stack)
    render([], format)  # a wrong template is told before anything is asked
    tabled = not shape.told(format) or (format or "").startswith("table")
    screen = Screen(live=say.is_terminal(say.STDOUT) and tabled and not no_stream)
    before: Samples | None = None
    with connection, screen:
        for message in connection.lines():
            if "end" in message:
                client.outcome(message["end"])
                break
            now: Samples = {row["id"]: row for row in message.get("rows") or []}
            if before is not None or screen.live:
                shown = [figures(row, (before or {}).get(row["id"]), full=no_trunc) for row in now.values()]
                screen.show(render(shown, format))
            before = now
    return 0


class Screen:
    """Where tables go: one below the other, or each in the place of the last."""

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self._painted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """A frame that Ctrl-C has cut short may have left the cursor hidden, or output held back."""
        if self._painted:
            say.out("\x1b[?2026l\x1b[?25h")

    def show(self, text: str) -> None:
        if not self.live:
            say.out(text)
            return
        try:
            width, height = os.get_terminal_size(say.STDOUT)
        except OSError:
            width, height = 80, 24
        lines = clip(text.splitlines(), width or 80, height or 24)
        say.out(progress.repaint(self._painted, lines))
        self._painted = len(lines)


def clip(lines: list[str], width: int, height: int) -> list[str]:
    """What fits on a terminal: a line that wraps, or scrolls away, could not be painted over."""
    room = max(height - 1, 2)
    if len(lines) > room:
        left = len(lines) - (room - 1)
        lines = [*lines[: room - 1], f"... and {left} more"]
    return [progress.fit(line, width).rstrip() for line in lines]


def figures(row: Message, before: Message | None, *, full: bool = False) -> Message:
    """One container in docker's words, by the fields of `docker stats --format json`, and ours: Service, and
    MemSource, which says who counts the memory (docs/limits.md).
    """
    name = say.printable(row["name"])
    used, limit = row["memory"], row["memory_limit"]
    runs = row["state"] in ("running", "paused")
    return {
        "BlockIO": f"{decimal(row['read'])} / {decimal(row['written'])}",
        "CPUPerc": share(row, before) if runs else "0.00%",
        "Container": row["id"][:12],
        "ID": row["id"] if full else row["id"][:12],
        "MemPerc": f"{100 * used / limit if limit and runs else 0:.2f}%",
        "MemSource": row["counted"],
        "MemUsage": f"{binary(used)} / {binary(limit if runs else 0)}",
        "Name": name,
        "NetIO": f"{decimal(row['received'])} / {decimal(row['sent'])}",
        "PIDs": str(row["pids"]),
        "Service": row["service"],
    }


def share(row: Message, before: Message | None) -> str:
    """Of one core, over the time between two samples; "--" while there is only one."""
    if before is None or before["cpu"] > row["cpu"] or row["at"] <= before["at"]:
        return "--"
    return f"{100 * (row['cpu'] - before['cpu']) / (row['at'] - before['at']):.2f}%"


def render(rows: list[Message], format: str | None) -> str:  # noqa: A002 - the option's name
    """One look, as `--format` wants it. Pure. Raises UserError."""
    keys = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
    cells = [tuple(row[key] for key in keys) for row in rows]
    return shape.rows(format, rows, HEADS, lambda: columns.table(HEAD, cells))


def binary(count: int) -> str:
    """Bytes with four digits in powers of 1024: "1.941MiB"."""
    return _scaled(count, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"), 4)


def decimal(count: int) -> str:
    """Bytes with three digits in powers of 1000: "2.46MB"."""
    return _scaled(count, 1000, ("B", "kB", "MB", "GB", "TB", "PB"), 3)


def _scaled(count: int, base: int, units: tuple[str, ...], digits: int) -> str:
    value, unit = float(count), 0
    while value >= base and unit < len(units) - 1:
        value, unit = value / base, unit + 1
    text = f"{value:.{digits}g}"
    return f"{float(text):g}{units[unit]}"
