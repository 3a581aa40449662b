"""Advisory file locks (flock(2)): held as long as the descriptor is open, gone with the process."""

from __future__ import annotations

import fcntl
import os


def try_lock(path: str | os.PathLike[str]) -> int | None:
    """A descriptor that holds the lock at `path` (made if missing); None when another process has it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        if stands_at(fd, path):
            return fd
        os.close(fd)  # its last owner has removed it since we opened it: the next one would not meet us there


def stands_at(fd: int, path: str | os.PathLike[str]) -> bool:
    """Whether `path` is still the file behind `fd`: else others take a lock there that is not ours."""
    held = os.fstat(fd)
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)
