"""index.json as values: which names and ids mean which manifests, and how that changes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from orchestrator.images import reference as references
from orchestrator.model.frozen import dataclass

REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_ID = "io.pystack.image.id"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image that is here. `names` are full names in order; none: dangling."""

    id: str
    manifest: str
    """Digest of its manifest."""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """An image whose blobs and layers are ready: goes into the store with `Store.add`."""

    id: str
    manifest: bytes
    media_type: str
    names: tuple[str, ...]
    """Full names."""
    diff_ids: tuple[str, ...]
    blobs: tuple[str, ...]
    """Digests of everything it needs but the manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What nobody has brought: `add` did nothing."""

    blobs: tuple[str, ...]
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One descriptor of index.json, kept as it was found."""

    descriptor: dict[str, Any]
    id: str
    name: str
    manifest: str


def digests(rows: object) -> list[str]:
    """The digests of descriptors in a manifest or index; what is not a descriptor is passed over."""
    if not isinstance(rows, list):
        return []
    found = [row.get("digest") for row in rows if isinstance(row, dict)]
    return [one for one in found if isinstance(one, str) and references.is_digest(one)]


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def chain_id(diff_ids: Sequence[str]) -> str:
    """One digest for layers in order (OCI image specification, config.md: Layer ChainID)."""
    chain = ""
    for diff_id in diff_ids:
        chain = diff_id if not chain else digest_of(f"{chain} {diff_id}".encode())
    return chain or digest_of(b"")


def image_of(entries: tuple[Entry, ...], image_id: str) -> StoredImage:
    mine = [entry for entry in entries if entry.id == image_id]
    names = tuple(sorted(entry.name for entry in mine if entry.name))
    return StoredImage(id=image_id, manifest=mine[0].manifest, names=names)


def with_image(entries: tuple[Entry, ...], image: NewImage) -> tuple[Entry, ...]:
    descriptor = {
        "mediaType": image.media_type,
        "digest": digest_of(image.manifest),
        "size": len(image.manifest),
        "annotations": {IMAGE_ID: image.id},
    }
    model = Entry(descriptor, image.id, "", digest_of(image.manifest))
    if not image.names and not any(entry.id == image.id for entry in entries):
        return (*entries, model)
    for name in image.names:
        entries = with_name(entries, model, name)
    return entries


def with_name(entries: tuple[Entry, ...], model: Entry, name: str) -> tuple[Entry, ...]:
    """`name` now means the image of `model`; the image that had it stays, dangling if it was its last."""
    holder = next((entry for entry in entries if entry.name == name), None)
    kept = tuple(entry for entry in entries if entry.name != name and (entry.name or entry.id != model.id))
    if holder is not None and holder.id != model.id and all(entry.id != holder.id for entry in kept):
        kept = (*kept, renamed(holder, ""))
    return (*kept, renamed(model, name))


def renamed(entry: Entry, name: str) -> Entry:
    notes = {**(entry.descriptor.get("annotations") or {}), IMAGE_ID: entry.id, REF_NAME: name}
    if not name:
        del notes[REF_NAME]
    return Entry({**entry.descriptor, "annotations": notes}, entry.id, name, entry.manifest)


def dangling(entries: tuple[Entry, ...], image_id: str) -> Entry:
    return renamed(next(entry for entry in entries if entry.id == image_id), "")


def without(entries: tuple[Entry, ...], image_id: str, names: Sequence[str]) -> tuple[Entry, ...]:
    """Entries minus those names of an image, and minus its nameless entry."""
    return tuple(one for one in entries if one.id != image_id or (one.name and one.name not in names))
