"""The control socket's server: one task a connection, one request a connection.

Who may speak: whoever can open the socket (0600 in a 0700 directory) and has our user id or root's
(SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from orchestrator.api import wire
from orchestrator.api.session import Gone, Session
from orchestrator.api.stacks import Stacks, report_bug
from orchestrator.model.codec import CodecError
from orchestrator.model.errors import ExitCode, PystackError

BACKLOG = 128
REQUEST_SECONDS = 10.0

Verb = Callable[[Session, Stacks, dict[str, Any]], Awaitable[None]]


def listen(path: str) -> trio.socket.SocketType:
    """A listening socket at `path`, replacing one that a dead supervisor has left. Hold the lock first."""
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    temporary = f"{path}.new"
    for stale in (temporary, path):
        if os.path.lexists(stale):
            os.unlink(stale)
    old = os.umask(0o177)
    try:
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        bound.bind(temporary)
        bound.listen(BACKLOG)
    finally:
        os.umask(old)
    listener.close()
    os.rename(temporary, path)
    return trio.socket.from_stdlib_socket(bound)


class Server:
    """Counts connections, so that the supervisor does not leave while somebody is being served."""

    def __init__(self, stacks: Stacks, verbs: Mapping[str, Verb]) -> None:
        self._stacks = stacks
        self._verbs = verbs
        self.connections = 0
        self.idle = trio.Event()
        self.idle.set()

    async def serve(self, listener: trio.socket.SocketType) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                connection, _ = await listener.accept()
                if not _is_ours(connection):
                    connection.close()
                    continue
                self.connections += 1
                self.idle = trio.Event()
                nursery.start_soon(self._converse, Session(connection))

    async def _converse(self, session: Session) -> None:
        try:
            with trio.fail_after(REQUEST_SECONDS):
                request = await session.receive()
            await self._answer(session, request)
        except (Gone, trio.TooSlowError, wire.WireError):
            pass
        except Exception as error:
            report_bug(error)
        finally:
            session.close()
            self.connections -= 1
            if not self.connections:
                self.idle.set()

    async def _answer(self, session: Session, request: dict[str, Any]) -> None:
        verb = self._verbs.get(str(request.get("verb")))
        try:
            if verb is None:
                raise PystackError(f"this supervisor does not know the request {request.get('verb')!r}")
            await verb(session, self._stacks, request)
        except PystackError as error:
            await session.end(exit_code=int(error.exit_code), error=error.message, hint=error.hint)
        except (KeyError, TypeError, CodecError) as error:
            await session.end(exit_code=int(ExitCode.FAILED), error=f"request not understood: {error}")
        except ExceptionGroup as group:
            expected, rest = group.split(Gone)
            if rest is not None:
                report_bug(rest)
                await session.end(
                    exit_code=1, error=f"internal error: {rest.exceptions[0]!r}; see supervisor.log"
                )
            elif expected is not None:
                raise Gone from None


def _is_ours(connection: trio.socket.SocketType) -> bool:
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return uid in (0, os.geteuid())
