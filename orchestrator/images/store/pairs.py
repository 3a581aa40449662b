"""Which blob is known to unpack to which layer.

An image's manifest names blobs, its config the layers that they unpack to. That both are in the store does
not say that the one is the other: a hostile image may name any two. What was once unpacked and compared is
known from the layer's record, or from an image that came in that way.
"""

from __future__ import annotations

import contextlib

from orchestrator.images.layers import meta
from orchestrator.images.store import index
from orchestrator.images.store.content import Store
from orchestrator.images.store.index import Entry
from orchestrator.model.errors import UserError


class Pairs:
    """What a store knows of it. Reads only."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: tuple[Entry, ...] | None = None
        self._known: set[tuple[str, str]] = set()

    def known(self, blob: str, diff_id: str) -> bool:
        """Whether the blob of this digest was found to be the layer `diff_id`, which is here."""
        if blob == diff_id:
            return True  # a plain tar
        with contextlib.suppress(UserError):
            if meta.read_meta(self._store.layer_path(diff_id)).blob == blob:
                return True
        return (blob, diff_id) in self._of_images()

    def _of_images(self) -> set[tuple[str, str]]:
        entries = self._store.entries()
        if entries is not self._seen:
            self._known = set()
            for manifest, image in {(one.manifest, one.id) for one in entries}:
                with contextlib.suppress(UserError):
                    blobs = index.digests(self._store.manifest(manifest).get("layers"))
                    diff_ids = self._store.config(image).diff_ids
                    if len(blobs) == len(diff_ids):
                        self._known.update(zip(blobs, diff_ids, strict=True))
            self._seen = entries
        return self._known
