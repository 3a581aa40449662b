"""The control groups of an OCI container: one in every hierarchy, wherever `cgroupsPath` says.

`cgroups` has those of our own stacks, which are few and cheap. These are what others' tools look at, so they
are there in each hierarchy, and what was there before is used and left as it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

from orchestrator.kernel import cgroups, resources
from orchestrator.kernel.controls import demand_room, read, write, write_all
from orchestrator.kernel.devices import DeviceRule, assemble, confine, fold
from orchestrator.kernel.limits import CgroupError, Hierarchies, Setting
from orchestrator.kernel.reading import Document

Warn = Callable[[str], None]


def create(hier: Hierarchies, path: str, wanted: Document, *, warn: Warn = lambda _: None) -> tuple[str, ...]:
    """Make the group `path` (without a leading "/") below each mount, with OCI's `linux.resources`.

    Returns the directories that the first process has to join. Raises CgroupError or RefusedError; then
    nothing is left that wasn't there before.
    """
    settings, rules = resources.settings(hier, wanted), resources.devices(wanted)
    made: list[str] = []
    try:
        for base in hier.bases:
            made += _make(base, path)
        if hier.unified is not None:
            _hand_down(hier, path, {setting.controller for setting in settings})
            _demand_domain(hier.unified, path)
        if "cpuset" in hier.v1:
            cgroups.inherit_cpuset(hier.v1["cpuset"], path)
        if "cpu" in hier.v1:
            _lend_time(hier.v1["cpu"], path, settings)
        _write(hier, path, wanted, settings, warn)
        if rules:
            _confine(hier, path, rules, warn)
    except BaseException as error:
        for directory in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        if isinstance(error, OSError):
            raise CgroupError(
                f"cannot make control group {path}: {error.strerror}: {error.filename}"
            ) from error
        raise
    return tuple(f"{base}/{path}" for base in hier.bases)


def update(hier: Hierarchies, path: str, wanted: Document, *, warn: Warn = lambda _: None) -> None:
    """Set what the document says for a group that exists; what it doesn't mention stays.

    Raises CgroupError or RefusedError.
    """
    settings, rules = resources.settings(hier, wanted), resources.devices(wanted)
    if hier.unified is not None:
        _hand_down(hier, path, {setting.controller for setting in settings})
    _write(hier, path, wanted, settings, warn)
    if rules and "devices" in hier.v1:
        _write_devices(f"{hier.v1['devices']}/{path}", rules)
    elif rules:
        # A second program would come on top of the first: what that forbids stays forbidden.
        raise CgroupError("devices: they cannot be changed while a container runs on cgroup v2")


def _make(base: str, path: str) -> list[str]:
    """Make the group and its parents; returns those that were not there, outermost first."""
    made: list[str] = []
    place = base
    for part in path.split("/"):
        place = f"{place}/{part}"
        try:
            os.mkdir(place, 0o755)
        except FileExistsError:
            continue
        made.append(place)
    return made


def _lend_time(base: str, path: str, settings: tuple[Setting, ...]) -> None:
    """v1: a new group has no real time to give away (cgroup-v1 sched-rt-group.rst), so those above get it
    first, as much as is asked for."""
    wanted = {setting.file: setting.value for setting in settings}
    if "cpu.rt_runtime_us" not in wanted:
        return
    place = base
    for part in path.split("/")[:-1]:
        place = f"{place}/{part}"
        if int(read(place, "cpu.rt_runtime_us")) == 0:
            for file in ("cpu.rt_period_us", "cpu.rt_runtime_us"):
                if file in wanted:
                    write(place, file, wanted[file])


def _hand_down(hier: Hierarchies, path: str, needed: set[str]) -> None:
    """v2: every controller there is, if need be; those that a limit asks for, or it fails."""
    cgroups.enable_also(hier.unified or "", path, needed & hier.v2, hier.v2)


def _demand_domain(base: str, path: str) -> None:
    """v2: below a group with processes some controllers can be handed on, but to threads: no process may
    enter (cgroup-v2.rst, "Threads"). Raises CgroupError."""
    if read(f"{base}/{path}", "cgroup.type").strip() != "domain invalid":
        return
    above = f"{base}/{path}".rpartition("/")[0]
    raise CgroupError(f"cannot use controllers below {above}: it has processes of its own")


def _write(hier: Hierarchies, path: str, wanted: Document, settings: tuple[Setting, ...], warn: Warn) -> None:
    home = {setting.controller: _home(hier, path, setting.controller) for setting in settings}
    memory = wanted.table("memory")
    if memory.flag("checkBeforeUpdate"):
        demand_room(home, settings)
    write_all(home, settings, warn)


def _home(hier: Hierarchies, path: str, controller: str) -> str:
    if controller == "" or controller in hier.v2:
        return f"{hier.unified}/{path}"
    return f"{hier.v1[controller]}/{path}"


def _confine(hier: Hierarchies, path: str, rules: tuple[DeviceRule, ...], warn: Warn) -> None:
    if "devices" in hier.v1:
        _write_devices(f"{hier.v1['devices']}/{path}", rules)
        return
    if hier.unified is None:
        raise CgroupError("devices: this machine has no devices cgroup controller")
    try:
        confine(f"{hier.unified}/{path}", assemble(fold(rules)))
    except OSError as error:
        if error.errno != errno.EPERM or os.geteuid() == 0:
            raise CgroupError(f"devices: {error.strerror}") from error
        # Who is not root can't make a device node either.
        warn(f"device nodes are not limited: {error.strerror}")


def _write_devices(directory: str, rules: tuple[DeviceRule, ...]) -> None:
    """In their order; v1's list begins as the parent's."""
    for rule in rules:
        try:
            write(directory, "devices.allow" if rule.allow else "devices.deny", str(rule))
        except OSError as error:
            if error.errno == errno.EPERM and rule.allow:
                raise CgroupError(f"devices: {rule}: the parent group may not use it") from error
            raise CgroupError(f"devices: {rule}: {error.strerror}") from error
