"""User namespaces: how an ordinary user becomes root over namespaces of their own (user_namespaces(7)).

Two kinds of id map. With a range in /etc/subuid and /etc/subgid and the tools newuidmap(1) and newgidmap(1),
which may write it, root inside is the user outside and further ids are the range's. Without, root inside is
the only id there is. Standard library only: the supervisor does this before it loads anything else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import NamedTuple, NoReturn

from orchestrator.kernel import syscalls

_EVERY_ID = 0xFFFFFFFF
_MOST_RANGES = 16
_SUBUID, _SUBGID = "/etc/subuid", "/etc/subgid"

HINT = (
    "an administrator can allow it: see the sysctls user.max_user_namespaces, "
    "kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns"
)


class Extent(NamedTuple):
    """`number` ids from `inside` on stand for those from `outside` on (in the parent namespace)."""

    inside: int
    outside: int
    number: int


class Maps(NamedTuple):
    """What to write for users and for groups."""

    users: tuple[Extent, ...]
    groups: tuple[Extent, ...]


class RefusedError(Exception):
    """This machine does not let an ordinary user have what containers are made of."""


# --- our own namespace -------------------------------------------------------------------------------


@cache
def extents(kind: str = "uid") -> tuple[Extent, ...]:
    """The map of the namespace that this process is in; `kind`: "uid" or "gid"."""
    with open(f"/proc/self/{kind}_map", encoding="ascii") as lines:
        return tuple(Extent(*map(int, line.split())) for line in lines)


def is_initial() -> bool:
    """Whether ids mean here what they mean to the machine."""
    return extents() == (Extent(0, 0, _EVERY_ID),)


def has(number: int, kind: str = "uid") -> bool:
    """Whether an id exists in our namespace."""
    return any(one.inside <= number < one.inside + one.number for one in extents(kind))


def highest(kind: str = "gid") -> int:
    """The last id that exists without a gap from 0 on."""
    end = 0
    for one in sorted(extents(kind)):
        if one.inside > end:
            break
        end = max(end, one.inside + one.number)
    return end - 1


@cache
def is_single() -> bool:
    """Whether root is the only user here: nothing can belong to another, and nobody can become one."""
    return highest("uid") == 0 or highest("gid") == 0


# --- deciding ----------------------------------------------------------------------------------------


def ranges(text: str, names: Iterable[str]) -> list[tuple[int, int]]:
    """(first, count) of every line `NAME:FIRST:COUNT` of subuid(5) for one of these names, or the number."""
    wanted, found = set(names), []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in wanted and _is_number(fields[1]) and _is_number(fields[2]):
            first, count = int(fields[1]), int(fields[2])
            if count > 0 and first + count <= _EVERY_ID:
                found.append((first, count))
    return found[:_MOST_RANGES]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def plan(own: int, given: Iterable[tuple[int, int]]) -> tuple[Extent, ...]:
    """Root is `own`; the given ranges follow from 1 on."""
    extents, start = [Extent(0, own, 1)], 1
    for first, count in given:
        extents.append(Extent(start, first, count))
        start += count
    return tuple(extents)


def plan_for_us() -> Maps:
    """The widest maps that this user may ask for: ranges for both, or for neither."""
    user, group = os.geteuid(), os.getegid()
    users, groups = _given(_SUBUID, user), _given(_SUBGID, user)
    if not users or not groups or not (find_program("newuidmap") and find_program("newgidmap")):
        users, groups = [], []
    return Maps(plan(user, users), plan(group, groups))


def _given(path: str, user: int) -> list[tuple[int, int]]:
    import pwd

    names = [str(user)]
    with suppress(KeyError):
        names.append(pwd.getpwuid(user).pw_name)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return ranges(file.read(1 << 20), names)
    except OSError:
        return []


def find_program(name: str) -> str | None:
    """Where on PATH a program is. (shutil.which would bring three compression libraries along.)"""
    for directory in os.environ.get("PATH", os.defpath).split(":"):
        path = f"{directory}/{name}"
        if directory and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


# --- doing -------------------------------------------------------------------------------------------


def enter(flags: int = 0) -> None:
    """Move this process, which must have one thread, into a user namespace of its own, and with it into
    namespaces of the other kinds in `flags`. It is root there afterwards.

    A forked child stays outside and writes the maps, for newuidmap writes those of others only. Raises
    RefusedError.
    """
    maps = plan_for_us()
    ready, go = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()  # noqa: TID251 (no loop and no thread yet)
    if pid == 0:
        os.close(go)
        _write_for_parent(ready, maps)
    os.close(ready)
    wrong: OSError | None = None
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER | flags)
    except OSError as error:
        wrong = error
    else:
        os.write(go, b"1")
    os.close(go)
    _, status = os.waitpid(pid, 0)
    extents.cache_clear()
    is_single.cache_clear()
    if wrong is not None:
        raise RefusedError(f"this machine gives ordinary users no user namespaces: {_words(wrong)}")
    if status or not has(0) or not has(0, "gid"):
        raise RefusedError("the map of user ids could not be written")
    if flags & syscalls.CLONE_NEWNS:
        _try_mount()


def _words(error: OSError) -> str:
    if error.errno == errno.ENOSPC:  # user_namespaces(7): ENOSPC beyond the limit
        return "their number is limited to what is in use (user.max_user_namespaces)"
    return os.strerror(error.errno or 0)


def _try_mount() -> None:
    """Some systems give the namespace and none of its rights (AppArmor on Ubuntu since 23.10)."""
    try:
        syscalls.mount(None, "/", None, syscalls.MS_SLAVE | syscalls.MS_REC)
    except OSError as error:
        raise RefusedError(f"a user namespace is given, but no right to mount in it: {error}") from None


def _write_for_parent(ready: int, maps: Maps) -> NoReturn:
    code = 1
    try:
        if os.read(ready, 1):
            write(os.getppid(), maps)
            code = 0
    except OSError as error:
        os.write(2, f"{error}\n".encode())
    finally:
        os._exit(code)


def write(pid: int, maps: Maps) -> None:
    """Give the namespace of another process its maps. Where the tools refuse (a nosuid mount, a range that
    is not the user's) it gets the single ids. Raises OSError."""
    for kind, tool, wanted in (("uid", "newuidmap", maps.users), ("gid", "newgidmap", maps.groups)):
        if len(wanted) > 1 and _run(tool, pid, wanted):
            continue
        if kind == "gid":
            _put(pid, "setgroups", "deny")  # else its members could leave groups that keep them out
        own = wanted[0]
        _put(pid, f"{kind}_map", f"{own.inside} {own.outside} {own.number}")


def rename(proc: int, uid: int, gid: int) -> None:
    """Enter a user namespace in which the only user and group, until now 0, have these numbers. `proc`: a
    trusted /proc. Raises OSError."""
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    for file, text in (("uid_map", f"{uid} 0 1"), ("setgroups", "deny"), ("gid_map", f"{gid} 0 1")):
        fd = os.open(f"self/{file}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def _run(tool: str, pid: int, wanted: tuple[Extent, ...]) -> bool:
    words = [str(number) for extent in wanted for number in extent]
    child = os.posix_spawnp(tool, [tool, str(pid), *words], os.environ)
    _, status = os.waitpid(child, 0)
    return status == 0


def _put(pid: int, file: str, text: str) -> None:
    """One write(2), as these files want it."""
    fd = os.open(f"/proc/{pid}/{file}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
