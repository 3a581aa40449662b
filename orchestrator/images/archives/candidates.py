"""Images of an archive, before they are in the store; and its JSON, none of which is believed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from orchestrator.images import config as configs
from orchestrator.images import reference as references
from orchestrator.images.archives.spool import Part
from orchestrator.images.config import ImageConfig
from orchestrator.images.store.content import MANIFEST_LIMIT
from orchestrator.images.store.index import NewImage
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass

IMAGE_LIMIT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An image of the archive, its parts found."""

    image: NewImage
    config: ImageConfig
    parts: tuple[Part, ...]
    """Config and layers, lowest first."""
    layers: dict[str, Part]
    """Blob of each layer by its diff_id."""


def make(
    manifest: bytes, media_type: str, config: Part, layers: Sequence[Part], names: tuple[str, ...]
) -> Candidate:
    """Raises UserError when config and layers do not belong together, or cannot be run here."""
    parsed = parse_config(config)
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
    return Candidate(
        image=image,
        config=parsed,
        parts=(config, *layers),
        layers=dict(zip(parsed.diff_ids, layers, strict=True)),
    )


def parse_config(config: Part) -> ImageConfig:
    content = config.read(configs.CONFIG_LIMIT)
    return configs.parse(content, config.digest)


def any_json(part: Part, what: str) -> object:
    text = part.read(MANIFEST_LIMIT)
    if configs.too_many_parts(text):
        raise configs.broken(f"{what} has more than {configs.PARTS_LIMIT} parts")
    try:
        data: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise configs.broken(f"{what} is not JSON: {str(error)[:120]}") from None
    return data


def an_object(part: Part, what: str) -> dict[str, Any]:
    return configs.read_json(part.read(MANIFEST_LIMIT), what, limit=MANIFEST_LIMIT)


def a_list(value: object, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise configs.broken(f"{name} is not a list")
    return value


def a_text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise configs.broken(f"{name} is not a text")
    return value


def a_digest(row: dict[str, Any]) -> str:
    digest = row.get("digest")
    if not isinstance(digest, str) or not references.is_digest(digest):
        raise configs.broken(f"{digest!r:.80} is not a sha256 digest")
    return digest
