"""The control socket's server: one task a connection, one request a connection.

Who may speak: whoever can open the socket (0600 in a 0700 directory) and has our user id or root's
(SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from orchestrator.api import wire
from orchestrator.api.session import Gone, Session
from orchestrator.api.stacks import Stacks
from orchestrator.engines.local.trouble import report
from orchestrator.model.codec import CodecError
from orchestrator.model.errors import ExitCode, PystackError

BACKLOG = 128
REQUEST_SECONDS = 10.0
AFTER_A_REFUSAL = 0.1
DISMISS_SECONDS = 0.2

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
    """Knows who is being served, so that the supervisor does not leave in the middle of something."""

    def __init__(self, stacks: Stacks, verbs: Mapping[str, Verb]) -> None:
        self._stacks = stacks
        self._verbs = verbs
        self._sessions: set[Session] = set()
        self._listener: trio.socket.SocketType | None = None
        self._expected = 0
        self.closing = False
        """The supervisor is leaving: its socket has gone on purpose."""
        self.changed = trio.Event()
        """Set when somebody has come, has gone, or is content to watch."""

    def busy(self, but: Session | None = None) -> bool:
        """Whether somebody is being served, or about to ask. Those who only watch hold nobody up."""
        served = any(not session.watches for session in self._sessions if session is not but)
        return served or self._expected > 0

    async def expect(self, pipe: int) -> None:
        """Who has started us is a guest while it holds the other end of `pipe`, however long it takes to load
        its stack: it lets go when it is connected, or ends.
        """
        self._expected += 1
        try:
            # A pipe's writing end becomes "readable" only by the error that nobody reads it any more.
            await trio.lowlevel.wait_readable(pipe)
        finally:
            self._expected -= 1
            trio.lowlevel.notify_closing(pipe)
            os.close(pipe)
            self._ring()

    def _ring(self) -> None:
        event, self.changed = self.changed, trio.Event()
        event.set()

    async def serve(self, listener: trio.socket.SocketType) -> None:
        self._listener = listener
        with listener:
            async with trio.open_nursery() as nursery:
                while True:
                    try:
                        connection, _ = await listener.accept()
                    except trio.ClosedResourceError:
                        return
                    except OSError as error:
                        report(
                            error
                        )  # no descriptor is free, say: those who are being served give theirs back
                        await trio.sleep(AFTER_A_REFUSAL)
                        continue
                    if not _is_ours(connection):
                        connection.close()
                        continue
                    session = Session(connection, self._ring)
                    self._sessions.add(session)
                    nursery.start_soon(self._converse, session)

    async def close(self) -> None:
        """Serve nobody new. Those who only watch are told that nothing more will come."""
        if self._listener is not None:
            self._listener.close()
        async with trio.open_nursery() as nursery:
            for session in self._sessions:
                if session.watches:
                    nursery.start_soon(_dismiss, session)

    async def _converse(self, session: Session) -> None:
        try:
            with trio.fail_after(REQUEST_SECONDS):
                request = await session.receive()
            await self._answer(session, request)
        except (Gone, trio.TooSlowError, wire.WireError):
            pass
        finally:
            session.close()
            self._sessions.discard(session)
            self._ring()

    async def _answer(self, session: Session, request: dict[str, Any]) -> None:
        verb = self._verbs.get(str(request.get("verb")))
        try:
            if verb is None:
                raise PystackError(f"this supervisor does not know the request {request.get('verb')!r}")
            await verb(session, self._stacks, request)
        except Exception as error:
            await _confess(session, _cause(error))


async def _dismiss(session: Session) -> None:
    with trio.move_on_after(DISMISS_SECONDS), contextlib.suppress(Gone):
        await session.end()


def _cause(error: Exception) -> Exception:
    """The one that matters of a group: a bug before what is expected, and that before a client that left."""
    if not isinstance(error, ExceptionGroup):
        return error
    causes = [_cause(one) for one in error.exceptions]
    return min(causes, key=lambda one: isinstance(one, Gone) * 2 + isinstance(one, PystackError))


async def _confess(session: Session, error: Exception) -> None:
    """Tell the client what went wrong; a bug goes to the log as well, with its traceback."""
    match error:
        case Gone():
            raise error
        case PystackError():
            await session.end(exit_code=int(error.exit_code), error=error.message, hint=error.hint)
        case CodecError():
            await session.end(exit_code=int(ExitCode.FAILED), error=f"request not understood: {error}")
        case _:
            report(error)
            said = f"internal error: {type(error).__name__}: {error}"
            await session.end(exit_code=int(ExitCode.FAILED), error=said, hint="see supervisor.log")


def _is_ours(connection: trio.socket.SocketType) -> bool:
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return uid in (0, os.geteuid())
