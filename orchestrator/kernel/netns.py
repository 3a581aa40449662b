"""Network namespaces as file descriptors.

A namespace lives as long as somebody holds it open: closing the last descriptor takes its links along, in
the background and in bulk, which is far cheaper than deleting veths one by one.

A thread that enters a namespace comes back, or the process ends: a worker thread left in a container's
namespace would do the next container's work in the wrong place.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from orchestrator.kernel import syscalls

_thread = threading.local()


def current() -> int:
    """A descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@cache
def _own() -> int:
    """The namespace of this process, and so of every thread of it that is not `inside` another."""
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def _and_back() -> Iterator[None]:
    """Whatever namespace the calling thread enters in the block, afterwards it is where it was."""
    nested = getattr(_thread, "away", False)
    home = current() if nested else _own()
    _thread.away = True
    try:
        yield
    finally:
        _thread.away = nested
        _enter_or_die(home)
        if nested:
            os.close(home)


def create() -> int:
    """A descriptor of a new, empty network namespace. Needs CAP_SYS_ADMIN; raises OSError.

    Links that it gets take nobody's word for being a router.
    """
    with _and_back():
        syscalls.unshare(syscalls.CLONE_NEWNET)
        heed_no_routers("default")
        return current()


def heed_no_routers(link: str) -> None:
    """No IPv6 address and no route by router advertisements on this link of the calling thread's namespace
    ("default": on those to come): any neighbour can send them (CVE-2020-13401)."""
    try:
        setting = os.open(f"/proc/sys/net/ipv6/conf/{link}/accept_ra", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # a kernel without IPv6
    try:
        os.write(setting, b"0")
    finally:
        os.close(setting)


@contextmanager
def inside(fd: int) -> Iterator[None]:
    """The calling thread is in the network namespace `fd` (a namespace or a pidfd) for the block's length.

    Sockets opened inside stay there afterwards; nothing may be awaited inside.
    """
    with _and_back():
        syscalls.setns(fd, syscalls.CLONE_NEWNET)
        yield


def socket_in(fd: int, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket that belongs to the network namespace `fd`. Raises OSError."""
    with inside(fd):
        return socket.socket(family, kind, protocol)


def _enter_or_die(home: int) -> None:
    try:
        syscalls.setns(home, syscalls.CLONE_NEWNET)
    except OSError:
        os.abort()
