"""Manifests and indexes as values. Pure.

Source: OCI image specification 1.1 (manifest.md, image-index.md, descriptor.md) and Docker's image manifest
version 2, schema 2, which differ in little but their media types. Bytes come from a registry: nothing is
believed before it is checked, and a document that could be read in two ways is refused
(CVE-2021-41190: a manifest that is an index as well).
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NoReturn

from orchestrator.images import config as configs
from orchestrator.images import reference as references
from orchestrator.images.registry import platforms
from orchestrator.images.registry.platforms import Platform
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPT = f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}"
MANIFESTS = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
INDEXES = frozenset((OCI_INDEX, DOCKER_LIST))

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
LAYERS = frozenset(
    (
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    )
)
FOREIGN = frozenset(
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    )
)
_SCHEMA1 = frozenset(
    (
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    )
)
_VAGUE = frozenset(("", "application/json", "text/plain", "application/octet-stream", "binary/octet-stream"))
_ARTIFACTS = (
    ("application/vnd.cncf.helm", "a Helm chart"),
    ("application/vnd.dev.cosign", "a signature"),
    ("application/vnd.dev.sigstore", "a signature"),
    ("application/vnd.cncf.notary", "a signature"),
    ("application/vnd.docker.plugin", "a Docker plugin"),
    ("application/vnd.wasm", "a WebAssembly module"),
    ("application/vnd.docker.ai", "an AI model"),
    ("application/vnd.in-toto", "an attestation"),
    ("application/spdx", "an SBOM"),
    ("application/vnd.cyclonedx", "an SBOM"),
)

LIMIT = 4 << 20
"""Bytes of a manifest; what registries themselves allow (distribution specification, "Pushing Manifests")."""
ENTRY_LIMIT = 1000
BLOB_LIMIT = 1 << 40
_DEPTH_LIMIT = 32
# Possessive: nothing is remembered of what was passed, else a text costs a hundred times its size.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_ATTESTATION = "vnd.docker.reference.type"


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Something by its digest: `size` in bytes; `platform` only within an index."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    attestation: bool = False
    """A statement about another entry of the index, not an image."""

    @property
    def foreign(self) -> bool:
        """A layer that may not be handed on: it is fetched if the registry has it, and never pushed."""
        return self.media_type in FOREIGN


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageManifest:
    """One image: its config and its layers, lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageIndex:
    """Images of one name for several platforms; also Docker's manifest list."""

    media_type: str
    manifests: tuple[Descriptor, ...]


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def parse(content: bytes, content_type: str, name: str) -> ImageManifest | ImageIndex:
    """Read what a registry gave under `name`, with the Content-Type it named.

    Raises UserError when it is broken, not an image, or of a kind that is not read any more.
    """
    data = read(content, name)
    kind = kind_of(data, content_type, name)
    if kind in INDEXES:
        if "layers" in data or "config" in data:
            broken(name, "it is an index and a manifest at once")
        rows = _rows(data, "manifests", name)
        return ImageIndex(media_type=kind, manifests=tuple(_descriptor(row, name) for row in rows))
    if "manifests" in data:
        broken(name, "it is an index and a manifest at once")
    if not isinstance(data.get("config"), dict):
        broken(name, "it names no config")
    config = _descriptor(data["config"], name)
    _check_runnable(data, config, name)
    if config.size > configs.CONFIG_LIMIT:
        broken(name, f"a config of {config.size} bytes, at most {configs.CONFIG_LIMIT >> 20} MiB are read")
    layers = tuple(_descriptor(row, name) for row in _rows(data, "layers", name))
    if len(layers) > configs.LAYER_LIMIT:
        broken(name, f"{len(layers)} layers, at most {configs.LAYER_LIMIT} can be mounted")
    for layer in layers:
        if layer.media_type not in LAYERS and not layer.foreign:
            raise UserError(
                f"{name}: its layers are of a kind that can't be unpacked: {layer.media_type:.100}",
                exit_code=ExitCode.IMAGE,
            )
    return ImageManifest(media_type=kind, config=config, layers=layers)


def read(content: bytes, name: str) -> dict[str, Any]:
    """JSON within limits: bytes, depth. Raises UserError."""
    if len(content) > LIMIT:
        broken(name, f"the manifest is larger than {LIMIT >> 20} MiB")
    if configs.too_many_parts(content):
        broken(name, f"the manifest has more than {configs.PARTS_LIMIT} parts")
    depth = 0
    for letter in re.findall(rb"[\[\]{}]", _STRINGS.sub(b"", content)):
        depth += 1 if letter in b"[{" else -1
        if depth > _DEPTH_LIMIT:
            broken(name, f"the manifest is nested deeper than {_DEPTH_LIMIT} levels")
    try:
        data = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        broken(name, "the manifest is not JSON")
    if not isinstance(data, dict):
        broken(name, "the manifest is not a JSON object")
    return data


