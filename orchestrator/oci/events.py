"""The command `events`: usage figures, and out-of-memory kills, one JSON object a line."""

from __future__ import annotations

import json
import os
import re
import sys
import time

from orchestrator.oci import figures, record, signals, status
from orchestrator.oci.arguments import Call
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.record import Record
from orchestrator.oci.scope import Scope

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "us": 1e-6, "ns": 1e-9}
_LOOK = 0.2  # seconds between two looks for out-of-memory kills


def events(scope: Scope, call: Call) -> int:
    """Print figures once, or again and again until the container ends."""
    interval = seconds(str(call.options.get("interval") or "5s"))
    path = record.place(scope.root, call.words[0])
    found = record.read(path)
    if status.look(path, found) not in ("created", "running", "paused"):
        raise Complaint("container is not running")
    if call.options.get("stats"):
        _tell(found, "stats", figures.read(found))
        return 0
    pidfd = signals.pin(found)
    try:
        _follow(found, pidfd, interval)
    finally:
        os.close(pidfd)
    return 0


def seconds(text: str) -> float:
    """A duration as Go writes it: 5s, 500ms, 1m30s. Raises Complaint."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|us|ns|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise Complaint(f"--interval: {text!r} is not a duration such as 5s")
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if total <= 0:
        raise Complaint("duration interval must be greater than 0")
    return total


def _follow(found: Record, pidfd: int, interval: float) -> None:
    killed = figures.oom_kills(found)
    due = time.monotonic() + interval
    while True:
        ended = signals.wait(pidfd, max(0.0, min(_LOOK, due - time.monotonic())))
        now_killed = figures.oom_kills(found)
        for _ in range(killed, now_killed):
            _tell(found, "oom", None)
        killed = now_killed
        if ended:
            return
        if time.monotonic() >= due:
            _tell(found, "stats", figures.read(found))
            due = time.monotonic() + interval


def _tell(found: Record, kind: str, data: object) -> None:
    told: dict[str, object] = {"type": kind, "id": found.id}
    if data is not None:
        told["data"] = data
    sys.stdout.write(json.dumps(told, separators=(",", ":")) + "\n")
    sys.stdout.flush()
