"""Images of a real store go to a real registry; skopeo says what has come."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path

import pytest

from orchestrator.images import reference as references
from orchestrator.images.archives import loading
from orchestrator.images.registry.blame import DeniedError
from orchestrator.images.store.content import Store
from orchestrator.images.transfer import packing, push
from orchestrator.images.transfer.push import Layer, Pushed
from orchestrator.model.errors import ExitCode, UserError
from tests.kit.archives import LAYER, Entry, Image, docker_save, layer, oci_layout
from tests.kit.faults import CutUpload, Faults, Status, digest_of
from tests.kit.registries import Registry, fresh

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root unpacks images")

BASE = layer(Entry("etc/", mode=0o755), Entry("etc/motd", b"hello" * 1000))
TOP = layer(Entry("usr/", mode=0o755), Entry("usr/app", os.urandom(200_000)))


def image(*names: str) -> Image:
    return Image((BASE, TOP), run={"Cmd": ["sh"]}, tags=names)


SEED = "seed/app:1"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one image, SEED."""
    folder = tmp_path_factory.mktemp("loaded")
    (folder / "archive.tar").write_bytes(oci_layout(image(SEED)))
    with (folder / "archive.tar").open("rb") as file:
        loading.load(Store(folder / "images"), file)
    return folder / "images"


@pytest.fixture
def store(tmp_path: Path, loaded: Path) -> Store:
    shutil.copytree(loaded, tmp_path / "images", symlinks=True)
    return Store(tmp_path / "images")


