"""`load`: images out of an archive.

Understood: what `docker save` wrote ever since version 1.10 (manifest.json), OCI image layouts
(index.json), and the form that is both; as tar, tar.gz, tar.bz2, tar.xz; from a file or a pipe.

First the archive is spooled to the store's disk, for its table of contents may stand at its end. Then
layers that are not here yet are unpacked side by side, and only when every digest fits does anything
become visible.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from orchestrator.images import config as configs
from orchestrator.images import reference as references
from orchestrator.images import repairs, spool
from orchestrator.images.config import ImageConfig
from orchestrator.images.index import NewImage, digests
from orchestrator.images.layers import Limits, unpack_all
from orchestrator.images.spool import Spool, Spooled
from orchestrator.images.store import INDEX, MANIFEST, MANIFEST_LIMIT, Store
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_CONTAINERD_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_NESTING_LIMIT = 4
_IMAGE_LIMIT = 10_000
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One image that is now in the store: its id and the familiar names it was given here."""

    id: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """An image of the archive, its parts found and their digests checked."""

    image: NewImage
    config: ImageConfig
    parts: tuple[Spooled, ...]
    """Config and layers, lowest first; a blob that the store has already may be missing from the archive."""
    layers: dict[str, Path]
    """Blob of each layer by its diff_id."""


def load(
    store: Store,
    source: IO[bytes],
    *,
    limits: Limits | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Loaded]:
    """Put every image of the archive into the store.

    `progress` is told how many bytes of the archive have been read. All images come in, or none.
    Raises UserError (exit code IMAGE) for what is wrong with the archive.
    """
    bounds = limits or Limits()
    with store.scratch() as work:
        contents = spool.read(source, work, limit=bounds.max_bytes, progress=progress)
        candidates = list(_candidates(contents))
        if not candidates:
            raise configs.broken("the archive holds no image")
        _bring(store, candidates, work, bounds)
    return [
        Loaded(id=one.image.id, names=tuple(references.familiar(name) for name in one.image.names))
        for one in candidates
    ]


def _bring(store: Store, candidates: list[_Candidate], work: Path, limits: Limits) -> None:
    """Unpack what is lacking and add; again when another process removed something meanwhile."""
    blobs = {part.digest: part.path for one in candidates for part in one.parts}
    sources = {diff_id: path for one in candidates for diff_id, path in one.layers.items()}
    made: dict[str, Path] = {}
    lacking = tuple(diff_id for diff_id in sources if not store.has_layer(diff_id))
    for _ in range(_ATTEMPTS):
        made |= unpack_all({diff_id: sources[diff_id] for diff_id in lacking}, work, limits)
        mended = repairs.make_all([one.config.diff_ids for one in candidates], made, store, work)
        images = [one.image for one in candidates]
        missing = store.add(images, blobs=blobs, layers=made, repairs=mended)
        if missing is None:
            return
        lacking = missing.layers
        if missing.blobs:
            raise configs.broken(f"the archive has no blob {missing.blobs[0]}")
    raise UserError("the image's layers are being removed by somebody else", exit_code=ExitCode.CONFLICT)


def _candidates(contents: Spool) -> Iterator[_Candidate]:
    index = contents.find("index.json")
    table = contents.find("manifest.json")
    if table is not None:
        known = dict(_by_config(contents, index)) if index is not None else {}
        yield from _of_docker(contents, table, known)
    elif index is not None:
        yield from _of_layout(contents, index)
    elif contents.find("repositories") is not None:
        raise UserError(
            "archives of Docker before 1.10 are not supported",
            exit_code=ExitCode.IMAGE,
            hint="load it into a current Docker and save it again",
        )
    else:
        raise UserError(
            "not an image archive: it has neither manifest.json nor index.json",
            exit_code=ExitCode.IMAGE,
            hint="a root file system comes in with `import`",
        )


# --- docker save ---------------------------------------------------------------------------------


