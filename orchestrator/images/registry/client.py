"""Registry: what can be asked of one registry and its mirrors.

    async with open_registry("docker.io", environment) as registry:
        found = await registry.manifest("library/redis", "7")
        source = await registry.source("library/redis", digest, origin=found.endpoint)

Reading goes to the mirrors first and falls through to the registry itself; writing goes to the registry.
Everything that is returned has the digest it was asked by, or the one that the registry named.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from orchestrator.images import reference as references
from orchestrator.images.registry import blame, hosts, manifests, ranges, tokens
from orchestrator.images.registry.backoff import Patience
from orchestrator.images.registry.blame import (
    BrokenAnswerError,
    DeniedError,
    NotFoundError,
    RegistryError,
    UnavailableError,
)
from orchestrator.images.registry.conversation import Conversation
from orchestrator.images.registry.credentials import Credential, Warn
from orchestrator.images.registry.hosts import Endpoint
from orchestrator.images.registry.manifests import Descriptor
from orchestrator.images.registry.tls import Tls
from orchestrator.images.registry.transport import (
    Request,
    Response,
    Timing,
    Transport,
    follow,
)
from orchestrator.model.errors import ExitCode
from orchestrator.model.frozen import dataclass, field

_LIST_LIMIT = 4 << 20
_PAGE_LIMIT = 100
_NAME_LIMIT = 100_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest or index as it came. `endpoint` is who gave it: its blobs are best asked for there."""

    content: bytes
    media_type: str
    digest: str
    etag: str = ""
    endpoint: Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class NotModified:
    """The name still means what it did when its etag was noted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobSource:
    """Where a worker gets a blob from. `headers` hold secrets and are for the URL's own host only."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: Tls = Tls()
    proxy: str = ""
    endpoint: Endpoint

    def __repr__(self) -> str:
        return f"BlobSource(url={self.url!r})"


@asynccontextmanager
async def open_registry(
    host: str,
    environment: Mapping[str, str],
    *,
    warn: Warn = lambda _: None,
    timing: Timing | None = None,
    patience: Patience | None = None,
    etc: Path = Path("/etc"),
    credential: Credential | None = None,
) -> AsyncIterator[Registry]:
    """A registry by the host of its names ("docker.io", "localhost:5000").

    `environment` is that of the user who asks: it names the files of credentials, proxies, certificates.
    `credential` replaces what those files say. Raises UserError for files that are broken.
    """
    settings = hosts.load(environment, etc)
    known = functools.cache(lambda name: hosts.tls_for(settings, name))
    async with Transport(environment, known) as transport:
        yield Registry(
            host,
            settings,
            transport,
            environment=environment,
            warn=warn,
            timing=timing or Timing(),
            patience=patience or Patience(),
            credential=credential,
        )