def load(store: Store, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    path.write_bytes(content)
    with path.open("rb") as file:
        loading.load(store, file)


class Told:
    """What was reported, and the environment of a user."""

    def __init__(self, tmp_path: Path) -> None:
        self.environment = {"HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
        self.events: list[Layer | Pushed] = []
        self.said: list[str] = []

    async def push(self, store: Store, name: str, *, all_tags: bool = False) -> list[Pushed]:
        target, images = push.chosen(store, name, all_tags=all_tags)
        return await push.push(
            store, target, images, self.environment, self.events.append, warn=self.said.append
        )

    def ends(self) -> list[str]:
        """What became of each layer in the end."""
        last = {one.digest: one for one in self.events if isinstance(one, Layer)}
        return sorted(f"{one.state} {one.detail}".strip() for one in last.values())


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


async def test_what_is_pushed_is_what_was_loaded_byte_by_byte(
    store: Store, told: Told, open_registry: Registry
) -> None:
    name = open_registry.name(f"{fresh()}:1")
    store.tag(SEED, name)
    (one,) = await told.push(store, name)
    here = store.demand(name)
    assert one == Pushed(tag="1", digest=here.manifest, size=len(store.blob(here.manifest, limit=9999)))
    seen = json.loads(
        open_registry.skopeo("inspect", "--no-tags", *open_registry.flags(), f"docker://{name}")
    )
    assert seen["Digest"] == here.manifest
    assert told.ends() == ["pushed", "pushed"]
    assert f"{references.parse(name).repository}@{here.manifest}" in store.demand(name).repo_digests


async def test_a_second_push_sends_no_blob(store: Store, told: Told, open_registry: Registry) -> None:
    with Faults(open_registry).serving() as faults:
        name = faults.name(f"{fresh()}:1")
        store.tag(SEED, name)
        first = await told.push(store, name)
        faults.requests.clear()
        assert await told.push(store, name) == first
        assert told.ends() == ["exists", "exists"]
        assert sorted(one.method for one in faults.requests) == ["HEAD", "HEAD", "HEAD", "PUT"]


async def test_another_repository_of_the_registry_lends_its_layers(
    store: Store, told: Told, open_registry: Registry
) -> None:
    path, other = fresh("a"), fresh("b")
    name = open_registry.name(f"{path}:1")
    store.tag(SEED, name)
    await told.push(store, name)
    second = open_registry.name(f"{other}:2")
    store.tag(name, second)
    told.events.clear()
    await told.push(store, second)
    assert told.ends() == [f"mounted {open_registry.name(path)}"] * 2
    assert open_registry.digest(f"{other}:2") == store.demand(name).manifest


async def test_all_tags_of_a_repository_go_with_their_common_layers_once(
    store: Store, told: Told, open_registry: Registry
) -> None:
    path = fresh()
    names = [open_registry.name(f"{path}:{tag}") for tag in ("b", "a")]
    for name in names:
        store.tag(SEED, name)
    done = await told.push(store, open_registry.name(path), all_tags=True)
    assert [one.tag for one in done] == ["a", "b"]
    assert len([one for one in told.events if isinstance(one, Layer) and one.state == "pushed"]) == 2
    assert open_registry.digest(f"{path}:a") == open_registry.digest(f"{path}:b") == done[0].digest


async def test_what_was_cut_is_finished_and_what_is_not_whole_is_never_named(
    store: Store, told: Told
) -> None:
    with Faults().serving() as shelf:
        name = shelf.name("app:1")
        store.tag(SEED, name)
        shelf.add(CutUpload(after=5000), method="PUT", path="uploads", times=1)
        shelf.add(Status(401), method="PUT", path="manifests", times=1)
        with pytest.raises(DeniedError):
            await told.push(store, name)
        assert "/v2/app/manifests/1" not in shelf.shelf
        told.events.clear()
        await told.push(store, name)
        assert told.ends() == ["exists", "exists"]
        assert shelf.shelf["/v2/app/manifests/1"].content == store.blob(
            store.demand(name).manifest, limit=9999
        )


async def test_one_refusal_ends_the_whole_push_in_dockers_words(
    store: Store, told: Told, token_registry: Registry
) -> None:
    name = token_registry.name("private-bob/app:1")
    store.tag(SEED, name)
    with pytest.raises(DeniedError, match="requested access to the resource is denied") as caught:
        await told.push(store, name)
    assert f"pystack login {token_registry.host}" in caught.value.hint
    assert caught.value.exit_code is ExitCode.IMAGE


async def test_a_push_with_tokens(store: Store, told: Told, token_registry: Registry) -> None:
    from orchestrator.images.registry import credentials
    from orchestrator.images.registry.credentials import Credential

    name = token_registry.name(f"{fresh()}:1")
    store.tag(SEED, name)
    await credentials.keep(
        told.environment, token_registry.host, Credential(username="ann", password="secret")
    )
    (one,) = await told.push(store, name)
    assert token_registry.digest(name.partition("/")[2]) == one.digest
    assert token_registry.tokens
    assert token_registry.tokens.scopes() == [(f"repository:{name.partition('/')[2][:-2]}:pull,push",)]


def test_what_can_be_pushed_is_told_in_dockers_words(store: Store) -> None:
    for tag in "12":
        store.tag(SEED, f"localhost:5000/app:{tag}")
    target, images = push.chosen(store, "localhost:5000/app", all_tags=True)
    assert (target.path, list(images)) == ("app", ["1", "2"])
    assert list(push.chosen(store, "localhost:5000/app:2", all_tags=False)[1]) == ["2"]
    manifest = store.demand("localhost:5000/app:1").manifest
    for name, all_tags, words in (
        ("localhost:5000/app", False, "An image does not exist locally with the tag: localhost:5000/app"),
        ("localhost:5000/other", True, "An image does not exist locally with the tag: localhost:5000/other"),
        (store.demand("localhost:5000/app:1").id[7:19], False, "An image does not exist locally"),
        ("localhost:5000/app:1", True, "tag can't be used with --all-tags/-a"),
        (f"localhost:5000/app@{manifest}", False, "cannot push a digest reference"),
        ("Not A Name", False, "invalid reference format"),
    ):
        with pytest.raises(UserError, match=words):
            push.chosen(store, name, all_tags=all_tags)


async def test_a_blob_that_is_gone_is_told_before_anything_is_sent(
    store: Store, told: Told, open_registry: Registry
) -> None:
    with Faults(open_registry).serving() as faults:
        name = faults.name(f"{fresh()}:1")
        store.tag(SEED, name)
        top = store.manifest(store.demand(name).manifest)["layers"][1]["digest"]
        store.blob_path(top).unlink()
        with pytest.raises(UserError, match=f"blob {top[:19]} is not here any more"):
            await told.push(store, name)
        assert faults.requests == []


async def test_layers_of_an_image_that_was_made_here_travel_compressed_and_once(
    told: Told, open_registry: Registry, tmp_path: Path
) -> None:
    store = Store(tmp_path / "empty")
    path = fresh()
    name, second = open_registry.name(f"{path}:1"), open_registry.name(f"{path}:2")
    load(store, docker_save(image(name, second)), tmp_path)
    before = store.demand(name)
    assert {row["mediaType"] for row in store.manifest(before.manifest)["layers"]} == {LAYER}
    (one,) = await told.push(store, name)
    after = store.demand(name)
    assert (after.id, after.manifest) == (before.id, one.digest)
    assert open_registry.digest(f"{path}:1") == one.digest
    rows = store.manifest(after.manifest)["layers"]
    for row, tar in zip(rows, (BASE, TOP), strict=True):
        assert row["mediaType"] == f"{LAYER}+gzip"
        content = store.blob(row["digest"], limit=1 << 20)
        assert (len(content), gzip.decompress(content)) == (row["size"], tar)
    # The other name means the same image, and there is nothing left to compress.
    assert store.demand(second).manifest == one.digest
    told.events.clear()
    assert (await told.push(store, second))[0].digest == one.digest
    assert [event.state for event in told.events if isinstance(event, Layer)] == ["waiting"] * 2 + [
        "exists"
    ] * 2
    open_registry.skopeo(
        "copy", "--src-no-creds", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}/back:1"
    )


async def test_a_manifest_that_came_with_plain_layers_stays_as_it_is(
    told: Told, open_registry: Registry, tmp_path: Path
) -> None:
    store = Store(tmp_path / "empty")
    name = open_registry.name(f"{fresh()}:1")
    load(store, oci_layout(image(name), compress=False), tmp_path)
    before = store.demand(name).manifest
    assert (await told.push(store, name))[0].digest == before


def test_compressing_stops_when_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "tar").write_bytes(bytes(3 << 20))

    def stop(done: int) -> None:
        if done >= 2 << 20:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        packing.compress(tmp_path / "tar", tmp_path / "packed", stop)
    digest, size = packing.compress(tmp_path / "tar", tmp_path / "whole", lambda _: None)
    again = packing.compress(tmp_path / "tar", tmp_path / "again", lambda _: None)
    assert again == (digest, size)
    assert digest_of((tmp_path / "whole").read_bytes()) == digest
