"""Garbage: what of blobs and layers nobody needs any more, by marking from the roots.

The roots are the entries of index.json and the leases of living processes. Containers need no mark of
their own: an image that a container was made from keeps an entry, if only a nameless one, for as long as the
container is there (see `Store.remove`). Whoever sweeps holds the store's lock.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from orchestrator.images import config as configs
from orchestrator.images import reference as references
from orchestrator.images.layers import meta
from orchestrator.images.store import index, leases, partials
from orchestrator.images.store.index import Entry
from orchestrator.model.errors import UserError
from orchestrator.model.frozen import dataclass, field

_NESTING_LIMIT = 4
_MANIFEST_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """Names below blobs/sha256 and below layers."""

    blobs: set[str] = field(default_factory=set)
    layers: set[str] = field(default_factory=set)


def needed(entries: Iterable[Entry], blobs: Path) -> Needed:
    """What images need. A manifest or config that is gone or unreadable needs nothing. Reads only."""
    found = Needed()
    for entry in entries:
        _mark(entry.manifest, blobs, found, 0)
        if entry.origin:
            found.blobs.add(entry.origin.rpartition("@")[2][7:])
    return found


def _mark(digest: str, blobs: Path, found: Needed, nesting: int) -> None:
    """Note everything that a manifest, or an index of manifests, needs."""
    if not references.is_digest(digest):
        return
    found.blobs.add(digest[7:])
    if nesting > _NESTING_LIMIT:
        return
    with contextlib.suppress(OSError, UserError):
        data = configs.read_json(_small(blobs / digest[7:], _MANIFEST_LIMIT), digest, limit=_MANIFEST_LIMIT)
        for child in index.digests(data.get("manifests")):
            _mark(child, blobs, found, nesting + 1)
        found.blobs.update(layer[7:] for layer in index.digests(data.get("layers")))
        for image_id in index.digests([data.get("config")]):
            found.blobs.add(image_id[7:])
            content = _small(blobs / image_id[7:], configs.CONFIG_LIMIT)
            diff_ids = configs.parse(content, image_id).diff_ids
            found.layers.update(diff_id[7:] for diff_id in diff_ids)
            found.layers.add(f"fix-{index.chain_id(diff_ids)[7:]}")


def size_of(path: Path) -> int:
    """Bytes of a blob's file, or of the files of a layer as they were counted when it was unpacked."""
    try:
        return meta.read_meta(path).size if path.is_dir() else path.lstat().st_size
    except (OSError, UserError):
        return 0


def _small(path: Path, limit: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(limit + 1)


def collect(root: Path, entries: Iterable[Entry], attic: Path, *, grace: float = leases.WEEK) -> list[str]:
    """Move what nobody needs to `attic`, which the caller removes; returns the names of blobs ("blob-HEX")
    and layers ("layer-HEX") there. `grace` is how many seconds what dead pulls left behind is kept."""
    blobs, layers = root / "blobs" / "sha256", root / "layers"
    keep = needed(entries, blobs)
    leased = {digest[7:] for digest in leases.leased(root / "leases", grace=grace)}
    partials.sweep(root / "partial", grace=grace)
    for name in os.listdir(root):
        # Temporary names of scratch.write_file: its callers hold the lock that we have now.
        if name.startswith((".index.json.", ".oci-layout.")):
            os.unlink(root / name)
    moved: list[str] = []
    for place, kind, kept in ((blobs, "blob", keep.blobs), (layers, "layer", keep.layers)):
        for name in os.listdir(place):
            if name not in kept and name not in leased:
                os.rename(place / name, attic / f"{kind}-{name}")
                moved.append(f"{kind}-{name}")
    return moved
