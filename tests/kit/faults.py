"""A proxy that stands in front of a registry and does what networks and bad registries do.

    with Faults(registry).serving() as faults:
        faults.add(Status(429, retry_after="1"), "/blobs/", times=2)
        faults.add(Cut(after=1000), "/blobs/", times=1)
        ... use faults.host in the place of registry.host ...
        assert faults.count("GET", "/blobs/") == 4

It can also be a registry of its own, which says whatever it is told: `put_manifest`, `put_blob`, `put_image`; and
what a client's HTTP_PROXY or HTTPS_PROXY names. Every request is recorded, with its headers and the bytes sent.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import json
import re
import select
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.kit.archives import CONFIG, LAYER, MANIFEST, Image, dumps
from tests.kit.registries import Authority, Registry, Server, serving

_PIECE = 1 << 16
_HOP = {"connection", "keep-alive", "transfer-encoding", "proxy-connection", "content-length"}


@dataclass(frozen=True, slots=True)
class Status:
    """An error instead of the answer. Without a body it has the form of a registry's."""

    status: int
    retry_after: str = ""
    body: bytes = b""
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Html:
    """A page for people instead of the answer, as gateways have them."""

    status: int = 502
    body: bytes = (
        b"<html><head><title>502</title></head><body><h1>Bad Gateway of the suite</h1></body></html>"
    )


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection is closed before a word is said."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The body ends after so many bytes of it, whatever Content-Length promised. `reset`: by RST."""

    after: int
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Slow:
    """So many bytes a second; before the first byte of the body `wait` seconds."""

    rate: float = 0
    wait: float = 0


@dataclass(frozen=True, slots=True)
class Stall:
    """After so many bytes of the body comes nothing more, and the connection stays."""

    after: int
    seconds: float = 3600


@dataclass(frozen=True, slots=True)
class Spoil:
    """One byte of the body is another; the length is right. Negative: from the end."""

    at: int = -1


@dataclass(frozen=True, slots=True)
class Resize:
    """The body has so many bytes more (zeros) or fewer, and Content-Length agrees with that."""

    by: int


@dataclass(frozen=True, slots=True)
class Length:
    """Content-Length lies by so much about the body, which is whole. Then the connection is closed."""

    by: int


@dataclass(frozen=True, slots=True)
class Endless:
    """The body goes on for ever, with zeros; without a Content-Length, or with the true one."""

    length: bool = False


@dataclass(frozen=True, slots=True)
class Chunked:
    """The body comes without its length, in chunks."""


@dataclass(frozen=True, slots=True)
class Say:
    """Another body, media type, or headers ("" takes one away) in a good answer."""

    body: bytes | None = None
    media_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 0


@dataclass(frozen=True, slots=True)
class Redirect:
    """To another address: `{path}` and `{host}` are this request's, `{number}` counts."""

    to: str
    status: int = 307


@dataclass(frozen=True, slots=True)
class NoRange:
    """Ranges are not known here: always everything, with 200. `wrong`: 206 with another range than asked for."""

    wrong: bool = False


@dataclass(frozen=True, slots=True)
class CutUpload:
    """Only so many bytes of the request's body come through; then all connections are closed."""

    after: int


Fault = (
    Status
    | Html
    | Drop
    | Cut
    | Slow
    | Stall
    | Spoil
    | Resize
    | Length
    | Endless
    | Chunked
    | Say
    | Redirect
    | NoRange
    | CutUpload
)


@dataclass(slots=True, kw_only=True)
class Rule:
    """A fault for requests of `method` ("" for any) whose path and query the pattern is found in."""

    fault: Fault
    path: re.Pattern[str]
    method: str
    skip: int
    times: int | None
    met: int = 0