class Registry(Conversation):
    """See the module. Made by `open_registry`; any number of tasks may use it at once."""

    async def greet(self, *, offline: bool = False) -> str:
        """Show who we are and nothing more. Returns a refresh token, if `offline` asked for one and there is
        such a thing, else "". Raises DeniedError and the like.
        """
        self._tokens.offline = offline
        url = "/v2/"

        async def ask() -> str:
            response = await self.call(self.origin(""), Request(method="GET", url=url))
            if response.status == 404:
                raise BrokenAnswerError(
                    f"{self.host} is not a registry that this program understands: there is no {url}",
                )
            if response.status != 200:
                raise self.failure(response, f"login at {self.host}")
            return self._tokens.refresh

        return await self.patiently(ask)

    # --- manifests --------------------------------------------------------------------------------

    async def manifest(self, path: str, reference: str, *, etag: str = "") -> Manifest | NotModified:
        """The manifest that a tag or digest means; NotModified when it is still the one of `etag`.

        Raises NotFoundError (naming tags that are alike), DeniedError, UnavailableError, BrokenAnswerError.
        """
        headers = {"Accept": manifests.ACCEPT}
        if etag:
            headers["If-None-Match"] = etag
        name = self.name(path, reference)

        async def ask(endpoint: Endpoint) -> Manifest | NotModified:
            response = await self._manifest_request("GET", endpoint, reference, headers, name)
            if response.status == 304 and etag:
                return NotModified()
            return _received(response, endpoint, reference, name)

        try:
            return await self._anywhere(path, ask, digest=references.is_digest(reference))
        except NotFoundError as error:
            if references.is_digest(reference):
                raise
            raise await self._with_near_tags(error, path, reference) from None

    async def head(self, path: str, reference: str) -> Descriptor:
        """What a tag means now, in one small request that Docker Hub does not count. Raises as `manifest`."""
        headers = {"Accept": manifests.ACCEPT}
        name = self.name(path, reference)

        async def ask(endpoint: Endpoint) -> Descriptor:
            response = await self._manifest_request("HEAD", endpoint, reference, headers, name)
            digest = response.header("docker-content-digest")
            size = ranges.length(response.header("content-length"))
            if not references.is_digest(digest) or size is None:
                # Not every registry names it without being asked for the whole.
                got = await self._manifest_request("GET", endpoint, reference, headers, name)
                whole = _received(got, endpoint, reference, name)
                return Descriptor(media_type=whole.media_type, digest=whole.digest, size=len(whole.content))
            if references.is_digest(reference) and digest != reference:
                raise _wrong_digest(name, reference, digest, endpoint)
            return Descriptor(media_type=_kind(response), digest=digest, size=size)

        return await self._anywhere(path, ask, digest=references.is_digest(reference))

    async def _manifest_request(
        self, method: str, endpoint: Endpoint, reference: str, headers: Mapping[str, str], name: str
    ) -> Response:
        request = Request(
            method=method,
            url=f"/v2/{endpoint.path}/manifests/{reference}",
            headers=headers,
            limit=manifests.LIMIT,
        )
        response = await self.call(endpoint, request, tokens.scope(endpoint.path, "pull"))
        self._heed_rate(response)
        if response.status not in (200, 304):
            raise self.failure(response, f"manifest for {name}")
        return response

    # --- blobs ------------------------------------------------------------------------------------

    async def blob(
        self, path: str, descriptor: Descriptor, *, limit: int, origin: Endpoint | None = None
    ) -> bytes:
        """A small blob, whole and verified. Raises as `manifest` does."""
        name = f"{self.name(path, '')}: blob {descriptor.digest[:19]}"
        if descriptor.size > limit:
            raise BrokenAnswerError(f"{name} has {descriptor.size} bytes, too many")

        async def ask(endpoint: Endpoint) -> bytes:
            request = Request(
                method="GET", url=f"/v2/{endpoint.path}/blobs/{descriptor.digest}", limit=descriptor.size
            )
            response = await self.call(endpoint, request, tokens.scope(endpoint.path, "pull"))
            if response.status != 200:
                raise self.failure(response, name)
            if len(response.content) != descriptor.size:
                raise BrokenAnswerError(
                    f"{name} has {len(response.content)} bytes, not {descriptor.size}",
                    exit_code=ExitCode.IMAGE,
                )
            if manifests.digest_of(response.content) != descriptor.digest:
                raise _wrong_digest(name, descriptor.digest, manifests.digest_of(response.content), endpoint)
            return response.content

        return await self._anywhere(path, ask, digest=True, first=origin)

    async def source(self, path: str, digest: str, *, origin: Endpoint | None = None) -> BlobSource:
        """Where a worker finds a large blob; `origin` is who gave the manifest. Sends nothing."""
        endpoint = origin or self._places(path, digest=True)[0]
        header = await self._tokens.header(endpoint, frozenset((tokens.scope(endpoint.path, "pull"),)))
        return self._source(endpoint, digest, header)

    async def renew(self, path: str, source: BlobSource, *, status: int, challenge: str = "") -> BlobSource:
        """Another way to the same blob, after a worker was refused or cut off.

        `status` is what its request got (0: no answer), at the registry and not at the target of a redirect;
        `challenge` the WWW-Authenticate of a 401. What a mirror can't give is asked for at the next place.
        Raises DeniedError, NotFoundError; UnavailableError means: wait (`patience`), and try this again.
        """
        endpoint = source.endpoint
        digest = source.url.partition("?")[0].rpartition("/")[2]
        scopes = frozenset((tokens.scope(endpoint.path, "pull"),))
        name = f"{self.name(path, '')}: blob {digest[:19]}"
        if status == 401 and challenge:
            sent = source.headers.get("Authorization", "")
            known = await self._tokens.header(endpoint, scopes)
            if known and known != sent:
                return self._source(endpoint, digest, known)
            scheme = urlsplit(source.url).scheme
            try:
                header = await self._tokens.answer(endpoint, scheme, challenge, scopes, sent=sent)
            except RegistryError:
                if not endpoint.mirror:
                    raise
                header = ""
            if header:
                return self._source(endpoint, digest, header)
        if endpoint.mirror:
            places = self._places(path, digest=True)
            following = places[places.index(endpoint) + 1] if endpoint in places else places[-1]
            header = await self._tokens.header(following, frozenset((tokens.scope(following.path, "pull"),)))
            return self._source(following, digest, header)
        if status == 0:
            raise UnavailableError(f"{name}: {endpoint.host} broke off")
        raise blame.of_status(status, b"", name, host=self.host)

    def _source(self, endpoint: Endpoint, digest: str, header: str) -> BlobSource:
        url = self._url(endpoint, self._scheme(endpoint), f"/v2/{endpoint.path}/blobs/{digest}")
        return BlobSource(
            url=url,
            headers={"Authorization": header} if header else {},
            tls=self.tls_of(url),
            proxy=self._transport.proxy_of(url),
            endpoint=endpoint,
        )

    def tls_of(self, url: str) -> Tls:
        """Certificates for a URL, such as the target of a redirect."""
        return hosts.tls_for(self._settings, urlsplit(url).netloc.rpartition("@")[2])

    def proxy_of(self, url: str) -> str:
        """The proxy for it, "" for none."""
        return self._transport.proxy_of(url)

    # --- lists ------------------------------------------------------------------------------------

    async def tags(self, path: str, *, pages: int = _PAGE_LIMIT) -> list[str]:
        """The tags of a repository. Raises as `manifest` does."""

        async def ask(endpoint: Endpoint) -> list[str]:
            first = f"/v2/{endpoint.path}/tags/list?n=1000"
            scope = tokens.scope(endpoint.path, "pull")
            return await self._pages(endpoint, first, scope, "tags", f"tags of {self.name(path, '')}", pages)

        return await self._anywhere(path, ask, digest=False)

    async def catalog(self, *, pages: int = _PAGE_LIMIT) -> list[str]:
        """The repositories of the registry. Many public ones don't tell. Raises as `manifest` does."""
        endpoint = self.origin("")
        scope = "registry:catalog:*"
        what = f"list of repositories of {self.host}"
        return await self.patiently(
            lambda: self._pages(endpoint, "/v2/_catalog?n=1000", scope, "repositories", what, pages)
        )

    async def _pages(
        self, endpoint: Endpoint, url: str, scope: str, key: str, what: str, pages: int
    ) -> list[str]:
        found: list[str] = []
        asked: set[str] = set()
        while url and len(asked) < pages and url not in asked and len(found) < _NAME_LIMIT:
            asked.add(url)
            response = await self.call(endpoint, Request(method="GET", url=url, limit=_LIST_LIMIT), scope)
            if response.status != 200:
                raise self.failure(response, what)
            found += _names(response.content, key, what)
            target = ranges.next_page(response.header("link"))
            url = ""
            if target:
                parts = urlsplit(follow(response.url, target))
                # The next page is at the place that was asked, whatever a proxy before it calls itself.
                url = f"{parts.path}?{parts.query}" if parts.query else parts.path
        return found

    async def _with_near_tags(self, error: NotFoundError, path: str, tag: str) -> NotFoundError:
        """A hint with tags that are alike; whatever fails on the way, the error stays what it was."""
        try:
            there = await self.tags(path, pages=1)
        except RegistryError:
            return error
        near = difflib.get_close_matches(tag, there, n=5, cutoff=0.4) or sorted(there)[:5]
        hint = (
            f"tags that are there: {', '.join(near)}{', ...' if len(there) > len(near) else ''}"
            if near
            else ""
        )
        return NotFoundError(error.message, exit_code=error.exit_code, hint=hint)


