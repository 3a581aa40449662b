"""The command `ps`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Sequence

from orchestrator.oci import hierarchy, record, status
from orchestrator.oci.arguments import Call
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.scope import Scope

_SECONDS = 30


def processes(scope: Scope, call: Call) -> int:
    """Print the processes of a container: what ps(1) says of them, or their ids as JSON."""
    name, *options = call.words
    path = record.place(scope.root, name)
    found = record.read(path)
    what = status.look(path, found)
    pids = hierarchy.processes(found) if what != "stopped" else ()
    how, options = _format(str(call.options.get("format", "table")), options)
    if how == "json":
        print(json.dumps(list(pids)))
        return 0
    text = _ask(options or ["-ef"])
    for line in select(text, pids):
        sys.stdout.write(line + "\n")
    return 0


def _format(how: str, options: list[str]) -> tuple[str, list[str]]:
    """--format may also stand after the id."""
    if options and options[0] in ("--format", "-f", "-format") and options[1:2] in (["json"], ["table"]):
        return options[1], options[2:]
    if options and options[0] in ("--format=json", "-f=json", "--format=table", "-f=table"):
        return options[0].partition("=")[2], options[1:]
    return how, options


def _ask(options: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            ["ps", *options], capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        raise Complaint("there is no ps(1) here; --format json does without") from None
    if done.returncode != 0:
        raise Complaint(f"ps {' '.join(options)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def select(text: str, pids: Collection[int]) -> list[str]:
    """The heading of ps's table and the rows of these processes. Raises Complaint without a PID column."""
    lines = text.splitlines()
    heading = lines[0].split() if lines else []
    if "PID" not in heading:
        raise Complaint("couldn't find PID field in ps output")
    column = heading.index("PID")
    wanted = {str(pid) for pid in pids}
    rows = [line for line in lines[1:] if len(cells := line.split()) > column and cells[column] in wanted]
    return [lines[0], *rows]
