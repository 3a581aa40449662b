"""What images take of the disk, and how much of that would be free without those that nothing uses.

An image takes its blobs (as they came, for push and save) and its layers' files. What several images have in
common is there once.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from orchestrator.images.store import collecting
from orchestrator.images.store.content import Store
from orchestrator.model.errors import UserError
from orchestrator.model.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUsage:
    """Bytes of one image, less and more what others have as well."""

    id: str
    names: tuple[str, ...]
    created: str
    shared: int
    unique: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Bytes of the whole store, with what no image needs; `reclaimable` is what `prune` of all would give."""

    images: tuple[ImageUsage, ...] = ()
    size: int = 0
    reclaimable: int = 0


def usage(store: Store, used: Collection[str]) -> Usage:
    """`used` are the ids of images that containers were made from. Reads only."""
    blobs, layers = store.root / "blobs" / "sha256", store.root / "layers"
    sizes = {f"blob-{name}": collecting.size_of(blobs / name) for name in _names(blobs)}
    sizes |= {f"layer-{name}": collecting.size_of(layers / name) for name in _names(layers)}
    pieces: dict[str, set[str]] = {}
    for entry in store.entries():
        need = collecting.needed([entry], blobs)
        mine = {f"blob-{name}" for name in need.blobs} | {f"layer-{name}" for name in need.layers}
        pieces.setdefault(entry.id, set()).update(mine & sizes.keys())
    counts: dict[str, int] = {}
    for mine in pieces.values():
        for piece in mine:
            counts[piece] = counts.get(piece, 0) + 1
    kept = {piece for image, mine in pieces.items() if image in used for piece in mine}
    loose = sum(collecting.size_of(store.root / "partial" / name) for name in _names(store.root / "partial"))
    total = sum(sizes.values()) + loose
    return Usage(
        images=tuple(
            ImageUsage(
                id=image.id,
                names=image.names,
                created=_created(store, image.id),
                shared=sum(sizes[piece] for piece in pieces[image.id] if counts[piece] > 1),
                unique=sum(sizes[piece] for piece in pieces[image.id] if counts[piece] == 1),
            )
            for image in store.images()
        ),
        size=total,
        reclaimable=total - sum(sizes[piece] for piece in kept),
    )


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _created(store: Store, image_id: str) -> str:
    try:
        return store.config(image_id).created
    except UserError:
        return ""
