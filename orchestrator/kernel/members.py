"""Who is in a container's control group, and how all of them are stopped, ended and cleared away."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import signal
import time
from collections.abc import Iterable

from orchestrator.kernel.controls import read, write
from orchestrator.kernel.limits import CgroupError, Hierarchies

_PART = re.compile(r"[A-Za-z0-9_.+-]{1,255}")
_ID = re.compile(r"[0-9a-f]{64}")
_PATIENCE = 2.0  # seconds that kill and remove wait for the kernel


def check(path: str) -> None:
    """Raises CgroupError for what can't be a container's group, pystack-TAG/STACK/ID."""
    parts = path.split("/")
    if len(parts) != 3 or not parts[0].startswith("pystack-"):
        raise CgroupError(f"{path!r} is not pystack-TAG/STACK/ID")
    for part in parts:
        if part in {".", ".."} or not _PART.fullmatch(part):
            raise CgroupError(f"{path!r} cannot be the name of a control group")


def identity(hier: Hierarchies) -> str:
    """The v1 controller whose group stands for the container where there is no unified hierarchy."""
    return next((name for name in ("freezer", "pids", "devices") if name in hier.v1), next(iter(hier.v1)))


def home(hier: Hierarchies, path: str) -> str:
    """The directory that stands for the group: in the unified hierarchy, or on v1 beside its freezer."""
    return f"{hier.unified or hier.v1[identity(hier)]}/{path}"


def pids(hier: Hierarchies, path: str) -> tuple[int, ...]:
    """The processes of the group and of groups below it; none if there is no such group."""
    if hier.mode == "none":
        return ()
    found: list[int] = []
    for directory in _below(home(hier, path)):
        with contextlib.suppress(FileNotFoundError, OSError):
            found += map(int, read(directory, "cgroup.procs").split())
    return tuple(pid for pid in found if pid > 0)  # 0: of a pid namespace that we can't see


def first(hier: Hierarchies, path: str) -> int:
    """The first process of a pid namespace of the group's own; 0 when there is none to be seen."""
    for pid in pids(hier, path):
        try:
            with open(f"/proc/{pid}/status") as file:
                numbers = file.read().partition("\nNSpid:")[2].partition("\n")[0].split()
        except OSError:
            continue
        if len(numbers) > 1 and numbers[-1] == "1":
            return pid
    return 0


def listing(hier: Hierarchies, root: str) -> tuple[str, ...]:
    """Every container's group below `root` (pystack-TAG), in any hierarchy."""
    found: set[str] = set()
    for base in hier.bases:
        for place in glob.glob(f"{root}/*/*/", root_dir=base):
            path = place.rstrip("/")
            if _ID.fullmatch(path.rpartition("/")[2]):
                found.add(path)
    return tuple(sorted(found))


def populated(hier: Hierarchies, path: str) -> bool:
    """Whether any process lives in the group; False if there is no such group."""
    if hier.unified is None:
        return bool(pids(hier, path))
    try:
        return "populated 1" in read(f"{hier.unified}/{path}", "cgroup.events")
    except OSError:
        return False


def oom_killed(hier: Hierarchies, path: str) -> bool:
    """Whether the kernel killed a process because the group's own memory limit was reached.

    Ask before the group is removed. Without a memory limit the answer is False.
    """
    on_v2 = "memory" in hier.v2
    base = hier.unified if on_v2 else hier.v1.get("memory")
    try:
        events = read(f"{base}/{path}", "memory.events" if on_v2 else "memory.oom_control")
    except OSError:
        return False
    return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in events.splitlines())


# --- ending ------------------------------------------------------------------------------------------


def freeze(hier: Hierarchies, path: str, *, frozen: bool) -> None:
    """Stop or go on with every process of the group. Raises CgroupError where there is no freezer."""
    try:
        if hier.unified is not None:
            write(f"{hier.unified}/{path}", "cgroup.freeze", str(int(frozen)))
        elif "freezer" in hier.v1:
            write(f"{hier.v1['freezer']}/{path}", "freezer.state", "FROZEN" if frozen else "THAWED")
        elif hier.delegated:
            raise CgroupError("pause: no cgroup is delegated to this user")
        else:
            raise CgroupError("pause: this machine has no freezer cgroup controller")
    except OSError as error:
        raise CgroupError(f"cannot freeze {path}: {error.strerror}") from error


def frozen(hier: Hierarchies, path: str) -> bool:
    """Whether every process of the group stands still by now. False if there is no such group."""
    try:
        if hier.unified is not None:
            return "frozen 1" in read(f"{hier.unified}/{path}", "cgroup.events")
        return "freezer" in hier.v1 and read(f"{hier.v1['freezer']}/{path}", "freezer.state") == "FROZEN\n"
    except OSError:
        return False


def told_to_freeze(hier: Hierarchies, path: str) -> bool:
    """Whether the group itself is to stand still, whatever has come of it. False if there is none."""
    try:
        if hier.unified is not None:
            return read(f"{hier.unified}/{path}", "cgroup.freeze").strip() == "1"
        return "freezer" in hier.v1 and read(f"{hier.v1['freezer']}/{path}", "freezer.state") != "THAWED\n"
    except OSError:
        return False


