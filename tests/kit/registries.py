"""Registries on loopback, started by the suite: Debian's docker-registry, open, with TLS and passwords, with tokens.

    with running(folder) as registry:                     # plain HTTP, open to all
        registry.seed("team/app:1", Image((layer(...),)))   # pushed by skopeo, a client of others' making
        registry.name("team/app:1")                         # localhost:PORT/team/app:1

    running(folder, authority=made(), users={"ann": "secret"})    TLS from a CA of our own, htpasswd (bcrypt)
    running(folder, tokens=tokens)                                token auth; see TokenServer

The fixtures `open_registry`, `secure_registry` and `token_registry` of tests/conftest.py are one each for a whole
session: take a repository of your own (`fresh` makes a name). A registry of a test's own starts in 0.1 s.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import itertools
import json
import os
import signal
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import bcrypt
import jwt
import trustme

from tests.kit.archives import Image, docker_save, oci_layout
from tests.kit.patience import patient

NAMES = ("localhost", "127.0.0.1", "::1")
"""What certificates are made out to."""
SERVICE = "registry of the suite"
ISSUER = "tokens of the suite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A CA of our own, with a server's and a client's certificate; all as PEM files."""

    ca: Path
    certificate: Path
    key: Path
    client_certificate: Path
    client_key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def made(folder: Path) -> Authority:
    """A new CA and its certificates, below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    server, client = authority.issue_cert(*NAMES), authority.issue_cert("client@localhost")
    found = Authority(
        ca=folder / "ca.crt",
        certificate=folder / "server.crt",
        key=folder / "server.key",
        client_certificate=folder / "client.cert",
        client_key=folder / "client.key",
    )
    authority.cert_pem.write_to_path(found.ca)
    for pair, certificate, key in (
        (server, found.certificate, found.key),
        (client, found.client_certificate, found.client_key),
    ):
        for number, part in enumerate(pair.cert_chain_pems):
            part.write_to_path(certificate, append=number > 0)
        pair.private_key_pem.write_to_path(key)
        key.chmod(0o600)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """A registry that runs. `users`: name -> password of those who may come in, empty when all may."""

    port: int
    folder: Path
    authority: Authority | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    tokens: TokenServer | None = None
    pid: int = 0

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.authority else 'http'}://{self.host}"

    @property
    def account(self) -> tuple[str, str] | None:
        """Name and password of the first of its users."""
        return next(iter(self.users.items()), None)

    def name(self, image: str) -> str:
        """A reference as users write it: HOST/REPOSITORY[:TAG]."""
        return f"{self.host}/{image}"

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        account: tuple[str, str] | None = None,
    ) -> Answer:
        """One request, made by Python's own client; `account` (else the first user's) as Basic credentials.

        Registries with tokens are asked with a token for everything.
        """
        more = dict(headers or {})
        account = account or self.account
        if self.tokens is not None:
            more.setdefault("Authorization", f"Bearer {self.tokens.everything(path)}")
        elif account is not None:
            more.setdefault("Authorization", basic(*account))
        connection: http.client.HTTPConnection
        if self.authority:
            context = ssl.create_default_context(cafile=str(self.authority.ca))
            context.load_cert_chain(self.authority.client_certificate, self.authority.client_key)
            connection = http.client.HTTPSConnection("localhost", self.port, timeout=30, context=context)
        else:
            connection = http.client.HTTPConnection("localhost", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=more)
            answer = connection.getresponse()
            return Answer(status=answer.status, headers=answer.headers, body=answer.read())

    def digest(self, image: str) -> str:
        """The digest that a tag has here: REPOSITORY:TAG."""
        repository, _, tag = image.rpartition(":")
        answer = self.ask("GET", f"/v2/{repository}/manifests/{tag}", headers={"Accept": ACCEPT})
        assert answer.status == 200, answer
        return f"sha256:{hashlib.sha256(answer.body).hexdigest()}"

    def manifest(self, image: str) -> dict[str, Any]:
        repository, _, tag = image.rpartition(":")
        answer = self.ask("GET", f"/v2/{repository}/manifests/{tag}", headers={"Accept": ACCEPT})
        assert answer.status == 200, answer
        data = answer.json
        assert isinstance(data, dict)
        return data

    def put_blob(self, repository: str, content: bytes) -> str:
        """Upload a blob by hand; its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        begun = self.ask("POST", f"/v2/{repository}/blobs/uploads/", b"")
        assert begun.status == 202, begun
        place = urllib.parse.urlsplit(begun.headers["Location"])
        query = urllib.parse.urlencode([*urllib.parse.parse_qsl(place.query), ("digest", digest)])
        done = self.ask(
            "PUT", f"{place.path}?{query}", content, headers={"Content-Type": "application/octet-stream"}
        )
        assert done.status == 201, done
        return digest

    def put_manifest(self, image: str, content: bytes, media_type: str) -> str:
        """Upload a manifest by hand, whose blobs are there; its digest."""
        repository, _, tag = image.rpartition(":")
        done = self.ask(
            "PUT", f"/v2/{repository}/manifests/{tag}", content, headers={"Content-Type": media_type}
        )
        assert done.status == 201, done
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    def seed(self, image: str, content: Image | Path, *, oci: bool = True) -> str:
        """Push an image by skopeo, as REPOSITORY:TAG; its digest. A Path is an OCI layout's directory or tar."""
        if isinstance(content, Image):
            path = self.folder / f"{uuid.uuid4().hex}.tar"
            one = Image(content.layers, content.run, ("docker.io/library/seed:1",), content.more)
            path.write_bytes(oci_layout(one) if oci else docker_save(one))
            source = f"oci-archive:{path}" if oci else f"docker-archive:{path}"
        else:
            source = f"oci:{content}" if content.is_dir() else f"oci-archive:{content}"
        self.skopeo("copy", "--all", *self.flags("dest"), source, f"docker://{self.name(image)}")
        if isinstance(content, Image):
            path.unlink()
        return self.digest(image)

    def flags(self, side: str = "") -> list[str]:
        """skopeo's options for this registry as its source ("src"), destination ("dest"), or the only one ("")."""
        prefix = f"--{side}-" if side else "--"
        found = []
        if self.authority:
            found += [f"{prefix}cert-dir", str(self.authority.ca.parent / "certs.d")]
        else:
            found += [f"{prefix}tls-verify=false"]
        if self.account:
            found += [f"{prefix}creds", ":".join(self.account)]
        else:
            found += [f"{prefix}no-creds"]
        return found

    def skopeo(self, *arguments: str) -> str:
        """What skopeo prints. Raises AssertionError with what it says when it fails."""
        if self.authority:
            # Of skopeo's directory: *.crt are CAs, *.cert and *.key a client's pair.
            trusted = self.authority.ca.parent / "certs.d"
            trusted.mkdir(exist_ok=True)
            for one in (self.authority.ca, self.authority.client_certificate, self.authority.client_key):
                (trusted / one.name).write_bytes(one.read_bytes())
        return skopeo(*arguments)

    def repositories(self) -> list[str]:
        names = self.ask("GET", "/v2/_catalog?n=1000").json["repositories"]
        assert isinstance(names, list)
        return names

    def blob(self, digest: str) -> Path:
        """A blob's file in the registry's own storage: whoever writes to it makes the registry lie."""
        kind, _, text = digest.partition(":")
        return self.folder / "data/docker/registry/v2/blobs" / kind / text[:2] / text / "data"

    def log(self) -> list[str]:
        """Lines of its access log: `METHOD PATH STATUS` and more."""
        return (self.folder / "log").read_text(errors="replace").splitlines()


