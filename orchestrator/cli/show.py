"""Commands that show what is: ps, ls, port, version. Rendering is pure."""

from __future__ import annotations

import posixpath
import time

from orchestrator.api import client
from orchestrator.cli import change, clock, columns, say, shape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from orchestrator.cli.scope import Scope

    Row = dict[str, Any]


def ps(
    scope: Scope,
    *,
    services: tuple[str, ...],
    all: bool,  # noqa: A002 - the option's name
    quiet: bool,
    format: str | None,  # noqa: A002 - the option's name
    names_only: bool,
    status: tuple[str, ...],
    no_trunc: bool,
) -> int:
    """List the containers of a stack."""
    name = scope.name()
    rows: list[Row] = client.ask(scope.paths, {"verb": "ps", "stack": name, "all": True}) or []
    rows = [{**row, "service": _service(row)} for row in rows]
    change.demand_services(scope, name, services, rows)
    rows = select(rows, services=services, every=all, status=status)
    if quiet:
        say.out("".join(f"{row['id']}\n" for row in rows))
    elif names_only:
        say.out("".join(f"{service}\n" for service in sorted({row["service"] for row in rows})))
    else:
        now = time.time()
        objects = [_object(name, row, now, full=no_trunc) for row in rows] if shape.told(format) else []
        table = lambda: render(rows, now, limit=10_000 if no_trunc else 20)  # noqa: E731
        say.out(shape.rows(format, objects, HEADS, table))
    for sentence in dict.fromkeys(row["update"] for row in rows if row.get("update")):
        say.warning(sentence)
    return 0


def select(rows: list[Row], *, services: Sequence[str], every: bool, status: Sequence[str]) -> list[Row]:
    """The rows asked for, by name; one-off containers only when they run or all are wanted. Pure."""
    shown = [
        row
        for row in rows
        if (every or status or row["state"] in ("running", "restarting", "paused"))
        and (not status or row["state"] in status)
        and (not services or row["service"] in services)
        and (every or not row.get("oneoff") or row.get("step"))
    ]
    return sorted(shown, key=lambda row: (row["service"], row.get("slot") or 0, row["name"]))


def _service(row: Row) -> str:
    """The service that a one-off container was made of, whose own name is made up."""
    service: str = row["service"]
    oneoff = row.get("oneoff") and not row.get("step")
    return service.rpartition("-run-")[0] or service if oneoff else service


HEAD = ("NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS")
HEADS = {
    "Because": "BECAUSE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "ExitCode": "EXIT CODE",
    "Health": "HEALTH",
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Labels": "LABELS",
    "Name": "NAME",
    "Names": "NAMES",
    "Networks": "NETWORKS",
    "OOMKilled": "OOM KILLED",
    "Orphan": "ORPHAN",
    "Pid": "PID",
    "Ports": "PORTS",
    "Project": "PROJECT",
    "Publishers": "PUBLISHERS",
    "Restarts": "RESTARTS",
    "RunningFor": "CREATED",
    "Runtime": "RUNTIME",
    "Service": "SERVICE",
    "State": "STATE",
    "Status": "STATUS",
}
"""What stands above the columns of `--format 'table ...'`."""


def render(rows: list[Row], now: float, limit: int = 20) -> str:
    """The table of `ps`. `now` is seconds since the epoch. Runtimes are shown where one isn't ours."""
    runtimes = any(row.get("runtime") for row in rows)
    return columns.table(
        (*HEAD[:-1], "RUNTIME", HEAD[-1]) if runtimes else HEAD,
        [
            (
                say.printable(row["name"]),
                say.printable(row.get("image") or ""),
                command_text(row.get("command"), limit),
                row["service"],
                _age(row.get("created") or "", now) + " ago",
                say.printable(row.get("status") or row["state"]),
                *((say.printable(posixpath.basename(row.get("runtime") or "")),) if runtimes else ()),
                ports_text(row.get("ports") or []),
            )
            for row in rows
        ],
    )


def _age(created: str, now: float) -> str:
    try:
        return clock.ago(max(now - clock.parse(created) / 1e9, 0.0))
    except ValueError:
        return "some time"


def command_text(command: object, limit: int) -> str:
    """In double quotes, shortened, as docker shows it."""
    text = " ".join(command) if isinstance(command, list) else str(command or "")
    text = columns.shorten(text, limit).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + say.printable(text.replace("\n", "\\n").replace("\t", "\\t")) + '"'


def ports_text(ports: list[Row]) -> str:
    """`0.0.0.0:8080->80/tcp`, neighbours joined to `0.0.0.0:8000-8002->80-82/tcp`."""
    runs: list[list[Any]] = []
    for port in sorted(ports, key=lambda p: (p["host_ip"], p["protocol"], p["target"], p["host_port"])):
        key = (port["host_ip"], port["protocol"])
        if runs and runs[-1][0] == key:
            _, _, last, host_last, _ = runs[-1]
            if (port["target"], port["host_port"]) == (last + 1, host_last + 1):
                runs[-1][2:4] = [last + 1, host_last + 1]
                continue
        runs.append([key, port["target"], port["target"], port["host_port"], port["host_port"]])
    return ", ".join(_run_text(*run) for run in runs)


