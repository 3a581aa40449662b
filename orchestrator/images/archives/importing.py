"""`import`: a directory or a tarball becomes an image of one layer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from orchestrator.images import changes as instructions
from orchestrator.images import config as configs
from orchestrator.images import reference as references
from orchestrator.images.layers import meta, unpacking
from orchestrator.images.layers.copying import copy_tree
from orchestrator.images.layers.inflate import InflateError, Inflater
from orchestrator.images.layers.meta import Meta
from orchestrator.images.layers.unpacking import Limits
from orchestrator.images.store.content import MANIFEST, Store
from orchestrator.images.store.index import NewImage, StoredImage, digest_of
from orchestrator.model.errors import ExitCode, UserError

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"

Progress = Callable[[int], None]
"""Told the bytes done so far."""


def import_directory(
    store: Store,
    directory: Path,
    name: str = "",
    *,
    changes: Iterable[str] = (),
    message: str = "",
    created: str = "",
    progress: Progress = lambda _: None,
) -> StoredImage:
    """Store the tree below `directory` as an image called `name` ("" leaves it nameless).

    `created` is RFC 3339, or "" for not saying (equal trees then make the same image). Raises UserError.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} is not a directory", exit_code=ExitCode.FILE_NOT_FOUND)
    full = str(references.parse(name)) if name else ""
    run = instructions.apply({}, changes)
    with store.scratch() as work:
        layer = work / "layer"
        layer.mkdir(mode=0o700)
        with open(work / "tar", "wb", buffering=1 << 20) as blob:
            copied = copy_tree(directory, layer / "fs", blob, progress)
        meta.write_meta(layer, Meta(diff_id=copied.diff_id, size=copied.size, entries=copied.entries))
        config = _config(copied.diff_id, run, message=message, created=created)
        return _add(store, work, config, copied.diff_id, full)


def import_tar(
    store: Store,
    source: IO[bytes],
    name: str = "",
    *,
    changes: Iterable[str] = (),
    message: str = "",
    created: str = "",
    limits: Limits | None = None,
    progress: Progress = lambda _: None,
) -> StoredImage:
    """Store the root file system in a tar (plain, gz, bz2, xz; a file or a pipe) as an image.

    The tar becomes the layer as it is, uncompressed. Raises UserError.
    """
    bounds = limits or Limits()
    full = str(references.parse(name)) if name else ""
    run = instructions.apply({}, changes)
    with store.scratch() as work:
        diff_id = _plain(source, work / "tar", bounds.max_bytes, progress)
        unpacking.unpack(work / "tar", work / "layer", bounds)
        config = _config(diff_id, run, message=message, created=created)
        return _add(store, work, config, diff_id, full)


def _plain(source: IO[bytes], target: Path, limit: int, progress: Progress) -> str:
    """Decompress into `target`; returns the digest."""
    inflater = Inflater(source.read, limit=limit)
    digest = hashlib.sha256()
    try:
        with open(target, "xb", buffering=0) as file:
            while piece := inflater.fill():
                digest.update(piece)
                file.write(piece)
                progress(inflater.taken)
    except InflateError as error:
        raise configs.broken(str(error)) from None
    return f"sha256:{digest.hexdigest()}"


def _add(store: Store, work: Path, config: bytes, diff_id: str, name: str) -> StoredImage:
    """`work` holds the tar and the unpacked layer."""
    (work / "config").write_bytes(config)
    row = {"mediaType": _LAYER, "digest": diff_id, "size": (work / "tar").stat().st_size}
    image = _image(config, row, diff_id, name)
    configs.parse(config, image.id)
    blobs = {diff_id: work / "tar", image.id: work / "config"}
    missing = store.add([image], blobs=blobs, layers={diff_id: work / "layer"}, repairs={})
    assert missing is None, missing
    return store.demand(image.id)


def _config(diff_id: str, run: instructions.Config, *, message: str, created: str) -> bytes:
    event = {"comment": message or "Imported"}
    config: dict[str, object] = {
        "architecture": configs.architecture(),
        "config": run,
        "history": [{"created": created, **event} if created else event],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    if created:
        config["created"] = created
    return json.dumps(config, sort_keys=True, separators=(",", ":")).encode()


def _image(config: bytes, layer: dict[str, object], diff_id: str, name: str) -> NewImage:
    image_id = digest_of(config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": image_id, "size": len(config)},
        "layers": [layer],
    }
    return NewImage(
        id=image_id,
        manifest=json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode(),
        media_type=MANIFEST,
        names=(name,) if name else (),
        diff_ids=(diff_id,),
        blobs=(image_id, str(layer["digest"])),
    )
