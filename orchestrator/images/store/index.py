"""index.json as values: which names and ids mean which manifests, and how that changes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from orchestrator.images import reference as references
from orchestrator.model.frozen import dataclass

REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_ID = "io.pystack.image.id"
ORIGIN = "io.pystack.image.origin"
"""REPOSITORY@DIGEST, by which the image's registry knows it: of the index, for several platforms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image that is here. `names` are full names in order; none: dangling."""

    id: str
    manifest: str
    """Digest of its manifest."""
    names: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    """Full REPOSITORY@DIGEST of every registry that it came from or went to."""


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
    origin: str = ""
    """Digest that the names have at their registry (of an index, for several platforms); the blob of that
    digest is kept when it is there. REPOSITORY@DIGEST for an image that was asked for by digest."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One descriptor of index.json, kept as it was found."""

    descriptor: dict[str, Any]
    id: str
    name: str
    manifest: str

    @property
    def origin(self) -> str:
        """REPOSITORY@DIGEST, or ""."""
        notes = self.descriptor.get("annotations")
        found = notes.get(ORIGIN) if isinstance(notes, dict) else ""
        return found if isinstance(found, str) and references.is_digest(found.rpartition("@")[2]) else ""


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
    return StoredImage(
        id=image_id,
        manifest=mine[0].manifest,
        names=tuple(sorted(entry.name for entry in mine if entry.name)),
        repo_digests=tuple(sorted({entry.origin for entry in mine if entry.origin})),
    )


def with_image(entries: tuple[Entry, ...], image: NewImage) -> tuple[Entry, ...]:
    descriptor = {
        "mediaType": image.media_type,
        "digest": digest_of(image.manifest),
        "size": len(image.manifest),
        "annotations": {IMAGE_ID: image.id},
    }
    model = Entry(descriptor, image.id, "", digest_of(image.manifest))
    if not image.names:
        return _with_nameless(entries, with_origin(model, image.origin))
    for name in image.names:
        origin = f"{references.parse(name).repository}@{image.origin.rpartition('@')[2]}"
        entries = with_name(entries, with_origin(model, origin if image.origin else ""), name)
    return entries


def _with_nameless(entries: tuple[Entry, ...], model: Entry) -> tuple[Entry, ...]:
    """An image that has a name already needs no nameless entry, but for where it came from."""
    mine = [entry for entry in entries if entry.id == model.id]
    if any(not model.origin or entry.origin == model.origin for entry in mine):
        return entries
    return (*entries, model)


def with_name(entries: tuple[Entry, ...], model: Entry, name: str) -> tuple[Entry, ...]:
    """`name` now means the image of `model`; the image that had it stays, dangling if it was its last."""
    fresh = renamed(model, name)
    holder = next((entry for entry in entries if entry.name == name), None)
    if holder is not None and not fresh.origin and _same(holder, fresh):
        return entries
    kept = tuple(one for one in entries if one.name != name and not _replaces(fresh, one))
    if holder is not None and holder.id != model.id:
        kept = _with_nameless(kept, renamed(holder, ""))
    return (*kept, fresh)


def _same(one: Entry, other: Entry) -> bool:
    return (one.id, one.manifest) == (other.id, other.manifest)


def _replaces(fresh: Entry, old: Entry) -> bool:
    """A nameless entry goes when its image gets a name, unless it tells of another origin."""
    return not old.name and old.id == fresh.id and old.origin in ("", fresh.origin)


def with_origin(entry: Entry, origin: str) -> Entry:
    notes = {**(entry.descriptor.get("annotations") or {}), ORIGIN: origin}
    if not origin:
        del notes[ORIGIN]
    return Entry({**entry.descriptor, "annotations": notes}, entry.id, entry.name, entry.manifest)


def renamed(entry: Entry, name: str) -> Entry:
    """The same under another name; what another repository calls it does not go along."""
    notes = {**(entry.descriptor.get("annotations") or {}), IMAGE_ID: entry.id, REF_NAME: name}
    if not name:
        del notes[REF_NAME]
    elif entry.origin and entry.origin.partition("@")[0] != references.parse(name).repository:
        del notes[ORIGIN]
    return Entry({**entry.descriptor, "annotations": notes}, entry.id, name, entry.manifest)


def dangling(entries: tuple[Entry, ...], image_id: str) -> Entry:
    return renamed(next(entry for entry in entries if entry.id == image_id), "")


def without(entries: tuple[Entry, ...], image_id: str, names: Sequence[str]) -> tuple[Entry, ...]:
    """Entries minus those names of an image, and minus its nameless entry."""
    return tuple(one for one in entries if one.id != image_id or (one.name and one.name not in names))
