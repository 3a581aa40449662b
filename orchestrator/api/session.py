"""One client's request, on the server's side: what it sent, and lines back to it."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

import trio

from orchestrator.api import wire

CHUNK = 256 * 1024
SEND_SECONDS = 30.0
"""A client that takes nothing for so long is cut off."""


class Gone(Exception):
    """The client has closed its connection."""


class Session:
    """Owned by one task; `receive` may be called from a second one."""

    def __init__(
        self, connection: trio.socket.SocketType, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._connection = connection
        self._changed = changed
        self.watches = False
        self._lines = wire.Lines()
        self._ready: list[bytes] = []
        self._sending = trio.Lock()
        self.fds: list[int] = []

    def watch(self) -> None:
        """From now on it only wants to hear what happens: nobody needs to stay for its sake."""
        self.watches = True
        self._changed()

    async def receive(self) -> dict[str, Any]:
        """The next message. Raises Gone, or wire.WireError."""
        while not self._ready:
            data = await self._read()
            if not data:
                raise Gone
            self._ready = self._lines.feed(data)
        return wire.decode(self._ready.pop(0))

    async def _read(self) -> bytes:
        space = socket.CMSG_SPACE(wire.FDS_LIMIT * 4)
        try:
            data, ancillary, _, _ = await self._connection.recvmsg(CHUNK, space, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return b""
        for level, kind, rights in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
                self.fds.extend(fds)
        return data

    async def send(self, *messages: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Raises Gone when the client is no longer there or does not read."""
        data = memoryview(b"".join([wire.encode(message) for message in messages]))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        async with self._sending:
            try:
                with trio.fail_after(SEND_SECONDS):
                    while data:
                        sent = await self._connection.sendmsg([data], rights)
                        data, rights = data[sent:], []
            except (OSError, trio.TooSlowError) as error:
                raise Gone from error

    async def end(self, result: Any = None, *, exit_code: int = 0, error: str = "", hint: str = "") -> None:
        """The last message."""
        wrong = {"message": error, "hint": hint} if error else None
        await self.send({"end": {"exit_code": exit_code, "error": wrong, "result": result}})

    def take_fds(self) -> list[int]:
        """The descriptors that came; the caller's from now on."""
        fds, self.fds = self.fds, []
        return fds

    def close(self) -> None:
        for fd in self.take_fds():
            os.close(fd)
        self._connection.close()