ACCEPT = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)
_numbers = itertools.count(1)


def fresh(word: str = "kit") -> str:
    """A repository's name that no other test of the session has."""
    return f"{word}/{os.getpid()}-{next(_numbers)}"


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def skopeo(*arguments: str) -> str:
    """What skopeo prints. Raises AssertionError with what it says when it fails."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            ["skopeo", "--insecure-policy", *arguments],
            capture_output=True,
            text=True,
            timeout=patient(60),
            env={**os.environ, "HOME": home, "XDG_RUNTIME_DIR": home, "no_proxy": "*"},
        )
    assert done.returncode == 0, f"skopeo {' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def running(
    folder: Path,
    *,
    authority: Authority | None = None,
    users: Mapping[str, str] | None = None,
    tokens: TokenServer | None = None,
    client_certificates: bool = False,
    deletes: bool = True,
    mirror_of: str = "",
) -> Iterator[Registry]:
    """A registry with all its files below `folder`; gone when the block ends.

    `client_certificates`: it demands one of the authority's. `mirror_of`: a URL that it fetches from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data")},
            "delete": {"enabled": deletes},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": "127.0.0.1:0", "relativeurls": False, "secret": "of the suite"},
    }
    if authority:
        data["http"]["tls"] = {"certificate": str(authority.certificate), "key": str(authority.key)}
        if client_certificates:
            data["http"]["tls"]["clientcas"] = [str(authority.ca)]
    if tokens:
        data["auth"] = {"token": tokens.configuration()}
    elif users:
        rows = (f"{name}:{_hashed(password)}\n" for name, password in users.items())
        (folder / "htpasswd").write_text("".join(rows))
        data["auth"] = {"htpasswd": {"realm": "suite", "path": str(folder / "htpasswd")}}
    if mirror_of:
        data["proxy"] = {"remoteurl": mirror_of}
    (folder / "config.json").write_text(json.dumps(data))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    with (folder / "log").open("wb") as log:
        # JSON is YAML, which is what it wants.
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "config.json")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**environ, "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        yield Registry(
            port=_port(process, folder / "log"),
            folder=folder,
            authority=authority,
            users=users or (tokens.users if tokens else {}),
            tokens=tokens,
            pid=process.pid,
        )
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Where it listens: the kernel's choice, read from the table of sockets."""
    deadline = time.monotonic() + patient(20)
    while time.monotonic() < deadline:
        for port in _listening(process.pid):
            return port
        if process.poll() is not None:
            break
        time.sleep(0.005)
    raise RuntimeError(f"docker-registry does not start:\n{log.read_text()[-2000:]}")


