"""Descriptors kept under a name for the supervisor, so that sockets and namespaces outlive it."""

from __future__ import annotations

import errno

from orchestrator.kernel import packets

KEYS = 8000
_KEY_LENGTH = 255


class StoreError(Exception):
    """A request the store can't serve."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class Store:
    """Key -> descriptors. It owns what it holds; `room` is how many descriptors it may hold in all."""

    def __init__(self, room: int) -> None:
        self._held: dict[str, list[int]] = {}
        self._room = room

    def put(self, key: str, fds: list[int], *, replace: bool) -> None:
        """Keep descriptors, which become the store's. Raises StoreError, then they stay the caller's."""
        if not key or len(key) > _KEY_LENGTH:
            raise StoreError(errno.EINVAL, "a key has 1 to 255 characters")
        if not fds:
            raise StoreError(errno.EINVAL, "no descriptor came along")
        old = self._held.get(key, [])
        if old and not replace:
            raise StoreError(errno.EEXIST, f"{key} is taken")
        if not old and len(self._held) >= KEYS:
            raise StoreError(errno.ENOSPC, f"more than {KEYS} keys")
        if len(fds) - len(old) > self._room:
            raise StoreError(errno.EMFILE, "too many descriptors are kept")
        self._held[key] = fds
        self._room -= len(fds) - len(old)
        packets.close(old)

    def get(self, key: str) -> tuple[int, ...]:
        """The descriptors under a key; they stay the store's."""
        found = self._held.get(key)
        if found is None:
            raise StoreError(errno.ENOENT, f"nothing is kept as {key}")
        return tuple(found)

    def discard(self, keys: list[str]) -> None:
        """Close what is kept under these keys; unknown ones are no error, so it can be repeated."""
        for key in keys:
            fds = self._held.pop(key, [])
            self._room += len(fds)
            packets.close(fds)

    def listing(self) -> list[object]:
        """What is kept, as in the reply to hello."""
        return [{"key": key, "count": len(fds)} for key, fds in self._held.items()]
