"""Control groups of this machine, whether v1, hybrid or v2, behind one small set of verbs.

A container's group is `pystack-TAG/STACK/ID` in the unified hierarchy: it is killed, frozen and counted
there, also where that hierarchy has no controller. A v1 controller gets a group of its own only where a
limit asks for one, because each costs time at start and at the end. Source of all file names: the
kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Literal

from orchestrator.kernel import scope, userns
from orchestrator.kernel.controls import demand_room, read, write, write_all
from orchestrator.kernel.devices import DEFAULT, DeviceRule, confine, program_of
from orchestrator.kernel.limits import (
    CgroupError,
    Hierarchies,
    IoLimit,
    Limits,
    Setting,
    changes,
    settings,
)
from orchestrator.kernel.members import (
    check,
    first,
    freeze,
    frozen,
    home,
    homes,
    identity,
    kill,
    listing,
    oom_killed,
    pids,
    populated,
    remove,
    remove_one,
    remove_root,
    remove_tree,
    strayed,
    told_to_freeze,
)

__all__ = [
    "CgroupError",
    "DeviceRule",
    "Hierarchies",
    "IoLimit",
    "Limits",
    "create",
    "detect",
    "first",
    "freeze",
    "frozen",
    "home",
    "homes",
    "kill",
    "listing",
    "oom_killed",
    "pids",
    "populated",
    "rejoin",
    "remove",
    "remove_root",
    "settle",
    "strayed",
    "told_to_freeze",
    "update",
]

_CONTROLLERS = frozenset(
    {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb"}
    | {"net_cls", "net_prio", "perf_event", "rdma", "misc"}
)
_COUNTING = frozenset({"memory", "pids", "io"})
"""Controllers of v2 that are handed down in any case, where they can be: they count what `stats` shows, and
cost no directory."""
_TURNS = 40


# --- finding the hierarchies -------------------------------------------------------------------------


def detect(mountinfo: str = "/proc/self/mountinfo", cgroup: str = "/proc/self/cgroup") -> Hierarchies:
    """Read where control groups are mounted (proc_pid_mountinfo(5)). Callers keep the answer.

    For a process in a scope of our own under systemd (kernel.scope) that is where they begin.

    Raises CgroupError where there is no hierarchy at all.
    """
    if not userns.is_initial():
        return _delegated(mountinfo)
    v1: dict[str, str] = {}
    named: list[str] = []
    unified: str | None = None
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            place = before.split(" ")[4].replace("\\040", " ")
            kind, _, options = after.rstrip("\n").split(" ", 2)
            if kind == "cgroup2" and unified is None:
                unified = place
            elif kind == "cgroup":
                for controller in _CONTROLLERS.intersection(options.split(",")):
                    v1.setdefault(controller, place)
                if "name=" in options:
                    named.append(place)
    if unified is None and not v1:
        raise CgroupError("no control groups are mounted on this machine")
    above = (scope.of(scope.own(cgroup)) or "") if unified and not v1 else ""
    unified = f"{unified}{above}" if unified else None
    v2 = frozenset(read(unified, "cgroup.controllers").split()) if unified else frozenset[str]()
    mode: Literal["v1", "hybrid", "v2"] = "v1" if unified is None else "hybrid" if v1 else "v2"
    return Hierarchies(mode=mode, v1=v1, unified=unified, v2=v2, above=above, named=tuple(named))


def _delegated(mountinfo: str) -> Hierarchies:
    """What an ordinary user may use: the group they are in, if it is theirs (cgroup-v2.rst, "Delegation").

    Groups of v1 are never delegated: the kernel calls that unsafe.
    """
    base = _own_group(mountinfo)
    if base is None or not all(os.access(f"{base}/{name}", os.W_OK) for name in ("", "cgroup.procs")):
        return Hierarchies(mode="none", v1={}, unified=None, v2=frozenset(), delegated=True)
    can_share = os.access(f"{base}/cgroup.subtree_control", os.W_OK)
    v2 = frozenset(read(base, "cgroup.controllers").split() if can_share else ())
    return Hierarchies(mode="v2", v1={}, unified=base, v2=v2, delegated=True)


def _own_group(mountinfo: str) -> str | None:
    """The directory of this process's group of the unified hierarchy."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
        path = next((line[3:].rstrip("\n") for line in lines if line.startswith("0::")), None)
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
        place = next((line.split(" ")[4] for line in lines if " - cgroup2 " in line), None)
    return (
        None if path is None or place is None else f"{place}{path.rstrip('/')}".removesuffix(f"/{scope.LEAF}")
    )


def settle(hier: Hierarchies) -> None:
    """Move what is in a group that is ours (ourselves, the command that has started us, its shell) to a leaf
    of it: a group with processes of its own can't hand controllers on. Raises CgroupError."""
    if not hier.v2 or not (hier.delegated or hier.above):
        return
    try:
        os.makedirs(f"{hier.unified}/{scope.LEAF}", 0o755, exist_ok=True)
        for _ in range(_TURNS):
            found = read(hier.unified or "", "cgroup.procs").split()
            if not found:
                return
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    write(f"{hier.unified}/{scope.LEAF}", "cgroup.procs", pid)
    except OSError as error:
        raise CgroupError(f"cannot use the delegated cgroup {hier.unified}: {error.strerror}") from error


