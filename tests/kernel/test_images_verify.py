"""`image verify`: every kind of damage is found and named, and what can be mended is."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.images.archives import loading
from orchestrator.images.store import comparing
from orchestrator.images.store.content import Store
from orchestrator.images.store.verifying import Report, verify
from orchestrator.model.errors import ExitCode, UserError
from tests.kit.archives import Entry, Image, digest, docker_save, layer, oci_layout

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("state_root")]

BASE = layer(
    *(Entry("./"), Entry("etc/"), Entry("etc/motd", b"base"), Entry("root/", mode=0o700)),
    *(Entry("bin/"), Entry("bin/a", b"tool", mode=0o4755), Entry("bin/b", hardlink="bin/a")),
    *(Entry("link", link="etc/motd"), Entry(".wh.gone"), Entry("etc/.wh..wh..opq")),
)
TOP = layer(Entry("etc/web", b"1"), Entry("root/x", b"2"))
WEB = Image((BASE, TOP), {"Cmd": ["web"]}, ("web:1",))
DB = Image((BASE,), {"Cmd": ["db"]}, ("db:2",))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    loading.load(store, io.BytesIO(oci_layout(WEB, DB)))
    return store


def base(store: Store) -> Path:
    return store.layer_path(digest(BASE)) / "fs"


def blob_of(store: Store, kind: bytes) -> Path:
    blobs = store.root / "blobs" / "sha256"
    return next(path for path in sorted(blobs.iterdir()) if path.read_bytes().startswith(kind))


def problems(report: Report) -> list[tuple[str, str]]:
    return [(fault.what.split(":")[0].split()[0], fault.problem) for fault in report.faults]


def test_a_sound_store_has_no_faults_and_is_left_as_it_was(store: Store) -> None:
    before = sorted(str(path) for path in store.root.rglob("*"))
    seen: list[tuple[int, int]] = []
    report = verify(store, progress=lambda done, total: seen.append((done, total)))
    assert report.faults == ()
    assert (report.images, report.blobs, report.layers) == (2, 6, 2)
    assert seen[-1] == (8, 8)
    assert sorted(str(path) for path in store.root.rglob("*") if path.name != "leases") == before


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "content": (lambda fs: (fs / "etc/motd").write_bytes(b"Base"), "etc/motd has other content"),
    "size": (lambda fs: (fs / "etc/motd").write_bytes(b""), "etc/motd has 0 bytes, not 4"),
    "gone": (lambda fs: (fs / "etc/motd").unlink(), "etc/motd is gone"),
    "more": (lambda fs: (fs / "etc/new").touch(), "etc/new is not of this layer"),
    "mode": (lambda fs: (fs / "bin/a").chmod(0o755), "bin/a has the mode 0755, not 4755"),
    "owner": (lambda fs: os.lchown(fs / "link", 5, 6), "link belongs to 5:6, not 0:0"),
    "link": (lambda fs: ((fs / "link").unlink(), (fs / "link").symlink_to("x")), "link points elsewhere"),
    "kind": (lambda fs: ((fs / "link").unlink(), (fs / "link").mkdir()), "link is of another kind"),
    "links": (
        lambda fs: ((fs / "bin/b").unlink(), shutil.copy2(fs / "bin/a", fs / "bin/b")),
        "bin/a is linked otherwise",
    ),
    "time": (lambda fs: os.utime(fs / "etc/motd", (1, 1)), "etc/motd has another time"),
    "a deletion": (lambda fs: (fs / "gone").unlink(), "gone is gone"),
    "an attribute": (lambda fs: os.setxattr(fs / "etc/motd", "user.x", b"1"), "motd has other attributes"),
    "opacity": (lambda fs: os.removexattr(fs / "etc", "trusted.overlay.opaque"), "etc has other attributes"),
}


def test_every_way_in_which_a_tree_can_differ_is_seen(store: Store, tmp_path: Path) -> None:
    for what, (change, words) in CHANGES.items():
        other = tmp_path / what
        shutil.copytree(base(store), other, symlinks=True, ignore=lambda *_: {"gone", "b"})
        os.mknod(other / "gone", 0o020000, 0)
        os.link(other / "bin" / "a", other / "bin" / "b")
        os.setxattr(other / "etc", "trusted.overlay.opaque", b"y")
        for path in ("bin", "."):
            shutil.copystat(base(store) / path, other / path)
        assert comparing.difference(base(store), other) == "", what
        change(other)
        assert words in comparing.difference(base(store), other), what


def test_a_layer_that_was_changed_is_named_with_its_images_and_mended(store: Store) -> None:
    (base(store) / "bin" / "a").write_bytes(b"evil")
    report = verify(store)
    assert problems(report) == [("layer", "bin/a has other content")]
    assert report.faults[0].images == ("web:1", "db:2")
    assert report.faults[0].what == f"layer {digest(BASE)}"
    assert verify(store, busy=[DB.id], mend=True).faults[0].advice.startswith("a container runs on it")
    assert (base(store) / "bin" / "a").read_bytes() == b"evil"
    assert [fault.mended for fault in verify(store, mend=True).faults] == [True]
    assert (base(store) / "bin" / "a").read_bytes() == b"tool"
    assert verify(store).faults == ()
    assert os.listdir(store.root / "tmp") == []


LOSSES: dict[str, tuple[Callable[[Store], object], str]] = {
    "the directory": (lambda store: shutil.rmtree(base(store).parent), "gone"),
    "the files": (lambda store: shutil.rmtree(base(store)), "its files are gone"),
    "the record": (lambda store: (base(store).parent / "meta.json").unlink(), "its record is gone"),
    "half the record": (
        lambda store: (base(store).parent / "meta.json").write_text("{"),
        "record is damaged",
    ),
}


@pytest.mark.parametrize("what", LOSSES)
def test_a_layer_that_lost_something_is_said_to_be_so_and_mended(store: Store, what: str) -> None:
    lose, words = LOSSES[what]
    lose(store)
    with pytest.raises(UserError, match=r"layer sha256:.{12}: it") as caught:
        Store(store.root).layers(WEB.id)
    assert "image verify" in caught.value.hint
    report = verify(store, mend=True)
    assert [words in fault.problem for fault in report.faults] == [True]
    assert len(Store(store.root).layers(WEB.id)) == 3


def test_a_damaged_blob_is_taken_away_and_comes_back_with_the_next_load(store: Store) -> None:
    path = blob_of(store, b"\x1f\x8b")
    with open(path, "r+b") as file:
        file.seek(20)
        file.write(b"????")
    report = verify(store)
    assert [kind for kind, _ in problems(report)] == ["blob"]
    assert report.faults[0].problem.startswith("its content is sha256:")
    # The layer is still what it was, and the image runs; it cannot be pushed or saved.
    assert [fault.advice for fault in verify(store, mend=True).faults] == ["load or pull it again"]
    assert problems(verify(store)) == [("blob", "gone")]
    loading.load(store, io.BytesIO(oci_layout(WEB, DB)))
    assert verify(store).faults == ()


@pytest.mark.parametrize("kind", [b'{"schemaVersion', b'{"architecture'])
def test_an_image_that_lost_its_manifest_or_config_can_be_removed_or_loaded_again(
    store: Store, kind: bytes
) -> None:
    path = blob_of(store, kind)
    path.unlink()
    report = verify(store)
    assert (f"blob sha256:{path.name}", "gone") in [(fault.what, fault.problem) for fault in report.faults]
    lost = next(image for image in store.images() if path.name in (image.id[7:], image.manifest[7:]))
    if kind == b'{"architecture':
        with pytest.raises(UserError, match="is not in the store") as caught:
            Store(store.root).config(lost.id)
        assert caught.value.exit_code is ExitCode.IMAGE
    loading.load(store, io.BytesIO(oci_layout(WEB, DB)))
    assert verify(store).faults == ()
    path.unlink()
    store.remove(lost.names[0])
    assert verify(store).faults == ()
    assert [image.id for image in store.images()] == [({WEB.id, DB.id} - {lost.id}).pop()]


def test_a_repair_where_layers_meet_is_made_again(store: Store) -> None:
    """The top layer writes into /root without listing it: the base says that it is private."""
    fix = next(path for path in (store.root / "layers").iterdir() if path.name.startswith("fix-"))
    (fix / "fs" / "root").chmod(0o755)
    report = verify(store, mend=True)
    assert [fault.problem for fault in report.faults] == ["root has the mode 0755, not 0700"]
    assert (fix / "fs" / "root").stat().st_mode & 0o777 == 0o700
    shutil.rmtree(fix)
    assert [(fault.problem, fault.mended) for fault in verify(store, mend=True).faults] == [("gone", True)]
    assert verify(store).faults == ()


def test_a_damaged_index_is_named_and_made_anew_with_nearly_all_names(store: Store) -> None:
    store.tag("db:2", "last:1")
    path = store.root / "index.json"
    for rest in (None, b"", b"[]", b'{"manifests": 5}', b'{"manifests": [{"dig'):
        path.unlink() if rest is None else path.write_bytes(rest)
        other = Store(store.root)
        for act in (other.images, lambda: Store(store.root).remove("web:1"), lambda: verify(store)):
            with pytest.raises(UserError, match=r"index\.json is damaged: it ") as caught:
                act()
            assert caught.value.exit_code is ExitCode.IMAGE
            assert "--repair" in caught.value.hint
    mended = verify(store, mend=True).faults
    assert [(fault.what, fault.images, fault.mended) for fault in mended] == [
        ("index.json", ("web:1", "db:2"), True)
    ]
    assert verify(store).faults == ()
    names = {name for image in store.images() for name in image.names}
    assert names == {"docker.io/library/web:1", "docker.io/library/db:2"}
    # Without the one before, the images are found, but not their names.
    path.unlink()
    (store.root / "index.json.before").unlink()
    assert verify(store, mend=True).images == 2
    assert {image.id for image in store.images()} == {WEB.id, DB.id}


def test_notes_that_are_garbage_are_told_and_made_anew(store: Store) -> None:
    (store.root / "store.db").write_bytes(b"garbage" * 1000)
    report = verify(store, mend=True)
    assert [(fault.what, fault.mended) for fault in report.faults] == [("store.db", True)]
    assert verify(store).faults == ()


def test_what_no_image_needs_is_looked_at_too(store: Store) -> None:
    with store.lease() as lease, store.scratch() as work:
        (work / "blob").write_bytes(b"other")
        store.put_blob(digest(b"this"), work / "blob", lease)
        report = verify(store)
    assert [(fault.problem[:14], fault.images) for fault in report.faults] == [("its content is", ())]


def test_images_of_docker_archives_verify_as_well(tmp_path: Path) -> None:
    store = Store(tmp_path / "other")
    loading.load(store, io.BytesIO(docker_save(WEB, DB)))
    assert verify(store).faults == ()


def test_a_store_that_lost_its_directories_is_told_so_and_takes_images_again(store: Store) -> None:
    for name in ("blobs", "layers", "tmp"):
        shutil.rmtree(store.root / name)
    report = verify(store, mend=True)
    assert {fault.problem for fault in report.faults} == {"gone"}
    loading.load(store, io.BytesIO(oci_layout(WEB, DB)))
    assert verify(store).faults == ()
