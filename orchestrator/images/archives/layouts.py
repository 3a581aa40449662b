"""Images of an OCI image layout (OCI image specification, image-layout.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.images import config as configs
from orchestrator.images import reference as references
from orchestrator.images.archives import candidates
from orchestrator.images.archives.candidates import Candidate, a_digest, a_list, a_text, an_object
from orchestrator.images.archives.spool import Contents, Part
from orchestrator.images.registry import platforms
from orchestrator.images.registry.platforms import Platform
from orchestrator.images.store.content import INDEX, MANIFEST, MANIFEST_LIMIT
from orchestrator.model.errors import ExitCode, UserError

CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_CONTAINERD_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_NESTING_LIMIT = 4


def images(contents: Contents, index: Part, wanted: Platform | None) -> Iterator[Candidate]:
    """Every image that index.json names; of those for several platforms the one for `wanted`, or for this
    machine. Raises UserError."""
    merged: dict[str, Candidate] = {}
    for row in _descriptors(an_object(index, "index.json")):
        manifest = _choose(contents, row, wanted, 0)
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
    rows = [row for row in a_list(data.get("manifests"), "manifests") if isinstance(row, dict)]
    if len(rows) > candidates.IMAGE_LIMIT:
        raise configs.broken("too many manifests in one index")
    return rows


def _choose(contents: Contents, row: dict[str, Any], wanted: Platform | None, nesting: int) -> Part | None:
    """The manifest that a descriptor means: itself, or the fitting one of an index; None to pass over."""
    if nesting > _NESTING_LIMIT:
        raise configs.broken("indexes nested too deep")
    if _is_attestation(row):
        return None
    digest = a_digest(row)
    blob = contents.blob(digest)
    if blob is None:
        if nesting:
            return None
        raise configs.broken(f"the archive has no blob {digest}")
    data = an_object(blob, f"manifest {digest[:19]}")
    if data.get("mediaType", row.get("mediaType")) not in (INDEX, _DOCKER_LIST) and "config" in data:
        return blob
    children = [one for one in _descriptors(data) if not _is_attestation(one)]
    left, here = children, wanted or platforms.this_machine()
    while (best := platforms.best(map(_platform, left), here)) is not None:
        chosen = _choose(contents, left[best], wanted, nesting + 1)
        if chosen is not None:
            return chosen
        # An archive may lack what its index names: what was not pulled was not saved.
        left = [*left[:best], *left[best + 1 :]]
    there = ", ".join(sorted({str(_platform(child) or "?") for child in children}))
    plain = wanted or Platform(os="linux", architecture=configs.architecture())
    raise UserError(
        f"no image for {plain} in the archive; it has: {there or 'nothing'}", exit_code=ExitCode.IMAGE
    )


def _from_manifest(contents: Contents, manifest: Part, names: tuple[str, ...]) -> Candidate:
    data = an_object(manifest, "manifest")
    head = data.get("config")
    if not isinstance(head, dict) or head.get("mediaType") not in (CONFIG, _DOCKER_CONFIG):
        raise UserError("not a runnable image, but an artifact of another kind", exit_code=ExitCode.IMAGE)
    config = _part(contents, head)
    layers = [_part(contents, row) for row in a_list(data.get("layers"), "layers")]
    kind = a_text(data.get("mediaType", MANIFEST), "mediaType")
    return candidates.make(manifest.read(MANIFEST_LIMIT), kind, config, layers, names)


def _part(contents: Contents, row: object) -> Part:
    if not isinstance(row, dict):
        raise configs.broken("a manifest's part is not a descriptor")
    digest = a_digest(row)
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


def _notes(row: dict[str, Any]) -> dict[str, Any]:
    notes = row.get("annotations")
    return notes if isinstance(notes, dict) else {}


def _platform(row: dict[str, Any]) -> Platform | None:
    value = row.get("platform")
    if not isinstance(value, dict):
        return None
    words = [str(value.get(key) or "") for key in ("os", "architecture", "variant")]
    return Platform(os=words[0], architecture=words[1], variant=words[2])


def _is_attestation(row: dict[str, Any]) -> bool:
    """A statement about another entry, as BuildKit puts beside it."""
    found = _platform(row)
    unknown = found is not None and (found.os, found.architecture) == ("unknown", "unknown")
    return unknown or "vnd.docker.reference.type" in _notes(row)
