"""Locks and directories of work in flight.

Several processes use one store at once, and any of them may be killed at any moment. What is not
finished lives in `tmp/<random>/`; its maker holds a lock on a file in it for as long as it lives, so whoever
comes later can tell the abandoned from the busy and sweeps the former.

The locks are fcntl(2) record locks: they belong to the process and vanish with it. They do not keep
threads of one process apart, and closing any descriptor of the file drops them; so threads take a lock of
their own first, and a lock file is never opened by anybody but its holder or under that lock.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

from orchestrator.images import trees

_guard = threading.Lock()
_by_path: dict[str, threading.Lock] = {}
_ours: dict[str, int] = {}
"""Lock files that this process holds to say that it lives, and their descriptors. Opening and closing one
would drop its lock."""

_LOCK_NAME = ".lock"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` exclusively, waiting for others. Not re-entrant."""
    key = os.path.realpath(path)
    with _guard:
        own = _by_path.setdefault(key, threading.Lock())
    with own:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.lockf(fd, os.F_LOCK, 0)
            yield
        finally:
            os.close(fd)


def claim(path: Path) -> int | None:
    """Make the lock file `path` (or take the one that is there) and hold it; None when somebody else does.

    Returns the descriptor for `release`. Holding it tells other processes that we live.
    """
    key = os.path.realpath(path)
    with _guard:
        if key in _ours:
            return None
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.lockf(fd, os.F_TLOCK, 0)
        except OSError:
            os.close(fd)
            return None
        _ours[key] = fd
        return fd


def release(path: Path, fd: int) -> None:
    """Let go of what `claim` gave."""
    with _guard:
        os.close(fd)
        _ours.pop(os.path.realpath(path), None)


def ours(path: Path) -> int | None:
    """The descriptor of a lock file that this process holds."""
    return _ours.get(os.path.realpath(path))


def is_held(lock: Path) -> bool:
    """Whether a living process, perhaps this one, holds the lock file."""
    with _guard:
        if os.path.realpath(lock) in _ours:
            return True
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            os.lockf(fd, os.F_TEST, 0)
        except OSError:
            return True
        finally:
            os.close(fd)
    return False


@contextlib.contextmanager
def directory(parent: Path, *, lock: Path) -> Iterator[Path]:
    """A fresh directory below `parent`, removed at the end; `lock` is the one that `sweep` runs under."""
    path = parent / secrets.token_hex(8)
    with locked(lock):
        path.mkdir(mode=0o700)
        fd = claim(path / _LOCK_NAME)
    assert fd is not None
    try:
        yield path
    finally:
        try:
            trees.discard(str(path))
        finally:
            release(path / _LOCK_NAME, fd)


def sweep(parent: Path) -> int:
    """Remove what dead processes left; the caller holds the lock. Returns how many directories went."""
    swept = 0
    for name in os.listdir(parent):
        path = parent / name
        if is_held(path / _LOCK_NAME):
            continue
        try:
            trees.discard(str(path))
        except OSError:
            # A worker of the dead process has not yet noticed, and still writes there: next time.
            continue
        swept += 1
    return swept


def write_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put a file in place whole or not at all: temporary name, fsync, rename, fsync of the directory."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(path: Path) -> None:
    """Flush the file system that holds `path`: one syncfs(2) instead of an fsync a file."""
    from orchestrator.kernel import flush

    flush.file_system(path)
