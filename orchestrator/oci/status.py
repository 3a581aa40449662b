"""What became of a container: the kernel is asked, a pid alone is never trusted."""

from __future__ import annotations

import os

from orchestrator.oci import record
from orchestrator.oci.record import Record

FIFO = "start"
"""Waits below the container's directory until it is started."""


def boot_id() -> str:
    """This boot of the machine: pids and start times mean nothing in another."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def look(path: str, found: Record) -> str:
    """creating, created, running, paused or stopped."""
    if not found.pid:
        return "creating" if record.is_busy(path) else "stopped"
    if not is_alive(found):
        return "stopped"
    if os.path.lexists(f"{path}/{FIFO}"):
        return "created"
    return "paused" if is_frozen(found) else "running"


def is_alive(found: Record) -> bool:
    """Whether its first process runs: same boot, same start time, no zombie."""
    if not found.pid:
        return False
    try:
        with open(f"/proc/{found.pid}/stat", "rb") as file:
            # Field 3 on: the name before may hold anything (proc_pid_stat(5)).
            fields = file.read().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return (
        fields[0] not in (b"Z", b"X") and int(fields[19]) == found.start_time and boot_id() == found.boot_id
    )


def is_frozen(found: Record) -> bool:
    """Whether its control group is frozen, on v2 or v1."""
    for directory in found.groups:
        for name, signs in (("cgroup.freeze", ("1",)), ("freezer.state", ("FROZEN", "FREEZING"))):
            try:
                with open(f"{directory}/{name}", encoding="ascii") as file:
                    if file.read().strip() in signs:
                        return True
            except OSError:
                continue
    return False


def describe(found: Record, status: str, *, pid: int | None = None) -> dict[str, object]:
    """The state as the runtime-spec has it (runtime.md, "State"); hooks get the same on standard input."""
    alive = status in ("created", "running", "paused", "creating")
    state: dict[str, object] = {
        "ociVersion": found.version,
        "id": found.id,
        "pid": (found.pid if pid is None else pid) if alive else 0,
        "status": status,
        "bundle": found.bundle,
    }
    if found.annotations:
        state["annotations"] = found.annotations
    return state
