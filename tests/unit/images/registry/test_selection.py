"""From a name to the image for a platform, at a registry that has what the test put there."""

from __future__ import annotations

import json

import pytest

from orchestrator.images.registry import platforms, selection
from orchestrator.images.registry.selection import Found
from orchestrator.model.errors import UserError
from tests.kit.archives import INDEX, MANIFEST, Entry, Image, dumps, layer
from tests.kit.faults import Faults, digest_of
from tests.unit.images.registry.conftest import Client

MOTD = layer(Entry("etc/motd", b"hello"))
IMAGE = Image((MOTD,), run={"Cmd": ["sh"]})
ARM = Image((layer(Entry("etc/motd", b"arm")),), more={"architecture": "arm", "variant": "v7"})


async def found(
    client: Client, shelf: Faults, wanted: str = "linux/amd64", reference: str = "1", **more: object
) -> Found:
    async with client.open(shelf.host) as registry:
        return await selection.find(registry, "app", reference, platforms.parse(wanted), **more)  # type: ignore[arg-type]


def put_index(shelf: Faults, tag: str, *rows: tuple[str, str], kind: str = MANIFEST) -> str:
    """An index of (platform, digest); the sizes are those of what is on the shelf."""
    entries = []
    for platform, digest in rows:
        os, architecture, *variant = platform.split("/")
        content = shelf.shelf[f"/v2/app/manifests/{digest}"].content
        where = {"os": os, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        entries.append({"mediaType": kind, "digest": digest, "size": len(content), "platform": where})
    data = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    return shelf.put_manifest("app", tag, dumps(data), INDEX)


async def test_a_name_without_an_index_means_one_image(client: Client, shelf: Faults) -> None:
    digest = shelf.put_image("app:1", IMAGE)
    one = await found(client, shelf)
    assert (one.named.digest, one.manifest.digest, one.indexes) == (digest, digest, ())
    assert one.config.id == IMAGE.id
    assert one.config_bytes == IMAGE.config
    assert one.remark == ""


async def test_an_index_leads_to_the_image_of_the_platform(client: Client, shelf: Faults) -> None:
    amd64, arm = shelf.put_image("app:a", IMAGE), shelf.put_image("app:b", ARM)
    index = put_index(shelf, "1", ("linux/arm/v7", arm), ("linux/amd64", amd64))
    shelf.clear()
    one = await found(client, shelf)
    assert (one.named.digest, one.manifest.digest) == (index, amd64)
    assert [each.digest for each in one.indexes] == [index]
    assert len(shelf.requests) == 3
    assert (await found(client, shelf, "linux/arm/v7")).manifest.digest == arm
    assert (await found(client, shelf, reference=index)).manifest.digest == amd64
    with pytest.raises(
        UserError, match=r"app:1: no matching manifest for linux/s390x; it has: linux/amd64, linux/arm/v7"
    ):
        await found(client, shelf, "linux/s390x")


async def test_an_index_may_stand_in_an_index_and_no_deeper(client: Client, shelf: Faults) -> None:
    image = shelf.put_image("app:a", IMAGE)
    inner = put_index(shelf, "b", ("linux/amd64", image))
    outer = put_index(shelf, "1", ("linux/amd64", inner), kind=INDEX)
    one = await found(client, shelf)
    assert one.manifest.digest == image
    assert [each.digest for each in one.indexes] == [outer, inner]
    put_index(shelf, "2", ("linux/amd64", outer), kind=INDEX)
    with pytest.raises(UserError, match="indexes nested deeper"):
        await found(client, shelf, reference="2")


async def test_what_is_here_is_not_asked_for(client: Client, shelf: Faults) -> None:
    image = shelf.put_image("app:a", IMAGE)
    put_index(shelf, "1", ("linux/amd64", image))
    here = {digest.rpartition("/")[2]: one.content for digest, one in shelf.shelf.items()}
    shelf.clear()
    await found(client, shelf, have=here.get)
    assert [one.path for one in shelf.requests] == ["/v2/app/manifests/1"]


async def test_an_entry_that_lies_about_its_manifest_is_refused(client: Client, shelf: Faults) -> None:
    image = shelf.put_image("app:a", IMAGE)
    path = f"/v2/app/manifests/{put_index(shelf, '1', ('linux/amd64', image))}"
    data = json.loads(shelf.shelf[path].content)
    for key, value, words in (
        ("size", 7, "bytes, not 7"),
        ("mediaType", INDEX, "is application/vnd.oci.image.manifest"),
    ):
        row = {**data["manifests"][0], key: value}
        shelf.put_manifest("app", "2", dumps({**data, "manifests": [row]}), INDEX)
        with pytest.raises(UserError, match=words):
            await found(client, shelf, reference="2")


async def test_layers_and_diff_ids_must_be_as_many(client: Client, shelf: Faults) -> None:
    more = {"rootfs": {"type": "layers", "diff_ids": [digest_of(MOTD)] * 2}}
    shelf.put_image("app:1", Image((MOTD,), more=more))
    with pytest.raises(UserError, match="1 layers, but 2 diff_ids"):
        await found(client, shelf)


async def test_an_image_for_another_machine_is_remarked_upon(client: Client, shelf: Faults) -> None:
    shelf.put_image("app:1", ARM)
    assert "(linux/arm/v7) does not match the one wanted (linux/amd64)" in (await found(client, shelf)).remark
    assert (await found(client, shelf, "linux/arm/v6")).remark == ""
    shelf.put_image("app:2", Image((MOTD,), more={"architecture": "", "os": ""}))
    assert (await found(client, shelf, reference="2")).remark == ""
