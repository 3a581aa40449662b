"""The keeper: parent of every container, started as `python3 -I -S .../keeper.py RUN_DIR`.

One process per state root, with one thread and nothing but the standard library. It forks containers,
writes down how they ended before anyone is told, keeps descriptors for the supervisor and starts a dead
supervisor again. Killed itself, its containers run on; the next keeper finds them by their bundles.

This file only sets the process up; `loop` serves. It is the script that is run, so it is compiled anew at
each start and stays short.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import gc
import resource
import signal

from orchestrator.kernel import syscalls
from orchestrator.kernel.door import Door
from orchestrator.kernel.guard import Guard
from orchestrator.kernel.loop import Loop
from orchestrator.kernel.program import open_host

_LOG_LIMIT = 1 << 20
_OF_THE_C_LIBRARY = (32, 33)  # signals that Python doesn't know: SIGCANCEL and SIGSETXID of glibc


def main(run_dir: str) -> int:
    """Keep until the last supervisor said goodbye and no container is left. 0 also when one keeps already."""
    door = Door(run_dir)
    if door.taken:
        return 0
    _detach(f"{run_dir}/keeper.log")
    door.listen()
    host = open_host()
    own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    loop = Loop(door, _wake_on_children(), host, own_pids, Guard(f"{run_dir}/supervisor.log"))
    # What is alive now stays: a collection in a child would only copy its pages.
    gc.collect()
    gc.freeze()
    gc.disable()
    door.open()
    loop.run()
    door.close()
    return 0


def _detach(log: str) -> None:
    """Own session, no input, output to the log; parent of all orphans below; not open to ptrace."""
    if os.getpid() != os.getsid(0):
        os.setsid()
    os.chdir("/")
    os.umask(0o077)
    size = os.stat(log).st_size if os.path.exists(log) else 0
    cut = os.O_TRUNC if size > _LOG_LIMIT else 0
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | cut, 0o600)
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    syscalls.close_range(max(nothing, output) + 1, flags=syscalls.CLOSE_RANGE_CLOEXEC)
    os.close(nothing)
    os.close(output)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.set_name("pystack-keeper")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # A core dump would hold what containers get as secrets. They inherit it, and may ask for more (ulimits).
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))


def _wake_on_children() -> int:
    """A descriptor that becomes readable at SIGCHLD; every other signal as a new program expects it.

    Ignored signals and the mask survive execve, and Python ignores SIGPIPE: containers would inherit that.
    So nothing is ignored here; a handler goes with execve.
    """
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    for reserved in _OF_THE_C_LIBRARY:
        syscalls.reset_signal(reserved)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGPIPE, _ignore)
    signal.signal(signal.SIGCHLD, _ignore)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def _ignore(_: int, __: object) -> None:
    """A handler that does nothing."""


if __name__ == "__main__":
    raise SystemExit(main(os.path.abspath(sys.argv[1])))
