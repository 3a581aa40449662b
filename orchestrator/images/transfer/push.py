"""Push: an image's blobs and manifest go to a registry, exactly as they are kept here.

Blobs go side by side, each only if the registry lacks it; one that another repository of the same registry
has is mounted from there. The manifest goes last, so that what is visible is whole; its bytes are those that
came with pull or load, so its digest is the same everywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import trio

from orchestrator.images import reference as references
from orchestrator.images.reference import Reference
from orchestrator.images.registry import manifests, uploads
from orchestrator.images.registry.client import Registry, open_registry
from orchestrator.images.registry.manifests import Descriptor, ImageManifest
from orchestrator.images.store.content import Store
from orchestrator.images.store.index import StoredImage
from orchestrator.images.store.leases import Lease
from orchestrator.images.transfer import packing
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass

AT_ONCE = 5
"""Uploads side by side, as with docker push."""
_SOURCES = 3
"""Repositories that a blob is asked for from, before it is sent."""

State = Literal["compressing", "waiting", "pushing", "pushed", "exists", "mounted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What became of a layer. `detail` is the repository it was mounted from."""

    digest: str
    state: State
    sent: int = 0
    size: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """A tag is there. `size` is that of its manifest."""

    tag: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    tag: str
    content: bytes
    media_type: str
    manifest: ImageManifest


Report = Callable[[Layer | Pushed], None]


def chosen(store: Store, name: str, *, all_tags: bool) -> tuple[Reference, dict[str, StoredImage]]:
    """What a name asks to push: its repository and images by tag. Raises UserError in Docker's words."""
    reference = references.parse(name)
    if reference.digest:
        raise UserError("cannot push a digest reference", exit_code=ExitCode.IMAGE, hint="push a tag")
    if not all_tags:
        image = store.resolve(str(reference))
        if image is None or str(reference) not in image.names:
            raise UserError(
                f"An image does not exist locally with the tag: {reference.familiar}",
                exit_code=ExitCode.IMAGE,
                hint="`pystack images` lists what is there, `pystack tag IMAGE NAME` gives one this name",
            )
        return reference, {reference.tag: image}
    last = name.rpartition("/")[2]
    if ":" in last:
        raise UserError("tag can't be used with --all-tags/-a", exit_code=ExitCode.USAGE)
    found = {
        one.tag: image
        for image in store.images()
        for one in map(references.parse, image.names)
        if one.repository == reference.repository and one.tag
    }
    if not found:
        shown = references.familiar_repository(reference.host, reference.path)
        raise UserError(f"An image does not exist locally with the tag: {shown}", exit_code=ExitCode.IMAGE)
    return reference, dict(sorted(found.items()))


async def push(
    store: Store,
    target: Reference,
    images: Mapping[str, StoredImage],
    environment: Mapping[str, str],
    report: Report,
    *,
    warn: Callable[[str], None],
) -> list[Pushed]:
    """Push images by tag into the repository of `target`. Raises what blame.RegistryError lists."""
    with store.lease() as lease:
        await _pack(store, images, report, lease)
        read = [_read(store, tag, store.demand(image.id)) for tag, image in images.items()]
        for image in read:
            lease.keep(image.manifest.config.digest, *(layer.digest for layer in image.manifest.layers))
        async with open_registry(target.host, environment, warn=warn) as registry:
            work = _Push(store, registry, target, report)
            await work.blobs(read)
            done = []
            for image in read:
                digest = await uploads.put_manifest(
                    registry, target.path, image.tag, image.content, image.media_type
                )
                one = Pushed(tag=image.tag, digest=digest, size=len(image.content))
                store.note_origin(f"{target.repository}:{image.tag}", digest)
                report(one)
                done.append(one)
    return done


async def _pack(store: Store, images: Mapping[str, StoredImage], report: Report, lease: Lease) -> None:
    """Compress the plain layers of images that were made here; see `packing`. Raises UserError."""
    for tag, image in {image.id: (tag, image) for tag, image in images.items()}.values():
        read = _read(store, tag, image)
        plain = packing.plain_layers(image, read.content, read.manifest)
        if not plain:
            continue
        lease.keep(*(one.digest for one in plain))
        packed: dict[str, tuple[Path, str, int]] = {}

        with store.scratch() as work:

            async def pack(
                one: Descriptor, work: Path = work, packed: dict[str, tuple[Path, str, int]] = packed
            ) -> None:
                report(Layer(digest=one.digest, state="compressing", size=one.size))
                path = work / one.digest[7:]
                found = await trio.to_thread.run_sync(
                    packing.compress,
                    store.blob_path(one.digest),
                    path,
                    lambda _: trio.from_thread.check_cancelled(),
                )
                packed[one.digest] = (path, *found)

            await _side_by_side(pack, plain, os.cpu_count() or 1)
            packing.repack(store, image, packed, lease)


