"""Digests made beside the work, in a thread: hashlib lets go of the interpreter while it counts.

Standard library only: the unpacking worker imports this.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque

_BACKLOG = 8 << 20
"""Bytes that may wait; then the giver waits."""
_BATCH = 1 << 18


class Digest:
    """sha256 of the bytes given to `feed`, counted by a thread that lives until `finish`.

    A thread's end makes glibc load libgcc_s; who goes into a chroot calls `warm` before.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._waiting: deque[bytes] = deque()
        self._small: list[bytes] = []
        self._held = 0
        self._bytes = 0
        self._ended = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._count, daemon=True)
        self._thread.start()

    def feed(self, piece: bytes) -> None:
        if len(piece) < _BATCH:
            # A piece a few bytes long is not worth waking anybody.
            self._small.append(piece)
            self._held += len(piece)
            if self._held < _BATCH and len(self._small) < 4096:
                return
            piece = self._gathered()
        elif self._small:
            piece = self._gathered() + piece
        self._give(piece)

    def finish(self) -> str:
        """`sha256:...` of everything."""
        self._give(self._gathered())
        with self._change:
            self._ended = True
            self._change.notify_all()
        self._thread.join()
        return f"sha256:{self._digest.hexdigest()}"

    def _gathered(self) -> bytes:
        piece, self._small, self._held = b"".join(self._small), [], 0
        return piece

    def _give(self, piece: bytes) -> None:
        with self._change:
            while self._bytes > _BACKLOG:
                self._change.wait()
            self._waiting.append(piece)
            self._bytes += len(piece)
            self._change.notify_all()

    def _count(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._ended:
                    self._change.wait()
                if not self._waiting:
                    return
                piece = self._waiting.popleft()
            self._digest.update(piece)
            with self._change:
                self._bytes -= len(piece)
                self._change.notify_all()


def warm() -> None:
    """Let one thread begin and end, so that all that takes is loaded."""
    thread = threading.Thread(target=hashlib.sha256)
    thread.start()
    thread.join()
