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
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bcrypt

from tests.kit import family
from tests.kit.archives import Image, docker_save, oci_layout
from tests.kit.patience import patient
from tests.kit.servers import Authority
from tests.kit.tokens import TokenServer


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
    family.SERVERS.add(process.pid)
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
        family.SERVERS.discard(process.pid)


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
