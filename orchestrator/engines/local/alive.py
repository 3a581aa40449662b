"""Whether the first process of a container lives, by what its launcher has written down (pid.json)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

from orchestrator.engines.local import clock, records
from orchestrator.kernel import syscalls


def find(bundle: Path, kept_pid: int | None = None) -> tuple[int, int | None]:
    """(pid, pidfd) when the first process written down in `bundle` still lives. `kept_pid`: the keeper's word
    for it."""
    try:
        document = json.loads((bundle / "pid.json").read_bytes())
        pid, start_time, boot = int(document["pid"]), int(document["start_time"]), str(document["boot_id"])
    except records.UNREADABLE:
        pid, start_time, boot = kept_pid or 0, -1, clock.boot_id()
    if pid == 0 or boot != clock.boot_id():
        return 0, None
    try:
        pidfd = syscalls.pidfd_open(pid)
    except OSError:
        return 0, None
    # The pidfd pins the process; only now does its start time prove that it is the one we mean.
    if (kept_pid != pid and _start_time(pid) != start_time) or _start_time(pid) is None:
        os.close(pidfd)
        return 0, None
    return pid, pidfd


def birth(pid: int) -> dict[str, object]:
    """What its launcher writes down of a process (pid.json)."""
    return {"format": 1, "pid": pid, "start_time": _start_time(pid) or 0, "boot_id": clock.boot_id()}


def kill(bundle: Path) -> bool:
    """SIGKILL to the first process, which takes its pid namespace along; False when there is none."""
    _, pidfd = find(bundle)
    if pidfd is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        syscalls.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    return True


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc_pid_stat(5)); None when the process is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
