"""Images of what `docker save` writes.

Since 1.10 it has manifest.json, a table of images (moby, image/spec/v1.2: "Combined Image JSON + Filesystem
Changeset Format"); since 25 it is an OCI layout as well. Before, it had a directory for each layer, which
was an image of its own (image/spec/v1), and `repositories` for the names: from that a config is made as
Docker makes it when it loads one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.images import config as configs
from orchestrator.images import reference as references
from orchestrator.images.archives import candidates
from orchestrator.images.archives.candidates import Candidate, a_list, a_text, an_object, any_json
from orchestrator.images.archives.layouts import CONFIG, DOCKER_MANIFEST
from orchestrator.images.archives.spool import Contents, Part
from orchestrator.images.layers.inflate import InflateError, Inflater
from orchestrator.images.store.content import MANIFEST, MANIFEST_LIMIT
from orchestrator.images.store.index import digests
from orchestrator.model.errors import ExitCode, UserError

LAYER = "application/vnd.oci.image.layer.v1.tar"
_SUFFIXES = ((b"\x1f\x8b", "+gzip"), (b"\x28\xb5\x2f\xfd", "+zstd"))
_OLD_ID = re.compile(r"([0-9a-f]{64})/json")
_OLD_KEYS = ("id", "parent", "Size", "parent_id", "layer_id", "throwaway")
"""What Docker leaves out of an old image's description (moby, image/v1: MakeConfigFromV1Config)."""


# --- since 1.10 ----------------------------------------------------------------------------------


def images(contents: Contents, table: Part, index: Part | None) -> Iterator[Candidate]:
    """manifest.json: a list of {Config, RepoTags, Layers}, all of them names of files. Raises UserError."""
    known = dict(_by_config(contents, index)) if index is not None else {}
    rows = any_json(table, "manifest.json")
    if not isinstance(rows, list) or len(rows) > candidates.IMAGE_LIMIT:
        raise configs.broken("manifest.json is not a list of images")
    for row in rows:
        if not isinstance(row, dict):
            raise configs.broken("manifest.json is not a list of images")
        config = contents.demand(a_text(row.get("Config"), "Config"))
        layers = [contents.demand(a_text(name, "Layers")) for name in a_list(row.get("Layers"), "Layers")]
        tags = [a_text(name, "RepoTags") for name in a_list(row.get("RepoTags"), "RepoTags")]
        names = tuple(dict.fromkeys(str(references.parse(tag)) for tag in tags))
        _believe(layers, candidates.parse_config(config).diff_ids)
        manifest = known.get(config.digest)
        if manifest is None or _layers(manifest) != [one.digest for one in layers]:
            yield candidates.make(_manifest(config, layers), MANIFEST, config, layers, names)
        else:
            kind = a_text(an_object(manifest, "manifest")["mediaType"], "mediaType")
            yield candidates.make(manifest.read(MANIFEST_LIMIT), kind, config, layers, names)


def _believe(layers: list[Part], diff_ids: tuple[str, ...]) -> None:
    """A layer that is a plain tar is what the config calls it, until it is read: once, that is."""
    if len(layers) == len(diff_ids):
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            if layer.head(262)[257:] == b"ustar":
                layer.claim(diff_id)


def _by_config(contents: Contents, index: Part) -> Iterator[tuple[str, Part]]:
    """Manifests of the archive by the config they name: kept as they are, an image keeps its digest."""
    for digest in digests(an_object(index, "index.json").get("manifests")):
        manifest = contents.blob(digest)
        if manifest is None:
            continue
        data = an_object(manifest, "manifest")
        if data.get("mediaType") in (MANIFEST, DOCKER_MANIFEST):
            yield from ((config, manifest) for config in digests([data.get("config")]))


def _layers(manifest: Part) -> list[str]:
    return digests(an_object(manifest, "manifest").get("layers"))


