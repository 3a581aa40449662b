"""The one door to httpx: a request goes out, its redirects are followed, a bounded answer comes back.

Connections are kept and used again. Of httpx only the transport is used: its client would add cookies,
netrc and redirect rules of its own.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Self
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx
import trio

from orchestrator import __version__
from orchestrator.images.registry import tls as certificates
from orchestrator.images.registry.blame import BrokenAnswerError, UnavailableError, UntrustedError
from orchestrator.images.registry.proxies import proxy_for
from orchestrator.images.registry.tls import Tls
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass, field

REDIRECT_LIMIT = 5
ERROR_LIMIT = 64 << 10
_TIMEOUTS = {"connect": 15.0, "read": 60.0, "write": 60.0, "pool": 60.0}
_THINKING = 300.0
"""Seconds to wait for an answer to what changes something: a registry may read all of a blob again."""
_WHOLE = 120.0
"""Seconds for one whole answer: a server that sends a byte a minute is no server."""
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_SAFE = frozenset(("GET", "HEAD"))
_CONNECTIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Time and chance, so that tests can have their own."""

    sleep: Callable[[float], Awaitable[None]] = trio.sleep
    chance: Callable[[], float] = random.random
    now: Callable[[], float] = time.time
    """Of day; for Retry-After dates."""
    clock: Callable[[], float] = time.monotonic
    """For what lasts a while, such as tokens."""


Body = Callable[[], Iterator[bytes]]
"""Makes a body anew each time, since a request may be sent twice. Iterating may read a file, no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`limit` is how many bytes the body of a good answer may have."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    stream: Body | None = None
    length: int = 0
    """Of `stream`."""
    limit: int = 1 << 20
    private: bool = False
    """The body holds a secret: no redirect takes it to another host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """`headers` by lower-case name; several of one name are joined by commas."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    url: str
    """Where it came from in the end."""
    moved: bool = False
    """Whether that is another host than the one that was asked."""

    def header(self, name: str) -> str:
        return self.headers.get(name, "")


class NotSpokenError(UntrustedError):
    """TLS is not what is spoken there: whoever may use plain http can go on with that."""


class BrokenOffError(UnavailableError):
    """The connection stood, and ended before there was an answer."""


class Transport:
    """Connections to any number of hosts. `tls_of` says what is known of host[:port]."""

    def __init__(self, environment: Mapping[str, str], tls_of: Callable[[str], Tls]) -> None:
        self._environment = environment
        self._tls_of = tls_of
        self._open: dict[tuple[Tls | None, str], httpx.AsyncHTTPTransport] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
            await self._stack.aclose()

    async def send(self, request: Request) -> Response:
        """One exchange with its redirects. Raises what blame.RegistryError lists, UserError for bad settings.

        Authorization goes to the host it was made for and to no other (the distribution specification demands
        it, and signed URLs of storage break with it), and never from https to http.
        """
        url, headers, moved = request.url, dict(request.headers), False
        for _ in range(REDIRECT_LIMIT + 1):
            response = await self._exchange(request, url, headers, moved=moved)
            target = _redirect(request, response)
            if not target:
                return response
            if origin(target) != origin(url):
                if request.private:
                    raise BrokenAnswerError(
                        f"{_where(url)} sends us to another host with a secret, which is refused",
                    )
                moved = True
                headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
            url = target
        raise BrokenAnswerError(
            f"{_where(request.url)}: more than {REDIRECT_LIMIT} redirects",
        )

    async def _exchange(
        self, request: Request, url: str, headers: Mapping[str, str], *, moved: bool
    ) -> Response:
        door = await self._door(url)
        given: dict[str, str] = {
            "User-Agent": f"pystack/{__version__}",
            "Accept-Encoding": "identity",
            **headers,
        }
        if request.stream is not None:
            # httpx fills these in only for bodies that it knows whole.
            given["Content-Length"] = str(request.length)
            given["Host"] = urlsplit(url).netloc.rpartition("@")[2]
        stream = None if request.stream is None else _Outgoing(request.stream())
        asking = request.method in _SAFE
        timeouts = _TIMEOUTS if asking else {**_TIMEOUTS, "read": _THINKING}
        deadline = _WHOLE if asking else float("inf")
        try:
            with trio.fail_after(deadline):
                made = httpx.Request(
                    request.method,
                    url,
                    headers=given,
                    content=request.content,
                    stream=stream,
                    extensions={"timeout": timeouts},
                )
                answer = await door.handle_async_request(made)
                try:
                    body = await _read(answer, request, url)
                finally:
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
                        await answer.aclose()
        except (httpx.TransportError, trio.TooSlowError) as error:
            raise _translate(error, url) from error
        except (httpx.InvalidURL, UnicodeError, httpx.ProtocolError) as error:
            # Without the path: that of a redirect may hold a signature.
            raise BrokenAnswerError(f"{_where(url)[:100]!r} is no host that can be asked: {error}") from None
        names = {name.lower(): value for name, value in answer.headers.items()}
        return Response(status=answer.status_code, headers=names, content=body, url=url, moved=moved)

    async def _door(self, url: str) -> httpx.AsyncHTTPTransport:
        parts = urlsplit(url)
        tls = self._tls_of(parts.netloc.rpartition("@")[2]) if parts.scheme == "https" else None
        proxy = proxy_for(url, self._environment)
        known = self._open.get((tls, proxy))
        if known is None:
            context = certificates.context(tls) if tls is not None else False
            try:
                if proxy and not urlsplit(proxy).hostname:
                    raise ValueError
                door = httpx.AsyncHTTPTransport(
                    verify=context,
                    trust_env=False,
                    proxy=proxy or None,
                    limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
                )
            except (ValueError, ImportError, httpx.InvalidURL):
                raise UserError(
                    f"the proxy {_without_secret(proxy)} can't be used: only http and https proxies can be"
                ) from None
            known = self._open[tls, proxy] = door
            await self._stack.enter_async_context(door)
        return known

    def proxy_of(self, url: str) -> str:
        """The proxy that a worker must take for a URL, "" for none."""
        return proxy_for(url, self._environment)


def origin(url: str) -> tuple[str, str, int | None]:
    """What may share credentials: scheme, host and port (RFC 6454)."""
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or usual


def same_host(url: str, host: str) -> bool:
    """Whether a URL is one of host[:port], however it is written."""
    if "://" not in url:
        return False
    try:
        return origin(url)[1:] == origin(f"{urlsplit(url).scheme}://{host}")[1:]
    except ValueError:
        return False


def _redirect(request: Request, response: Response) -> str:
    """Where an answer sends us on, "" for nowhere."""
    location = response.header("location")
    if response.status not in _REDIRECTS or not location:
        return ""
    if request.method not in _SAFE and response.status not in (307, 308):
        return ""
    return follow(response.url, location)


def follow(url: str, location: str) -> str:
    """The target of a Location header. Raises BrokenAnswerError for one that must not be followed."""
    try:
        parts = urlsplit(urljoin(url, location))
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BrokenAnswerError(f"{_where(url)} redirects to what is not a web address")
    if parts.scheme == "http" and urlsplit(url).scheme == "https":
        raise BrokenAnswerError(
            f"{_where(url)} redirects from https to plain http ({parts.hostname}), which is refused",
        )
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))


class _Outgoing(httpx.AsyncByteStream):
    """A body on its way. No generator: a connection that breaks would leave it unfinished."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


