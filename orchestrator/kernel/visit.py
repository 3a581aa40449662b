"""The way into a container's files, for a process that copies them (`cp`, `export`).

It comes with everything that it will ever need imported, takes on the container's view of its files, makes
the container's root its own and then gives away what it no longer needs. From there every path, whatever
the container does to it meanwhile, is resolved by the kernel below that root (CVE-2018-15664), and nothing
of the container's is loaded or run (CVE-2019-14271, CVE-2026-41567). Standard library only.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the module itself brings `enum` along, which costs 8 ms
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from orchestrator.kernel import capabilities, syscalls

_KEPT = capabilities.mask(
    f"CAP_{name}" for name in "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID MKNOD SETFCAP".split()
)
"""Enough to copy files of any owner. Without SYS_PTRACE the links of /proc/PID lead nowhere, without
SYS_ADMIN nothing can be mounted."""


def begin() -> int:
    """Before anything of the container is near: nobody can look into this process, and it ends with the one
    that has started it. Returns the descriptor of /proc/self/fd."""
    _keep_apart()
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)  # the terminal's; who started us decides
    os.umask(0)
    return os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _keep_apart() -> None:
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _signal.SIGKILL)


def enter_running(init: int) -> None:
    """See the files that a running container sees, with its mounts. `init`: pidfd of its first process."""
    # This sets root and working directory to the root of that namespace, with what covers it: setns(2).
    syscalls.setns(init, syscalls.CLONE_NEWNS)


def enter_bare(init: int, targets: Sequence[str]) -> None:
    """See the root of a running container alone: nothing that is mounted into it, but the `targets`, which
    are parts of that root themselves."""
    enter_running(init)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_PRIVATE | syscalls.MS_REC)
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = syscalls.open_tree(here, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
    parts = []
    for target in targets:
        with suppress(FileNotFoundError):
            part = syscalls.openat2(here, target, os.O_PATH)
            flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH
            parts.append((target, syscalls.open_tree(part, "", flags)))
            os.close(part)
    syscalls.move_mount(tree, here)
    for target, part in parts:
        place = syscalls.openat2(tree, target, os.O_PATH)
        syscalls.move_mount(part, place)
        os.close(place)
        os.close(part)
    os.fchdir(tree)
    os.chroot(".")
    os.close(here)
    os.close(tree)


def enter_stopped(told: object, mountpoint: str) -> None:
    """See the files that a container would see if it ran: its root and, unless the view has none, what is
    bound into it. Mounted for this process alone; the kernel takes it apart when the process ends."""
    # Not needed for containers that run, and long to load.
    from orchestrator.kernel import mounts, rootfs, steps
    from orchestrator.kernel import world as places
    from orchestrator.kernel.reading import Document

    view = Document(told)
    found: list[steps.Step] = [
        steps.Overlay(
            "/" + entry.text("target").strip("/"),
            tuple(entry.texts("lower")),
            entry.text("upper"),
            entry.text("work"),
        )
        for entry in view.tables("root")
    ]
    found += [
        steps.Seed(entry.text("target"), entry.text("data"), entry.text("state"))
        for entry in view.tables("seed")
    ]
    found += [mounts.read(entry, view) for entry in view.tables("mounts")]
    if view.flag("readonly"):
        found.append(steps.Finish())
    plan = steps.Steps(steps.PROPAGATIONS["rprivate"], tuple(found))
    syscalls.unshare(syscalls.CLONE_NEWNS)
    world = places.World(
        mountpoint=mountpoint, proc=os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    )
    rootfs.detach_from_host(plan, world)
    for step in plan.steps:
        rootfs.perform(step, world)
    rootfs.pivot(plan, world)
    for fd in (world.proc, world.null, *world.roots):
        os.close(fd)


def lock() -> int:
    """What is now "/" becomes the root for good. Returns its descriptor. From here on nothing is imported."""
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    os.chroot("/")
    os.chdir("/")
    held = _KEPT & capabilities.held()
    with suppress(OSError):
        capabilities.limit(_KEPT, capabilities.held())
    syscalls.capset(effective=held, permitted=held, inheritable=0)
    _keep_apart()  # once more: entering a user namespace takes both back (prctl(2))
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