@dataclass(slots=True, kw_only=True)
class Request:
    """One request that came in. `sent` counts the bytes of the answer's body, `received` those of the request's."""

    method: str
    path: str
    headers: Mapping[str, str]
    at: float
    status: int = 0
    sent: int = 0
    received: int = 0

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.status} {self.sent}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelved:
    """Something that this server answers by itself."""

    content: bytes
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Faults:
    """The proxy. `registry` None: only what was put here is there.

    `authority`: it speaks TLS. `address`: another one of loopback makes it another host.
    """

    def __init__(
        self,
        registry: Registry | None = None,
        *,
        authority: Authority | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.registry = registry
        self.requests: list[Request] = []
        self.rules: list[Rule] = []
        self.shelf: dict[str, Shelved] = {}
        self._authority = authority
        self._address = address
        self._server: Server | None = None
        self._lock = threading.Lock()
        self.over = threading.Event()

    @contextlib.contextmanager
    def serving(self) -> Iterator[Faults]:
        with serving(_Proxy, owner=self, authority=self._authority, address=self._address) as server:
            self._server = server
            try:
                yield self
            finally:
                self.over.set()

    @property
    def port(self) -> int:
        assert self._server
        return self._server.server_address[1]

    @property
    def host(self) -> str:
        return f"{'localhost' if self._address == '127.0.0.1' else self._address}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self._authority else 'http'}://{self.host}"

    def name(self, image: str) -> str:
        return f"{self.host}/{image}"

    # --- what goes wrong ------------------------------------------------------------------------------

    def add(
        self, fault: Fault, path: str = "", *, method: str = "", times: int | None = None, skip: int = 0
    ) -> None:
        """From now on, for `times` requests (None: all) after the first `skip`. Several may fit: all apply."""
        self.rules.append(Rule(fault=fault, path=re.compile(path), method=method, skip=skip, times=times))

    def clear(self) -> None:
        """All goes right again, and nothing was asked."""
        self.rules.clear()
        self.requests.clear()

    def fitting(self, method: str, path: str) -> list[Fault]:
        found = []
        with self._lock:
            for rule in self.rules:
                if rule.method in ("", method) and rule.path.search(path):
                    rule.met += 1
                    if rule.met > rule.skip and (rule.times is None or rule.met <= rule.skip + rule.times):
                        found.append(rule.fault)
        return found

    # --- what was asked -------------------------------------------------------------------------------

    def asked(self, method: str = "", path: str = "") -> list[Request]:
        return [one for one in self.requests if method in ("", one.method) and re.search(path, one.path)]

    def count(self, method: str = "", path: str = "") -> int:
        return len(self.asked(method, path))

    def sent(self, path: str = "") -> int:
        """Bytes of bodies that went out."""
        return sum(one.sent for one in self.asked(path=path))

    # --- what is here ---------------------------------------------------------------------------------

    def put_blob(self, repository: str, content: bytes, *, digest: str = "") -> str:
        """A blob at its digest, or at one that is not its own."""
        digest = digest or _digest(content)
        self.shelf[f"/v2/{repository}/blobs/{digest}"] = Shelved(
            content=content, media_type="application/octet-stream"
        )
        return digest

    def put_manifest(
        self, repository: str, tag: str, content: bytes, media_type: str = MANIFEST, *, digest: str = ""
    ) -> str:
        """A manifest at its tag and its digest. `digest`: what the header says, and where else it is."""
        digest = digest or _digest(content)
        made = Shelved(content=content, media_type=media_type, headers={"Docker-Content-Digest": digest})
        for reference in filter(None, (tag, digest)):
            self.shelf[f"/v2/{repository}/manifests/{reference}"] = made
        return digest

    def put_image(self, name: str, image: Image, *, compress: bool = True) -> str:
        """An image with its blobs at REPOSITORY:TAG; the manifest's digest."""
        repository, _, tag = name.rpartition(":")
        rows = []
        for one in image.layers:
            content = gzip.compress(one, 1, mtime=0) if compress else one
            self.put_blob(repository, content)
            suffix = "+gzip" if compress else ""
            rows.append({"mediaType": LAYER + suffix, "digest": _digest(content), "size": len(content)})
        self.put_blob(repository, image.config)
        head = {"mediaType": CONFIG, "digest": image.id, "size": len(image.config)}
        data = {"schemaVersion": 2, "mediaType": MANIFEST, "config": head, "layers": rows}
        return self.put_manifest(repository, tag, dumps(data))


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class _Closed(Exception):
    """The connection is to be closed without another word."""


@dataclass(slots=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: Iterator[bytes]
    length: int | None
    ending: bool = False
    """Whether the connection is closed after it."""


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120

    server: Server

    @property
    def faults(self) -> Faults:
        owner = self.server.owner
        assert isinstance(owner, Faults)
        return owner

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def __getattr__(self, name: str) -> object:
        if name.startswith("do_"):
            return self._any
        raise AttributeError(name)

    def do_CONNECT(self) -> None:
        self._note()
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as far:
            self.send_response(200)
            self.end_headers()
            _splice(self.connection, far, self.faults.over)
        self.close_connection = True

    def _any(self) -> None:
        request = self._note()
        try:
            self._serve(request)
        except (_Closed, OSError, http.client.HTTPException):
            self.close_connection = True

    def _note(self) -> Request:
        request = Request(
            method=self.command,
            path=self.path,
            headers={name.title(): value for name, value in self.headers.items()},
            at=time.monotonic(),
        )
        self.faults.requests.append(request)
        return request

    def _serve(self, request: Request) -> None:
        wrong = self.faults.fitting(self.command, self.path)
        for fault in wrong:
            if isinstance(fault, Drop):
                raise _Closed
            answer = _instead(fault, self.path, self.headers["Host"] or "", len(self.faults.requests))
            if answer is not None:
                self._drain(request)
                self._give(answer, wrong, request)
                return
        if any(isinstance(fault, NoRange) and not fault.wrong for fault in wrong):
            del self.headers["Range"]
        if any(isinstance(fault, NoRange) and fault.wrong for fault in wrong) and self.headers["Range"]:
            first = int(re.findall(r"\d+", self.headers["Range"])[0])
            self.headers.replace_header("Range", f"bytes={max(first - 1, 0)}-")
        answer = self._shelved()
        if answer is not None:
            self._drain(request)
            self._give(answer, wrong, request)
            return
        with contextlib.closing(self._upstream()) as far:
            self._give(self._forward(far, wrong, request), wrong, request)

    def _drain(self, request: Request) -> None:
        for piece in self._body():
            request.received += len(piece)

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                left = size
                while left:
                    piece = self.rfile.read1(min(left, _PIECE))
                    if not piece:
                        raise _Closed
                    left -= len(piece)
                    yield piece
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read1(min(left, _PIECE))
            if not piece:
                raise _Closed
            left -= len(piece)
            yield piece

    def _shelved(self) -> _Answer | None:
        found = self.faults.shelf.get(urllib.parse.urlsplit(self.path).path)
        if self.path == "/v2/" and self.faults.registry is None:
            found = Shelved(content=b"{}", media_type="application/json")
        if found is None:
            if self.faults.registry is None and not self.path.startswith("http"):
                code = "MANIFEST_UNKNOWN" if "/manifests/" in self.path else "BLOB_UNKNOWN"
                return _json(404, {"errors": [{"code": code, "message": "not on the shelf"}]})
            return None
        content, status = found.content, 200
        headers = [("Content-Type", found.media_type), *found.headers.items()]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and "/blobs/" in self.path:
            first = int(asked[1])
            if first >= len(content):
                return _json(416, {"errors": []})
            headers += [("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")]
            content, status = content[first:], 206
        return _Answer(status, headers, _pieces(content), len(content))

    def _upstream(self) -> http.client.HTTPConnection:
        if self.path.startswith("http://"):
            place = urllib.parse.urlsplit(self.path)
            assert place.hostname
            return http.client.HTTPConnection(place.hostname, place.port, timeout=60)
        registry = self.faults.registry
        assert registry
        if registry.authority:
            context = ssl.create_default_context(cafile=str(registry.authority.ca))
            return http.client.HTTPSConnection("localhost", registry.port, timeout=60, context=context)
        return http.client.HTTPConnection("127.0.0.1", registry.port, timeout=60)

    def _forward(self, far: http.client.HTTPConnection, wrong: list[Fault], request: Request) -> _Answer:
        place = urllib.parse.urlsplit(self.path)
        far.putrequest(
            self.command,
            urllib.parse.urlunsplit(("", "", place.path, place.query, "")) or "/",
            skip_host=True,
            skip_accept_encoding=True,
        )
        for name, value in self.headers.items():
            if name.lower() not in _HOP:
                far.putheader(name, value)
        if self.faults._authority:
            # Else the addresses of uploads would be plain HTTP.
            far.putheader("X-Forwarded-Proto", "https")
        chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if chunked:
            far.putheader("Transfer-Encoding", "chunked")
        elif self.headers.get("Content-Length") is not None:
            far.putheader("Content-Length", self.headers["Content-Length"])
        far.endheaders()
        limit = next((one.after for one in wrong if isinstance(one, CutUpload)), None)
        for whole in self._body():
            piece = whole if limit is None else whole[: limit - request.received]
            if piece:
                far.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            request.received += len(piece)
            if limit is not None and request.received >= limit:
                raise _Closed
        if chunked:
            far.send(b"0\r\n\r\n")
        came = far.getresponse()
        headers = [(name, value) for name, value in came.getheaders() if name.lower() not in _HOP]
        length = came.getheader("Content-Length")
        return _Answer(
            came.status,
            headers,
            iter(lambda: came.read1(_PIECE), b""),
            None if length is None else int(length),
        )

    def _give(self, answer: _Answer, wrong: list[Fault], request: Request) -> None:
        bodiless = self.command == "HEAD" or answer.status in (204, 304)
        if 200 <= answer.status < 300:
            for fault in wrong:
                _worsen(answer, fault)
        chunked = answer.length is None and not bodiless and not answer.ending
        request.status = answer.status
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.length is not None:
            self.send_header("Content-Length", str(answer.length))
        elif chunked:
            self.send_header("Transfer-Encoding", "chunked")
        if answer.ending:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if not bodiless:
            self._send(answer, wrong, request, chunked=chunked)

    def _send(self, answer: _Answer, wrong: list[Fault], request: Request, *, chunked: bool) -> None:
        good = 200 <= answer.status < 300
        cut = next((one for one in wrong if isinstance(one, Cut) and good), None)
        stall = next((one for one in wrong if isinstance(one, Stall) and good), None)
        slow = next((one for one in wrong if isinstance(one, Slow)), None)
        stop = cut.after if cut else stall.after if stall else None
        if slow:
            self.faults.over.wait(slow.wait)
        for whole in answer.body:
            step = len(whole) if slow is None or not slow.rate else max(int(slow.rate / 20), 1)
            for at in range(0, len(whole), step):
                piece = whole[at : at + step]
                if stop is not None:
                    piece = piece[: stop - request.sent]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked and piece else piece)
                request.sent += len(piece)
                if stop is not None and request.sent >= stop:
                    if stall:
                        self.faults.over.wait(stall.seconds)
                    if cut and cut.reset:
                        linger = b"\x01\0\0\0\0\0\0\0"
                        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        self.connection.close()
                    raise _Closed
                if slow and slow.rate and self.faults.over.wait(len(piece) / slow.rate):
                    raise _Closed
        if chunked:
            self.wfile.write(b"0\r\n\r\n")


def _instead(fault: Fault, path: str, host: str, number: int) -> _Answer | None:
    """The answer that a fault gives instead of the registry's."""
    match fault:
        case Status(status, retry_after, body, media_type, more):
            words = {"code": http.client.responses.get(status, "UNKNOWN").upper().replace(" ", "")}
            content = body or dumps({"errors": [{**words, "message": "as the test wants it"}]})
            headers = [("Content-Type", media_type), *more.items()]
            headers += [("Retry-After", retry_after)] if retry_after else []
            return _Answer(status, headers, _pieces(content), len(content))
        case Html(status, body):
            return _Answer(status, [("Content-Type", "text/html")], _pieces(body), len(body))
        case Redirect(to, status):
            where = to.format(path=path, host=host, number=number)
            return _Answer(status, [("Location", where)], iter(()), 0)
        case _:
            return None


def _worsen(answer: _Answer, fault: Fault) -> None:
    """What a fault changes in a good answer's head and body."""
    length = answer.length or 0
    match fault:
        case Say():
            _said(answer, fault)
        case Spoil(at):
            answer.body = _spoilt(answer.body, at if at >= 0 else length + at)
        case Resize(by):
            answer.length = length + by
            answer.body = _exactly(answer.body, answer.length)
        case Length(by):
            answer.length, answer.ending = length + by, True
        case Endless(known):
            answer.body = _endless(answer.body)
            answer.length, answer.ending = (length if known else None), True
        case Chunked():
            answer.length = None
        case Cut() | Stall():
            answer.ending = True
        case _:
            pass


def _json(status: int, data: object) -> _Answer:
    content = json.dumps(data).encode()
    return _Answer(status, [("Content-Type", "application/json")], _pieces(content), len(content))


def _said(answer: _Answer, fault: Say) -> None:
    changed = {name.lower(): value for name, value in fault.headers.items()}
    if fault.media_type:
        changed["content-type"] = fault.media_type
    answer.headers = [row for row in answer.headers if row[0].lower() not in changed]
    answer.headers += [(name, value) for name, value in changed.items() if value]
    answer.status = fault.status or answer.status
    if fault.body is not None:
        answer.body, answer.length = _pieces(fault.body), len(fault.body)


def _pieces(content: bytes) -> Iterator[bytes]:
    return (content[at : at + _PIECE] for at in range(0, len(content), _PIECE))


def _spoilt(body: Iterator[bytes], at: int) -> Iterator[bytes]:
    passed = 0
    for piece in body:
        if passed <= at < passed + len(piece):
            place = at - passed
            yield piece[:place] + bytes([piece[place] ^ 1]) + piece[place + 1 :]
        else:
            yield piece
        passed += len(piece)


def _exactly(body: Iterator[bytes], length: int) -> Iterator[bytes]:
    for piece in body:
        if length <= 0:
            return
        yield piece[:length]
        length -= len(piece)
    while length > 0:
        yield bytes(min(length, _PIECE))
        length -= _PIECE


def _endless(body: Iterator[bytes]) -> Iterator[bytes]:
    yield from body
    while True:
        yield bytes(_PIECE)


def _splice(near: socket.socket, far: socket.socket, over: threading.Event) -> None:
    """Bytes both ways until one side ends."""
    while not over.is_set():
        ready, _, _ = select.select([near, far], [], [], 0.2)
        for one in ready:
            piece = one.recv(_PIECE)
            if not piece:
                return
            (far if one is near else near).sendall(piece)
