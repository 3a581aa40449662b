"""The host's network, as a supervisor reaches it: its own, or through the porter of an ordinary user."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import trio

from orchestrator.engines.local.places import Places
from orchestrator.kernel import rootless, userns


class Outside:
    """`line` is None where we are in the host's network ourselves."""

    def __init__(self, line: rootless.Line | None) -> None:
        self._line = line

    @property
    def is_elsewhere(self) -> bool:
        """Whether ports must be carried in, and sockets of the host asked for."""
        return self._line is not None

    def listen(self, kind: int, host_ip: str, port: int) -> int:
        """A socket that holds the host's port, listening if it is TCP. Raises OSError."""
        if self._line is not None:
            return self._line.open(socket.AF_INET, kind, (host_ip, port))
        sock = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
        try:
            if kind == socket.SOCK_STREAM:
                # Connections in TIME_WAIT of a former server must not look like a clash; listening keeps
                # others out all the same.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host_ip, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(1)
        except OSError:
            sock.close()
            raise
        return sock.detach()

    async def open(self, family: int, kind: int) -> socket.socket:
        """A non-blocking socket that sends from the host. Raises OSError."""
        if self._line is None:
            return socket.socket(family, kind | socket.SOCK_NONBLOCK)
        # In a thread: whatever the porter does, the answers of others must not wait for it.
        return socket.socket(fileno=await trio.to_thread.run_sync(self._line.open, family, kind))

    def tables(self) -> Path:
        """The directory of the host's tables of sockets (proc_net(5))."""
        if self._line is None:
            return Path("/proc/net")
        try:
            return Path(f"/proc/{self._line.porter()}/net")
        except OSError:
            return Path("/nonexistent")

    def look(self) -> tuple[int, str]:
        """(the lowest port that can be had, what the user has to know about the way out or "")."""
        if self._line is None:
            return 0, ""
        try:
            message, _ = self._line.ask({"op": "look"})
        except OSError:
            return 1024, ""
        port = message.get("first_port")
        return port if isinstance(port, int) else 1024, str(message.get("note", ""))

    def leave(self) -> None:
        """With the last stack."""
        if self._line is not None:
            self._line.leave()


def open_outside(places: Places) -> Outside:
    """Raises OSError when there should be a porter and is none."""
    if userns.is_initial() or not (places.run / "porter.lock").exists():
        return Outside(None)
    return Outside(rootless.Line(str(places.run)))


def why(error: OSError) -> str:
    """Why a port can't be had."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            "an ordinary user may not publish ports below net.ipv4.ip_unprivileged_port_start, "
            "which is 1024 unless set otherwise"
        )
    return error.strerror or str(error)
