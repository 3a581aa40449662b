"""Network namespaces as file descriptors.

A namespace lives as long as somebody holds it open: closing the last descriptor takes its links along, in
the background and in bulk, which is far cheaper than deleting veths one by one.

A thread that enters a namespace comes back, or the process ends: a worker thread left in a container's
namespace would do the next container's work in the wrong place.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.kernel import syscalls


def current() -> int:
    """A descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def create() -> int:
    """A descriptor of a new, empty network namespace. Needs CAP_SYS_ADMIN; raises OSError."""
    home = current()
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            return current()
        finally:
            _enter_or_die(home)
    finally:
        os.close(home)


@contextmanager
def inside(fd: int) -> Iterator[None]:
    """The calling thread is in the network namespace `fd` (a namespace or a pidfd) for the block's length.

    Sockets opened inside stay there afterwards; nothing may be awaited inside.
    """
    home = current()
    try:
        syscalls.setns(fd, syscalls.CLONE_NEWNET)
        try:
            yield
        finally:
            _enter_or_die(home)
    finally:
        os.close(home)


def socket_in(fd: int, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket that belongs to the network namespace `fd`. Raises OSError."""
    with inside(fd):
        return socket.socket(family, kind, protocol)


def _enter_or_die(home: int) -> None:
    try:
        syscalls.setns(home, syscalls.CLONE_NEWNET)
    except OSError:
        os.abort()
