"""index.json anew, when it is damaged: from the one before it, and from the manifests among the blobs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from orchestrator.images import config as configs
from orchestrator.images import reference as references
from orchestrator.images.store import index
from orchestrator.images.store.index import Entry
from orchestrator.model.errors import UserError

_MANIFEST_LIMIT = 4 << 20


def rebuild(blobs: Path, before: Iterable[Entry]) -> tuple[Entry, ...]:
    """Images whose parts are all here: those of `before` with their names, and others without one."""
    kept = tuple(entry for entry in before if _image_id(blobs, entry.manifest[7:]) == entry.id)
    known = {entry.manifest for entry in kept}
    found: list[Entry] = []
    for name in sorted(os.listdir(blobs)):
        digest = f"sha256:{name}"
        if digest in known or not (image_id := _image_id(blobs, name)):
            continue
        size = (blobs / name).stat().st_size
        row = {"mediaType": _media_type(blobs, name), "digest": digest, "size": size}
        entry = Entry({**row, "annotations": {index.IMAGE_ID: image_id}}, image_id, "", digest)
        if not any(one.id == image_id for one in (*kept, *found)):
            found.append(entry)
    return (*kept, *found)


def _image_id(blobs: Path, name: str) -> str:
    """The image that a blob is the manifest of; "" when it is none, or lacks a part."""
    try:
        data = configs.read_json(_content(blobs, name), name, limit=_MANIFEST_LIMIT)
        image_id = next(iter(index.digests([data.get("config")])), "")
        parts = [image_id, *index.digests(data.get("layers"))]
        if not image_id or not all((blobs / one[7:]).is_file() for one in parts):
            return ""
        content = _content(blobs, image_id[7:])
        configs.parse(content, image_id)
    except (OSError, UserError):
        return ""
    return image_id


def _media_type(blobs: Path, name: str) -> str:
    data = configs.read_json(_content(blobs, name), name, limit=_MANIFEST_LIMIT)
    return str(data.get("mediaType", "application/vnd.oci.image.manifest.v1+json"))


def _content(blobs: Path, name: str) -> bytes:
    """A small blob of JSON that is what it is called. Raises OSError and UserError."""
    if not references.is_digest(f"sha256:{name}"):
        raise configs.broken(f"{name!r:.80} is no blob")
    with open(blobs / name, "rb") as file:
        content = file.read(1)
        if content == b"{":
            content += file.read(configs.CONFIG_LIMIT)
    if index.digest_of(content) != f"sha256:{name}":
        raise configs.broken(f"{name[:12]} is another blob")
    return content
