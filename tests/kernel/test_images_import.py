"""`import`: a directory or a tarball becomes an image of one layer."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from orchestrator.images.archives.importing import import_directory, import_tar
from orchestrator.images.store.content import Store
from orchestrator.model.errors import ExitCode, UserError
from tests.kit.archives import Entry, digest, layer, tree_of

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("state_root")]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "etc").mkdir(parents=True)
    (top / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (top / "su").write_bytes(b"su")
    os.chown(top / "su", 1, 2)
    (top / "su").chmod(0o6755)
    os.link(top / "su", top / "etc" / "alias")
    (top / "link").symlink_to("/etc/shadow")
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.setxattr(top / "etc", "user.note", b"x")
    for path in (top / "su", top / "null", top / "etc", top):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return top


def lower(store: Store, name: str) -> Path:
    (only,) = store.layers(store.demand(name).id)
    return only


def blob_of(store: Store, name: str) -> bytes:
    return store.blob_path(store.config(store.demand(name).id).diff_ids[0]).read_bytes()


def whole_seconds(rows: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    return {name: (*row[:3], int(str(row[3])) // 10**9, *row[4:]) for name, row in rows.items()}


def test_a_directory_becomes_a_layer_and_a_blob_that_say_the_same(
    store: Store, tree: Path, tmp_path: Path
) -> None:
    image = import_directory(store, tree, "mine:1", changes=['CMD ["/su"]', "ENV A=1"])
    assert image.names == ("docker.io/library/mine:1",)
    assert store.config(image.id).command == ("/su",)
    assert whole_seconds(tree_of(lower(store, "mine:1"))) == whole_seconds(tree_of(tree))
    packed = blob_of(store, "mine:1")
    assert digest(packed) == store.config(image.id).diff_ids[0]
    (tmp_path / "again").mkdir()
    subprocess.run(
        ["tar", "--xattrs", "--numeric-owner", "-xpf", "-", "-C", tmp_path / "again"],
        input=packed,
        check=True,
    )
    assert whole_seconds(tree_of(tmp_path / "again")) == whole_seconds(tree_of(tree))


def test_equal_trees_make_equal_images(store: Store, tree: Path) -> None:
    first = import_directory(store, tree, "a")
    assert import_directory(store, tree, "b").id == first.id
    assert store.demand("a").names == ("docker.io/library/a:latest", "docker.io/library/b:latest")
    (tree / "new").touch()
    assert import_directory(store, tree, "c").id != first.id


def test_a_tarball_comes_in_from_a_file_or_a_pipe(store: Store) -> None:
    packed = layer(Entry("./"), Entry("etc/"), Entry("etc/motd", b"hello"))
    for name, content in (("plain", packed), ("packed", gzip.compress(packed))):
        image = import_tar(
            store, io.BytesIO(content), name, message="by hand", created="2024-05-06T07:08:09Z"
        )
        assert (lower(store, name) / "etc" / "motd").read_bytes() == b"hello"
        assert store.config(image.id).created == "2024-05-06T07:08:09Z"
        assert blob_of(store, name) == packed
    assert store.demand("plain").id == store.demand("packed").id


def test_the_imported_can_be_removed_again_without_a_trace(store: Store, tree: Path) -> None:
    image = import_directory(store, tree, "mine")
    diff_id = store.config(image.id).diff_ids[0]
    assert store.remove("mine").deleted == (image.id, diff_id)
    for name in ("blobs/sha256", "layers", "tmp"):
        assert os.listdir(store.root / name) == []


def test_what_is_not_the_images_stays_out(store: Store, tree: Path) -> None:
    """Sockets, marks of overlayfs, other file systems below the tree."""
    import socket

    (tree / "mount").mkdir()
    os.mknod(tree / "whiteout", stat.S_IFCHR, 0)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "socket"))
    os.setxattr(tree / "etc", "trusted.overlay.opaque", b"y")
    os.setxattr(tree / "etc", "trusted.overlay.redirect", b"/x")
    script = f"""
import os, sys
from pathlib import Path
from orchestrator.images.archives.importing import import_directory
from orchestrator.images.store.content import Store
os.system("mount -t tmpfs none {tree}/mount && touch {tree}/mount/secret")
import_directory(Store(Path("{store.root}")), Path("{tree}"), "mine")
"""
    import sys

    subprocess.run(["unshare", "-m", sys.executable, "-c", script], check=True)
    found = tree_of(lower(store, "mine"))
    assert {"mount", "etc/passwd"} <= found.keys()
    assert not found.keys() & {"mount/secret", "whiteout", "socket"}
    assert os.listxattr(lower(store, "mine") / "etc") == ["user.note"]


def test_holes_of_a_large_file_stay_holes(store: Store, tree: Path) -> None:
    with open(tree / "disk", "wb") as file:
        file.truncate(64 << 20)
        file.seek(10 << 20)
        file.write(b"data")
    import_directory(store, tree, "mine")
    copied = lower(store, "mine") / "disk"
    assert copied.stat().st_blocks * 512 < 4 << 20
    assert copied.read_bytes() == (tree / "disk").read_bytes()


def test_a_file_that_grows_while_it_is_read_is_an_error_and_nothing_is_stored(
    store: Store, tree: Path
) -> None:
    (tree / "log").write_bytes(bytes(1000))
    stop = threading.Event()

    def grow() -> None:
        with open(tree / "log", "ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"line\n" * 1000)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(UserError, match="log changed while it was imported"):
            import_directory(store, tree, "mine")
    finally:
        stop.set()
        writer.join()
    assert store.images() == []
    assert os.listdir(store.root / "tmp") == []


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("Mine", "CMD x", "invalid reference"),
        ("mine", "RUN x", "not an instruction"),
        ("mine", "EXPOSE many", "EXPOSE many"),
    ],
)
def test_what_the_user_got_wrong_is_said_before_anything_is_copied(
    store: Store, tree: Path, name: str, change: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        import_directory(store, tree, name, changes=[change])
    with pytest.raises(UserError, match=words):
        import_tar(store, io.BytesIO(layer()), name, changes=[change])
    assert not store.root.exists()


def test_a_directory_that_is_none_has_its_own_exit_code(store: Store, tree: Path) -> None:
    for path in (tree / "missing", tree / "su"):
        with pytest.raises(UserError) as caught:
            import_directory(store, path, "mine")
        assert caught.value.exit_code is ExitCode.FILE_NOT_FOUND


@pytest.mark.parametrize("content", [b"no tar" * 200, gzip.compress(b"x")[:-4], layer(Entry("../x", b""))])
def test_a_tarball_that_is_none_leaves_nothing(store: Store, content: bytes) -> None:
    with pytest.raises(UserError, match="broken image"):
        import_tar(store, io.BytesIO(content), "mine")
    assert store.images() == []
    assert os.listdir(store.root / "layers") == os.listdir(store.root / "tmp") == []


def test_progress_only_grows_and_ends_at_the_whole(store: Store, tree: Path) -> None:
    seen: list[int] = []
    import_directory(store, tree, "mine", progress=seen.append)
    assert seen == sorted(seen)
    assert 0 < seen[-1] <= len(blob_of(store, "mine"))