def _run_text(key: tuple[str, str], target: int, target_last: int, host_last: int, host: int) -> str:
    address = key[0] or "0.0.0.0"  # noqa: S104 - shown, not bound
    address = f"[{address}]" if ":" in address else address
    if target == target_last:
        return f"{address}:{host}->{target}/{key[1]}"
    return f"{address}:{host}-{host_last}->{target}-{target_last}/{key[1]}"


def _object(stack: str, row: Row, now: float, *, full: bool = False) -> Row:
    """One line of `ps --format json`, in the words of docker compose."""
    return {
        "Command": command_text(row.get("command"), 10_000),
        "CreatedAt": row.get("created") or "",
        "ExitCode": row.get("exit_code") or 0,
        "Health": row.get("health") or "",
        "ID": row["id"] if full else row["id"][:12],
        "Image": row.get("image") or "",
        **shape.labels(row.get("labels") or {}),
        "Name": row["name"],
        "Names": row["name"],
        "Networks": ",".join(row.get("addresses") or ()),
        "OOMKilled": bool(row.get("oom_killed")),
        "Ports": ports_text(row.get("ports") or []),
        "Project": stack,
        "Publishers": [
            {
                "URL": port["host_ip"] or "0.0.0.0",  # noqa: S104 - shown, not bound
                "TargetPort": port["target"],
                "PublishedPort": port["host_port"],
                "Protocol": port["protocol"],
            }
            for port in row.get("ports") or []
        ],
        "Runtime": row.get("runtime") or "",
        "RunningFor": _age(row.get("created") or "", now) + " ago",
        "Service": row["service"],
        "State": row["state"],
        "Status": row.get("status") or "",
        "Because": row.get("because") or "",
        "Orphan": bool(row.get("orphan")),
        "Pid": row.get("pid") or 0,
        "Restarts": row.get("restarts") or 0,
    }


def port(scope: Scope, *, service: str, private_port: str, protocol: str | None, index: int | None) -> int:
    """Print the host address that leads to a container's port."""
    from orchestrator.model.errors import UserError

    number, _, suffix = private_port.partition("/")
    if not number.isdigit():
        raise change.usage(f"{private_port!r} is no port")
    wanted = (int(number), protocol or suffix or "tcp")
    name = scope.name()
    rows: list[Row] = client.ask(scope.paths, {"verb": "ps", "stack": name, "all": False}) or []
    rows = [row for row in rows if row["service"] == service and not row.get("oneoff")]
    if not rows:
        change.demand_services(scope, name, (service,), rows)
        raise UserError(f'service "{service}" is not running')
    row = min(rows, key=lambda row: row["slot"] != index if index else row["slot"])
    if index and row["slot"] != index:
        raise UserError(f"service {service} has no container {index}")
    for published in row.get("ports") or []:
        if (published["target"], published["protocol"]) == wanted:
            address = published["host_ip"] or "0.0.0.0"  # noqa: S104 - shown, not bound
            say.out(f"{f'[{address}]' if ':' in address else address}:{published['host_port']}\n")
            return 0
    raise UserError(f"no port {wanted[0]}/{wanted[1]} for container {row['name']}")


LS_HEADS = {"Name": "NAME", "Status": "STATUS", "ConfigFiles": "CONFIG FILES"}


def ls(scope: Scope, *, all: bool, quiet: bool, format: str | None) -> int:  # noqa: A002 - options' names
    """List the stacks of this machine."""
    rows: list[Row] = client.ask(scope.paths, {"verb": "ls", "all": all}) or []
    if not all:
        rows = [row for row in rows if "running" in row["status"]]
    if quiet:
        say.out("".join(f"{row['name']}\n" for row in rows))
        return 0
    told = [
        {"Name": row["name"], "Status": row["status"], "ConfigFiles": ",".join(row["files"])} for row in rows
    ]
    if format == "json":  # one array, as docker compose prints it
        from orchestrator.api.wire import dumps

        say.out(dumps(told) + "\n")
    else:
        cells = [[say.printable(row[key]) for key in LS_HEADS] for row in told]
        table = lambda: columns.table(tuple(LS_HEADS.values()), cells)  # noqa: E731
        say.out(shape.rows(format, told, LS_HEADS, table))
    return 0


def version(scope: Scope, *, short: bool, format: str | None) -> int:  # noqa: A002 - options' names
    """Print the version."""
    from orchestrator import __version__

    del scope
    if short:
        say.out(f"{__version__}\n")
    elif format == "json":
        say.out(f'{{"version":"{__version__}"}}\n')
    elif format in (None, "pretty"):
        say.out(f"pystack version {__version__}\n")
    else:
        one = {"Version": __version__}
        say.out(shape.template(format, escapes=True)({**one, "Client": one, "Server": one}) + "\n")
    return 0
