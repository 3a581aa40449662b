"""What runs, as ps(1) would list it: one reading of /proc a process (proc_pid_stat(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.kernel.controls import read

_COMMAND_BYTES = 4096
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process. Times in seconds: `started` of boot time, `cpu` what it has used."""

    pid: int
    parent: int
    uid: int
    started: float
    cpu: float
    terminal: str
    """As below /dev ("pts/0"), "?" for none."""
    command: str
    """Its arguments, or [name] when it has none to show."""


def processes(pids: Iterable[int]) -> tuple[Process, ...]:
    """Those that are still there, by pid."""
    found = (_process(pid) for pid in sorted(pids))
    return tuple(one for one in found if one is not None)


def _process(pid: int) -> Process | None:
    try:
        stat = read(f"/proc/{pid}", "stat")
        status = read(f"/proc/{pid}", "status")
        command = read(f"/proc/{pid}", "cmdline", errors="replace")
    except OSError:
        return None
    name = stat[stat.index("(") + 1 : stat.rindex(")")]
    fields = stat[stat.rindex(")") + 1 :].split()
    uid = status[status.index("\nUid:") + 5 :].split(None, 2)[1]  # the effective one
    words = command[:_COMMAND_BYTES].rstrip("\0").replace("\0", " ")
    return Process(
        pid=pid,
        parent=int(fields[1]),
        uid=int(uid),
        started=int(fields[19]) / _TICKS,
        cpu=(int(fields[11]) + int(fields[12])) / _TICKS,
        terminal=terminal(int(fields[4])),
        command=words or f"[{name}]",
    )


def terminal(number: int) -> str:
    """The name of a terminal by its device number (Documentation/admin-guide/devices.txt)."""
    major, minor = os.major(number), os.minor(number)
    if 136 <= major <= 143:
        return f"pts/{(major - 136) * 256 + minor}"
    if major == 4:
        return f"tty{minor}" if minor < 64 else f"ttyS{minor - 64}"
    return "?"
