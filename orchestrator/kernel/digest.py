"""What a file of the user's holds, in few words: to see that it has changed. Standard library only."""

from __future__ import annotations

import hashlib
import os
import stat

LIMIT = 64 * 1024 * 1024
"""Bytes that are read at most: a config or a secret is small, and what is larger is not compared."""
_CHUNK = 1 << 18


def of_file(path: str) -> str:
    """SHA-256 in hexadecimal; "" for what is no plain file (a directory, a pipe) or larger than the limit.

    Raises OSError when there is none, or it can't be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > LIMIT:
            return ""
        digest, left = hashlib.sha256(), LIMIT + 1
        while left > 0 and (chunk := os.read(fd, min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        return digest.hexdigest() if left > 0 else ""
    finally:
        os.close(fd)


def of_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read(path: str) -> tuple[bytes, os.stat_result]:
    """The content of a plain file within the limit. Raises OSError, EFBIG for one beyond it."""
    import errno

    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", path)
        content = bytearray()
        while chunk := os.read(fd, _CHUNK):
            content += chunk
            if len(content) > LIMIT:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return bytes(content), found
    finally:
        os.close(fd)
