"""What is found beside an image, and what is not believed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.images.registry import attached
from orchestrator.images.registry.attached import Attached
from orchestrator.model.errors import UserError
from tests.kit.archives import INDEX, MANIFEST, dumps
from tests.kit.faults import Faults, digest_of
from tests.unit.images.registry.conftest import IMAGE, Client

NOTATION = "application/vnd.cncf.notary.signature"


def referrers(*rows: object) -> bytes:
    return dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(rows)})


def row(kind: str, number: int) -> dict[str, object]:
    return {"mediaType": MANIFEST, "artifactType": kind, "digest": digest_of(bytes(number)), "size": 1}


async def beside(client: Client, shelf: Faults, reference: str = "1") -> list[Attached]:
    async with client.open(shelf.host) as registry:
        return (await attached.find(registry, "app", reference))[1]


async def test_an_image_may_have_nothing_beside_it(client: Client, shelf: Faults) -> None:
    shelf.put_image("app:1", IMAGE)
    assert await beside(client, shelf) == []


async def test_referrers_attestations_and_cosigns_tags_are_found(client: Client, shelf: Faults) -> None:
    image = shelf.put_image("app:plain", IMAGE)
    size = len(shelf.shelf[f"/v2/app/manifests/{image}"].content)
    statement = {
        "mediaType": MANIFEST,
        "digest": digest_of(b"s"),
        "size": 1,
        "platform": {"os": "unknown", "architecture": "unknown"},
    }
    plain = {"mediaType": MANIFEST, "digest": image, "size": size}
    index = shelf.put_manifest("app", "1", referrers(plain, statement), INDEX)
    answer = replace(
        shelf.shelf["/v2/app/manifests/1"], content=referrers(row(NOTATION, 1), row("x/sbom", 2))
    )
    shelf.shelf[f"/v2/app/referrers/{index}"] = answer
    shelf.put_image(f"app:{index.replace(':', '-')}.sig", IMAGE)
    assert await beside(client, shelf) == [
        Attached(kind="an attestation", type=MANIFEST, at=digest_of(b"s")),
        Attached(kind="a signature", type=NOTATION, at=digest_of(bytes(1))),
        Attached(kind="an artifact", type="x/sbom", at=digest_of(bytes(2))),
        Attached(kind="a signature", type="cosign", at=f"{index.replace(':', '-')}.sig"),
    ]


async def test_a_registry_without_referrers_has_a_tag_for_them(client: Client, shelf: Faults) -> None:
    digest = shelf.put_image("app:1", IMAGE)
    shelf.put_manifest("app", digest.replace(":", "-"), referrers(row(NOTATION, 1)), INDEX)
    assert [one.kind for one in await beside(client, shelf, digest)] == ["a signature"]


def test_what_is_listed_wrongly_is_passed_over() -> None:
    good = row(NOTATION, 1)
    bad = [7, {}, {**good, "digest": "x"}, {**good, "digest": 7}]
    found = attached.rows(referrers(*bad, good, {**good, "artifactType": "\x1b[31m"}), "app")
    assert [one.type for one in found] == [NOTATION, MANIFEST]
    assert attached.rows(b'{"manifests": 7}', "app") == []
    assert len(attached.rows(referrers(*[good] * 500), "app")) == 200
    with pytest.raises(UserError, match="not JSON"):
        attached.rows(b"<html>", "app")
