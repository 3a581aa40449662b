"""syncfs(2), which Python has no name for."""

from __future__ import annotations

import ctypes
import os


def file_system(path: str | os.PathLike[str]) -> None:
    """Write out everything of the file system that holds the directory `path`, and wait. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # CDLL, not PyDLL: this may take seconds, and other threads go on.
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(path))
    finally:
        os.close(fd)
