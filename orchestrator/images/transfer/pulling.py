"""Pulling: from a name to an image in the store.

    async with open_pulling(store, tell=tell) as pulling:
        pulled = await pulling.pull("redis:7", environment=os.environ)

The registry client finds the manifest; each layer that is not here is fetched and unpacked by a worker, all
at once and the largest first, whatever images want it; when all are in, the image becomes visible in one
step. What has arrived stays when something fails or somebody kills us: whole layers, and the beginnings of
others, so that the next pull goes on where this one ended.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import trio

from orchestrator.images import reference as references
from orchestrator.images.layers.unpacking import Limits
from orchestrator.images.layers.workers import Workers
from orchestrator.images.reference import Reference
from orchestrator.images.registry import manifests, platforms, selection
from orchestrator.images.registry.client import NotModified, Registry, open_registry
from orchestrator.images.registry.platforms import Platform
from orchestrator.images.registry.selection import Found
from orchestrator.images.store import repairs
from orchestrator.images.store.content import Store
from orchestrator.images.store.index import NewImage, StoredImage, digest_of
from orchestrator.images.store.leases import Lease
from orchestrator.images.transfer.arriving import Arrivals, Step, Want
from orchestrator.model.errors import ExitCode, PystackError, UserError
from orchestrator.model.frozen import dataclass

_ATTEMPTS = 3

Tell = Callable[[Step], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What came of it: `digest` is what the registry calls it, `fresh` whether anything changed here."""

    name: str
    """Familiar, as users write it."""
    digest: str
    id: str
    fresh: bool
    remark: str = ""


@asynccontextmanager
async def open_pulling(
    store: Store,
    *,
    tell: Tell = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
    limits: Limits | None = None,
    workers: Workers | None = None,
) -> AsyncIterator[Pulling]:
    """What all pulls of one process share. `workers` are the caller's, if it has some: who starts them before
    importing this module has them ready when the first layer comes."""
    ours = Workers() if workers is None else contextlib.nullcontext(workers)
    with _in_thread_order(store) as (lease, work), ours as hands:
        async with AsyncExitStack() as registries, trio.open_nursery() as nursery:
            arrivals = Arrivals(
                store, workers=hands, nursery=nursery, work=work, lease=lease, limits=limits or Limits()
            )
            yield Pulling(store, arrivals, registries, tell=tell, warn=warn, lease=lease, work=work)
            nursery.cancel_scope.cancel()


@contextmanager
def _in_thread_order(store: Store) -> Iterator[tuple[Lease, Path]]:
    with store.lease() as lease, store.scratch() as work:
        yield lease, work


