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
_alive: set[str] = set()
"""Scratch directories of this process."""

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


@contextlib.contextmanager
def directory(parent: Path, *, lock: Path) -> Iterator[Path]:
    """A fresh directory below `parent`, removed at the end; `lock` is the one that `sweep` runs under."""
    path = parent / secrets.token_hex(8)
    key = os.path.realpath(path)
    with locked(lock):
        path.mkdir(mode=0o700)
        _alive.add(key)
        fd = os.open(path / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.lockf(fd, os.F_LOCK, 0)
    try:
        yield path
    finally:
        try:
            trees.discard(str(path))
        finally:
            os.close(fd)
            _alive.discard(key)


def sweep(parent: Path) -> int:
    """Remove what dead processes left; the caller holds the lock. Returns how many directories went."""
    swept = 0
    for name in os.listdir(parent):
        path = parent / name
        if os.path.realpath(path) in _alive or _is_held(path / _LOCK_NAME):
            continue
        try:
            trees.discard(str(path))
        except OSError:
            # A worker of the dead process has not yet noticed, and still writes there: next time.
            continue
        swept += 1
    return swept


def _is_held(lock: Path) -> bool:
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


def sync_tree(path: Path) -> None:
    """Flush the file system that holds `path`: one syncfs(2) instead of an fsync a file.

    Python has no name for syncfs; sync(1) of coreutils has (-f). Without it all file systems are flushed.
    """
    import subprocess

    try:
        subprocess.run(["sync", "-f", os.fspath(path)], check=True, stdin=subprocess.DEVNULL, timeout=600)
    except (OSError, subprocess.SubprocessError):
        os.sync()
