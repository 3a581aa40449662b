"""The body of one blob: from a registry into a file, while the unpacking worker reads behind.

A thread takes bytes from the socket and writes them to the partial file, so the line never waits for the disk
work of unpacking, and what has come is there for the next try. Names are resolved, connections made and
redirects followed in `open`, before the worker is locked in; afterwards only `recv` and `write` are left.

The unpacking worker imports this. Source: RFC 9110 (Range, redirects), OCI distribution specification,
"Pulling blobs".
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from orchestrator.images.registry import ranges, tls
from orchestrator.images.registry.tls import Tls
from orchestrator.model.errors import UserError

PIECE = 1 << 18
REDIRECTS = 5
CONNECT_SECONDS = 30.0
IDLE_SECONDS = 60.0
_BODY_LIMIT = 1 << 16
"""Bytes of an error's body that are kept for its text."""
_TELL_SECONDS = 0.1
_REDIRECTING = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}


class FetchError(Exception):
    """The blob did not come. `kind` is one of

    status   the registry answered with something else (`details`: status, challenge, retry_after, body)
    line     no connection, or one that was cut: worth another try, from where it ended
    trust    TLS failed for a lasting reason
    wrong    what comes is not the blob that was promised
    """

    def __init__(self, kind: str, message: str, **details: object) -> None:
        super().__init__(message)
        self.kind = kind
        self.details = details


class Body:
    """A blob that is arriving in the file `fd`; `size` is how long it must be.

    `source` says where it is: url, headers, tls, proxy (see BlobSource). `elsewhere` gives tls and proxy for
    the target of a redirect, `tell` is called with the bytes in the file now and then.
    """

    def __init__(
        self,
        source: Mapping[str, Any],
        *,
        size: int,
        fd: int,
        tell: Callable[[int], None],
        elsewhere: Callable[[str], Mapping[str, Any]],
    ) -> None:
        self._source = source
        self._elsewhere = elsewhere
        self._moved = False
        self._size = size
        self._fd = fd
        self._tell = tell
        self._response: http.client.HTTPResponse | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._error: FetchError | OSError | None = None
        self._change = threading.Condition()
        self._taken = 0
        here = os.fstat(fd).st_size
        if here > size:
            os.ftruncate(fd, 0)
            here = 0
        self.here = here
        """Bytes in the file."""
        self.resumed = here
        """How many of them were there already."""

    def open(self) -> None:
        """Ask for what is lacking and begin to take it in. Raises FetchError."""
        if self.here == self._size:
            return
        self._request()
        thread = threading.Thread(target=self._receive, daemon=True)
        thread.start()

    def read(self, count: int) -> bytes:
        """The next bytes, in order from the first; b"" at the end. Raises FetchError, OSError."""
        if self._taken >= self._size:
            return b""
        with self._change:
            while self.here <= self._taken:
                if self._error is not None:
                    raise self._error
                if not self._change.wait(_TELL_SECONDS):
                    self._tell(self.here)
            ready = self.here - self._taken
        piece = os.pread(self._fd, min(count, ready), self._taken)
        if not piece:
            raise FetchError("wrong", "the partial file became shorter")
        self._taken += len(piece)
        self._tell(self.here)
        return piece

    # --- asking ----------------------------------------------------------------------------------

    def _request(self) -> None:
        source, self._source = self._source, {}
        url = str(source["url"])
        for _ in range(REDIRECTS + 1):
            response = self._ask(url, source)
            location = response.getheader("Location")
            if response.status in _REDIRECTING and location:
                target = _follow(url, location, allowed=not source["tls"]["verify"])
                if _origin(target) != _origin(url):
                    # What lets us in here is nobody else's business.
                    self._moved = True
                    source = {**self._elsewhere(target), "headers": {}}
                url = target
                continue
            if response.status == 416 and self.here:
                self._forget()
                continue
            self._check(response)
            return
        raise FetchError("wrong", f"more than {REDIRECTS} redirects")

    def _ask(self, url: str, source: Mapping[str, Any]) -> http.client.HTTPResponse:
        self._close()
        host = urlsplit(url).hostname
        sent = {**source["headers"], "Accept-Encoding": "identity", "Connection": "close"}
        if self.here:
            sent["Range"] = f"bytes={self.here}-"
        try:
            connection, target = _connect(url, sent, source)
            connection.request("GET", target, headers=sent)
            response = connection.getresponse()
        except UserError as error:
            raise FetchError("trust", error.message) from None
        except ssl.SSLCertVerificationError as error:
            raise FetchError("trust", f"the certificate of {host}: {error.verify_message}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FetchError("line", f"{host}: {_said(error)}") from None
        self._connection, self._response = connection, response
        return response

    def _check(self, response: http.client.HTTPResponse) -> None:
        """The answer is the blob, or the rest of it, as far as its head can tell."""
        if response.status == 200:
            self._forget()
        elif response.status == 206 and self.here:
            stated = response.getheader("Content-Range", "")
            if not ranges.continues(stated, offset=self.here, size=self._size):
                raise FetchError("wrong", f"asked for bytes {self.here}-, got {stated[:60]!r}")
        else:
            raise FetchError(
                "status",
                f"{response.status} {response.reason[:100]}",
                status=response.status,
                moved=self._moved,
                challenge=", ".join(response.headers.get_all("WWW-Authenticate") or ())[: 16 << 10],
                retry_after=response.getheader("Retry-After", "")[:100],
                body=_start(response),
            )
        length = response.getheader("Content-Length")
        due = self._size - self.here
        if length is not None and ranges.length(length) != due:
            raise FetchError("wrong", f"the registry sends {length[:30]} bytes where {due} belong")

    def _forget(self) -> None:
        """Begin anew: the other side gives all or nothing."""
        os.ftruncate(self._fd, 0)
        self.here = self.resumed = 0

    # --- taking in -------------------------------------------------------------------------------

    def _receive(self) -> None:
        try:
            self._take_all()
        except (FetchError, OSError) as error:
            self._end(error)
        except Exception as error:
            self._end(FetchError("line", f"the line broke: {_said(error)}"))
        finally:
            self._close()

    def _take_all(self) -> None:
        assert self._response is not None
        while True:
            try:
                piece = self._response.read1(PIECE)
            except (OSError, http.client.HTTPException) as error:
                raise FetchError("line", f"the line broke: {_said(error)}") from None
            if not piece:
                break
            if self.here + len(piece) > self._size:
                raise FetchError("wrong", f"more than the {self._size} bytes that belong")
            _write(self._fd, piece, self.here)
            with self._change:
                self.here += len(piece)
                self._change.notify()
            if self.here == self._size and self._response.length is not None:
                return
        if self.here < self._size:
            raise FetchError("line", f"the line broke after {self.here} of {self._size} bytes")

    def _end(self, error: FetchError | OSError) -> None:
        with self._change:
            self._error = error
            self._change.notify()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._response = None


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)


