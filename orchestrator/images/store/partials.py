"""Blobs that are being fetched: what has arrived so far stays, so that a second pull goes on from there.

ROOT/partial/HEX is the beginning of the blob of that digest, HEX.lock is held by the process that fetches it.
Nothing here is believed: the whole is hashed before it becomes a blob.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.images import scratch
from orchestrator.images.store.leases import WEEK

_SUFFIX = ".lock"
_POLL = 0.05


@contextlib.contextmanager
def claimed(directory: Path, hexadecimal: str, *, lock: Path, wait: bool) -> Iterator[Path | None]:
    """The file for a blob's beginning, for this block alone; made empty when there is none.

    Others wait, or get None with `wait=False`. The file stays unless it was moved away or is empty.
    """
    path = directory / hexadecimal
    guard = directory / f"{hexadecimal}{_SUFFIX}"
    while (fd := _claim(path, guard, lock)) is None:
        if not wait:
            yield None
            return
        time.sleep(_POLL)
    try:
        yield path
    finally:
        with scratch.locked(lock):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size == 0:
                    path.unlink()
            guard.unlink(missing_ok=True)
            scratch.release(guard, fd)


def _claim(path: Path, guard: Path, lock: Path) -> int | None:
    """Lock files come and go under the store's lock only, so none is held that has no name any more."""
    with scratch.locked(lock):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        fd = scratch.claim(guard)
        if fd is not None:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    return fd


def sweep(directory: Path, *, grace: float = WEEK) -> int:
    """Remove beginnings that nobody has added to for `grace` seconds; the caller holds the store's lock.

    Returns the bytes.
    """
    swept = 0
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return 0
    for name in names:
        path, guard = directory / name, directory / f"{name}{_SUFFIX}"
        if name.endswith(_SUFFIX):
            if not path.with_suffix("").exists() and not scratch.is_held(path):
                path.unlink(missing_ok=True)
            continue
        found = path.stat()
        if time.time() - found.st_mtime >= grace and not scratch.is_held(guard):
            path.unlink(missing_ok=True)
            guard.unlink(missing_ok=True)
            swept += found.st_blocks * 512
    return swept
