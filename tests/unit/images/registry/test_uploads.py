"""Blobs and manifests on their way up, whole and in parts. The kit's registry knows after a cut how much it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.images.registry import uploads
from orchestrator.images.registry.blame import BrokenAnswerError, DeniedError, UnavailableError
from orchestrator.images.registry.manifests import OCI_MANIFEST
from tests.kit.archives import MANIFEST
from tests.kit.faults import CutUpload, Drop, Faults, Redirect, Say, Status, digest_of
from tests.kit.registries import Registry, fresh
from tests.unit.images.registry.conftest import IMAGE, Client, seeded

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(CONTENT)
    return path


DIGEST = digest_of(CONTENT)


def upward(shelf: Faults) -> list[str]:
    """Methods of the requests, with the bytes of each that brought some."""
    return [f"{one.method} {one.received}" if one.received else one.method for one in shelf.requests]


async def test_a_blob_goes_up_in_one_piece(client: Client, open_registry: Registry, blob: Path) -> None:
    path = fresh()
    with Faults(open_registry).serving() as faults:
        async with client.open(faults.host) as registry:
            assert not await uploads.exists(registry, path, DIGEST)
            told: list[int] = []
            await uploads.upload(registry, path, DIGEST, blob, progress=told.append)
            assert await uploads.exists(registry, path, DIGEST)
        assert upward(faults) == ["HEAD", "POST", f"PUT {len(CONTENT)}", "HEAD"]
        assert "Transfer-Encoding" not in faults.requests[2].headers
    assert open_registry.blob(DIGEST).read_bytes() == CONTENT
    assert told == sorted(told)
    assert told[-1] == len(CONTENT)


async def test_an_empty_blob_goes_up_too(client: Client, open_registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    path = fresh()
    async with client.open(open_registry.host) as registry:
        await uploads.upload(registry, path, digest_of(b""), tmp_path / "empty")
        assert await uploads.exists(registry, path, digest_of(b""))


async def test_what_was_cut_goes_on_where_it_ended(client: Client, shelf: Faults, blob: Path) -> None:
    shelf.add(CutUpload(after=100_000), method="PUT", times=1)
    shelf.add(CutUpload(after=50_000), method="PATCH", times=1)
    async with client.open(shelf.host) as registry:
        await uploads.upload(registry, "app", DIGEST, blob)
    assert shelf.shelf[f"/v2/app/blobs/{DIGEST}"].content == CONTENT
    assert upward(shelf) == ["POST", "PUT 100000", "GET", "PATCH 50000", "GET", "PATCH 106000", "PUT"]
    assert [one.headers["Content-Range"] for one in shelf.asked("PATCH")] == [
        "100000-255999",
        "150000-255999",
    ]
    assert len(client.slept) == 2


async def test_a_registry_that_forgets_what_it_had_gets_it_all_again(
    client: Client, open_registry: Registry, blob: Path
) -> None:
    with Faults(open_registry).serving() as faults:
        faults.add(CutUpload(after=1000), method="PUT", times=1)
        async with client.open(faults.host) as registry:
            await uploads.upload(registry, fresh(), DIGEST, blob)
        assert upward(faults)[-2:] == ["POST", f"PUT {len(CONTENT)}"]


async def test_chunks_are_as_large_as_the_registry_wants_at_least(
    client: Client, shelf: Faults, blob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_CHUNK", 50_000)
    shelf.add(Status(413), method="PUT", path=r"\?digest", times=1)
    shelf.add(Say(headers={"OCI-Chunk-Min-Length": "100000"}), method="POST")
    async with client.open(shelf.host) as registry:
        await uploads.upload(registry, "app", DIGEST, blob)
    assert shelf.shelf[f"/v2/app/blobs/{DIGEST}"].content == CONTENT
    assert [one.received for one in shelf.asked("PATCH")] == [100_000, 100_000, 56_000]
    assert [one.headers["Content-Range"] for one in shelf.asked("PATCH")] == [
        "0-99999",
        "100000-199999",
        "200000-255999",
    ]


async def test_a_part_at_the_wrong_place_is_put_right(
    client: Client, shelf: Faults, blob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_CHUNK", 100_000)
    shelf.add(Status(413), method="PUT", times=1)
    shelf.add(Status(416), method="PATCH", skip=1, times=1)
    async with client.open(shelf.host) as registry:
        await uploads.upload(registry, "app", DIGEST, blob)
    assert [one.method for one in shelf.requests] == "POST PUT POST PATCH PATCH GET PATCH PATCH PUT".split()
    assert shelf.shelf[f"/v2/app/blobs/{DIGEST}"].content == CONTENT


@pytest.mark.parametrize("wrong", [Drop(), Status(503), Status(429, retry_after="3"), Status(404)])
async def test_a_passing_trouble_is_waited_for(
    client: Client, shelf: Faults, blob: Path, wrong: Drop
) -> None:
    shelf.add(wrong, method="PUT", times=1)
    async with client.open(shelf.host) as registry:
        await uploads.upload(registry, "app", DIGEST, blob)
    assert shelf.shelf[f"/v2/app/blobs/{DIGEST}"].content == CONTENT
    assert client.slept == [3.0 if wrong == Status(429, retry_after="3") else 0.25]


async def test_a_registry_that_never_takes_it_is_left(client: Client, shelf: Faults, blob: Path) -> None:
    shelf.add(CutUpload(after=0), method="PUT")
    async with client.open(shelf.host) as registry:
        with pytest.raises(UnavailableError):
            await uploads.upload(registry, "app", DIGEST, blob)
    assert len(client.slept) == 4


async def test_a_file_that_is_not_what_it_should_be_is_refused_by_the_registry(
    client: Client, open_registry: Registry, blob: Path
) -> None:
    async with client.open(open_registry.host) as registry:
        with pytest.raises(BrokenAnswerError, match="digest invalid"):
            await uploads.upload(registry, fresh(), digest_of(b"other"), blob)


async def test_a_blob_of_another_repository_is_mounted(client: Client, token_registry: Registry) -> None:
    assert token_registry.tokens
    path, _ = seeded(token_registry)
    target = fresh()
    token_registry.tokens.reset()
    client.log_in(token_registry.host, "ann:secret")
    async with client.open(token_registry.host) as registry:
        answer = await uploads.begin(registry, target, IMAGE.id, source=path)
        assert answer == uploads.Mounted()
        assert await uploads.exists(registry, target, IMAGE.id)
    (both, *_) = token_registry.tokens.scopes()
    assert sorted(both) == sorted((f"repository:{path}:pull", f"repository:{target}:pull,push"))


async def test_what_cant_be_mounted_is_waited_for_at_once(
    client: Client, open_registry: Registry, blob: Path
) -> None:
    path, target = fresh(), fresh()
    async with client.open(open_registry.host) as registry:
        begun = await uploads.begin(registry, target, DIGEST, source=path)
        assert isinstance(begun, uploads.Begun)
        await uploads.upload(registry, target, DIGEST, blob, begun=begun)
        assert await uploads.exists(registry, target, DIGEST)


async def test_an_upload_that_is_forgotten_begins_anew(client: Client, shelf: Faults, blob: Path) -> None:
    async with client.open(shelf.host) as registry:
        begun = await uploads.begin(registry, "app", DIGEST)
        assert isinstance(begun, uploads.Begun)
        shelf.uploads.clear()
        await uploads.upload(registry, "app", DIGEST, blob, begun=begun)
    assert [one.method for one in shelf.requests] == ["POST", "PUT", "POST", "PUT"]


async def test_an_upload_elsewhere_gets_no_credentials(client: Client, shelf: Faults, blob: Path) -> None:
    client.log_in(shelf.host, "ann:secret")
    with Faults(address="127.0.0.2").serving() as storage:
        storage.uploads["/somewhere"] = bytearray()
        shelf.add(Status(401, headers={"WWW-Authenticate": 'Basic realm="x"'}), times=1)
        shelf.add(Say(headers={"Location": f"{storage.url}/somewhere?signature=S"}), method="POST")
        async with client.open(shelf.host) as registry:
            await uploads.upload(registry, "app", DIGEST, blob)
        (one,) = storage.requests
        assert one.path == f"/somewhere?signature=S&digest={DIGEST.replace(':', '%3A')}"
        assert "Authorization" not in one.headers


@pytest.mark.parametrize(
    "place",
    [
        "http://{host}/v2/app/blobs/uploads/0?a=b",
        "http://LOCALHOST:{port}/v2/app/blobs/uploads/0?a=b",
        "/v2/app/blobs/uploads/0?a=b",
        "0?a=b",
    ],
)
async def test_the_place_of_an_upload_may_be_a_path_or_a_whole_address(
    client: Client, shelf: Faults, blob: Path, place: str
) -> None:
    client.log_in(shelf.host, "ann:secret")
    shelf.add(Status(401, headers={"WWW-Authenticate": 'Basic realm="x"'}), times=1)
    shelf.add(Say(headers={"Location": place.format(host=shelf.host, port=shelf.port)}), method="POST")
    async with client.open(shelf.host) as registry:
        await uploads.upload(registry, "app", DIGEST, blob)
    assert shelf.requests[-1].path.startswith("/v2/app/blobs/uploads/0?a=b&digest=sha256")
    assert "Authorization" in shelf.requests[-1].headers


async def test_without_a_place_there_is_no_upload(client: Client, shelf: Faults, blob: Path) -> None:
    shelf.add(Say(headers={"Location": ""}), method="POST")
    async with client.open(shelf.host) as registry:
        with pytest.raises(BrokenAnswerError, match="names no place for the upload"):
            await uploads.upload(registry, "app", DIGEST, blob)


async def test_an_upload_follows_a_redirect_that_keeps_its_method(
    client: Client, shelf: Faults, blob: Path
) -> None:
    shelf.add(Redirect("http://{host}{path}", status=307), method="PUT", times=1)
    async with client.open(shelf.host) as registry:
        await uploads.upload(registry, "app", DIGEST, blob)
    assert shelf.shelf[f"/v2/app/blobs/{DIGEST}"].content == CONTENT


async def test_a_manifest_goes_up_byte_by_byte(client: Client, shelf: Faults) -> None:
    content = b'{ "schemaVersion":2,\n "odd": "spaces" }'
    async with client.open(shelf.host) as registry:
        assert await uploads.put_manifest(registry, "app", "1", content, MANIFEST) == digest_of(content)
    made = shelf.shelf["/v2/app/manifests/1"]
    assert (made.content, made.media_type) == (content, OCI_MANIFEST)


async def test_a_registry_that_calls_a_manifest_otherwise_is_not_believed(
    client: Client, shelf: Faults
) -> None:
    shelf.add(Say(headers={"Docker-Content-Digest": digest_of(b"other")}), method="PUT")
    async with client.open(shelf.host) as registry:
        with pytest.raises(BrokenAnswerError, match="the registry calls it"):
            await uploads.put_manifest(registry, "app", "1", b"{}", MANIFEST)


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_who_may_not_push_is_told_so(client: Client, shelf: Faults, blob: Path, status: int) -> None:
    shelf.add(Status(status), method="POST")
    async with client.open(shelf.host) as registry:
        with pytest.raises(DeniedError) as caught:
            await uploads.upload(registry, "app", DIGEST, blob)
    assert caught.value.message.startswith(f"push to {shelf.host}/app")
    assert "pystack login" in caught.value.hint or status == 404
    assert client.slept == []