def _listening(pid: int) -> Iterator[int]:
    inodes = set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(link))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
            yield int(fields[1].rpartition(":")[2], 16)


# --- tokens -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """What a client asked of the token server, and what it got."""

    method: str
    service: str
    scopes: tuple[str, ...]
    user: str
    """"" for nobody."""
    grant_type: str
    client_id: str
    status: int
    headers: Mapping[str, str]


class TokenServer:
    """Gives out tokens as a registry's documentation describes it, over GET with Basic and over POST (OAuth 2).

    Users may pull and push everything, except what begins with `private-` (only the user of that name); nobody
    may pull what begins with `public/`. Set `lifetime` (seconds; the registry allows 60 more), `post` (whether
    POST is known), `refuse` (a status for everybody) at any time.
    """

    def __init__(self, users: Mapping[str, str] | None = None) -> None:
        self.users = dict(users or {})
        self.reset()
        self.refresh = {f"refresh-{uuid.uuid4().hex}": name for name in self.users}
        """Identity token -> whose it is."""
        self._authority = trustme.CA()
        # Of the registry's version: only keys with a chain in x5c down from its bundle are believed.
        self._leaf = self._authority.issue_cert("tokens.localhost")
        self._server: ThreadingHTTPServer | None = None
        self._folder: Path | None = None

    def reset(self) -> None:
        """As on the first day."""
        self.requests: list[TokenRequest] = []
        self.lifetime = 300
        self.post = True
        self.refuse = 0
        self.named = "token"
        """The field of the answer that bears the token: `token` or `access_token`."""

    @contextlib.contextmanager
    def serving(self, folder: Path, authority: Authority | None = None) -> Iterator[TokenServer]:
        folder.mkdir(parents=True, exist_ok=True)
        self._authority.cert_pem.write_to_path(folder / "tokens.crt")
        self._folder = folder
        with serving(_Tokens, owner=self, authority=authority) as server:
            self._server = server
            self._scheme = "https" if authority else "http"
            yield self

    @property
    def realm(self) -> str:
        assert self._server
        return f"{self._scheme}://localhost:{self._server.server_address[1]}/token"

    def configuration(self) -> dict[str, str]:
        return {
            "realm": self.realm,
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": f"{self._folder}/tokens.crt",
        }

    def scopes(self) -> list[tuple[str, ...]]:
        """What was asked for, in order."""
        return [one.scopes for one in self.requests]

    def everything(self, path: str) -> str:
        """A token for whatever the path of a request may need."""
        repository = path.removeprefix("/v2/")
        for word in ("/manifests/", "/blobs/", "/tags/"):
            repository = repository.partition(word)[0]
        rows = [{"type": "repository", "name": repository, "actions": ["pull", "push", "delete"]}]
        return self.token("", [*rows, {"type": "registry", "name": "catalog", "actions": ["*"]}], 300)

    def token(self, user: str, access: Sequence[Mapping[str, object]], lifetime: int) -> str:
        now = int(time.time())
        chain = [
            base64.b64encode(ssl.PEM_cert_to_DER_cert(part.bytes().decode())).decode()
            for part in self._leaf.cert_chain_pems
        ]
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": SERVICE,
            "exp": now + lifetime,
            "nbf": now - 200,
            "iat": now,
            "jti": uuid.uuid4().hex,
            "access": list(access),
        }
        key = self._leaf.private_key_pem.bytes()
        return jwt.encode(claims, key, algorithm="ES256", headers={"x5c": chain, "typ": "JWT"})

    def granted(self, user: str, scope: str) -> dict[str, object]:
        """What of a scope a user gets."""
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        wanted = [one for one in actions.split(",") if one]
        private = name.partition("/")[0].removeprefix("private-")
        if kind == "repository" and name.startswith("private-"):
            got = wanted if user == private else []
        elif user:
            got = wanted
        else:
            got = [one for one in wanted if one == "pull" and name.startswith("public/")]
        return {"type": kind, "name": name, "actions": got}


