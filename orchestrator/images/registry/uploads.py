"""Blobs and manifests on their way up, resumed where they were cut.

Source: OCI distribution specification 1.1, "Push": one PUT by default; PATCHes when the registry finds that
too large, and for the rest of what was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from orchestrator.images.registry import blame, manifests, ranges, tokens
from orchestrator.images.registry.blame import BrokenAnswerError, DeniedError, NotFoundError, UnavailableError
from orchestrator.images.registry.client import Registry
from orchestrator.images.registry.hosts import Endpoint
from orchestrator.images.registry.transport import Request, Response, follow, same_host
from orchestrator.model.frozen import dataclass

Progress = Callable[[int], None]
"""Gets the bytes that are up."""

_PIECE = 1 << 20
_CHUNK = 64 << 20
_CHUNK_LIMIT = 4 << 30
_RESTARTS = 20
"""However much progress each of them makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """An upload that the registry waits for. `location` is a path of the endpoint, or a URL elsewhere."""

    location: str
    least: int = 0
    """Bytes that a chunk but the last must have (OCI-Chunk-Min-Length)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """The registry has taken the blob from another of its repositories."""


async def exists(registry: Registry, path: str, digest: str) -> bool:
    """Whether a repository has a blob. Raises DeniedError, UnavailableError and the like."""
    place = registry.origin(path)

    async def ask() -> bool:
        request = Request(method="HEAD", url=f"/v2/{place.path}/blobs/{digest}")
        response = await registry.call(place, request, _both(place))
        if response.status == 404:
            return False
        if response.status != 200:
            raise _failure(registry, response, path)
        return True

    return await registry.patiently(ask)


async def begin(registry: Registry, path: str, digest: str, *, source: str = "") -> Begun | Mounted:
    """Start an upload, or have the blob mounted from the repository `source` of the same registry."""
    place = registry.origin(path)
    url = f"/v2/{place.path}/blobs/uploads/"
    scopes = [_both(place)]
    if source:
        there = registry.origin(source).path
        url += f"?{urlencode({'mount': digest, 'from': there})}"
        # The right to read there is part of the token (distribution specification, "Mounting").
        scopes.append(tokens.scope(there, "pull"))

    async def ask() -> Begun | Mounted:
        response = await registry.call(place, Request(method="POST", url=url, content=b""), *scopes)
        if source and response.status == 201:
            return Mounted()
        if response.status != 202:
            raise _failure(registry, response, path)
        least = ranges.length(response.header("oci-chunk-min-length")) or 0
        return Begun(location=_location(place, response), least=min(least, _CHUNK_LIMIT))

    return await registry.patiently(ask)


async def upload(
    registry: Registry,
    path: str,
    digest: str,
    file: Path,
    *,
    begun: Begun | None = None,
    progress: Progress = lambda _: None,
) -> None:
    """Bring a file up as the blob `digest`. Raises DeniedError, UnavailableError and the like."""
    work = _Upload(registry, path, digest, file, progress)
    failed = restarts = best = 0
    while True:
        try:
            return await work.step(begun)
        except UnavailableError as error:
            begun = None
            offset = await work.find_out()
            failed = 1 if offset > best else failed + 1
            best, restarts = max(best, offset), restarts + 1
            delay = registry.patience.delay(
                failed, chance=registry.timing.chance(), retry_after=error.retry_after
            )
            if delay is None or restarts > _RESTARTS:
                raise
            await registry.timing.sleep(delay)


class _Upload:
    """One blob: where it goes and how much of it is there."""

    def __init__(self, registry: Registry, path: str, digest: str, file: Path, progress: Progress) -> None:
        self._registry = registry
        self._path = path
        self._place = registry.origin(path)
        self._digest = digest
        self._file = file
        self._size = file.stat().st_size
        self._progress = progress
        self._location = ""
        self._least = 0
        self._offset = 0
        self._chunked = False

    async def step(self, begun: Begun | None) -> None:
        """Go on until it is all there. Raises UnavailableError when cut: then `find_out`, and again."""
        if not self._location:
            if begun is None or self._chunked or self._offset:
                again = await begin(self._registry, self._path, self._digest)
                assert isinstance(again, Begun), "nothing was to be mounted"
                begun = again
            self._location, self._least, self._offset = begun.location, begun.least, 0
        if not self._offset and not self._chunked:
            response = await self._put(whole=True)
            if response.status != 413:
                return self._finish(response)
            self._chunked, self._location = True, ""
            return await self.step(None)
        while self._offset < self._size:
            await self._patch()
        return self._finish(await self._put(whole=False))

    async def find_out(self) -> int:
        """After a cut: how much the registry has. What it has forgotten begins anew."""
        if not self._location:
            return 0
        try:
            response = await self._registry.call(
                self._place, Request(method="GET", url=self._location), _both(self._place)
            )
        except blame.RegistryError:
            return self._offset
        if response.status not in (200, 204):
            # 404: forgotten. Whatever else it is, the place is not usable.
            if response.status < 500:
                self._location, self._offset = "", 0
            return self._offset
        offset = ranges.uploaded(response.header("range"))
        if response.header("location"):
            self._location = _location(self._place, response)
        if offset > self._size or not offset:
            # A PUT that was cut may leave nothing; a fresh start is the cleanest one then.
            self._location, offset = "", 0
        self._offset = offset
        self._progress(offset)
        return offset

    async def _put(self, *, whole: bool) -> Response:
        parted = "&" if "?" in self._location else "?"
        request = Request(
            method="PUT",
            url=f"{self._location}{parted}{urlencode({'digest': self._digest})}",
            headers={"Content-Type": "application/octet-stream"},
            content=None if whole else b"",
            stream=(lambda: self._pieces(0, self._size)) if whole else None,
            length=self._size if whole else 0,
        )
        return await self._registry.call(self._place, request, _both(self._place))

    async def _patch(self) -> None:
        start = self._offset
        end = min(start + max(_CHUNK, self._least), self._size)
        request = Request(
            method="PATCH",
            url=self._location,
            # No "bytes " and no total: the specification's form, not that of RFC 9110.
            headers={"Content-Type": "application/octet-stream", "Content-Range": f"{start}-{end - 1}"},
            stream=lambda: self._pieces(start, end),
            length=end - start,
        )
        response = await self._registry.call(self._place, request, _both(self._place))
        if response.status == 416:
            raise UnavailableError(f"{self._name}: the registry has another part of it than was thought")
        if response.status == 404:
            self._location = ""
            raise UnavailableError(f"{self._name}: the registry has forgotten the upload")
        if response.status not in (201, 202, 204):
            raise _failure(self._registry, response, self._path)
        self._location = _location(self._place, response)
        self._offset = ranges.uploaded(response.header("range")) or end
        if not start < self._offset <= self._size:
            raise BrokenAnswerError(f"{self._name}: the registry says it has {self._offset} bytes")

    def _finish(self, response: Response) -> None:
        if response.status == 404:
            self._location = ""
            raise UnavailableError(f"{self._name}: the registry has forgotten the upload")
        if response.status not in (200, 201, 204):
            raise _failure(self._registry, response, self._path)
        named = response.header("docker-content-digest")
        if named and named != self._digest:
            raise BrokenAnswerError(f"{self._name}: the registry calls it {named:.80}")
        self._progress(self._size)

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        with open(self._file, "rb", buffering=0) as file:
            file.seek(start)
            sent = start
            while sent < end:
                piece = file.read(min(_PIECE, end - sent))
                if not piece:
                    raise BrokenAnswerError(f"{self._file}: shorter than it was")
                yield piece
                sent += len(piece)
                self._progress(sent)

    @property
    def _name(self) -> str:
        return f"{self._registry.name(self._path, '')}: {self._digest[:19]}"


async def put_manifest(registry: Registry, path: str, reference: str, content: bytes, media_type: str) -> str:
    """Bring up a manifest, after all it names; returns its digest. Raises DeniedError and the like."""
    place = registry.origin(path)
    digest = manifests.digest_of(content)

    async def ask() -> str:
        request = Request(
            method="PUT",
            url=f"/v2/{place.path}/manifests/{reference}",
            headers={"Content-Type": media_type},
            content=content,
        )
        response = await registry.call(place, request, _both(place))
        if response.status not in (200, 201, 202):
            raise _failure(registry, response, path)
        named = response.header("docker-content-digest")
        if named and named != digest:
            raise BrokenAnswerError(
                f"{registry.name(path, reference)}: the registry calls it {named:.80}, it is {digest}",
            )
        return digest

    return await registry.patiently(ask)


def _both(place: Endpoint) -> str:
    return tokens.scope(place.path, "pull", "push")


def _location(place: Endpoint, response: Response) -> str:
    """Where the upload goes on, with its query. On the endpoint itself only the path counts: behind a proxy
    that ends TLS, registries are known to name http.
    """
    given = response.header("location")
    if not given:
        raise BrokenAnswerError(f"{place.host} names no place for the upload")
    # Without a scheme it may still be relative to where the answer came from.
    target = given if same_host(given, place.host) else follow(response.url, given)
    if not same_host(target, place.host):
        return target
    parts = urlsplit(target)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _failure(registry: Registry, response: Response, path: str) -> Exception:
    error = registry.failure(response, f"push to {registry.name(path, '')}")
    if isinstance(error, NotFoundError):
        # Some registries say so to who may not know that it is there, or must make it first.
        return DeniedError(
            f"{error.message}", exit_code=error.exit_code, hint="the registry may want it to be created first"
        )
    return error