# --- making groups -----------------------------------------------------------------------------------


def create(
    hier: Hierarchies, path: str, limits: Limits, *, warn: Callable[[str], None] = lambda _: None
) -> tuple[str, ...]:
    """Make the group `pystack-TAG/STACK/ID` with its limits; the directories that its process must join.

    Write "0" to each one's cgroup.procs from the process itself. An empty group left over from before is
    made anew. `warn` is told what the machine could not do and is no reason to stop. Raises CgroupError;
    then nothing new is left behind.
    """
    check(path)
    wanted = settings(hier, limits)
    try:
        return _create(hier, path, limits, wanted, warn)
    except (OSError, CgroupError) as error:
        with contextlib.suppress(CgroupError):  # a group that was in use before stays
            remove(hier, path, patience=0)
        if isinstance(error, CgroupError):
            raise
        raise CgroupError(f"cannot make control group {path}: {error.strerror}: {error.filename}") from error


def rejoin(hier: Hierarchies, path: str, limits: Limits, processes: Callable[[], Iterable[int]]) -> None:
    """Make a group that somebody has taken away from under its processes, and bring them into it again.

    `processes` is asked until nobody new turns up. Raises CgroupError.
    """
    if hier.unified is not None and populated(hier, path):
        limits = replace(limits, devices=(), all_devices=True)  # its program for devices is in force still
    directories = create(hier, path, limits)
    moved: set[int] = set()
    for _ in range(_TURNS):
        left = set(processes()) - moved
        if not left:
            return
        moved |= left
        for directory in directories:
            for pid in left:
                try:
                    write(directory, "cgroup.procs", str(pid))
                except ProcessLookupError:
                    continue
                except OSError as error:
                    raise CgroupError(f"cannot move process {pid}: {error.strerror}: {directory}") from error
    raise CgroupError(f"cannot bring everybody back into {path}: its processes fork too quickly")


def _create(
    hier: Hierarchies, path: str, limits: Limits, wanted: tuple[Setting, ...], warn: Callable[[str], None]
) -> tuple[str, ...]:
    home: dict[str, str] = {}  # controller -> the container's directory
    fresh = False
    if hier.mode == "none":
        return ()
    if hier.unified is not None:
        fresh = _make(hier.unified, path)
        on_v2 = {setting.controller for setting in wanted} & hier.v2
        if hier.delegated:
            settle(hier)
        enable_also(hier.unified, path, on_v2, _COUNTING & hier.v2)
        home[""] = f"{hier.unified}/{path}"
        home.update(dict.fromkeys(on_v2, home[""]))
    else:
        _make(hier.v1[identity(hier)], path)
        home[""] = f"{hier.v1[identity(hier)]}/{path}"
    for controller in dict.fromkeys(setting.controller for setting in wanted):
        if controller not in home:
            _make(hier.v1[controller], path)
            home[controller] = f"{hier.v1[controller]}/{path}"
            if controller == "cpuset":
                inherit_cpuset(hier.v1[controller], path)
    write_all(home, wanted, warn)
    devices = _confine_devices(hier, path, limits, fresh, warn)
    return tuple(dict.fromkeys((*home.values(), *devices)))


