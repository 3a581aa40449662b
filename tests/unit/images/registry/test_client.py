"""What the client asks a registry, and what it makes of good and bad answers. Real registries, on loopback."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchestrator.images.registry import manifests, transport
from orchestrator.images.registry.blame import BrokenAnswerError, DeniedError, NotFoundError, UnavailableError
from orchestrator.images.registry.client import Manifest, NotModified
from orchestrator.images.registry.manifests import ACCEPT, OCI_MANIFEST, Descriptor, ImageManifest
from orchestrator.model.errors import UserError
from tests.kit.archives import dumps
from tests.kit.faults import (
    Cut,
    Drop,
    Endless,
    Faults,
    Html,
    Length,
    Redirect,
    Resize,
    Say,
    Spoil,
    Stall,
    Status,
    digest_of,
)
from tests.kit.registries import Registry, fresh
from tests.unit.images.registry.conftest import IMAGE, Client, seeded


async def manifest_of(client: Client, host: str, path: str = "app", reference: str = "1") -> Manifest:
    async with client.open(host) as registry:
        found = await registry.manifest(path, reference)
    assert isinstance(found, Manifest)
    return found


# --- good answers ---------------------------------------------------------------------------------


async def test_a_tag_leads_to_manifest_config_and_layers(client: Client, open_registry: Registry) -> None:
    path, digest = seeded(open_registry)
    async with client.open(open_registry.host) as registry:
        found = await registry.manifest(path, "1")
        assert isinstance(found, Manifest)
        assert found.digest == digest
        parsed = manifests.parse(found.content, found.media_type, "x")
        assert isinstance(parsed, ImageManifest)
        assert await registry.blob(path, parsed.config, limit=1 << 20) == IMAGE.config
        source = await registry.source(path, parsed.layers[0].digest)
        assert source.url == f"{open_registry.url}/v2/{path}/blobs/{parsed.layers[0].digest}"
        assert source.headers == {}
        by_digest = await registry.manifest(path, digest)
        assert isinstance(by_digest, Manifest)
        assert by_digest.content == found.content


async def test_an_image_that_is_up_to_date_costs_one_request(client: Client, faults: Faults) -> None:
    assert faults.registry
    path, digest = seeded(faults.registry)
    async with client.open(faults.host) as registry:
        assert (await registry.head(path, "1")).digest == digest
    assert [f"{one.method} {one.path}" for one in faults.requests] == [f"HEAD /v2/{path}/manifests/1"]
    assert faults.requests[0].headers["Accept"] == ACCEPT


async def test_all_requests_share_a_connection(client: Client, shelf: Faults) -> None:
    shelf.put_image("app:1", IMAGE)
    async with client.open(shelf.host) as registry:
        for _ in range(3):
            await registry.head("app", "1")
            await registry.manifest("app", "1")
        with pytest.raises(NotFoundError):
            await registry.manifest("app", digest_of(b"none"))
        await registry.head("app", "1")
    assert len(shelf.requests) == 8
    assert len({one.peer for one in shelf.requests}) == 1


async def test_what_has_not_changed_is_not_sent_again(client: Client, open_registry: Registry) -> None:
    path, _ = seeded(open_registry)
    async with client.open(open_registry.host) as registry:
        found = await registry.manifest(path, "1")
        assert isinstance(found, Manifest)
        assert found.etag
        assert isinstance(await registry.manifest(path, "1", etag=found.etag), NotModified)
        assert isinstance(await registry.manifest(path, "1", etag='"other"'), Manifest)


async def test_without_a_digest_in_the_answer_to_head_the_manifest_is_fetched(
    client: Client, shelf: Faults
) -> None:
    digest = shelf.put_image("app:1", IMAGE)
    shelf.add(Say(headers={"Docker-Content-Digest": ""}))
    async with client.open(shelf.host) as registry:
        assert (await registry.head("app", "1")).digest == digest
    assert [one.method for one in shelf.requests] == ["HEAD", "GET"]


async def test_nothing_is_asked_for_in_a_compressed_form(client: Client, shelf: Faults) -> None:
    shelf.put_image("app:1", IMAGE)
    await manifest_of(client, shelf.host)
    assert shelf.requests[0].headers["Accept-Encoding"] == "identity"
    assert shelf.requests[0].headers["User-Agent"].startswith("pystack/")


async def test_few_pulls_left_are_worth_a_word_once(client: Client, shelf: Faults) -> None:
    shelf.put_image("app:1", IMAGE)
    shelf.add(Say(headers={"RateLimit-Remaining": "3;w=21600"}))
    async with client.open(shelf.host) as registry:
        await registry.manifest("app", "1")
        await registry.manifest("app", "1")
    assert client.said == [f"{shelf.host} allows 3 more pulls for now; `pystack login` raises the limit"]


# --- bad answers ----------------------------------------------------------------------------------


async def test_an_unknown_tag_is_told_with_those_alike(client: Client, shelf: Faults) -> None:
    shelf.put_image("app:1.25.3", IMAGE)
    shelf.put_blob("x", b"")
    shelf.shelf["/v2/app/tags/list"] = replace(
        shelf.shelf["/v2/app/manifests/1.25.3"],
        content=dumps({"name": "app", "tags": ["1.24", "1.25.3", "edge", "1.25.3-slim"]}),
    )
    with pytest.raises(
        NotFoundError, match=r"manifest for .*app:1\.25\.33 not found: manifest unknown"
    ) as caught:
        await manifest_of(client, shelf.host, "app", "1.25.33")
    assert caught.value.hint == "tags that are there: 1.25.3, 1.25.3-slim, 1.24, ..."
    assert client.slept == []


async def test_a_repository_that_is_not_there_has_no_tags_to_name(
    client: Client, open_registry: Registry
) -> None:
    with pytest.raises(NotFoundError, match="manifest unknown") as caught:
        await manifest_of(client, open_registry.host, fresh(), "1")
    assert caught.value.hint == ""


@pytest.mark.parametrize("reference", ["tag", "digest"])
async def test_bytes_that_are_not_those_of_the_digest_are_refused(
    client: Client, shelf: Faults, reference: str
) -> None:
    digest = shelf.put_image("app:1", IMAGE)
    shelf.add(Spoil(at=30))
    with pytest.raises(BrokenAnswerError, match=f"sent what has the digest sha256:.*, not {digest}"):
        await manifest_of(client, shelf.host, "app", "1" if reference == "tag" else digest)


async def test_a_pinned_digest_counts_and_not_what_the_header_says(client: Client, shelf: Faults) -> None:
    pinned = digest_of(b"what was asked for")
    shelf.put_image("app:1", IMAGE)
    evil = shelf.shelf["/v2/app/manifests/1"]
    shelf.shelf[f"/v2/app/manifests/{pinned}"] = replace(evil, headers={"Docker-Content-Digest": pinned})
    with pytest.raises(BrokenAnswerError, match="sent what has the digest"):
        await manifest_of(client, shelf.host, "app", pinned)
    async with client.open(shelf.host) as registry:
        shelf.add(Say(headers={"Docker-Content-Digest": digest_of(b"other")}))
        with pytest.raises(BrokenAnswerError, match="sent what has the digest"):
            await registry.head("app", pinned)


async def test_a_media_type_that_header_and_manifest_do_not_agree_on_is_refused(
    client: Client, shelf: Faults
) -> None:
    shelf.put_image("app:1", IMAGE)
    shelf.add(Say(media_type=manifests.OCI_INDEX))
    with pytest.raises(UserError, match=r"the registry calls it application/vnd\.oci\.image\.index"):
        await manifest_of(client, shelf.host)


async def test_a_manifest_without_an_end_is_not_read_to_it(client: Client, shelf: Faults) -> None:
    shelf.put_image("app:1", IMAGE)
    shelf.add(Endless(), "manifests")
    with pytest.raises(BrokenAnswerError, match="sends more than the 4 MiB that are read of such an answer"):
        await manifest_of(client, shelf.host)
    assert shelf.sent() < 64 << 20


@pytest.mark.parametrize("wrong", [Resize(by=1), Resize(by=-1), Length(by=-3), Spoil()])
async def test_a_blob_of_another_size_or_digest_is_refused(
    client: Client, shelf: Faults, wrong: Resize
) -> None:
    digest = shelf.put_blob("app", b"a config of some bytes")
    shelf.add(wrong, "/blobs/")
    blob = Descriptor(media_type="x", digest=digest, size=22)
    async with client.open(shelf.host) as registry:
        with pytest.raises(BrokenAnswerError, match=r"bytes|read of such an answer|digest"):
            await registry.blob("app", blob, limit=1 << 20)
        with pytest.raises(BrokenAnswerError, match="has 22 bytes, too many"):
            await registry.blob("app", blob, limit=21)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
async def test_what_is_refused_for_good_is_asked_once(client: Client, shelf: Faults, status: int) -> None:
    shelf.add(Status(status))
    with pytest.raises((DeniedError, NotFoundError, BrokenAnswerError)):
        await manifest_of(client, shelf.host, "app", digest_of(b"x"))
    assert len(shelf.requests) == 1


async def test_what_may_pass_is_tried_five_times_with_growing_pauses(client: Client, shelf: Faults) -> None:
    shelf.add(Html(502))
    with pytest.raises(UnavailableError, match=r"answered 502 Bad Gateway$") as caught:
        await manifest_of(client, shelf.host)
    assert "<" not in str(caught.value)
    assert client.slept == [0.25, 0.5, 1.0, 2.0]
    assert len(shelf.requests) == 5


@pytest.mark.parametrize("wrong", [Drop(), Status(503), Status(408), Cut(after=10), Length(by=5)])
async def test_a_passing_trouble_is_waited_for(client: Client, shelf: Faults, wrong: Drop) -> None:
    digest = shelf.put_image("app:1", IMAGE)
    shelf.add(wrong, times=2)
    assert (await manifest_of(client, shelf.host)).digest == digest
    assert len(client.slept) == 2


async def test_a_registry_says_how_long_to_wait(client: Client, shelf: Faults) -> None:
    shelf.put_image("app:1", IMAGE)
    shelf.add(Status(429, retry_after="7"), times=1)
    shelf.add(Status(429, retry_after="Wed, 14 Oct 2026 17:46:50 GMT"), skip=1, times=1)
    await manifest_of(client, shelf.host)
    assert client.slept == [7.0, 10.0]


async def test_hours_are_not_waited_for(client: Client, shelf: Faults) -> None:
    shelf.add(Status(429, retry_after="21600"))
    with pytest.raises(UnavailableError, match="asks to wait for 21600 s"):
        await manifest_of(client, shelf.host)
    assert client.slept == []


async def test_nobody_there_is_told_with_host_and_reason(client: Client) -> None:
    with pytest.raises(UnavailableError, match=r"^localhost:9: Connection refused$"):
        await manifest_of(client, "localhost:9")
    assert len(client.slept) == 4


async def test_a_name_that_there_is_not_is_told_at_once(client: Client) -> None:
    with pytest.raises(UnavailableError, match=r"^nowhere\.invalid: "):
        await manifest_of(client, "nowhere.invalid")
    assert client.slept == []


async def test_a_server_that_falls_silent_is_left(
    client: Client, shelf: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_WHOLE", 0.1)
    shelf.put_image("app:1", IMAGE)
    shelf.add(Stall(after=5), times=1)
    await manifest_of(client, shelf.host)
    assert len(client.slept) == 1


# --- redirects ------------------------------------------------------------------------------------


async def test_a_redirect_to_another_host_gets_no_credentials(client: Client, shelf: Faults) -> None:
    content = b"{}"
    client.log_in(shelf.host, "ann:secret")
    shelf.add(Status(401, headers={"WWW-Authenticate": 'Basic realm="x"'}), times=1)
    with Faults(address="127.0.0.2").serving() as storage:
        digest = storage.put_blob("app", content)
        shelf.add(Redirect(f"{storage.url}/v2/app/blobs/{digest}?signature=S"), "/blobs/")
        async with client.open(shelf.host) as registry:
            blob = Descriptor(media_type="x", digest=digest, size=len(content))
            assert await registry.blob("app", blob, limit=100) == content
        assert "Authorization" in shelf.requests[-1].headers
        (one,) = storage.requests
        assert "Authorization" not in one.headers
        assert one.path.endswith("?signature=S")


async def test_what_the_target_of_a_redirect_asks_is_not_answered(client: Client, shelf: Faults) -> None:
    with Faults(address="127.0.0.2").serving() as storage:
        client.log_in(storage.host, "ann:secret")
        client.log_in(shelf.host, "ann:secret")
        storage.add(Status(401, headers={"WWW-Authenticate": 'Basic realm="x"'}))
        shelf.add(Redirect(f"{storage.url}/blob"), "/blobs/")
        async with client.open(shelf.host) as registry:
            blob = Descriptor(media_type="x", digest=digest_of(b"{}"), size=2)
            with pytest.raises(DeniedError):
                await registry.blob("app", blob, limit=100)
        assert len(storage.requests) == 1


async def test_redirects_have_an_end(client: Client, shelf: Faults) -> None:
    shelf.add(Redirect("http://{host}{path}x"))
    with pytest.raises(BrokenAnswerError, match="more than 5 redirects"):
        await manifest_of(client, shelf.host, "app", digest_of(b""))
    assert len(shelf.requests) == 6


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "gopher://x/", "http://[bad/", "http://x:99999999/"]
)
async def test_redirects_lead_to_the_web_only(client: Client, shelf: Faults, target: str) -> None:
    shelf.add(Redirect(target))
    with pytest.raises(BrokenAnswerError, match="redirects to what is not a web address"):
        await manifest_of(client, shelf.host)


async def test_a_redirect_that_no_host_can_be_read_from_is_told_without_its_signature(
    client: Client, shelf: Faults
) -> None:
    shelf.add(Redirect(f"http://{'a' * 300}.b/x?signature=S"))
    with pytest.raises(BrokenAnswerError, match="is no host that can be asked") as caught:
        await manifest_of(client, shelf.host)
    assert "signature" not in caught.value.message


# --- lists ----------------------------------------------------------------------------------------


async def test_lists_are_read_page_by_page(client: Client, shelf: Faults) -> None:
    for number, following in ((1, 2), (2, 3), (3, 0)):
        link = {"Link": f'</v2/app/tags/list?page={following}>; rel="next"'} if following else {}
        fault = Say(body=dumps({"tags": [f"t{number}"]}), headers=link)
        shelf.add(fault, rf"page={number}" if number > 1 else r"n=1000")
    shelf.put_manifest("app", "1", b"{}")
    shelf.shelf["/v2/app/tags/list"] = shelf.shelf["/v2/app/manifests/1"]
    async with client.open(shelf.host) as registry:
        assert await registry.tags("app") == ["t1", "t2", "t3"]
        assert await registry.tags("app", pages=2) == ["t1", "t2"]


async def test_a_list_without_an_end_has_one(client: Client, shelf: Faults) -> None:
    shelf.put_manifest("app", "1", b"{}")
    shelf.shelf["/v2/app/tags/list"] = replace(
        shelf.shelf["/v2/app/manifests/1"],
        content=b'{"tags": ["a"]}',
        headers={"Link": '</v2/app/tags/list?last=a>; rel="next"'},
    )
    async with client.open(shelf.host) as registry:
        assert await registry.tags("app") == ["a", "a"]


async def test_the_catalog_of_a_real_registry(client: Client, open_registry: Registry) -> None:
    path, _ = seeded(open_registry)
    async with client.open(open_registry.host) as registry:
        assert path in await registry.catalog()
        assert await registry.tags(path) == ["1"]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"tags": 7}', b"[" * 100_000])
async def test_a_list_that_is_none_is_refused(client: Client, shelf: Faults, body: bytes) -> None:
    shelf.put_manifest("app", "1", b"{}")
    shelf.shelf["/v2/app/tags/list"] = replace(shelf.shelf["/v2/app/manifests/1"], content=body)
    async with client.open(shelf.host) as registry:
        with pytest.raises(BrokenAnswerError, match="the answer is not a list"):
            await registry.tags("app")


async def test_tags_are_texts_that_can_be_shown(client: Client, shelf: Faults) -> None:
    rows = ["good", 7, None, "\x1b[31m", "x" * 400]
    shelf.put_manifest("app", "1", b"{}")
    shelf.shelf["/v2/app/tags/list"] = replace(
        shelf.shelf["/v2/app/manifests/1"], content=json.dumps({"tags": rows}).encode()
    )
    async with client.open(shelf.host) as registry:
        assert await registry.tags("app") == ["good"]
    assert OCI_MANIFEST in ACCEPT
