"""Health checks that need no program in the container: a connection, or a request by HTTP, to its loopback.

No process is made for it. The socket is opened in the container's network namespace, which costs two system
calls, and belongs to it from then on. What answers is hostile: of an answer only the status line is read, so
much of it and for so long as is said here, and shown without what could steer a terminal.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable

import trio

from orchestrator.engines.local import clock
from orchestrator.engines.local.table import Live
from orchestrator.kernel import netns
from orchestrator.model.observation import ProbeResult
from orchestrator.model.sections import HttpProbe, TcpProbe
from orchestrator.model.stack import Healthcheck

TIMED_OUT = -1
LOOPBACK = "127.0.0.1"
HEAD_LIMIT = 16 * 1024
"""Bytes that an answer may take up to its status line, interim answers included."""
SHOWN = 200
CHUNK = 4096


class _AnswerError(Exception):
    """What answered is not what was hoped for."""


Connection = trio.socket.SocketType


async def ask(live: Live, check: Healthcheck) -> ProbeResult:
    """Never raises for what the container does: whoever does not answer rightly has failed."""
    return await answer(lambda: _socket(live), check)


async def answer(connection: Callable[[], Connection], check: Healthcheck) -> ProbeResult:
    """The same over a socket of the caller's making, in whatever network that is."""
    started = clock.now()
    timeout = check.timeout or 30.0
    code, text = TIMED_OUT, f"Health check exceeded timeout ({timeout:g}s)"
    with trio.move_on_after(timeout):
        try:
            code, text = 0, await _ask(connection, check.probe)
        except (OSError, trio.BrokenResourceError, ssl.SSLError, _AnswerError) as error:
            code, text = 1, _words(error)
    return ProbeResult(started=started, ended=clock.now(), exit_code=code, output=text)


def _words(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno:
        return os.strerror(cause.errno)
    return (str(cause) or type(cause).__name__)[:SHOWN]


async def _ask(make: Callable[[], Connection], probe: HttpProbe | TcpProbe | None) -> str:
    """What is told of a success. Raises OSError and its like, and _AnswerError."""
    assert probe is not None
    with make() as connection:
        await connection.connect((LOOPBACK, probe.port))
        if connection.getsockname() == connection.getpeername():
            # Both ends are one socket: nobody listens, and by chance its own port is this one (RFC 9293).
            raise ConnectionRefusedError(errno.ECONNREFUSED, "")
        if isinstance(probe, TcpProbe):
            return f"connected to port {probe.port}"
        stream: trio.abc.Stream = trio.SocketStream(connection)
        if probe.scheme == "https":
            stream = trio.SSLStream(stream, _context(), server_hostname=probe.host, https_compatible=True)
        await stream.send_all(_request(probe))
        status, line = await _status(stream)
    if not probe.lowest <= status <= probe.highest:
        raise _AnswerError(line)
    return line


def _socket(live: Live) -> Connection:
    """Of the network that the container uses: its own, a peer's or the host's. Raises OSError."""
    namespace = live.wires.namespace if live.wires is not None else live.pidfd
    if namespace is None:
        raise ProcessLookupError(errno.ESRCH, "")
    return trio.socket.from_stdlib_socket(netns.socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM))


def _context() -> ssl.SSLContext:
    """Whether it answers is asked, not who it is: certificates of containers are mostly their own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _request(probe: HttpProbe) -> bytes:
    """RFC 9112, 3: path and host were found to be printable and without blanks when they were read."""
    usual = 443 if probe.scheme == "https" else 80
    host = probe.host if probe.port == usual or ":" in probe.host else f"{probe.host}:{probe.port}"
    lines = (
        f"GET {probe.path} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: pystack",
        "Accept: */*",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii")


async def _status(stream: trio.abc.Stream) -> tuple[int, str]:
    """The answer's status and first line. Interim ones (1xx, RFC 9110, 15.2) come before it."""
    head, room = bytearray(), HEAD_LIMIT
    while True:
        line, found, _ = head.partition(b"\n")
        if found:
            status, text = _read(bytes(line))
            if not 100 <= status < 200 or status == 101:
                return status, text
            _, ended, after = head.partition(b"\n\r\n")
            if ended:
                head = after
                continue
        if room < 0:
            raise _AnswerError("no answer follows" if found else "the answer's first line has no end")
        chunk = await stream.receive_some(CHUNK)
        if not chunk:
            raise _AnswerError("the connection was closed without an answer")
        room -= len(chunk)
        head += chunk


def _read(line: bytes) -> tuple[int, str]:
    text = "".join(c if c.isprintable() else "?" for c in line.rstrip(b"\r").decode("latin-1"))[:SHOWN]
    version, _, rest = text.partition(" ")
    code = rest.partition(" ")[0]
    if not version.startswith("HTTP/1.") or not (code.isascii() and code.isdecimal() and len(code) == 3):
        raise _AnswerError(f"this is no answer of HTTP: {text[:60]}")
    return int(code), text
