"""Layers of images that were made here are kept as plain tars; before they travel they are compressed.

The image keeps its id and gets a manifest that names the compressed layers, which are kept from then on:
what a registry gets is what is here, and a second push has nothing to compress. A manifest that came from
elsewhere is left as it is, since others know it by its digest.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from orchestrator.images.registry.manifests import Descriptor, ImageManifest
from orchestrator.images.store import index
from orchestrator.images.store.content import Store
from orchestrator.images.store.index import NewImage, StoredImage
from orchestrator.images.store.leases import Lease

PLAIN = frozenset(("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"))
_PIECE = 1 << 20
_GZIP = 31
"""zlib's word for: with the header of gzip. It has no name and no time, so equal tars become equal files."""


class _Deflate(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def plain_layers(image: StoredImage, content: bytes, manifest: ImageManifest) -> list[Descriptor]:
    """The layers that should be compressed before a push, each once, largest first. Pure."""
    if image.repo_digests or content != written(json.loads(content)):
        return []
    found = {one.digest: one for one in manifest.layers if one.media_type in PLAIN}
    return sorted(found.values(), key=lambda one: -one.size)


def written(data: Mapping[str, Any]) -> bytes:
    """A manifest as this program writes it; those of others have other orders and blanks."""
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def compress(source: Path, target: Path, progress: Callable[[int], None]) -> tuple[str, int]:
    """Write `target`; its digest and size. Blocks, mostly without the interpreter's lock."""
    deflate = _deflate()
    digest, size, done = hashlib.sha256(), 0, 0
    with open(source, "rb", buffering=0) as tar, open(target, "xb") as file:
        while True:
            piece = tar.read(_PIECE)
            out = deflate.compress(piece) if piece else deflate.flush()
            file.write(out)
            digest.update(out)
            size += len(out)
            if not piece:
                return f"sha256:{digest.hexdigest()}", size
            done += len(piece)
            progress(done)


def repack(
    store: Store, image: StoredImage, packed: Mapping[str, tuple[Path, str, int]], lease: Lease
) -> None:
    """Give an image a manifest that names its compressed layers: plain digest -> file, digest, size."""
    data = store.manifest(image.manifest)
    for row in data["layers"]:
        if row["digest"] in packed:
            path, digest, size = packed[row["digest"]]
            store.put_blob(digest, path, lease)
            suffix = "+gzip" if row["mediaType"].startswith("application/vnd.oci") else ".gzip"
            row.update(digest=digest, size=size, mediaType=row["mediaType"] + suffix)
    content = written(data)
    store.add(
        [
            NewImage(
                id=image.id,
                manifest=content,
                media_type=data["mediaType"],
                names=image.names,
                diff_ids=store.config(image.id).diff_ids,
                blobs=(image.id, *index.digests(data["layers"])),
            )
        ],
        blobs={},
        layers={},
        repairs={},
    )


def _deflate() -> _Deflate:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    made: _Deflate = isal_zlib.compressobj(2, isal_zlib.DEFLATED, _GZIP)
    return made