def _of_docker(contents: Spool, table: Spooled, known: dict[str, Spooled]) -> Iterator[_Candidate]:
    """manifest.json: a list of {Config, RepoTags, Layers}, all of them names of files."""
    rows = _json(table, "manifest.json")
    if not isinstance(rows, list) or len(rows) > _IMAGE_LIMIT:
        raise configs.broken("manifest.json is not a list of images")
    for row in rows:
        if not isinstance(row, dict):
            raise configs.broken("manifest.json is not a list of images")
        config = contents.demand(_text(row.get("Config"), "Config"))
        layers = [contents.demand(_text(name, "Layers")) for name in _list(row.get("Layers"), "Layers")]
        tags = [_text(name, "RepoTags") for name in _list(row.get("RepoTags"), "RepoTags")]
        names = tuple(dict.fromkeys(str(references.parse(tag)) for tag in tags))
        manifest = known.get(config.digest)
        if manifest is None or digests(_object(manifest, "manifest").get("layers")) != [
            one.digest for one in layers
        ]:
            yield _candidate(_new_manifest(config, layers), MANIFEST, config, layers, names)
        else:
            content = _read(manifest, MANIFEST_LIMIT)
            yield _candidate(content, _object(manifest, "manifest")["mediaType"], config, layers, names)


def _by_config(contents: Spool, index: Spooled) -> Iterator[tuple[str, Spooled]]:
    """Manifests of the archive by the config they name: kept as they are, an image keeps its digest."""
    for digest in digests(_object(index, "index.json").get("manifests")):
        manifest = contents.blob(digest)
        if manifest is None:
            continue
        data = _object(manifest, "manifest")
        if data.get("mediaType") in (MANIFEST, _DOCKER_MANIFEST):
            yield from ((config, manifest) for config in digests([data.get("config")]))


def _new_manifest(config: Spooled, layers: list[Spooled]) -> bytes:
    rows = [{"mediaType": LAYER + _suffix(one), "digest": one.digest, "size": one.size} for one in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
        "layers": rows,
    }
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()


def _suffix(layer: Spooled) -> str:
    with open(layer.path, "rb") as file:
        return "+gzip" if file.read(2) == b"\x1f\x8b" else ""


# --- OCI layout ----------------------------------------------------------------------------------


def _of_layout(contents: Spool, index: Spooled) -> Iterator[_Candidate]:
    merged: dict[str, _Candidate] = {}
    for row in _descriptors(_object(index, "index.json")):
        manifest = _choose(contents, row, 0)
        if manifest is None:
            continue
        name = _name(row)
        names = (name,) if name else ()
        before = merged.get(manifest.digest)
        if before is not None:
            names = tuple(dict.fromkeys((*before.image.names, *names)))
        merged[manifest.digest] = _from_manifest(contents, manifest, names)
    yield from merged.values()