def _received(response: Response, endpoint: Endpoint, reference: str, name: str) -> Manifest:
    """A manifest whose bytes have the digest that was asked for, or that the registry named."""
    digest = manifests.digest_of(response.content)
    named = response.header("docker-content-digest")
    expected = reference if references.is_digest(reference) else named
    if references.is_digest(expected) and digest != expected:
        raise _wrong_digest(name, expected, digest, endpoint)
    data = manifests.read(response.content, name)
    kind = manifests.kind_of(data, response.header("content-type"), name)
    return Manifest(
        content=response.content,
        media_type=kind,
        digest=digest,
        etag=response.header("etag"),
        endpoint=endpoint,
    )


def _kind(response: Response) -> str:
    return response.header("content-type").partition(";")[0].strip().lower()


def _wrong_digest(name: str, expected: str, digest: str, endpoint: Endpoint) -> BrokenAnswerError:
    return BrokenAnswerError(
        f"{name}: {endpoint.host} sent what has the digest {digest}, not {expected}",
    )


def _names(content: bytes, key: str, what: str) -> list[str]:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = None
    rows = data.get(key) if isinstance(data, dict) else None
    if rows is None and isinstance(data, dict) and key in data:
        return []
    if not isinstance(rows, list):
        raise BrokenAnswerError(f"{what}: the answer is not a list")
    return [row for row in rows if isinstance(row, str) and row.isprintable() and len(row) <= 300]


__all__ = [
    "BlobSource",
    "BrokenAnswerError",
    "DeniedError",
    "Manifest",
    "NotFoundError",
    "NotModified",
    "Registry",
    "UnavailableError",
    "open_registry",
]
