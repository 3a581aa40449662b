"""What the paths of `cp` mean, and where what is copied goes: the rules of `docker cp`.

A path is looked up once and kept as a descriptor; afterwards it does not matter what happens to its name.
`landing` alone decides, from what was found on both sides; it is pure. Standard library only.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

from orchestrator.images.files.packing import FilesError, is_made_up
from orchestrator.kernel import syscalls

Opener = Callable[[str, int], int]
"""(absolute path, flags) -> descriptor. Raises OSError."""
T = TypeVar("T")
_LINK_LIMIT = 40
_TRIES = 100
"""How often we look again at what has changed under our hands."""


class Source(NamedTuple):
    """What is to be copied. `name`: its own, as asked for; `contents`: not itself, but what is in it."""

    handle: int
    directory: bool
    name: str
    contents: bool
    real: str
    """The name of what a link has led to, where it was to be followed."""


class Target(NamedTuple):
    """Where it shall go. `fd` is the directory itself, or the one that has `name`, or will have it."""

    fd: int
    exists: bool
    directory: bool
    name: str
    insists: bool
    """It was written as a directory (with a slash at its end)."""


class Landing(NamedTuple):
    """What is extracted to `Target.fd` bears this name ("." for the content of a directory)."""

    top: str


def of_host(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC)


def of_container(root: int) -> Opener:
    """Every link stays inside, and no link of /proc leads to what a process has open."""

    def opener(path: str, flags: int) -> int:
        return syscalls.openat2(root, path, flags, resolve=syscalls.RESOLVE_IN_ROOT)

    return opener


class _MovedError(Exception):
    """It is no longer what it was a moment ago."""


def find_source(opener: Opener, path: str, *, follow: bool) -> Source:
    """`follow`: when it is a link, what it leads to. Raises OSError."""
    return _settled(lambda: _source(opener, path, follow=follow), path)


def find_target(opener: Opener, path: str) -> Target:
    """Raises FilesError, OSError: its parent has to be there."""
    return _settled(lambda: _target(opener, path), path)


def _settled(look: Callable[[], T], path: str) -> T:
    for _ in range(_TRIES):
        with suppress(_MovedError):
            return look()
    raise OSError(errno.EAGAIN, "it changes all the time", path)


def _source(opener: Opener, path: str, *, follow: bool) -> Source:
    clean, slash, contents = _read(path)
    above, real, found = _find(opener, clean, follow=follow or slash)
    try:
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        handle = _again(above, real, os.O_PATH)
    finally:
        os.close(above)
    kind = stat.S_IFMT(os.fstat(handle).st_mode)
    wrong: Exception | None = None
    if stat.S_ISLNK(kind) and (follow or slash):
        wrong = _MovedError()
    elif slash and not stat.S_ISDIR(kind):
        wrong = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    if wrong is not None:
        os.close(handle)
        raise wrong
    name = posixpath.basename(clean)
    return Source(handle, stat.S_ISDIR(kind), name, contents or not name, real if follow else name)


def _target(opener: Opener, path: str) -> Target:
    clean, slash, _ = _read(path)
    above, name, found = _find(opener, clean, follow=True)
    try:
        if found is None:
            return Target(os.dup(above), exists=False, directory=False, name=name, insists=slash)
        if stat.S_ISDIR(found.st_mode):
            fd = _again(above, name, os.O_PATH | os.O_DIRECTORY)
            return Target(fd, exists=True, directory=True, name=name, insists=slash)
        if slash:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if not stat.S_ISREG(found.st_mode):
            raise FilesError("must be a directory or a regular file", errno.EINVAL)
        return Target(os.dup(above), exists=True, directory=False, name=name, insists=slash)
    finally:
        os.close(above)


def _again(above: int, name: str, flags: int) -> int:
    """Open what was just looked at."""
    try:
        return os.open(name or ".", flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise _MovedError from error
        raise


def _find(opener: Opener, clean: str, *, follow: bool) -> tuple[int, str, os.stat_result | None]:
    """The directory that something is in, its name there ("" for the directory itself), and what it is."""
    start = clean
    for _ in range(_LINK_LIMIT):
        parent, name = posixpath.split(clean)
        if name in ("", ".", ".."):
            parent, name = clean, ""
        above = opener(parent or "/", os.O_PATH | os.O_DIRECTORY)
        try:
            found = _look(above, name) if name else os.fstat(above)
            if found is None or not follow or not stat.S_ISLNK(found.st_mode):
                return os.dup(above), name, found
            goal = os.readlink(name, dir_fd=above)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                raise _MovedError from error
            raise
        finally:
            os.close(above)
        # As it stands: ".." after a link is not what it looks like, and the kernel knows.
        goal = goal.rstrip("/") or "/"
        clean = goal if goal.startswith("/") else f"{parent}/{goal}"
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), start)


def _look(above: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return None


def landing(source: Source | None, target: Target) -> Landing:
    """Pure. `source`: None for an archive that comes as it is. Raises FilesError."""
    if source is None:
        if not target.directory:
            raise FilesError("must be a directory")
        return Landing(".")
    if target.directory:
        return Landing("." if source.contents else source.name)
    if target.exists and source.directory:
        raise FilesError("cannot copy directory")
    if target.insists and not source.directory:
        raise FilesError("no such directory")
    return Landing(target.name)


def demand_files(target: Target) -> None:
    """Refuse a place where nothing can be put. Raises FilesError."""
    if is_made_up(target.fd):
        raise FilesError("is made up by the kernel: nothing can be put there")


def _read(path: str) -> tuple[str, bool, bool]:
    """The path from "/" on without "." and "..", whether it says it is a directory, and whether it means
    what is in it."""
    last = path.rpartition("/")[2]
    clean = posixpath.normpath(f"/{path}")
    return "/" + clean.lstrip("/"), last in ("", ".", "..") and bool(path), last == "."
