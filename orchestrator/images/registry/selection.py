"""From a name to one image: through an index, and one within it, to the manifest for a platform."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.images import config as configs
from orchestrator.images.config import ImageConfig
from orchestrator.images.registry import manifests, platforms
from orchestrator.images.registry.client import Manifest, NotModified, Registry
from orchestrator.images.registry.manifests import Descriptor, ImageIndex, ImageManifest
from orchestrator.images.registry.platforms import Platform
from orchestrator.model.frozen import dataclass, replace

_NESTING = 2
"""Indexes on the way to an image: one, and one within it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An image at a registry, ready for its layers to be fetched."""

    named: Manifest
    """What the name means there: an index, or the manifest itself."""
    manifest: Manifest
    image: ImageManifest
    config: ImageConfig
    config_bytes: bytes
    indexes: tuple[Manifest, ...] = ()
    """The way to it, `named` first; () when the name means the manifest itself."""
    remark: str = ""
    """What is odd about it, "" for nothing."""


async def find(
    registry: Registry,
    path: str,
    reference: str,
    wanted: Platform,
    *,
    named: Manifest | None = None,
    have: Callable[[str], bytes | None] = lambda _: None,
) -> Found:
    """The image that a tag or digest means on a platform.

    `named`: what it means, if that is known already. `have` gives a blob that is here by its digest, which
    then is not asked for. Raises UserError when there is no such image or nothing that fits, and as
    `Registry.manifest` does.
    """
    name = registry.name(path, reference)
    current = named or await _manifest(registry, path, reference)
    first = current
    indexes: list[Manifest] = []
    parsed = manifests.parse(current.content, current.media_type, name)
    while isinstance(parsed, ImageIndex):
        indexes.append(current)
        if len(indexes) > _NESTING:
            manifests.broken(name, "indexes nested deeper than one within another")
        child = manifests.choose(parsed, wanted, name)
        current = await _child(registry, path, child, first, have, name)
        parsed = manifests.parse(current.content, current.media_type, name)
    content = have(parsed.config.digest)
    if content is None:
        content = await registry.blob(
            path, parsed.config, limit=configs.CONFIG_LIMIT, origin=current.endpoint
        )
    config = configs.parse(content, parsed.config.digest)
    if len(config.diff_ids) != len(parsed.layers):
        manifests.broken(name, f"{len(parsed.layers)} layers, but {len(config.diff_ids)} diff_ids")
    return Found(
        named=first,
        manifest=current,
        image=parsed,
        config=config,
        config_bytes=content,
        indexes=tuple(indexes),
        remark=remark(config, wanted, name),
    )


def remark(config: ImageConfig, wanted: Platform, name: str) -> str:
    """A sentence when the config is for something else than was wanted. Pure."""
    if not config.os and not config.architecture:
        return ""
    present = Platform(os=config.os, architecture=config.architecture, variant=config.variant)
    # Some builders write no variant, or a wrong one; what runs or not is decided by the architecture.
    plain = replace(present, variant="")
    if platforms.fits(present, wanted) or replace(platforms.normal(plain), variant="") == replace(
        platforms.normal(wanted), variant=""
    ):
        return ""
    return f"{name}: the image's platform ({present}) does not match the one wanted ({wanted})"


async def _manifest(registry: Registry, path: str, reference: str) -> Manifest:
    answer = await registry.manifest(path, reference)
    assert not isinstance(answer, NotModified), "no etag was sent"
    return answer


async def _child(
    registry: Registry,
    path: str,
    child: Descriptor,
    parent: Manifest,
    have: Callable[[str], bytes | None],
    name: str,
) -> Manifest:
    content = have(child.digest)
    if content is not None:
        return Manifest(
            content=content, media_type=child.media_type, digest=child.digest, endpoint=parent.endpoint
        )
    answer = await _manifest(registry, path, child.digest)
    if len(answer.content) != child.size:
        manifests.broken(name, f"{child.digest[:19]} has {len(answer.content)} bytes, not {child.size}")
    if answer.media_type != child.media_type:
        manifests.broken(name, f"{child.digest[:19]} is {answer.media_type}, not {child.media_type:.100}")
    return answer
