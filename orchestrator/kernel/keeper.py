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

import _socket
import fcntl
import gc
import resource
import signal

from orchestrator.kernel import syscalls
from orchestrator.kernel.guard import Guard
from orchestrator.kernel.loop import Loop
from orchestrator.kernel.program import open_host

_LOG_LIMIT = 1 << 20
_BACKLOG = 64
_OF_THE_C_LIBRARY = (32, 33)  # signals that Python doesn't know: SIGCANCEL and SIGSETXID of glibc


def main(run_dir: str) -> int:
    """Keep until the last supervisor said goodbye and no container is left. 0 also when one keeps already."""
    lock = _lock(f"{run_dir}/keeper.lock")
    if lock < 0:
        return 0
    _detach(f"{run_dir}/keeper.log")
    listener = _listen(f"{run_dir}/keeper.sock")
    host = open_host()
    own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    loop = Loop(listener, _wake_on_children(), host, own_pids, Guard(f"{run_dir}/supervisor.log"))
    # What is alive now stays: a collection in a child would only copy its pages.
    gc.collect()
    gc.freeze()
    gc.disable()
    os.rename(f"{run_dir}/keeper.sock.new", f"{run_dir}/keeper.sock")
    loop.run()
    _leave(run_dir)
    return 0


def _lock(path: str) -> int:
    """The lock of this state root, held as long as we live; -1 when another keeper has it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return -1
        held = os.fstat(fd)
        try:
            found = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        if found and (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino):
            return fd
        os.close(fd)  # its last owner removed it while we waited for it


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


def _listen(path: str) -> _socket.socket:
    """The control socket under a temporary name: it gets its own when everything is ready."""
    temporary = f"{path}.new"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    listener.bind(temporary)
    os.chmod(temporary, 0o600)
    listener.listen(_BACKLOG)
    listener.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    return listener


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


def _leave(run_dir: str) -> None:
    """Take our files along; the lock last, while it is still held."""
    os.unlink(f"{run_dir}/keeper.sock")
    for log in (f"{run_dir}/keeper.log", f"{run_dir}/supervisor.log"):
        if os.path.exists(log) and os.stat(log).st_size == 0:
            os.unlink(log)
    os.unlink(f"{run_dir}/keeper.lock")


if __name__ == "__main__":
    raise SystemExit(main(os.path.abspath(sys.argv[1])))