async def _side_by_side(
    work: Callable[[Descriptor], Awaitable[None]], blobs: Sequence[Descriptor], at_once: int
) -> None:
    """Do the same with many, so many at a time. Raises the first error, when all others have been stopped."""
    errors: list[Exception] = []
    limiter = trio.CapacityLimiter(at_once)

    async def one_of_them(blob: Descriptor) -> None:
        async with limiter:
            try:
                await work(blob)
            except Exception as error:
                errors.append(error)
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for blob in blobs:
            nursery.start_soon(one_of_them, blob)
    if errors:
        raise errors[0]


class _Push:
    def __init__(self, store: Store, registry: Registry, target: Reference, report: Report) -> None:
        self._store = store
        self._registry = registry
        self._target = target
        self._report = report
        self._sources: dict[str, list[str]] | None = None

    async def blobs(self, images: Sequence[_Image]) -> None:
        """All that the images need, each once. Raises the first error, when all others have been stopped."""
        layers = {one.digest: one for image in images for one in image.manifest.layers if not one.foreign}
        configs = {image.manifest.config.digest: image.manifest.config for image in images}
        for one in layers.values():
            self._report(Layer(digest=one.digest, state="waiting", size=one.size))
        # The largest first, so that the last to end is a small one.
        order = sorted(layers.values(), key=lambda one: -one.size)
        order += [config for digest, config in configs.items() if digest not in layers]
        await _side_by_side(lambda one: self._blob(one, shown=one.digest in layers), order, AT_ONCE)

    async def _blob(self, blob: Descriptor, *, shown: bool) -> None:
        path, registry = self._target.path, self._registry

        def tell(state: State, sent: int = 0, detail: str = "") -> None:
            if shown:
                layer = Layer(digest=blob.digest, state=state, sent=sent, size=blob.size, detail=detail)
                self._report(layer)

        if await uploads.exists(registry, path, blob.digest):
            tell("exists")
            return
        begun = None
        for source in self._elsewhere(blob.digest):
            answer = await uploads.begin(registry, path, blob.digest, source=source)
            if isinstance(answer, uploads.Mounted):
                tell("mounted", detail=references.familiar_repository(self._target.host, source))
                return
            begun = answer
        await uploads.upload(
            registry,
            path,
            blob.digest,
            self._store.blob_path(blob.digest),
            begun=begun,
            progress=lambda sent: tell("pushing", sent),
        )
        tell("pushed", blob.size)

    def _elsewhere(self, digest: str) -> list[str]:
        """Repositories of the same registry that should have a blob, by what came from or went there."""
        if self._sources is None:
            self._sources = sources(self._store, self._target)
        return self._sources.get(digest, [])[:_SOURCES]


def sources(store: Store, target: Reference) -> dict[str, list[str]]:
    """Blobs by digest -> other repositories of the target's registry whose images have them."""
    found: dict[str, list[str]] = {}
    for image in store.images():
        paths = {one.path for one in _known(image) if one.host == target.host and one.path != target.path}
        if not paths:
            continue
        for digest in _digests(store, image):
            rows = found.setdefault(digest, [])
            rows += [path for path in sorted(paths) if path not in rows]
    return found


def _known(image: StoredImage) -> Iterator[Reference]:
    for name in image.repo_digests:
        yield references.parse(name)


def _digests(store: Store, image: StoredImage) -> list[str]:
    try:
        data = store.manifest(image.manifest)
    except UserError:
        return []
    rows = [data.get("config"), *(data.get("layers") or ())]
    return [row["digest"] for row in rows if isinstance(row, dict) and isinstance(row.get("digest"), str)]


def _read(store: Store, tag: str, image: StoredImage) -> _Image:
    """Raises UserError when the image is not whole here."""
    content = store.blob(image.manifest, limit=manifests.LIMIT)
    data = json.loads(content)
    kind = data.get("mediaType") or _kind_by_config(data)
    name = image.names[0] if image.names else image.id
    parsed = manifests.parse(content, kind, references.familiar(name) if image.names else name)
    assert isinstance(parsed, ImageManifest), "an image of the store is no index"
    for one in (parsed.config, *parsed.layers):
        if not one.foreign and not store.has_blob(one.digest):
            raise UserError(
                f"{tag}: blob {one.digest[:19]} is not here any more",
                exit_code=ExitCode.IMAGE,
                hint="pull or load the image again",
            )
    return _Image(tag=tag, content=content, media_type=kind, manifest=parsed)


def _kind_by_config(data: Mapping[str, object]) -> str:
    """OCI manifests need not name their own kind."""
    config = data.get("config")
    kind = config.get("mediaType") if isinstance(config, dict) else ""
    return manifests.DOCKER_MANIFEST if kind == manifests.DOCKER_CONFIG else manifests.OCI_MANIFEST
