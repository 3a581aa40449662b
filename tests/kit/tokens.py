"""A token server, as a registry's documentation describes it, that remembers what it was asked."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import jwt
import trustme

from tests.kit.servers import Authority, Server, serving

SERVICE = "registry of the suite"
ISSUER = "tokens of the suite"


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
        self._server: Server | None = None
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
            self._note("POST", form, "", 404)
            self._say(404, {"errors": []})
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
