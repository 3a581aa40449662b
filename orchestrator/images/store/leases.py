"""Leases: what a living process is about to use, though no image needs it yet.

A lease is a file in ROOT/leases with one digest a line; its maker holds a lock on it for as long as it lives
(see scratch). Whoever collects garbage leaves alone what any lease names. The lease of a process that was
killed, or failed, goes on for a week, so that a second pull finds what the first one had; then, or when
somebody prunes, it goes.

Once a second one has ended well, nobody needs what the first had kept: that lease goes too, or it would
keep the layers on disk after the image was removed.

A digest is written down under the store's lock, under which garbage is collected too: after `keep` has
returned, what is there stays there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.images import scratch
from orchestrator.images.reference import is_digest

WEEK = 7 * 86400.0


class Lease:
    """What this process needs. Made by `Store.lease`."""

    def __init__(self, path: Path, fd: int, lock: Path) -> None:
        self._path = path
        self._fd = fd
        self._lock = lock
        self._kept: set[str] = set()

    def keep(self, *digests: str) -> None:
        """Blobs (by digest) and layers (by diff_id) that must stay, whether here already or not yet."""
        fresh = [one for one in dict.fromkeys(digests) if one not in self._kept]
        if not fresh:
            return
        assert all(map(is_digest, fresh)), fresh
        with scratch.locked(self._lock):
            # Short lines, one write: whoever reads sees whole digests, or a last one that `read` drops.
            os.write(self._fd, "".join(f"{one}\n" for one in fresh).encode())
        self._kept.update(fresh)

    def inherit(self) -> None:
        """End leases of dead processes that name nothing but what this one does.

        The caller holds the store's lock.
        """
        for name in os.listdir(self._path.parent) if self._kept else ():
            path = self._path.parent / name
            if not scratch.is_held(path) and self._kept.issuperset(_read(path)):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def lease(directory: Path, *, lock: Path) -> Iterator[Lease]:
    """A lease that ends with the block. If that is with an exception, what it named stays for a week."""
    path = directory / secrets.token_hex(8)
    with scratch.locked(lock):
        directory.mkdir(mode=0o700, exist_ok=True)
        fd = scratch.claim(path)
    assert fd is not None
    done = False
    made = Lease(path, fd, lock)
    try:
        yield made
        done = True
    finally:
        if done:
            with scratch.locked(lock):
                made.inherit()
        if done or os.fstat(fd).st_size == 0:
            path.unlink(missing_ok=True)
        scratch.release(path, fd)


def leased(directory: Path, *, grace: float = WEEK) -> set[str]:
    """Every digest that a lease names, and the end of leases whose process has been dead for `grace` seconds.

    The caller holds the store's lock.
    """
    found: set[str] = set()
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return found
    for name in names:
        path = directory / name
        if not scratch.is_held(path) and time.time() - path.stat().st_mtime >= grace:
            path.unlink(missing_ok=True)
        else:
            found.update(_read(path))
    return found


def _read(path: Path) -> list[str]:
    """Not by opening it when it is our own: closing would drop our lock."""
    fd = scratch.ours(path)
    content = path.read_bytes() if fd is None else os.pread(fd, os.fstat(fd).st_size, 0)
    return [one for one in content.decode("ascii", "replace").split("\n") if is_digest(one)]
