"""Starts the keeper. Standard library alone: the supervisor does it before it loads anything else, so that
the two are ready at the same time."""

from __future__ import annotations

import os
import sys

from orchestrator.kernel import syscalls


def spawn_keeper(run: str) -> int:
    """Start the keeper of a run directory in a session of its own; one that finds another there leaves.

    Returns its pid. Raises OSError when the directory is not there.
    """
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "keeper.py")
    quiet = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1)]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    log = (os.POSIX_SPAWN_OPEN, 2, os.path.join(run, "keeper.log"), flags, 0o600)
    sealed, interpreter = seal(sys.executable)
    try:
        return os.posix_spawn(
            interpreter,
            [sys.executable, "-I", "-S", program, run],
            {"PATH": os.defpath, "LANG": "C.UTF-8"},
            file_actions=[*quiet, log],
            setsid=True,
        )
    finally:
        if sealed >= 0:
            os.close(sealed)


def seal(interpreter: str) -> tuple[int, str]:
    """A name by which the interpreter can be run and never written to, and the descriptor behind it.

    What runs a container can be found from inside as /proc/self/exe, most simply by making that the
    container's command; opened there and kept, it can be written to as soon as nobody runs it any more
    (CVE-2019-5736). So the keeper's interpreter is run from a read-only view of the file tree that no
    mount namespace has: all that comes from it is read-only for everybody, whoever they are. The whole
    tree, for then a program that finds its libraries by its own place ($ORIGIN) still does. 0.2 ms.

    The descriptor, to be closed once the program runs, is -1 and the name as it was where we may not
    (an ordinary user, whose containers can't write to what belongs to root anyway).
    """
    try:
        view = syscalls.open_tree(syscalls.AT_FDCWD, "/", syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE)
    except OSError:
        return -1, interpreter
    try:
        syscalls.mount_setattr(view, flags=syscalls.AT_RECURSIVE, add=syscalls.MOUNT_ATTR_RDONLY)
    except OSError:
        os.close(view)
        return -1, interpreter
    return view, f"/proc/self/fd/{view}{os.path.realpath(interpreter)}"


def run_sealed() -> None:
    """Go on as the same command in a sealed interpreter: for programs that make containers by themselves.

    It is begun anew, for what a program runs from can't be changed while it runs. Returns when that is
    sealed already, or can't be.
    """
    exe = os.open("/proc/self/exe", os.O_PATH | os.O_CLOEXEC)
    try:
        if os.fstatvfs(exe).f_flag & os.ST_RDONLY:
            return
    finally:
        os.close(exe)
    view, interpreter = seal(sys.executable)
    if view >= 0:
        os.execve(interpreter, [sys.executable, *sys.orig_argv[1:]], os.environ)  # noqa: S606 (no shell)


def has_keeper(run: str) -> bool:
    """Whether a keeper seems to be there; one that was killed leaves its socket behind."""
    return os.path.exists(os.path.join(run, "keeper.sock"))