def kind_of(data: dict[str, Any], content_type: str, name: str) -> str:
    """The media type that header and document agree on. Raises UserError."""
    outer = content_type.partition(";")[0].strip().lower()
    inner = data.get("mediaType", "")
    if not isinstance(inner, str):
        broken(name, "mediaType is not a text")
    if outer in _SCHEMA1 or inner in _SCHEMA1 or data.get("schemaVersion") == 1:
        raise UserError(
            f"{name}: its manifest is of Docker's schema 1, which is not read any more",
            exit_code=ExitCode.IMAGE,
            hint="push it again with a Docker of 2017 or later (1.10 wrote schema 2), "
            "or copy it: skopeo copy --format v2s2 docker://OLD docker://NEW",
        )
    if data.get("schemaVersion") != 2:
        broken(name, f"schemaVersion is {data.get('schemaVersion')!r:.40}, not 2")
    # The specification: a client should refuse what the two name differently, or it would have two meanings.
    if inner and outer not in _VAGUE and inner != outer:
        broken(name, f"the registry calls it {outer:.100}, it calls itself {inner:.100}")
    kind = inner or outer
    if kind in MANIFESTS or kind in INDEXES:
        return kind
    if kind in _VAGUE:
        broken(name, "nobody says what kind of manifest it is")
    raise not_an_image(name, kind)


def choose(index: ImageIndex, wanted: Platform, name: str) -> Descriptor:
    """The entry for a platform: a manifest, or an index within this one.

    Raises UserError listing what there is. Attestations, and what is for no platform at all, are passed over.
    """
    entries = [one for one in index.manifests if not one.attestation]
    usable = [one for one in entries if one.media_type in MANIFESTS or one.media_type in INDEXES]
    position = platforms.best((one.platform for one in usable), wanted)
    if position is not None:
        return usable[position]
    present = sorted({str(one.platform) for one in usable if one.platform})
    there = f"it has: {', '.join(present)[:600]}" if present else "it holds no image"
    raise UserError(
        f"{name}: no matching manifest for {wanted}; {there}",
        exit_code=ExitCode.IMAGE,
        hint=f"--platform {present[0]} takes another one" if present else "",
    )


def words_for(kind: str) -> str:
    """What an artifact of this type is."""
    return next((words for head, words in _ARTIFACTS if kind.startswith(head)), "an artifact")


def not_an_image(name: str, kind: str) -> UserError:
    what = words_for(kind)
    shown = f" ({kind:.100})" if kind else ""
    return UserError(f"{name} is {what}{shown}, not an image that can be run", exit_code=ExitCode.IMAGE)


def broken(name: str, why: str) -> NoReturn:
    raise UserError(f"{name}: broken image: {why}", exit_code=ExitCode.IMAGE)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(text)


def _check_runnable(data: dict[str, Any], config: Descriptor, name: str) -> None:
    artifact = data.get("artifactType")
    if config.media_type in (OCI_CONFIG, DOCKER_CONFIG):
        if isinstance(artifact, str) and artifact and artifact not in (OCI_CONFIG, DOCKER_CONFIG):
            raise not_an_image(name, artifact)
        return
    empty = config.media_type == "application/vnd.oci.empty.v1+json"
    raise not_an_image(name, artifact if empty and isinstance(artifact, str) else config.media_type)


def _rows(data: dict[str, Any], key: str, name: str) -> list[Any]:
    # Go writes an empty list as null now and then.
    rows = [] if key in data and data[key] is None else data.get(key)
    if not isinstance(rows, list):
        broken(name, f"{key} is not a list")
    if len(rows) > ENTRY_LIMIT:
        broken(name, f"{len(rows)} {key}, at most {ENTRY_LIMIT} are read")
    return rows


def _descriptor(row: object, name: str) -> Descriptor:
    if not isinstance(row, dict):
        broken(name, "a part of it is not a descriptor")
    kind, digest, size = row.get("mediaType"), row.get("digest"), row.get("size")
    if not isinstance(kind, str) or not kind:
        broken(name, "a part of it has no mediaType")
    if not isinstance(digest, str) or not references.is_digest(digest):
        broken(name, f"{digest!r:.80} is not a sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= BLOB_LIMIT:
        broken(name, f"{digest[:19]} has a size of {size!r:.40}")
    platform = _platform(row.get("platform"), name)
    notes = row.get("annotations")
    attestation = isinstance(notes, dict) and _ATTESTATION in notes
    unknown = platform is not None and (platform.os == "unknown" or platform.architecture == "unknown")
    return Descriptor(
        media_type=kind, digest=digest, size=size, platform=platform, attestation=attestation or unknown
    )


def _platform(value: object, name: str) -> Platform | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        broken(name, "a platform is not an object")
    parts = [value.get(key, "") for key in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) and len(part) <= 64 for part in parts):
        broken(name, "a platform has parts that are not texts")
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2])
