"""What a registry has beside an image: signatures, attestations, SBOMs. Looked for, not verified.

Three habits: entries of an index that speak of others (BuildKit), the referrers of a digest (distribution
specification 1.1, "Listing Referrers", with the tag `sha256-HEX` where a registry does not know them), and
tags named after a digest (cosign: `sha256-HEX.sig`).
"""

from __future__ import annotations

from typing import Any

from orchestrator.images import reference as references
from orchestrator.images.registry import manifests, tokens
from orchestrator.images.registry.blame import BrokenAnswerError, DeniedError, NotFoundError
from orchestrator.images.registry.client import Manifest, Registry
from orchestrator.images.registry.manifests import ImageIndex
from orchestrator.images.registry.transport import Request
from orchestrator.model.errors import UserError
from orchestrator.model.frozen import dataclass

_TAGS = {"sig": "a signature", "att": "an attestation", "sbom": "an SBOM"}
_MOST = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """`kind` in words, `type` as it calls itself, `at` how it can be had: a digest or a tag."""

    kind: str
    type: str
    at: str


async def find(registry: Registry, path: str, reference: str) -> tuple[str, list[Attached]]:
    """The digest that a tag means, and what is attached to it. Raises as `Registry.manifest` does."""
    answer = await registry.manifest(path, reference)
    assert isinstance(answer, Manifest), "no etag was sent"
    parsed = manifests.parse(answer.content, answer.media_type, registry.name(path, reference))
    found = []
    if isinstance(parsed, ImageIndex):
        found += [
            Attached(kind="an attestation", type=one.media_type, at=one.digest)
            for one in parsed.manifests
            if one.attestation
        ]
    found += await _referrers(registry, path, answer.digest)
    for suffix, kind in _TAGS.items():
        tag = f"{answer.digest.replace(':', '-')}.{suffix}"
        if await _is_there(registry, path, tag):
            found.append(Attached(kind=kind, type="cosign", at=tag))
    return answer.digest, found[:_MOST]


async def _referrers(registry: Registry, path: str, digest: str) -> list[Attached]:
    """Those that name the digest as their subject."""
    place = registry.origin(path)

    async def ask(url: str) -> bytes | None:
        request = Request(
            method="GET", url=url, headers={"Accept": manifests.OCI_INDEX}, limit=manifests.LIMIT
        )
        response = await registry.call(place, request, tokens.scope(place.path, "pull"))
        if response.status == 200:
            return response.content
        if response.status in (400, 404, 405, 406, 501):
            return None
        raise registry.failure(response, f"what is attached to {registry.name(path, digest)}")

    for url in (
        f"/v2/{place.path}/referrers/{digest}",
        f"/v2/{place.path}/manifests/{digest.replace(':', '-')}",
    ):
        content = await registry.patiently(lambda url=url: ask(url))  # type: ignore[misc]
        if content is not None:
            return rows(content, registry.name(path, digest))
    return []


def rows(content: bytes, name: str) -> list[Attached]:
    """What an index of referrers lists. Raises UserError. Pure."""
    listed = manifests.read(content, name).get("manifests")
    found = []
    for row in listed[:_MOST] if isinstance(listed, list) else ():
        if not isinstance(row, dict):
            continue
        type_, digest = _type(row), row.get("digest")
        if isinstance(digest, str) and references.is_digest(digest):
            found.append(Attached(kind=manifests.words_for(type_), type=type_, at=digest))
    return found


def _type(row: dict[str, Any]) -> str:
    for key in ("artifactType", "mediaType"):
        value = row.get(key)
        if isinstance(value, str) and value.isprintable() and value:
            return value[:200]
    return ""


async def _is_there(registry: Registry, path: str, tag: str) -> bool:
    try:
        await registry.head(path, tag)
    except (NotFoundError, DeniedError, BrokenAnswerError, UserError):
        return False
    return True
