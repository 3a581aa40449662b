"""A proxy that stands in front of a registry and does what networks and bad registries do.

    with Faults(registry).serving() as faults:
        faults.add(Status(429, retry_after="1"), "/blobs/", times=2)
        faults.add(Cut(after=1000), "/blobs/", times=1)
        ... use faults.host in the place of registry.host ...
        assert faults.count("GET", "/blobs/") == 4

It can also be a registry of its own, which says whatever it is told: `put_manifest`, `put_blob`, `put_image`. It
takes uploads then, and knows after a break how much it has (docker-registry 2.8 forgets). And it can be what a
client's HTTP_PROXY or HTTPS_PROXY names. Every request is recorded, with its headers and the bytes sent.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.kit.archives import CONFIG, LAYER, MANIFEST, Image, dumps
from tests.kit.registries import Registry
from tests.kit.servers import Authority, Server, serving

PIECE = 1 << 16


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
    peer: int = 0
    """The client's port: the same for requests of one connection."""
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
        self.numbers = itertools.count()
        self.uploads: dict[str, bytearray] = {}
        """Path of an upload -> what has come of it."""
        self._authority = authority
        self._address = address
        self._server: Server | None = None
        self._lock = threading.Lock()
        self.over = threading.Event()

    @contextlib.contextmanager
    def serving(self) -> Iterator[Faults]:
        from tests.kit.proxy import Proxy

        with serving(Proxy, owner=self, authority=self._authority, address=self._address) as server:
            self._server = server
            try:
                yield self
            finally:
                self.over.set()

    @property
    def secure(self) -> bool:
        return self._authority is not None

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
        digest = digest or digest_of(content)
        self.shelf[f"/v2/{repository}/blobs/{digest}"] = Shelved(
            content=content, media_type="application/octet-stream"
        )
        return digest

    def put_manifest(
        self, repository: str, tag: str, content: bytes, media_type: str = MANIFEST, *, digest: str = ""
    ) -> str:
        """A manifest at its tag and its digest. `digest`: what the header says, and where else it is."""
        digest = digest or digest_of(content)
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
            rows.append({"mediaType": LAYER + suffix, "digest": digest_of(content), "size": len(content)})
        self.put_blob(repository, image.config)
        head = {"mediaType": CONFIG, "digest": image.id, "size": len(image.config)}
        data = {"schemaVersion": 2, "mediaType": MANIFEST, "config": head, "layers": rows}
        return self.put_manifest(repository, tag, dumps(data))


def digest_of(content: bytes | bytearray) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