def homes(hier: Hierarchies, path: str) -> tuple[str, ...]:
    """The directories of the group, in every hierarchy that has one."""
    return tuple(place for base in hier.bases if os.path.isdir(place := f"{base}/{path}"))


def strayed(hier: Hierarchies, path: str, directories: Iterable[str], pid: int) -> tuple[str, ...]:
    """Those of a group's `directories` that process `pid` is not in (any more), nor in a group below. Raises
    OSError when there is no such process."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
        rows = [line.rstrip("\n").split(":", 2) for line in lines]
    inside = {name for _, names, place in rows if f"/{path}/" in f"{place}/" for name in names.split(",")}
    here = {hier.v1[name] for name in inside & hier.v1.keys()}
    here |= {base for base in hier.named if {f"name={base.rpartition('/')[2]}"} & inside}
    if hier.unified is not None and "" in inside:
        here.add(hier.unified)
    return tuple(place for place in directories if place.removesuffix(f"/{path}") not in here)


def kill(hier: Hierarchies, path: str) -> None:
    """SIGKILL every process of the group, also one that forks as fast as it can. Idempotent.

    Returns at once where the kernel has cgroup.kill (5.14); `populated` and the pidfd tell when all are
    gone. Elsewhere the group is frozen meanwhile, or killed over and over for at most 2 s.
    """
    if hier.mode == "none":
        return  # with the first process of a pid namespace all others go
    if hier.unified is not None:
        try:
            write(f"{hier.unified}/{path}", "cgroup.kill", "1")
        except FileNotFoundError:
            if not os.path.isdir(f"{hier.unified}/{path}"):
                return
        except OSError as error:
            if error.errno == errno.ENODEV:  # removed meanwhile
                return
            raise CgroupError(f"cannot kill {path}: {error.strerror}") from error
        else:
            return
    _kill_each(hier, path)


def _kill_each(hier: Hierarchies, path: str) -> None:
    with contextlib.suppress(CgroupError):
        freeze(hier, path, frozen=True)
    try:
        _signal_all(pids(hier, path))
    finally:
        with contextlib.suppress(CgroupError):
            freeze(hier, path, frozen=False)
    deadline = time.monotonic() + _PATIENCE
    while (left := pids(hier, path)) and time.monotonic() < deadline:
        _signal_all(left)
        time.sleep(0.005)


def _signal_all(processes: Iterable[int]) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def remove(hier: Hierarchies, path: str, *, patience: float = _PATIENCE, whole: bool = False) -> None:
    """Remove the group everywhere, groups made below it, and the stack's group if that was the last.

    With `whole` our own group as well: another runtime makes it where nothing of ours will ever be.

    Idempotent. The kernel answers EBUSY for a moment after the last process went: that is waited for.
    Raises CgroupError if processes are still in it after `patience` seconds.
    """
    check(path)
    deadline = time.monotonic() + patience
    for base in hier.bases:
        _clear(hier, base, path, deadline)
        remove_one(os.path.dirname(f"{base}/{path}"))
        if whole:
            remove_one(f"{base}/{path.partition('/')[0]}")


def remove_root(hier: Hierarchies, tag: str, *, patience: float = _PATIENCE) -> None:
    """Remove all groups of ours. Idempotent. Raises CgroupError, naming a group that still has processes."""
    root = f"pystack-{tag}"
    check(f"{root}/x/x")
    deadline = time.monotonic() + patience
    for base in hier.bases:
        _clear(hier, base, root, deadline)


def _clear(hier: Hierarchies, base: str, path: str, deadline: float) -> None:
    """Remove a tree of groups from one hierarchy, as soon as the kernel lets it go."""
    while not remove_tree(f"{base}/{path}"):
        if time.monotonic() >= deadline:
            raise CgroupError(f"control group {path} still has processes: {_some(pids(hier, path))}")
        time.sleep(0.002)


def _some(processes: tuple[int, ...]) -> str:
    return ", ".join(map(str, processes[:5])) + (" ..." if len(processes) > 5 else "")


def remove_tree(directory: str) -> bool:
    """Remove the group and the groups in it; True if it is gone."""
    if remove_one(directory):
        return True
    for place in reversed(_below(directory)):
        remove_one(place)
    return not os.path.isdir(directory)


def remove_one(directory: str) -> bool:
    """Remove a group; True if it is gone."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in {errno.EBUSY, errno.ENOTEMPTY}:
            return False
        raise CgroupError(f"cannot remove control group {directory}: {error.strerror}") from error
    return True


def _below(directory: str) -> list[str]:
    """The group and every group below it, parents first. Groups may vanish while we look."""
    with contextlib.suppress(OSError):
        if os.stat(directory).st_nlink == 2:  # no directory in it: that is the usual case
            return [directory]
    return [place for place, _, _ in os.walk(directory)]
