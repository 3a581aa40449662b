"""A store filled without unpacking anything: for tests of commands that only look at images.

shelve(root, Image((BASE, layer(...)), tags=("web:1",)))
"""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

from orchestrator.api.paths import Paths
from orchestrator.images.layers import meta
from orchestrator.images.layers.meta import Meta
from orchestrator.images.reference import parse
from orchestrator.images.store.content import Store
from orchestrator.images.store.index import NewImage
from tests.kit.archives import CONFIG, LAYER, MANIFEST, Image, digest, dumps


def shelve(root: Path, *images: Image, origin: str = "") -> Store:
    """The store of the state root `root`, with these images in it: gzipped layers, as a registry has them."""
    store = Store(Path(Paths.find(str(root), {}).data_dir) / "images")
    blobs: dict[str, bytes] = {}
    with store.scratch() as work:
        added = [_image(image, blobs, origin) for image in images]
        layers = {digest(one): _layer(work, one) for image in images for one in image.layers}
        files = {name: work / name[7:] for name in blobs}
        for name, path in files.items():
            path.write_bytes(blobs[name])
        assert store.add(added, blobs=files, layers=layers, repairs={}) is None
    return store


def _image(image: Image, blobs: dict[str, bytes], origin: str) -> NewImage:
    packed = [gzip.compress(one, 1, mtime=0) for one in image.layers]
    parts = {digest(one): one for one in (image.config, *packed)}
    blobs |= parts
    rows = [{"mediaType": f"{LAYER}+gzip", "digest": digest(one), "size": len(one)} for one in packed]
    head = {"mediaType": CONFIG, "digest": image.id, "size": len(image.config)}
    return NewImage(
        id=image.id,
        manifest=dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": head, "layers": rows}),
        media_type=MANIFEST,
        names=tuple(str(parse(tag)) for tag in image.tags),
        diff_ids=tuple(map(digest, image.layers)),
        blobs=tuple(parts),
        origin=origin,
    )


def _layer(work: Path, content: bytes) -> Path:
    """An empty directory, and beside it the size that its files would have."""
    folder = work / f"layer-{digest(content)[7:]}"
    (folder / "fs").mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        meta.write_meta(folder, Meta(diff_id=digest(content), size=sum(member.size for member in archive)))
    return folder