class Pulling:
    """Made by `open_pulling`; any number of tasks may pull at once."""

    def __init__(
        self,
        store: Store,
        arrivals: Arrivals,
        registries: AsyncExitStack,
        *,
        tell: Tell,
        warn: Callable[[str], None],
        lease: Lease,
        work: Path,
    ) -> None:
        self._store = store
        self._arrivals = arrivals
        self._stack = registries
        self._registries: dict[tuple[str, frozenset[tuple[str, str]]], Registry] = {}
        self._opening = trio.Lock()
        self._tell = tell
        self._warn = warn
        self._lease = lease
        self._work = work

    async def _registry(self, host: str, environment: Mapping[str, str]) -> Registry:
        """Opened once for each who asks."""
        key = (host, frozenset(environment.items()))
        async with self._opening:
            if key not in self._registries:
                opened = open_registry(host, environment, warn=self._warn)
                self._registries[key] = await self._stack.enter_async_context(opened)
            return self._registries[key]

    async def tags(self, name: str, *, environment: Mapping[str, str]) -> list[str]:
        """The full names of all tags of a repository. Raises UserError, EngineError."""
        parsed = references.parse(name)
        registry = await self._registry(parsed.host, environment)
        found = await registry.tags(parsed.path)
        if not found:
            raise UserError(f"{parsed.repository} has no tags", exit_code=ExitCode.IMAGE)
        return [f"{parsed.repository}:{tag}" for tag in found]

    async def pull(self, name: str, *, environment: Mapping[str, str], platform: str = "") -> Pulled:
        """Bring the image that a name means, or find that it is here. Raises UserError, EngineError.

        `environment` is that of the user who asks: it says where credentials and proxies are.
        """
        reference = references.parse(name)
        wanted = platforms.parse(platform) if platform else platforms.this_machine()
        try:
            return await self._pull(reference, wanted, environment, strict=bool(platform))
        except PystackError as error:
            # What speaks HTTP knows of hosts, not of images.
            if reference.path not in error.message:
                error.message = f"{reference.familiar}: {error.message}"
            raise

    async def _pull(
        self, reference: Reference, wanted: Platform, environment: Mapping[str, str], *, strict: bool
    ) -> Pulled:
        registry = await self._registry(reference.host, environment)
        asked = reference.digest or reference.tag
        here = self._store.resolve(str(reference))
        if here is not None and self._suits(here, wanted, strict=strict):
            current = await self._unchanged(registry, reference, here)
            if current:
                self._note(reference, current)
                return _pulled(reference, current, here.id, fresh=False)
        answer = await registry.manifest(reference.path, asked)
        assert not isinstance(answer, NotModified)
        found = await selection.find(registry, reference.path, asked, wanted, named=answer, have=self._small)
        if found.remark:
            self._warn(found.remark)
        before = self._store.resolve(str(reference))
        await self._bring(registry, reference, found)
        self._note(reference, found.named.digest, found.named.etag)
        fresh = before is None or before.manifest != found.manifest.digest
        return _pulled(reference, found.named.digest, found.config.id, fresh=fresh)

    def _suits(self, here: StoredImage, wanted: Platform, *, strict: bool) -> bool:
        """Whether all of an image is here, and it is for the right machine."""
        try:
            config = self._store.config(here.id)
            self._store.layers(here.id)
        except UserError:
            return False
        present = Platform(os=config.os or "linux", architecture=config.architecture, variant=config.variant)
        if not config.architecture:
            return not strict
        return platforms.fits(present, wanted)

    async def _unchanged(self, registry: Registry, reference: Reference, here: StoredImage) -> str:
        """The digest that the name still has at the registry, by one small request; "" when it has another.

        A digest means the same for ever, so nobody is asked.
        """
        known = {
            one.rpartition("@")[2] for one in here.repo_digests if one.startswith(f"{reference.repository}@")
        }
        if reference.digest:
            return reference.digest if reference.digest in known else ""
        if not known:
            return ""
        now = await registry.head(reference.path, reference.tag)
        return now.digest if now.digest in known else ""

    def _small(self, digest: str) -> bytes | None:
        """A manifest or config that is here already; its digest is checked again, for it costs nothing."""
        try:
            content = self._store.blob(digest, limit=manifests.LIMIT)
        except UserError:
            return None
        return content if digest_of(content) == digest else None

    async def _bring(self, registry: Registry, reference: Reference, found: Found) -> None:
        name = reference.familiar
        pairs = list(zip(found.image.layers, found.config.diff_ids, strict=True))
        kept = {one.digest for one in found.image.layers} | set(found.config.diff_ids)
        self._lease.keep(
            *kept, found.config.id, found.manifest.digest, *(one.digest for one in found.indexes)
        )
        image = _new_image(reference, found)
        for _ in range(_ATTEMPTS):
            wants = [
                Want(
                    image=name,
                    registry=registry,
                    path=reference.path,
                    digest=layer.digest,
                    size=layer.size,
                    diff_id=diff_id,
                    endpoint=found.manifest.endpoint,
                )
                for layer, diff_id in dict.fromkeys(pairs)
            ]
            await self._arrivals.all_of(wants, self._tell)
            missing = await trio.to_thread.run_sync(self._add, image, found, name)
            if not missing:
                return
        raise UserError(f"{name}: its layers are being removed by somebody else", exit_code=ExitCode.CONFLICT)

    def _add(self, image: NewImage, found: Found, name: str) -> bool:
        """The last step; True when something is missing that was here before. Blocks."""
        small = {found.config.id: found.config_bytes}
        small |= {one.digest: one.content for one in found.indexes}
        blobs = {}
        for digest, content in small.items():
            path = self._work / f"small-{digest[7:]}"
            path.write_bytes(content)
            blobs[digest] = path
        called = {
            diff_id: f"{name}: layer {layer.digest[7:19]}"
            for layer, diff_id in zip(found.image.layers, found.config.diff_ids, strict=True)
        }
        mended = repairs.make_all([found.config.diff_ids], {}, self._store, self._work, called)
        return self._store.add([image], blobs=blobs, layers={}, repairs=mended) is not None

    def _note(self, reference: Reference, digest: str, etag: str = "") -> None:
        self._store.note_pull(str(reference), digest, time.time(), etag)


def _new_image(reference: Reference, found: Found) -> NewImage:
    by_digest = bool(reference.digest)
    return NewImage(
        id=found.config.id,
        manifest=found.manifest.content,
        media_type=found.manifest.media_type,
        names=() if by_digest else (str(reference),),
        diff_ids=found.config.diff_ids,
        blobs=(found.config.id, *dict.fromkeys(layer.digest for layer in found.image.layers)),
        origin=f"{reference.repository}@{found.named.digest}" if by_digest else found.named.digest,
    )


def _pulled(reference: Reference, digest: str, image: str, *, fresh: bool) -> Pulled:
    return Pulled(name=reference.familiar, digest=digest, id=image, fresh=fresh)
