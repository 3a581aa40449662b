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
from typing import NamedTuple

from orchestrator.images.files.packing import FilesError, is_made_up
from orchestrator.kernel import syscalls

Opener = Callable[[str, int], int]
"""(absolute path, flags) -> descriptor. Raises OSError."""
_LINK_LIMIT = 40


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


def find_source(opener: Opener, path: str, *, follow: bool) -> Source:
    """`follow`: when it is a link, what it leads to. Raises OSError."""
    clean, slash, contents = _read(path)
    above, real, found = _find(opener, clean, path, follow=follow or slash)
    try:
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        handle = os.open(real or ".", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    finally:
        os.close(above)
    directory = stat.S_ISDIR(os.fstat(handle).st_mode)
    if slash and not directory:
        os.close(handle)
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    name = posixpath.basename(clean)
    return Source(handle, directory, name, contents or not name, real if follow else name)


def find_target(opener: Opener, path: str) -> Target:
    """Raises FilesError, OSError: its parent has to be there."""
    clean, slash, _ = _read(path)
    above, name, found = _find(opener, clean, path, follow=True)
    try:
        return _judged(above, name, found, slash=slash, path=path)
    finally:
        os.close(above)


def _find(opener: Opener, clean: str, path: str, *, follow: bool) -> tuple[int, str, os.stat_result | None]:
    """The directory that something is in, its name there ("" for the directory itself), and what it is."""
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
        finally:
            os.close(above)
        # As it stands: ".." after a link is not what it looks like, and the kernel knows.
        goal = goal.rstrip("/") or "/"
        clean = goal if goal.startswith("/") else f"{parent}/{goal}"
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _judged(above: int, name: str, found: os.stat_result | None, *, slash: bool, path: str) -> Target:
    if found is None:
        return Target(os.dup(above), exists=False, directory=False, name=name, insists=slash)
    if stat.S_ISDIR(found.st_mode):
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name or ".", flags, dir_fd=above)
        return Target(fd, exists=True, directory=True, name=name, insists=slash)
    if slash:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    if not stat.S_ISREG(found.st_mode):
        raise FilesError("must be a directory or a regular file", errno.EINVAL)
    return Target(os.dup(above), exists=True, directory=False, name=name, insists=slash)


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
