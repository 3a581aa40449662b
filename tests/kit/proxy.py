"""The server behind tests.kit.faults: it forwards, answers by itself, and does what goes wrong."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import select
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler

from tests.kit.archives import dumps
from tests.kit.faults import (
    PIECE,
    Chunked,
    Cut,
    CutUpload,
    Drop,
    Endless,
    Fault,
    Faults,
    Html,
    Length,
    NoRange,
    Redirect,
    Request,
    Resize,
    Say,
    Shelved,
    Slow,
    Spoil,
    Stall,
    Status,
    digest_of,
)
from tests.kit.servers import Server

_HOP = {"connection", "keep-alive", "transfer-encoding", "proxy-connection", "content-length"}


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


class Proxy(BaseHTTPRequestHandler):
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
            peer=self.client_address[1],
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
        if self.faults.registry is None and self.command in ("POST", "PATCH", "PUT", "DELETE"):
            self._give(self._taken(wrong, request), wrong, request)
            return
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
                    piece = self.rfile.read1(min(left, PIECE))
                    if not piece:
                        raise _Closed
                    left -= len(piece)
                    yield piece
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read1(min(left, PIECE))
            if not piece:
                raise _Closed
            left -= len(piece)
            yield piece

    def _shelved(self) -> _Answer | None:
        path = urllib.parse.urlsplit(self.path).path
        if path in self.faults.uploads:
            return _Answer(204, self._place(path), iter(()), None)
        found = self.faults.shelf.get(path)
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

    def _taken(self, wrong: list[Fault], request: Request) -> _Answer:
        """Uploads of blobs and manifests, as the distribution specification has them."""
        place = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(place.query))
        repository, _, rest = place.path.removeprefix("/v2/").partition("/blobs/uploads/")
        if self.command == "POST":
            self._drain(request)
            path = f"{place.path}{next(self.faults.numbers)}"
            self.faults.uploads[path] = bytearray()
            return _Answer(202, self._place(path), iter(()), 0)
        if self.command == "PUT" and not rest:
            content = b"".join(self._received(wrong, request))
            repository, _, reference = repository.rpartition("/manifests/")
            kind = self.headers.get("Content-Type", "")
            digest = self.faults.put_manifest(repository, reference, content, kind)
            return _Answer(201, [("Docker-Content-Digest", digest)], iter(()), 0)
        come = self.faults.uploads.get(place.path)
        if come is None:
            self._drain(request)
            return _json(404, {"errors": [{"code": "BLOB_UPLOAD_UNKNOWN", "message": "not begun"}]})
        if self.command == "DELETE":
            del self.faults.uploads[place.path]
            return _Answer(204, [], iter(()), None)
        first = re.match(r"(\d+)-", self.headers.get("Content-Range", ""))
        if first and int(first[1]) != len(come):
            self._drain(request)
            return _Answer(416, self._place(place.path), iter(()), 0)
        for piece in self._received(wrong, request):
            come += piece
        if self.command == "PATCH":
            return _Answer(202, self._place(place.path), iter(()), 0)
        if digest_of(come) != query.get("digest"):
            return _json(400, {"errors": [{"code": "DIGEST_INVALID", "message": "not what came"}]})
        digest = self.faults.put_blob(repository, bytes(self.faults.uploads.pop(place.path)))
        return _Answer(201, [("Docker-Content-Digest", digest)], iter(()), 0)

    def _place(self, path: str) -> list[tuple[str, str]]:
        """Where an upload goes on, and what has come: Range is inclusive, 0-0 says nothing or one byte."""
        return [("Location", path), ("Range", f"0-{max(len(self.faults.uploads[path]) - 1, 0)}")]

    def _received(self, wrong: list[Fault], request: Request) -> Iterator[bytes]:
        """The request's body, as far as it is let through."""
        limit = next((one.after for one in wrong if isinstance(one, CutUpload)), None)
        for whole in self._body():
            piece = whole if limit is None else whole[: limit - request.received]
            request.received += len(piece)
            yield piece
            if limit is not None and request.received >= limit:
                raise _Closed

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
        if self.faults.secure:
            # Else the addresses of uploads would be plain HTTP.
            far.putheader("X-Forwarded-Proto", "https")
        chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if chunked:
            far.putheader("Transfer-Encoding", "chunked")
        elif self.headers.get("Content-Length") is not None:
            far.putheader("Content-Length", self.headers["Content-Length"])
        far.endheaders()
        for piece in self._received(wrong, request):
            far.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            far.send(b"0\r\n\r\n")
        came = far.getresponse()
        headers = [(name, value) for name, value in came.getheaders() if name.lower() not in _HOP]
        length = came.getheader("Content-Length")
        return _Answer(
            came.status,
            headers,
            iter(lambda: came.read1(PIECE), b""),
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
                # Counted before: who has read it all may ask at once.
                request.sent += len(piece)
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked and piece else piece)
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
    return (content[at : at + PIECE] for at in range(0, len(content), PIECE))


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
        yield bytes(min(length, PIECE))
        length -= PIECE


def _endless(body: Iterator[bytes]) -> Iterator[bytes]:
    yield from body
    while True:
        yield bytes(PIECE)


def _splice(near: socket.socket, far: socket.socket, over: threading.Event) -> None:
    """Bytes both ways until one side ends."""
    while not over.is_set():
        ready, _, _ = select.select([near, far], [], [], 0.2)
        for one in ready:
            piece = one.recv(PIECE)
            if not piece:
                return
            (far if one is near else near).sendall(piece)
