"""Hears of memory limits that were reached, from the kernel, without looking again and again.

v2 tells by POLLPRI on memory.events (cgroup-v2.rst), v1 by an eventfd that is written into
cgroup.event_control (cgroup-v1/memory.rst, "OOM Control").
"""

from __future__ import annotations

import contextlib
import os
import select
from typing import Self

from orchestrator.kernel.controls import write
from orchestrator.kernel.limits import Hierarchies

_NEWS = 64


class Listener:
    """One descriptor for any number of groups: readable when something has happened in one of them."""

    def __init__(self, hier: Hierarchies) -> None:
        self._hier = hier
        self._epoll = select.epoll()
        self._names: dict[int, str] = {}
        self._fds: dict[str, int] = {}

    def fileno(self) -> int:
        return self._epoll.fileno()

    def add(self, name: str, path: str) -> None:
        """Listen to the group `path` under `name`, anew if it was known. One without a memory controller of
        its own has nothing to tell.
        """
        self.drop(name)
        with contextlib.suppress(OSError):
            fd, mask = self._on_v2(path) if "memory" in self._hier.v2 else self._on_v1(path)
            self._fds[name], self._names[fd] = fd, name
            self._epoll.register(fd, mask)

    def _on_v2(self, path: str) -> tuple[int, int]:
        fd = os.open(f"{self._hier.unified}/{path}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        os.read(fd, 4096)  # from what has been read on counts what is new
        return fd, select.EPOLLPRI

    def _on_v1(self, path: str) -> tuple[int, int]:
        group = f"{self._hier.v1.get('memory')}/{path}"
        control = os.open(f"{group}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            try:
                write(group, "cgroup.event_control", f"{fd} {control}")
            except OSError:
                os.close(fd)
                raise
        finally:
            os.close(control)
        return fd, select.EPOLLIN

    def drop(self, name: str) -> None:
        """Listen no more. Idempotent."""
        fd = self._fds.pop(name, None)
        if fd is not None:
            del self._names[fd]
            os.close(fd)  # which takes it out of the epoll set (epoll(7))

    def heard(self) -> set[str]:
        """The names of groups in which something has happened: they are to be asked. Does not wait."""
        found = set()
        for fd, _ in self._epoll.poll(0, _NEWS):
            found.add(self._names[fd])
            with contextlib.suppress(OSError):
                if "memory" in self._hier.v2:
                    os.lseek(fd, 0, os.SEEK_SET)
                os.read(fd, 4096)
        return found

    def close(self) -> None:
        for name in list(self._fds):
            self.drop(name)
        self._epoll.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
