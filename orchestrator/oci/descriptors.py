"""Descriptors that a caller hands down or wants to have: --preserve-fds, LISTEN_FDS, --console-socket."""

from __future__ import annotations

import _socket
import fcntl
import os

from orchestrator.oci.complaint import Complaint

_MOST = 4096
_SUN_PATH = 107  # unix(7)


def preserved(asked: int, environ: dict[str, str] | None = None) -> tuple[int, tuple[str, ...]]:
    """How many descriptors from 3 on the program gets, and what its environment says of them.

    To be asked before anything is opened. Sockets of systemd's protocol (sd_listen_fds(3)) come first.
    Raises Complaint when one of them isn't open.
    """
    listen = (os.environ if environ is None else environ).get("LISTEN_FDS", "")
    sockets = int(listen) if listen.isascii() and listen.isdigit() and len(listen) < 5 else 0
    count = sockets + asked
    if not 0 <= asked <= _MOST or count > _MOST:
        raise Complaint(f"--preserve-fds: {asked} is not between 0 and {_MOST}")
    for fd in range(3, 3 + count):
        try:
            fcntl.fcntl(fd, fcntl.F_GETFD)
        except OSError:
            raise Complaint(f"please check that preserved-fd {fd} is present") from None
    return count, (f"LISTEN_FDS={sockets}", "LISTEN_PID=1") if sockets else ()


def connect(path: str) -> _socket.socket:
    """A connection to the socket that wants the terminal. Raises Complaint."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    directory = -1
    try:
        name = os.path.abspath(path)
        if len(os.fsencode(name)) > _SUN_PATH:
            directory = os.open(os.path.dirname(name), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            name = f"/proc/self/fd/{directory}/{os.path.basename(name)}"
        sock.connect(name)
    except OSError as error:
        sock.close()
        raise Complaint(f"--console-socket {path}: {error.strerror}") from None
    finally:
        if directory >= 0:
            os.close(directory)
    return sock


def check_console(*, terminal: bool, path: str, detached: bool) -> None:
    """Whether terminal and console socket agree, in runc's words. Raises Complaint."""
    if terminal and detached and not path:
        raise Complaint("cannot allocate tty if pystack-oci will detach without setting console socket")
    if path and not (terminal and detached):
        raise Complaint("cannot use console socket if pystack-oci will not detach or allocate tty")


def write_pid(path: str, pid: int) -> None:
    """Write a pid file, whole from the first moment that it has its name."""
    draft = f"{path}.{os.getpid()}.new"
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, str(pid).encode())
        finally:
            os.close(fd)
        os.rename(draft, path)
    except OSError as error:
        raise Complaint(f"--pid-file {path}: {error.strerror}") from None
