"""The content store: names and ids, moving names, removal with its refusals, what stays on the disk."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orchestrator.images import reference
from orchestrator.images.layers import meta
from orchestrator.images.layers.meta import Meta
from orchestrator.images.store.content import MANIFEST, Missing, Store
from orchestrator.images.store.index import NewImage, chain_id, digest_of
from orchestrator.images.store.removal import ImageUser, Removal
from orchestrator.model.errors import ExitCode, UserError
from tests.kit import archives
from tests.kit.archives import Entry, Image, layer

BASE = layer(Entry("base", b"1"))
A = Image((BASE, layer(Entry("a"))), {"Cmd": ["a"]})
B = Image((BASE, layer(Entry("b"))), {"Cmd": ["b"]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, image: Image, *names: str, leave_out: str = "", origin: str = "") -> Missing | None:
    """Add an image with layers that are already unpacked, as it were."""
    with store.scratch() as work:
        files: dict[str, bytes] = {}
        head, rows = archives.parts_of(image, files, compress=False)
        blobs = {}
        for name, content in files.items():
            digest = f"sha256:{name[-64:]}"
            if digest != leave_out:
                blobs[digest] = work / digest[7:]
                blobs[digest].write_bytes(content)
        layers = {}
        for content in image.layers:
            diff_id = digest_of(content)
            if diff_id == leave_out:
                continue
            layers[diff_id] = work / f"layer-{diff_id[7:]}"
            (layers[diff_id] / "fs").mkdir(parents=True, exist_ok=True)
            meta.write_meta(layers[diff_id], Meta(diff_id=diff_id, size=10))
        new = NewImage(
            id=image.id,
            manifest=archives.dumps({"schemaVersion": 2, "config": head, "layers": rows}),
            media_type=MANIFEST,
            names=tuple(str(reference.parse(name)) for name in names),
            diff_ids=tuple(digest_of(content) for content in image.layers),
            blobs=(image.id, *(digest_of(content) for content in image.layers)),
            origin=origin,
        )
        return store.add([new], blobs=blobs, layers=layers, repairs={})


def found(store: Store, name: str) -> str:
    image = store.resolve(name)
    return image.id if image else ""


def used_by(container: str, *, running: bool) -> Callable[[str], Sequence[ImageUser]]:
    def in_use(image_id: str) -> Sequence[ImageUser]:
        return (ImageUser(container=container, running=running),) if image_id == A.id else ()

    return in_use


def contents(store: Store) -> set[str]:
    """Blobs and layers that lie in the store."""
    return {*os.listdir(store.root / "blobs" / "sha256"), *os.listdir(store.root / "layers")}


def test_an_image_is_found_by_each_of_its_names_and_the_beginning_of_its_id(store: Store) -> None:
    put(store, A, "a:1", "ghcr.io/x/a")
    digest = store.demand("a:1").manifest
    for name in ("a:1", "docker.io/library/a:1", "ghcr.io/x/a:latest", A.id, A.id[7:], A.id[7:11], A.id[:20]):
        assert found(store, name) == A.id, name
    assert found(store, f"a@{digest}") == A.id
    for name in ("a", "b", "ghcr.io/a", "sha256:", f"a@{A.id}", "0" * 64):
        assert found(store, name) == "", name
    assert store.demand("a:1").names == ("docker.io/library/a:1", "ghcr.io/x/a:latest")


def test_a_store_that_does_not_exist_is_empty_and_reading_does_not_make_it(store: Store) -> None:
    assert store.images() == []
    assert store.resolve("a") is None
    assert not store.root.exists()
    with pytest.raises(UserError, match="No such image: a:latest") as caught:
        store.demand("a")
    assert caught.value.exit_code is ExitCode.IMAGE


def test_an_ambiguous_id_is_an_error(store: Store) -> None:
    """Enough images for two to share their first digit."""
    for number in range(17):
        put(store, Image((BASE,), {"User": str(number)}), f"n{number}")
    digits = [image.id[7] for image in store.images()]
    twice = next(digit for digit in digits if digits.count(digit) > 1)
    with pytest.raises(UserError, match="multiple images"):
        store.resolve(twice)


def test_a_name_that_looks_like_an_id_wins_over_the_id(store: Store) -> None:
    put(store, A, "x")
    put(store, B, f"{A.id[7:15]}")
    assert found(store, A.id[7:15]) == B.id
    assert found(store, A.id[7:16]) == A.id


def test_layers_come_topmost_first_and_each_once(store: Store) -> None:
    top = layer(Entry("a"))
    put(store, Image((top, BASE, top), {"User": "x"}), "x")
    image = store.demand("x")
    names = [path.parent.name for path in store.layers(image.id)]
    assert names == [digest_of(top)[7:], digest_of(BASE)[7:]]
    assert store.config(image.id).size == 30


def test_what_lies_below_a_layer_that_hides_all_is_left_out(store: Store) -> None:
    put(store, A, "a")
    top = store.root / "layers" / digest_of(A.layers[1])[7:]
    meta.write_meta(top, Meta(diff_id=digest_of(A.layers[1]), opaque_root=True))
    assert store.layers(A.id) == [top / "fs"]


def test_a_missing_layer_is_a_clear_error_but_the_image_can_be_listed_and_removed(store: Store) -> None:
    put(store, A, "a")
    archives_path = store.root / "layers" / digest_of(BASE)[7:]
    (archives_path / "meta.json").unlink()
    (archives_path / "fs").rmdir()
    archives_path.rmdir()
    with pytest.raises(UserError, match="it is not in the store"):
        store.layers(A.id)
    assert store.config(A.id).size == 10
    assert store.remove("a").untagged == ("a:latest",)


def test_a_name_moves_and_the_old_image_stays_without_one(store: Store) -> None:
    put(store, A, "x")
    put(store, B, "x")
    assert found(store, "x") == B.id
    assert [image.names for image in store.images() if image.id == A.id] == [()]
    put(store, A, "x")
    assert {image.id: image.names for image in store.images()} == {
        A.id: ("docker.io/library/x:latest",),
        B.id: (),
    }


def test_tag_gives_a_second_name_and_refuses_a_digest_and_a_missing_source(store: Store) -> None:
    put(store, A, "x")
    assert store.tag("x", "y:2").id == A.id
    assert found(store, "y:2") == found(store, "x") == A.id
    with pytest.raises(UserError, match="No such image: z:latest"):
        store.tag("z", "q")
    with pytest.raises(UserError, match="digest reference"):
        store.tag("x", "q@sha256:" + "0" * 64)


def test_nothing_is_added_when_a_part_is_missing(store: Store) -> None:
    config = A.id
    base = digest_of(BASE)
    assert put(store, A, "a", leave_out=config) == Missing(blobs=(config,), layers=())
    assert put(store, A, "a", leave_out=base) == Missing(blobs=(base,), layers=(base,))
    assert contents(store) == set()
    assert store.resolve("a") is None


def test_the_layout_is_one_that_other_tools_can_read(store: Store) -> None:
    put(store, A, "a:1", "b:2")
    assert json.loads((store.root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((store.root / "index.json").read_bytes())
    names = [row["annotations"]["org.opencontainers.image.ref.name"] for row in index["manifests"]]
    assert names == ["docker.io/library/a:1", "docker.io/library/b:2"]
    for row in index["manifests"]:
        content = (store.root / "blobs" / "sha256" / row["digest"][7:]).read_bytes()
        assert (digest_of(content), len(content)) == (row["digest"], row["size"])
    assert store.root.stat().st_mode & 0o777 == 0o700


def test_an_entry_of_another_tool_is_kept_and_an_image_of_it_is_seen(store: Store) -> None:
    put(store, A, "a")
    path = store.root / "index.json"
    index = json.loads(path.read_bytes())
    row = {**index["manifests"][0], "annotations": {"org.opencontainers.image.ref.name": "foreign:1"}}
    odd = {"mediaType": "application/x-odd", "digest": "sha256:" + "0" * 64, "size": 1}
    path.write_text(json.dumps({**index, "manifests": [row, odd, 7, {"annotations": []}]}))
    assert [image.names for image in store.images()] == [("docker.io/library/foreign:1",)]
    store.tag("foreign:1", "b")
    assert row in json.loads(path.read_bytes())["manifests"]


# --- removal -------------------------------------------------------------------------------------


def test_the_last_name_takes_the_image_and_what_only_it_needed(store: Store) -> None:
    put(store, A, "a")
    put(store, B, "b")
    removal = store.remove("a")
    assert removal == Removal(untagged=("a:latest",), deleted=(A.id, digest_of(A.layers[1])))
    assert digest_of(BASE)[7:] in contents(store)
    store.remove("b")
    assert contents(store) == set()
    assert os.listdir(store.root / "tmp") == []


def test_a_name_among_several_takes_only_itself(store: Store) -> None:
    put(store, A, "a", "b")
    assert store.remove("a") == Removal(untagged=("a:latest",))
    assert found(store, "b") == A.id


def test_by_id_all_names_of_one_repository_go(store: Store) -> None:
    put(store, A, "a:1", "a:2")
    assert store.remove(A.id[7:19]).untagged == ("a:1", "a:2")
    assert store.images() == []


def test_by_id_two_repositories_need_force(store: Store) -> None:
    put(store, A, "a", "b")
    short = A.id[7:19]
    with pytest.raises(UserError) as caught:
        store.remove(short)
    assert caught.value.message == (
        f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    )
    assert caught.value.exit_code is ExitCode.CONFLICT
    assert store.remove(short, force=True).deleted[0] == A.id


def test_an_image_without_names_goes_by_its_id(store: Store) -> None:
    put(store, A)
    assert store.remove(A.id).deleted[0] == A.id
    assert store.images() == []


@pytest.mark.parametrize("running", [True, False])
def test_the_last_name_of_a_used_image_is_refused_naming_the_container(store: Store, running: bool) -> None:
    put(store, A, "a")
    with pytest.raises(UserError) as caught:
        store.remove("a", in_use=used_by("web-1", running=running))
    assert caught.value.message == (
        'conflict: unable to remove repository reference "a:latest" (must force) - '
        f"container web-1 is using its referenced image {A.id[7:19]}"
    )
    assert found(store, "a") == A.id


def test_by_id_a_running_container_can_not_be_overruled_and_a_stopped_one_can(store: Store) -> None:
    put(store, A, "a")
    short = A.id[7:19]
    for force in (False, True):
        with pytest.raises(UserError, match=rf"{short} \(cannot be forced\) .* running container web-1"):
            store.remove(short, force=force, in_use=used_by("web-1", running=True))
    with pytest.raises(UserError, match=rf"{short} \(must be forced\) .* stopped container web-1"):
        store.remove(short, in_use=used_by("web-1", running=False))
    removal = store.remove(short, force=True, in_use=used_by("web-1", running=False))
    assert removal == Removal(untagged=("a:latest",))


def test_a_forced_name_goes_but_the_layers_stay_for_the_container(store: Store) -> None:
    put(store, A, "a")
    before = contents(store)
    assert store.remove("a", force=True, in_use=used_by("web-1", running=True)) == Removal(
        untagged=("a:latest",)
    )
    assert contents(store) == before
    assert [image.names for image in store.images()] == [()]


def test_a_used_image_with_another_name_loses_this_one_without_force(store: Store) -> None:
    put(store, A, "a", "b")
    assert store.remove("a", in_use=used_by("web-1", running=True)).untagged == ("a:latest",)


def test_what_is_not_there_is_named(store: Store) -> None:
    put(store, A, "a")
    with pytest.raises(UserError, match="No such image: nothing:latest") as caught:
        store.remove("nothing")
    assert caught.value.exit_code is ExitCode.IMAGE


def test_sweep_takes_what_no_image_needs(store: Store) -> None:
    put(store, A, "a")
    before = contents(store)
    (store.root / "blobs" / "sha256" / ("0" * 64)).write_text("orphan")
    (store.root / "layers" / ("0" * 64) / "fs").mkdir(parents=True)
    (store.root / "layers" / f"fix-{'0' * 64}" / "fs").mkdir(parents=True)
    (store.root / "layers" / f"fix-{chain_id(store.config(A.id).diff_ids)[7:]}" / "fs").mkdir(parents=True)
    (store.root / "tmp" / "left").mkdir()
    store.sweep()
    assert contents(store) == {*before, f"fix-{chain_id(store.config(A.id).diff_ids)[7:]}"}
    assert os.listdir(store.root / "tmp") == []


def test_threads_and_several_stores_over_one_directory_do_not_disturb_each_other(store: Store) -> None:
    """Two writers each add and remove their own; a third image is always whole."""
    put(store, Image((BASE,), {"User": "kept"}), "kept")
    errors: list[BaseException] = []

    def churn(image: Image, name: str) -> None:
        mine = Store(store.root)
        try:
            for _ in range(10):
                assert put(mine, image, name) is None
                assert found(mine, name) == image.id
                assert len(mine.layers(mine.demand("kept").id)) == 1
                mine.remove(name)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=churn, args=row) for row in ((A, "a"), (B, "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [image.names for image in store.images()] == [("docker.io/library/kept:latest",)]


def test_the_digest_at_the_registry_belongs_to_the_name_and_stays_when_the_name_moves(store: Store) -> None:
    origin = "sha256:" + "5" * 64
    put(store, A, "web:1", "ghcr.io/x/a:1", origin=origin)
    digests = (f"docker.io/library/web@{origin}", f"ghcr.io/x/a@{origin}")
    assert store.demand("web:1").repo_digests == digests
    assert found(store, f"web@{origin}") == A.id
    # Loaded again from a file: still what the registry said. Another repository's tag says nothing of it.
    put(store, A, "web:1")
    store.tag("web:1", "other:2")
    assert store.demand("web:1").repo_digests == digests
    put(store, B, "web:1", "ghcr.io/x/a:1", "other:2")
    assert store.demand(A.id).names == ()
    assert found(store, f"web@{origin}") == A.id
    assert store.demand("web:1").repo_digests == ()
    store.note_origin("docker.io/library/web:1", f"sha256:{'6' * 64}")
    assert store.demand("web:1").repo_digests == (f"docker.io/library/web@sha256:{'6' * 64}",)


def test_an_image_asked_for_by_digest_has_no_name_but_is_found_by_it(store: Store) -> None:
    origin = "ghcr.io/x/a@sha256:" + "5" * 64
    put(store, A, "a:1")
    put(store, A, origin=origin)
    put(store, A, origin=origin)
    assert store.demand(origin).repo_digests == (origin,)
    assert store.demand(origin).names == ("docker.io/library/a:1",)
    store.tag("a:1", "b:1")
    assert store.demand("b:1").repo_digests == (origin,)


def test_the_index_that_an_image_was_chosen_from_is_kept_with_it(store: Store) -> None:
    content = b'{"manifests": []}'
    with store.lease() as lease, store.scratch() as work:
        (work / "index").write_bytes(content)
        store.put_blob(digest_of(content), work / "index", lease)
        put(store, A, "a:1", origin=digest_of(content))
    store.sweep(grace=0)
    assert store.blob(digest_of(content), limit=100) == content
    store.remove("a:1")
    assert not store.has_blob(digest_of(content))
