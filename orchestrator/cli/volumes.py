"""Commands on volumes: those of a stack, and those of the machine. Rendering is pure."""

from __future__ import annotations

from orchestrator.api import client
from orchestrator.cli import change, columns, say, shape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from orchestrator.cli.scope import Scope

    Row = dict[str, Any]

HEAD = ("DRIVER", "VOLUME NAME")
HEADS = {
    "Driver": "DRIVER",
    "Labels": "LABELS",
    "Mountpoint": "MOUNTPOINT",
    "Name": "VOLUME NAME",
    "Project": "PROJECT",
    "Scope": "SCOPE",
    "Users": "USERS",
}
WARNING = "WARNING! This will remove {} local volumes not used by at least one container.\n"


def of_stack(
    scope: Scope,
    *,
    services: tuple[str, ...],
    quiet: bool,
    format: str | None,  # noqa: A002 - the option's name
) -> int:
    """List the volumes of the stack, or those that containers of some services use."""
    name = scope.name()
    rows = [row for row in _rows(scope) if row["stack"] == name]
    if services:
        change.demand_services(scope, name, services, [])
        told: list[Row] = client.ask(scope.paths, {"verb": "ps", "stack": name, "all": True}) or []
        users = {row["name"] for row in told if row["service"] in services}
        rows = [row for row in rows if users.intersection(row["users"])]
    return _show(rows, quiet=quiet, format=format)


def ls(
    scope: Scope,
    *,
    quiet: bool,
    format: str | None,  # noqa: A002 - the option's name
    filter: tuple[str, ...],  # noqa: A002 - the option's name
) -> int:
    """List the volumes of this machine."""
    return _show(select(_rows(scope), filter), quiet=quiet, format=format)


def inspect(scope: Scope, *, names: tuple[str, ...], format: str | None) -> int:  # noqa: A002 - the option's
    """Print all that is known of volumes, as one JSON array; those that there are not are named."""
    found = {row["name"]: row for row in _rows(scope)}
    say.out(shape.inspected(format, [details(found[name]) for name in names if name in found]))
    for name in names:
        if name not in found:
            say.err(f"error: get {say.printable(name)}: no such volume\n")
    return int(any(name not in found for name in names))


def rm(scope: Scope, *, names: tuple[str, ...], force: bool) -> int:
    """Remove volumes that no container uses. Each is tried; the first failure gives the exit code."""
    told = _remove(scope, names, force=force)
    say.out("".join(f"{name}\n" for name in told["removed"]))
    for error in told["errors"]:
        say.err(f"error: {say.printable(error['message'])}\n")
    return int(told["errors"][0]["exit_code"]) if told["errors"] else 0


def prune(scope: Scope, *, all: bool, force: bool) -> int:  # noqa: A002 - the option's name
    """Remove the volumes that no container uses: the anonymous ones, with `all` the named ones, too."""
    if not force:
        say.err(WARNING.format("all" if all else "anonymous"))
        if not change.agreed("Are you sure you want to continue? [y/N] "):
            return 0
    rows = [row for row in _rows(scope) if not row["users"] and (all or not row["key"])]
    told = _remove(scope, [row["name"] for row in rows], force=True)
    if told["removed"]:
        say.out("Deleted Volumes:\n" + "".join(f"{name}\n" for name in told["removed"]) + "\n")
    say.out(f"Total reclaimed space: {columns.size(told['gained'])}\n")
    return 0


def _rows(scope: Scope) -> list[Row]:
    """Volumes outlive every supervisor, so one is started to be asked."""
    with client.summon(scope.paths, {"verb": "volumes"}) as connection:
        rows: list[Row] = client.result(connection)
    return rows


def _remove(scope: Scope, names: Sequence[str], *, force: bool) -> Row:
    with client.summon(scope.paths, {"verb": "volume_rm", "names": names, "force": force}) as connection:
        told: Row = client.result(connection)
    return told


def select(rows: list[Row], filters: Sequence[str]) -> list[Row]:
    """The rows that meet every filter: dangling=true|false, name=PART, label=KEY[=VALUE]. Pure. Raises
    UserError.
    """
    for text in filters:
        key, _, value = text.partition("=")
        if key == "dangling" and value in ("true", "false", "1", "0"):
            rows = [row for row in rows if bool(row["users"]) != (value in ("true", "1"))]
        elif key == "name":
            rows = [row for row in rows if value in row["name"]]
        elif key == "label":
            label, equals, wanted = value.partition("=")
            rows = [
                row
                for row in rows
                if label in row["labels"] and (not equals or row["labels"][label] == wanted)
            ]
        else:
            raise change.usage(f"--filter: {text!r} is no filter", "dangling=true, name=PART, label=KEY")
    return rows


def _show(rows: list[Row], *, quiet: bool, format: str | None) -> int:  # noqa: A002 - the option's name
    if quiet:
        say.out("".join(f"{row['name']}\n" for row in rows))
    else:
        cells = [(row["driver"], row["name"]) for row in rows]
        say.out(shape.rows(format, list(map(_object, rows)), HEADS, lambda: columns.table(HEAD, cells)))
    return 0


def _object(row: Row) -> Row:
    """One line of `ls --format json`, in the words of docker."""
    return {
        "Driver": row["driver"],
        **shape.labels(row["labels"]),
        "Mountpoint": row["mountpoint"],
        "Name": row["name"],
        "Scope": "local",
        "Project": row["stack"],
        "Users": row["users"],
    }


def details(row: Row) -> Row:
    """One object of `inspect`, in the words of docker. Pure."""
    return {
        "CreatedAt": row["created"],
        "Driver": row["driver"],
        "Labels": row["labels"],
        "Mountpoint": row["mountpoint"],
        "Name": row["name"],
        "Options": row["options"] or None,
        "Scope": "local",
        "UsedBy": row["users"],
    }