def _descriptors(data: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [row for row in _list(data.get("manifests"), "manifests") if isinstance(row, dict)]
    if len(rows) > _IMAGE_LIMIT:
        raise configs.broken("too many manifests in one index")
    return rows


def _choose(contents: Spool, row: dict[str, Any], nesting: int) -> Spooled | None:
    """The manifest a descriptor means: itself, or of an index the one for this machine; None to pass over."""
    if nesting > _NESTING_LIMIT:
        raise configs.broken("indexes nested too deep")
    if _platform(row) == ("unknown", "unknown") or "vnd.docker.reference.type" in _notes(row):
        return None
    digest = _digest(row)
    blob = contents.blob(digest)
    if blob is None:
        if nesting:
            return None
        raise configs.broken(f"the archive has no blob {digest}")
    data = _object(blob, f"manifest {digest[:19]}")
    if data.get("mediaType", row.get("mediaType")) not in (INDEX, _DOCKER_LIST) and "config" in data:
        return blob
    here = ("linux", configs.architecture())
    children = sorted(_descriptors(data), key=lambda child: _platform(child) not in (here, None))
    fitting = [child for child in children if _platform(child) in (here, None)]
    for child in fitting:
        chosen = _choose(contents, child, nesting + 1)
        if chosen is not None:
            return chosen
    present = ", ".join(sorted({"/".join(_platform(child) or ("?",)) for child in children}))
    raise UserError(
        f"no image for {'/'.join(here)} in the archive; it has: {present or 'nothing'}",
        exit_code=ExitCode.IMAGE,
    )


def _from_manifest(contents: Spool, manifest: Spooled, names: tuple[str, ...]) -> _Candidate:
    data = _object(manifest, "manifest")
    head = data.get("config")
    if not isinstance(head, dict) or head.get("mediaType") not in (CONFIG, _DOCKER_CONFIG):
        raise UserError("not a runnable image, but an artifact of another kind", exit_code=ExitCode.IMAGE)
    config = _part(contents, head)
    layers = [_part(contents, row) for row in _list(data.get("layers"), "layers")]
    kind = data.get("mediaType", MANIFEST)
    return _candidate(_read(manifest, MANIFEST_LIMIT), _text(kind, "mediaType"), config, layers, names)


def _part(contents: Spool, row: object) -> Spooled:
    if not isinstance(row, dict):
        raise configs.broken("a manifest's part is not a descriptor")
    digest = _digest(row)
    found = contents.blob(digest)
    if found is None:
        raise configs.broken(f"the archive has no blob {digest}")
    if row.get("size") != found.size:
        raise configs.broken(f"blob {digest[:19]} has {found.size} bytes, not {row.get('size')!r:.40}")
    return found


def _name(row: dict[str, Any]) -> str:
    """The name an index gives an image; ref.name may be a bare tag, which names nothing."""
    notes = _notes(row)
    text = notes.get(_CONTAINERD_NAME) or notes.get(_REF_NAME) or ""
    if not isinstance(text, str) or not text or text == references.DEFAULT_TAG or text[0].isdigit():
        return ""
    return str(references.parse(text))


# --- both ----------------------------------------------------------------------------------------


def _candidate(
    manifest: bytes, media_type: str, config: Spooled, layers: list[Spooled], names: tuple[str, ...]
) -> _Candidate:
    parsed = configs.parse(_read(config, configs.CONFIG_LIMIT), config.digest)
    if len(parsed.diff_ids) != len(layers):
        raise configs.broken(f"{len(layers)} layers, but {len(parsed.diff_ids)} diff_ids")
    if parsed.os not in ("", "linux"):
        raise UserError(f"an image for {parsed.os}, not for linux", exit_code=ExitCode.IMAGE)
    image = NewImage(
        id=config.digest,
        manifest=manifest,
        media_type=media_type,
        names=names,
        diff_ids=parsed.diff_ids,
        blobs=(config.digest, *(one.digest for one in layers)),
    )
    assert image.id == parsed.id
    return _Candidate(
        image=image,
        config=parsed,
        parts=(config, *layers),
        layers=dict(zip(parsed.diff_ids, (one.path for one in layers), strict=True)),
    )


def _read(part: Spooled, limit: int) -> bytes:
    if part.size > limit:
        raise configs.broken(f"a file of {part.size} bytes where at most {limit >> 20} MiB belong")
    return part.path.read_bytes()


def _json(part: Spooled, what: str) -> object:
    try:
        data: object = json.loads(_read(part, MANIFEST_LIMIT))
    except (ValueError, RecursionError) as error:
        raise configs.broken(f"{what} is not JSON: {str(error)[:120]}") from None
    return data


def _object(part: Spooled, what: str) -> dict[str, Any]:
    return configs.read_json(_read(part, MANIFEST_LIMIT), what, limit=MANIFEST_LIMIT)


def _list(value: object, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise configs.broken(f"{name} is not a list")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise configs.broken(f"{name} is not a text")
    return value


def _digest(row: dict[str, Any]) -> str:
    digest = row.get("digest")
    if not isinstance(digest, str) or not references.is_digest(digest):
        raise configs.broken(f"{digest!r:.80} is not a sha256 digest")
    return digest


def _notes(row: dict[str, Any]) -> dict[str, Any]:
    notes = row.get("annotations")
    return notes if isinstance(notes, dict) else {}


def _platform(row: dict[str, Any]) -> tuple[str, str] | None:
    value = row.get("platform")
    if not isinstance(value, dict):
        return None
    return str(value.get("os", "")), str(value.get("architecture", ""))