def _manifest(config: Part, layers: list[Part]) -> bytes:
    rows = [{"mediaType": LAYER + _suffix(one), "digest": one.digest, "size": one.size} for one in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
        "layers": rows,
    }
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()


def _suffix(layer: Part) -> str:
    head = layer.head(4)
    return next((suffix for magic, suffix in _SUFFIXES if head.startswith(magic)), "")


# --- before 1.10 ---------------------------------------------------------------------------------


def is_old(contents: Contents) -> bool:
    return contents.find("repositories") is not None or any(map(_OLD_ID.fullmatch, contents.files))


def old_images(contents: Contents, work: Path, limit: int) -> Iterator[Candidate]:
    """Images that have a name; without `repositories` those that no other is built on. Raises UserError."""
    names: dict[str, list[str]] = {}
    table = contents.find("repositories")
    for repository, tags in (an_object(table, "repositories") if table else {}).items():
        if not isinstance(tags, dict):
            raise configs.broken("repositories is not a table of tags")
        for tag, layer in tags.items():
            names.setdefault(a_text(layer, "repositories"), []).append(
                str(references.parse(f"{repository}:{tag}"))
            )
    if not names:
        found = [match[1] for match in map(_OLD_ID.fullmatch, contents.files) if match]
        built_on = {_old(contents, one).get("parent") for one in found}
        names = {one: [] for one in found if one not in built_on}
    known: dict[str, str] = {}
    for image_id, tags in names.items():
        yield _from_old(contents, image_id, tuple(dict.fromkeys(tags)), work, limit, known)


def _from_old(
    contents: Contents, image_id: str, names: tuple[str, ...], work: Path, limit: int, known: dict[str, str]
) -> Candidate:
    chain = _ancestry(contents, image_id)
    layers = [contents.demand(f"{one}/layer.tar") for one in chain]
    for one, layer in zip(chain, layers, strict=True):
        if one not in known:
            known[one] = _diff_id(layer, limit)
    described = [_old(contents, one) for one in chain]
    config = {key: value for key, value in described[-1].items() if key not in _OLD_KEYS}
    config["rootfs"] = {"type": "layers", "diff_ids": [known[one] for one in chain]}
    config["history"] = [_history(one) for one in described]
    content = json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(content).hexdigest()
    part = Part.of(content, work / f"config-{image_id}-{digest}")
    return candidates.make(_manifest(part, layers), MANIFEST, part, layers, names)


def _ancestry(contents: Contents, image_id: str) -> list[str]:
    """The image and what it is built on, lowest first."""
    chain: list[str] = []
    at: object = image_id
    while at:
        one = a_text(at, "parent")
        if one in chain or len(chain) >= configs.LAYER_LIMIT:
            raise configs.broken(f"image {image_id[:12]} is built on itself, or on too many")
        chain.insert(0, one)
        at = _old(contents, one).get("parent")
    return chain


def _old(contents: Contents, image_id: str) -> dict[str, Any]:
    return an_object(contents.demand(f"{image_id}/json"), f"image {image_id[:12]}")


def _history(described: dict[str, Any]) -> dict[str, Any]:
    made_by = described.get("container_config")
    command = made_by.get("Cmd") if isinstance(made_by, dict) else None
    words = " ".join(str(word) for word in command) if isinstance(command, list) else ""
    event = {
        "created": described.get("created"),
        "created_by": words,
        "author": described.get("author"),
        "comment": described.get("comment"),
    }
    return {key: value for key, value in event.items() if value}


def _diff_id(layer: Part, limit: int) -> str:
    """The digest of its tar, which nothing in the archive says."""
    pieces = layer.chunks()
    inflater = Inflater(lambda _: next(pieces, b""), limit=limit)
    digest = hashlib.sha256()
    try:
        while piece := inflater.fill():
            digest.update(piece)
    except InflateError as error:
        raise UserError(f"broken image: layer: {error}", exit_code=ExitCode.IMAGE) from None
    return f"sha256:{digest.hexdigest()}"
