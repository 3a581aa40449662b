"""The control groups of one container: a directory in every hierarchy of the machine.

In all of them, not only where there is a limit: `podman stats`, containerd and cAdvisor read usage there.
What was there before we came is used and left; what we made is removed, and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Sequence

from orchestrator.kernel import cgroups
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.record import Record

_PATIENCE = 5.0  # seconds to wait for the kernel to give a group free
_HOME = "pystack-oci"


def path_of(asked: str, name: str) -> str:
    """Where the group of container `name` is below each hierarchy, without a leading "/".

    `asked` is linux.cgroupsPath: absolute counts from the mount, relative from a place of our own.
    """
    parts = [part for part in asked.split("/") if part not in ("", ".")]
    if ".." in parts or "\n" in asked:
        raise Complaint(f"config.json: linux.cgroupsPath: {asked!r} leads out of the hierarchy")
    if not parts:
        return f"{_HOME}/{name}"
    return "/".join(parts if asked.startswith("/") else [_HOME, *parts])


def missing(hier: cgroups.Hierarchies, path: str) -> tuple[str, ...]:
    """The directories that making the group will add, outermost first.

    Raises Complaint when processes live in the group already: they would be frozen and killed with ours.
    """
    found: list[str] = []
    for base in hier.bases:
        place = base
        for part in path.split("/"):
            place = f"{place}/{part}"
            if not os.path.isdir(place):
                found.append(place)
        with contextlib.suppress(OSError), open(f"{place}/cgroup.procs", encoding="ascii") as file:
            if file.read(1):
                raise Complaint(f"container's cgroup is not empty: {place}")
    return tuple(found)


def processes(record: Record) -> tuple[int, ...]:
    """The processes of the container."""
    if not record.cgroup:
        return (record.pid,) if record.pid else ()
    return cgroups.pids(cgroups.detect(), record.cgroup)


def freeze(record: Record, *, frozen: bool) -> None:
    """Stop every process of the container, or let them go on. Returns when it is done."""
    if not record.cgroup:
        raise Complaint("the container has no control group to freeze")
    try:
        cgroups.freeze(cgroups.detect(), record.cgroup, frozen=frozen)
    except cgroups.CgroupError as error:
        raise Complaint(str(error)) from None
    deadline = time.monotonic() + _PATIENCE
    while _freezing(record, frozen=frozen):
        if time.monotonic() > deadline:
            raise Complaint("the kernel could not freeze every process" if frozen else "some stay frozen")
        time.sleep(0.002)


def _freezing(record: Record, *, frozen: bool) -> bool:
    """Whether the kernel is still at it."""
    for directory in record.groups:
        if os.path.exists(f"{directory}/cgroup.freeze"):
            with open(f"{directory}/cgroup.events", encoding="ascii") as file:
                return f"frozen {int(frozen)}" not in file.read()
        with contextlib.suppress(OSError), open(f"{directory}/freezer.state", encoding="ascii") as file:
            return file.read().strip() != ("FROZEN" if frozen else "THAWED")
    return False


def kill(record: Record) -> None:
    """SIGKILL every process of the container, frozen or not."""
    if not record.cgroup:
        return
    try:
        cgroups.kill(cgroups.detect(), record.cgroup)
    except cgroups.CgroupError as error:
        raise Complaint(str(error)) from None


def remove(made: Sequence[str], path: str) -> None:
    """Take away the groups that were made for the container, with those it made itself below.

    Waits while the kernel still counts processes there. Parents that others use by now stay.
    Raises Complaint.
    """
    deadline = time.monotonic() + _PATIENCE
    own = tuple(directory for directory in made if directory.endswith(f"/{path}"))
    for directory in own:
        while not _remove_tree(directory):
            if time.monotonic() > deadline:
                raise Complaint(f"cannot remove control group {directory}: it still has processes")
            time.sleep(0.002)
    for directory in reversed([directory for directory in made if directory not in own]):
        _rmdir(directory)
    # Below our own place whoever leaves last takes it along.
    for directory in own if path.startswith(f"{_HOME}/") else ():
        place = os.path.dirname(directory)
        while os.path.basename(place) and f"/{_HOME}" in place and _rmdir(place):
            place = os.path.dirname(place)


def _remove_tree(directory: str) -> bool:
    if _rmdir(directory):
        return True
    for place in reversed([place for place, _, _ in os.walk(directory)]):
        _rmdir(place)
    return not os.path.isdir(directory)


def _rmdir(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        # Where we may not remove we can't have made it: an ordinary user, stopped before.
        if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    return True
