"""The commands `state` and `list`."""

from __future__ import annotations

import json
import os
import sys

from orchestrator.oci import record, status
from orchestrator.oci.arguments import Call
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.record import Record
from orchestrator.oci.scope import Scope


def state(scope: Scope, call: Call) -> int:
    """Print what a container is."""
    path = record.place(scope.root, call.words[0])
    found = record.read(path)
    print(json.dumps(_told(found, status.look(path, found), owner=""), indent=2))
    return 0


def list_all(scope: Scope, call: Call) -> int:
    """Print the containers below the root."""
    names = record.everyone(scope.root)
    if call.options.get("quiet"):
        print("".join(f"{name}\n" for name in names), end="")
        return 0
    rows = []
    for name in names:
        path = f"{scope.root}/{name}"
        try:
            found = record.read(path)
        except Complaint as error:
            scope.journal.warning(f"{name}: {error}")
            continue
        rows.append(_told(found, status.look(path, found), owner=_owner(found.uid)))
    if call.options.get("format") == "json":
        print(json.dumps(rows))
        return 0
    _table(rows)
    return 0


def _told(found: Record, what: str, *, owner: str) -> dict[str, object]:
    """The spec's state, and what runc adds to it."""
    told = status.describe(found, what)
    annotations = told.pop("annotations", None)
    told |= {"rootfs": found.rootfs, "created": found.created}
    if annotations:
        told["annotations"] = annotations
    told["owner"] = owner
    return told


def _owner(uid: int) -> str:
    """The name of a user, by hand: asking the C library would load its plug-ins."""
    try:
        with open("/etc/passwd", encoding="utf-8", errors="replace") as file:
            for line in file:
                fields = line.split(":")
                if len(fields) > 2 and fields[2] == str(uid):
                    return fields[0]
    except OSError:
        pass
    return f"#{uid}"


def _table(rows: list[dict[str, object]]) -> None:
    columns = ("id", "pid", "status", "bundle", "created", "owner")
    cells = [[name.upper() for name in columns], *([str(row[name]) for name in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    # As in runc: at least twelve wide, three apart.
    for line in cells:
        padded = [text.ljust(max(width, 9) + 3) for text, width in zip(line, widths, strict=True)]
        sys.stdout.write("".join(padded).rstrip() + os.linesep)
