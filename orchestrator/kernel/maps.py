"""User namespaces: writing their id maps from outside, and making one just for its maps.

Source: user_namespaces(7). Ids are triples (inside, outside, how many).
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress

from orchestrator.kernel import syscalls
from orchestrator.kernel.program import Host
from orchestrator.kernel.reading import RefusedError

Ids = tuple[tuple[int, int, int], ...]


def write(host: Host, pid: int, uids: Ids, gids: Ids) -> None:
    """Give the new user namespace of a process its maps; by newuidmap and newgidmap where we may not.

    Raises OSError, or RefusedError when there is no right to map these ids.
    """
    if not uids or not gids:
        raise RefusedError("linux: a new user namespace needs uidMappings and gidMappings")
    _write_one(host, pid, "uid_map", "newuidmap", uids)
    _write_one(host, pid, "gid_map", "newgidmap", gids)


def _write_one(host: Host, pid: int, file: str, program: str, ids: Ids) -> None:
    try:
        _write(host, f"{pid}/{file}", _lines(ids))
    except PermissionError:
        if os.geteuid() == 0 and len(ids) > 1:
            raise
    else:
        return
    own = os.geteuid() if file == "uid_map" else os.getegid()
    if len(ids) == 1 and ids[0][1:] == (own, 1):
        # One's own id anybody may map, once setgroups(2) is given up.
        if file == "gid_map":
            _write(host, f"{pid}/setgroups", b"deny")
        _write(host, f"{pid}/{file}", _lines(ids))
        return
    _ask(program, pid, ids)


def _lines(ids: Ids) -> bytes:
    return "".join(f"{inner} {outer} {size}\n" for inner, outer, size in ids).encode()


def _write(host: Host, name: str, data: bytes) -> None:
    """One write, as the kernel wants it, through a /proc that no container has touched."""
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=host.proc)
    try:
        os.write(fd, data)
    except OSError as error:
        raise type(error)(
            error.errno, f"{name.partition('/')[2]} {data.decode().strip()!r}: {error.strerror}"
        ) from None
    finally:
        os.close(fd)


def _ask(program: str, pid: int, ids: Ids) -> None:
    """newuidmap(1) and newgidmap(1): what /etc/subuid and /etc/subgid allow."""
    numbers = [str(number) for row in ids for number in row]
    said, output = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            child = os.posix_spawnp(
                program,
                [program, str(pid), *numbers],
                {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
                file_actions=[(os.POSIX_SPAWN_DUP2, output, 2)],
            )
        except FileNotFoundError:
            raise RefusedError(f"id mappings: not allowed, and there is no {program} to ask") from None
        finally:
            os.close(output)
        _, status = os.waitpid(child, 0)
        if status:
            raise RefusedError(f"id mappings: {os.read(said, 1000).decode('utf-8', 'replace').strip()}")
    finally:
        os.close(said)


def namespace(host: Host, uids: Ids, gids: Ids) -> int:
    """A descriptor of a user namespace that only has these maps: for mount_setattr(2)."""
    ready, written = os.pipe2(os.O_CLOEXEC)
    child = os.fork()  # noqa: TID251 (single-threaded; it waits to be killed)
    if child == 0:
        try:
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            os.write(written, b"0")
            while True:
                signal.pause()
        finally:
            os._exit(1)
    try:
        os.close(written)
        if not os.read(ready, 1):
            raise OSError(errno.EPERM, "cannot make a user namespace for the id mappings of a mount")
        write(host, child, uids, gids)
        return os.open(f"{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC, dir_fd=host.proc)
    finally:
        os.close(ready)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
