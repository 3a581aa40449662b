"""A scope of our own where systemd keeps the control groups of cgroup v2.

systemd writes to every group that it has not given away, and ends what is left in the group of a service or
a session that is over: `up` may have been said in one. So the supervisor and the keeper move to a unit
`pystack-TAG.scope`, and all containers live below it; systemd leaves that tree to us (systemd's
CGROUP_DELEGATION.md, "Delegation"; org.freedesktop.systemd1(5), StartTransientUnit). It goes with the last
process in it, and at shutdown systemd ends it as it ends services.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress

from orchestrator.kernel import userns

_MOUNT = "/sys/fs/cgroup"
_SLICE = f"{_MOUNT}/system.slice"
_BOOTED = "/run/systemd/system"  # sd_booted(3)
LEAF = "pystack-processes"
"""The group of our own processes: one that has some can't hand controllers on to groups below it."""
_PATIENCE = 5.0  # seconds in which systemd has to answer


def name(tag: str) -> str:
    return f"pystack-{tag}.scope"


def of(group: str) -> str | None:
    """The group of the scope of ours that `group` (a path of /proc/PID/cgroup) lies in."""
    above, found, rest = group.partition("/pystack-")
    unit = rest.partition("/")[0]
    return f"{above}{found}{unit}" if unit.endswith(".scope") else None


def enter(tag: str) -> bool:
    """Move this process to the scope of a state root, made if need be; whether there is one.

    There is none without systemd or on a machine with groups of v1, nor for an ordinary user, whose groups
    are delegated otherwise. If systemd does not answer all goes on as without it.
    """
    if os.geteuid() != 0 or not os.path.isdir(_BOOTED) or not userns.is_initial():
        return False
    if not os.path.exists(f"{_MOUNT}/cgroup.controllers"):
        return False
    place = f"{_SLICE}/{name(tag)}"
    if own().startswith(f"{place.removeprefix(_MOUNT)}/"):
        return True
    return _join(place) or _make(tag, place)


def own(cgroup: str = "/proc/self/cgroup") -> str:
    """This process's group of the unified hierarchy, as that file names it."""
    with open(cgroup, encoding="utf-8", errors="surrogateescape") as lines:
        return next((line[3:].rstrip("\n") for line in lines if line.startswith("0::")), "")


def _join(place: str) -> bool:
    """Enter a scope that is there: its containers run, while both our processes were killed."""
    try:
        with suppress(FileExistsError):
            os.mkdir(f"{place}/{LEAF}", 0o755)
        with open(f"{place}/{LEAF}/cgroup.procs", "w", encoding="ascii") as file:
            file.write("0")
    except OSError:
        return False
    return True


def _make(tag: str, place: str) -> bool:
    """Have systemd-run(1) make the scope around a program that waits until we are in it, too.

    One whose last process has just gone may still be being taken away.
    """
    until = time.monotonic() + _PATIENCE
    while not (made := _make_once(tag, place)) and os.path.isdir(place) and time.monotonic() < until:
        time.sleep(0.02)
    return made


def _make_once(tag: str, place: str) -> bool:
    to_it, from_it = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    command = (
        "systemd-run", "--scope", "--quiet", "--collect", "--slice=system.slice", f"--unit={name(tag)}",
        "--property=Delegate=yes", "--description=containers of pystack", "--", "cat",
    )  # fmt: skip
    try:
        pid = os.posix_spawnp(
            command[0],
            command,
            {"PATH": os.defpath, "LANG": "C.UTF-8"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, to_it[0], 0),
                (os.POSIX_SPAWN_DUP2, from_it[1], 1),
                (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
            ],
        )
    except OSError:
        pid = 0
    os.close(to_it[0])
    os.close(from_it[1])
    try:
        if not pid:
            return False
        with suppress(BrokenPipeError):
            os.write(to_it[1], b"\n")
        # Its echo: systemd-run has become the program, which it does once the scope is there.
        ready = select.select([from_it[0]], [], [], _PATIENCE)[0] and os.read(from_it[0], 1)
        return bool(ready) and _join(place)
    finally:
        os.close(to_it[1])
        os.close(from_it[0])
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