class _Tokens(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    server: Server

    @property
    def tokens(self) -> TokenServer:
        owner = self.server.owner
        assert isinstance(owner, TokenServer)
        return owner

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        place = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(place.query)
        name, known = self._user()
        self._grant("GET", query, name, refused=not known)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        form = urllib.parse.parse_qs(body)
        one = {key: values[0] for key, values in form.items()}
        if not self.tokens.post:
            self._say(404, {"errors": []})
            self._note("POST", form, "", 404)
            return
        user = ""
        if one.get("grant_type") == "password":
            good = self.tokens.users.get(one.get("username", "")) == one.get("password")
            user = one.get("username", "") if good else ""
        elif one.get("grant_type") == "refresh_token":
            user = self.tokens.refresh.get(one.get("refresh_token", ""), "")
        self._grant("POST", form, user, refused=not user)

    def _user(self) -> tuple[str, bool]:
        """Whose credentials these are, and whether they are right; nobody's are."""
        head = self.headers.get("Authorization", "")
        if not head:
            return "", True
        with contextlib.suppress(ValueError):
            text = base64.b64decode(head.removeprefix("Basic ")).decode()
            name, _, password = text.partition(":")
            if self.tokens.users.get(name) == password:
                return name, True
        return "", False

    def _grant(self, method: str, query: dict[str, list[str]], user: str, *, refused: bool) -> None:
        if self.tokens.refuse or refused:
            status = self.tokens.refuse or 401
            self._note(method, query, user, status)
            words = {"code": "UNAUTHORIZED", "message": "authentication required: who are you?"}
            self._say(status, {"errors": [words]})
            return
        scopes = _scopes(query)
        access = [self.tokens.granted(user, one) for one in scopes]
        token = self.tokens.token(user, access, self.tokens.lifetime)
        data: dict[str, object] = {self.tokens.named: token, "expires_in": max(self.tokens.lifetime, 1)}
        if method == "POST":
            data["access_token"] = token
            data["scope"] = " ".join(scopes)
        if user and (method == "POST" or query.get("offline_token") == ["true"]):
            data["refresh_token"] = next(key for key, name in self.tokens.refresh.items() if name == user)
        self._note(method, query, user, 200)
        self._say(200, data)

    def _note(self, method: str, query: dict[str, list[str]], user: str, status: int) -> None:
        self.tokens.requests.append(
            TokenRequest(
                method=method,
                service=query.get("service", [""])[0],
                scopes=_scopes(query),
                user=user,
                grant_type=query.get("grant_type", [""])[0],
                client_id=query.get("client_id", [""])[0],
                status=status,
                headers=dict(self.headers.items()),
            )
        )

    def _say(self, status: int, data: object) -> None:
        content = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _scopes(query: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    return tuple(one for row in query.get("scope", ()) for one in row.split(" ") if one)


# --- servers of our own -----------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    owner: object = None

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is what the tests are about."""


@contextlib.contextmanager
def serving(
    handler: type[BaseHTTPRequestHandler],
    *,
    owner: object = None,
    authority: Authority | None = None,
    address: str = "127.0.0.1",
) -> Iterator[Server]:
    """A server in threads of this process, at a port of the kernel's choice."""
    server = Server((address, 0), handler)
    server.owner = owner
    if authority:
        # The handshake is for the connection's own thread, else one slow client stops all.
        server.socket = authority.server_context().wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