async def _read(answer: httpx.Response, request: Request, url: str) -> bytes:
    # Read to the end even when nothing can come (HEAD): only then is the connection used again.
    failed = answer.status_code >= 300
    limit = ERROR_LIMIT if failed else request.limit
    body = bytearray()
    assert isinstance(answer.stream, httpx.AsyncByteStream)
    pieces = aiter(answer.stream)
    async for chunk in pieces:
        body += chunk
        if len(body) > limit:
            await answer.aclose()
            # Generators that are not exhausted would be told of as leaks; closed ones end at once.
            with contextlib.suppress(Exception):
                async for _ in pieces:
                    pass
            if failed:
                return bytes(body[:limit])
            raise BrokenAnswerError(
                f"{_where(url)} sends more than the {_amount(limit)} that are read of such an answer",
            )
    return bytes(body)


def _translate(error: Exception, url: str) -> UserError | UnavailableError:
    where = _where(url)
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return UntrustedError(
                f"{where}: certificate not trusted: {cause.verify_message or cause.reason}",
                exit_code=ExitCode.IMAGE,
                hint=f"put the certificate of its authority into {_certificates(url)}, "
                "or declare the host insecure (docs/registries.md)",
            )
        if isinstance(cause, ssl.SSLError) and not isinstance(
            cause, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
        ):
            reason = cause.reason or str(cause)
            if reason in (
                "WRONG_VERSION_NUMBER",
                "HTTP_REQUEST",
                "RECORD_LAYER_FAILURE",
                "PACKET_LENGTH_TOO_LONG",
            ):
                return NotSpokenError(
                    f"{where} speaks plain http, not https",
                    exit_code=ExitCode.IMAGE,
                    hint="declare the host insecure if that is meant (docs/registries.md)",
                )
            needs = "CERTIFICATE" in reason
            return UntrustedError(
                f"{where}: TLS failed: {reason.lower().replace('_', ' ')}",
                exit_code=ExitCode.IMAGE,
                hint=f"a certificate to show goes into {_certificates(url)[:-6]}client.cert and client.key"
                if needs
                else "",
            )
    if isinstance(error, httpx.TimeoutException | trio.TooSlowError):
        return UnavailableError(f"{where}: no answer in time")
    if isinstance(error, httpx.ProxyError):
        return UnavailableError(f"{where}: the proxy refuses: {str(error)[:200]}")
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError):
        return BrokenOffError(f"{where}: the connection broke")
    for cause in reversed(causes):
        if isinstance(cause, socket.gaierror):
            lasting = cause.errno in (socket.EAI_NONAME, socket.EAI_FAIL)
            return UnavailableError(f"{where}: {cause.strerror}", passing=not lasting)
        if isinstance(cause, OSError) and cause.errno:
            return UnavailableError(f"{where}: {os.strerror(cause.errno)}")
    return UnavailableError(f"{where}: {str(error)[:200] or type(error).__name__}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, outermost first."""
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        one = queue.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        queue += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            queue += one.exceptions


def _where(url: str) -> str:
    """Host and port; paths of redirects hold signatures, which are secrets."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _certificates(url: str) -> str:
    return f"/etc/containers/certs.d/{_where(url)}/ca.crt"


def _without_secret(url: str) -> str:
    """A URL as it may be shown; one that can't be read is not taken apart."""
    scheme, parted, rest = url.partition("://")
    return f"{scheme}{parted}{rest.rpartition('@')[2]}"


def _amount(count: int) -> str:
    return f"{count >> 20} MiB" if count >> 20 else f"{count >> 10} KiB"