def _connect(
    url: str, sent: dict[str, str], source: Mapping[str, Any]
) -> tuple[http.client.HTTPConnection, str]:
    """A connection to whom to speak to, connected, and what to ask for there. May add to `sent`."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    port = parts.port or _PORTS[parts.scheme]
    target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    via = urlsplit(source["proxy"])
    host, at = (
        (via.hostname, via.port or _PORTS.get(via.scheme, 80)) if via.hostname else (parts.hostname, port)
    )
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        given = source["tls"]
        pairs = tuple((one[0], one[1]) for one in given["pairs"])
        context = tls.context(Tls(**{**given, "pairs": pairs}))
        connection = http.client.HTTPSConnection(host, at, timeout=CONNECT_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(host, at, timeout=CONNECT_SECONDS)
    if via.hostname:
        allowed = _proxy_rights(via.username, via.password)
        if parts.scheme == "https":
            connection.set_tunnel(parts.hostname, port, headers=allowed)
        else:
            sent.update(allowed)
            target = url
    connection.connect()
    assert connection.sock is not None
    connection.sock.settimeout(IDLE_SECONDS)
    return connection, target


def _follow(url: str, location: str, *, allowed: bool) -> str:
    """The target of a redirect. `allowed`: from https to http, too."""
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None:
        raise FetchError("wrong", "a redirect to what is not a web address")
    if urlsplit(url).scheme == "https" and parts.scheme == "http" and not allowed:
        raise FetchError("wrong", f"refused: a redirect from https to http ({parts.hostname})")
    return target


def _proxy_rights(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _start(response: http.client.HTTPResponse) -> str:
    try:
        return response.read(_BODY_LIMIT).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""


def _write(fd: int, piece: bytes, at: int) -> None:
    view = memoryview(piece)
    while view:
        count = os.pwrite(fd, view, at)
        view, at = view[count:], at + count


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return f"no such host ({error.strerror})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, http.client.RemoteDisconnected):
        return "the other side closed the connection"
    return f"not proper HTTP ({type(error).__name__})"
