"""seccomp's listener: an agent outside is handed the descriptor through which it answers for the container.

The descriptor exists once the filter is in force, and then a call that hands it over may itself wait for the
agent's answer. So a second process, that shares our descriptors and has no filter, sends it, and the two talk
through shared memory, without a call. Source: seccomp_unotify(2); the runtime specification, config-linux,
"Container Process State".
"""

from __future__ import annotations

import _socket
import array
import json
import mmap
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from orchestrator.kernel import rare, syscalls
from orchestrator.kernel.reading import Document, RefusedError

_NEW_LISTENER = 8  # SECCOMP_FILTER_FLAG_NEW_LISTENER
_TSYNC = 1
_PATIENCE = 10.0
_WAITING, _SENT, _FAILED = 0, 1, 2


def wanted(profile: Document) -> bool:
    """Whether any call goes to a listener. Raises RefusedError when there is nobody to listen."""
    actions = [profile.text("defaultAction"), *(rule.text("action") for rule in profile.tables("syscalls"))]
    notifies = "SCMP_ACT_NOTIFY" in actions
    if notifies and not profile.text("listenerPath"):
        raise RefusedError("linux.seccomp: SCMP_ACT_NOTIFY needs a listenerPath")
    if profile.text("defaultAction") == "SCMP_ACT_NOTIFY":
        raise RefusedError("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY would stop the container for good")
    return notifies


def connect(path: str) -> _socket.socket:
    """To the agent. Raises OSError naming the path."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"linux.seccomp.listenerPath {path}: {error.strerror}") from None
    return sock


def told(state: bytes, pid: int, metadata: str) -> bytes:
    """What the agent gets beside the descriptor: the "container process state"."""
    document = json.loads(state)
    return json.dumps(
        {
            "ociVersion": document.get("ociVersion", ""),
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": metadata,
            "state": document,
        }
    ).encode()


def loader(agent: _socket.socket, message: bytes) -> Callable[[bytes, int], None]:
    """What loads a filter and hands its listener to the agent. Raises OSError."""

    def load(program: bytes, flags: int) -> None:
        shared = mmap.mmap(-1, 8)
        child = rare.fork_sharing_files()
        if child == 0:
            _send(shared, agent, message)
        # One thread: there is nobody to synchronize with, and the kernel wants but one of the two.
        fd = syscalls.load_seccomp(program, flags & ~_TSYNC | _NEW_LISTENER)
        struct.pack_into("i", shared, 0, fd)
        # From here on any call may have to wait for the agent, who doesn't know yet.
        deadline = time.monotonic() + _PATIENCE
        while shared[4] == _WAITING and time.monotonic() < deadline:
            pass
        with suppress(OSError):
            os.waitpid(child, 0)
        if shared[4] != _SENT:
            raise OSError(0, "linux.seccomp: the agent did not take the listener")

    return load


def _send(shared: mmap.mmap, agent: _socket.socket, message: bytes) -> NoReturn:
    result = _FAILED
    try:
        parent, fd = os.getppid(), 0
        while not fd and os.getppid() == parent:
            time.sleep(0.0005)
            (fd,) = struct.unpack_from("i", shared, 0)
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [fd]))]
        agent.sendmsg([message], rights, _socket.MSG_NOSIGNAL)
        result = _SENT
    finally:
        shared[4] = result
        os._exit(0)