def update(
    hier: Hierarchies,
    path: str,
    before: Limits,
    after: Limits,
    *,
    warn: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """Change the limits of a group that exists, and of what runs in it, from `before` to `after`.

    Where a v1 controller had no group for it, one is made and every process moved there: the new ones of
    these directories are returned, for processes that are still to come. Raises CgroupError; then the limits
    are as before, as far as the kernel takes them back.
    """
    wanted = changes(hier, before, after)
    fresh: list[str] = []
    where: dict[str, str] = {}
    for controller in dict.fromkeys(setting.controller for setting in wanted):
        if controller in hier.v2:
            where[controller] = f"{hier.unified}/{path}"
            if hier.delegated:
                settle(hier)
            _enable(hier.unified or "", path, {controller})
            continue
        where[controller] = f"{hier.v1[controller]}/{path}"
        if not os.path.isdir(where[controller]):
            _make(hier.v1[controller], path)
            fresh.append(where[controller])
            if controller == "cpuset":
                inherit_cpuset(hier.v1[controller], path)
    try:
        demand_room(where, wanted)
        write_all(where, wanted, warn)
        for directory in fresh:
            _move(hier, path, directory, warn)
    except CgroupError:
        with contextlib.suppress(CgroupError):
            write_all(where, changes(hier, after, before), lambda _: None)
        for directory in fresh:
            with contextlib.suppress(CgroupError):
                remove_one(directory)
        raise
    return tuple(fresh)


def _move(hier: Hierarchies, path: str, directory: str, warn: Callable[[str], None]) -> None:
    """Bring every process of the group into a directory of its name. Those that fork meanwhile are frozen."""
    if directory.startswith(f"{hier.v1.get('memory')}/"):
        try:
            write(directory, "memory.move_charge_at_immigrate", "3")
        except OSError:  # Linux 6.13 and newer can't
            warn("what it has in memory already is not counted: the limit is for what it takes from now on")
    for turn in range(_TURNS):
        left = set(pids(hier, path)) - set(map(int, read(directory, "cgroup.procs").split()))
        if not left:
            break
        if turn == _TURNS // 2:
            freeze(hier, path, frozen=True)
        for pid in left:
            try:
                write(directory, "cgroup.procs", str(pid))
            except OSError as error:
                if error.errno != errno.ESRCH:
                    raise CgroupError(
                        f"cannot limit process {pid} now: {error.strerror}: {directory}"
                    ) from error
    else:
        raise CgroupError(f"cannot limit {path} now: its processes fork too quickly")
    if turn > _TURNS // 2:
        freeze(hier, path, frozen=False)


def _make(base: str, path: str) -> bool:
    """Make one group and its parents; False if a populated one was there already."""
    directory = f"{base}/{path}"
    for _ in range(16):  # a parent may vanish under us while another container of the stack ends
        try:
            os.mkdir(directory, 0o755)
        except FileNotFoundError:
            # exist_ok: another thread may make the parent at the same time.
            os.makedirs(os.path.dirname(directory), 0o755, exist_ok=True)
        except FileExistsError:
            if not remove_tree(directory):
                return False
        else:
            return True
    raise CgroupError(f"cannot make control group {directory}: its parent keeps vanishing")


def enable_also(base: str, path: str, needed: AbstractSet[str], welcome: AbstractSet[str]) -> None:
    """Hand down all that is needed, and what is welcome as well if nothing forbids it."""
    try:
        _enable(base, path, needed | welcome)
    except CgroupError:
        if needed:
            _enable(base, path, needed)


def _enable(base: str, path: str, controllers: Iterable[str]) -> None:
    """Hand the controllers down from the root to the group (v2: cgroup.subtree_control of each parent)."""
    place = base
    for part in path.split("/"):
        have = read(place, "cgroup.subtree_control").split()
        missing = [controller for controller in controllers if controller not in have]
        if missing:
            try:
                write(place, "cgroup.subtree_control", " ".join(f"+{name}" for name in missing))
            except OSError as error:
                reason = (
                    "it has processes of its own, as in a container without a delegated cgroup"
                    if error.errno in (errno.EBUSY, errno.EOPNOTSUPP)  # the second: for threads alone
                    else error.strerror
                )
                raise CgroupError(
                    f"cannot use controllers {', '.join(missing)} below {place}: {reason}"
                ) from error
        elif part == path.rpartition("/")[2] and controllers:
            # Named there already, but another thread may be about it still: this waits for it (cgroup_mutex).
            write(place, "cgroup.subtree_control", " ".join(f"+{name}" for name in controllers))
        place = f"{place}/{part}"


def inherit_cpuset(base: str, path: str) -> None:
    """v1: nothing may join a cpuset before its cpus and mems are set, in every ancestor first."""
    place = base
    for part in path.split("/"):
        parent, place = place, f"{place}/{part}"
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not read(place, file).strip():
                write(place, file, read(parent, file).strip())


# --- devices -----------------------------------------------------------------------------------------


def _confine_devices(
    hier: Hierarchies, path: str, limits: Limits, fresh: bool, warn: Callable[[str], None]
) -> tuple[str, ...]:
    """Limit the devices; the directories to join for it."""
    if hier.delegated:
        return ()  # who can't make device nodes has those that are bound from the host, by their modes
    rules = () if limits.all_devices else (*DEFAULT, *limits.devices)
    base, reason = hier.v1.get("devices"), "this machine has no devices cgroup controller"
    if not rules:
        return ()
    if hier.unified is not None:
        # Also where v1 has the controller: one group less to join, which takes milliseconds (kernel.clone).
        if fresh:
            try:
                confine(f"{hier.unified}/{path}", program_of(rules))
            except OSError as error:
                reason = str(error.strerror)
            else:
                return ()
        elif base is None:
            return ()
    if base is None:
        warn(f"device nodes are not limited: {reason}")
        return ()
    if rules == DEFAULT:
        return (_shared_devices(base, path.partition("/")[0]),)
    if _make(base, path):
        _write_devices(f"{base}/{path}", rules)
    return (f"{base}/{path}",)


def _shared_devices(base: str, root: str) -> str:
    """The one group for all containers with the default rules: it never changes, so it is made once.

    Made under another name and renamed, so that one that exists is complete.
    """
    shared = f"{base}/{root}/devices-default"
    if os.path.isdir(shared):
        return shared
    draft = f"{root}/draft-{os.getpid()}-{threading.get_ident()}"
    _make(base, draft)
    try:
        _write_devices(f"{base}/{draft}", DEFAULT)
        os.rename(f"{base}/{draft}", shared)
    except FileExistsError:
        os.rmdir(f"{base}/{draft}")
    return shared


def _write_devices(directory: str, rules: Iterable[DeviceRule]) -> None:
    for rule in rules:
        write(directory, "devices.allow" if rule.allow else "devices.deny", str(rule))
