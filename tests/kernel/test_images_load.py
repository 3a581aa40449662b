"""`load`: archives of every kind become images, all or none, also side by side and after a SIGKILL."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import io
import json
import lzma
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from orchestrator.images.archives import loading, saving
from orchestrator.images.archives.loading import Loaded
from orchestrator.images.layers.unpacking import Limits
from orchestrator.images.registry import platforms
from orchestrator.images.registry.platforms import Platform
from orchestrator.images.store.content import Store
from orchestrator.model.errors import ExitCode, PystackError, UserError
from tests.kit import archives
from tests.kit.archives import (
    CONFIG,
    INDEX,
    MANIFEST,
    Entry,
    Image,
    digest,
    docker_save,
    docker_save_of_old,
    layer,
    oci_layout,
)
from tests.kit.patience import patient

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("state_root")]

BASE = layer(Entry("./"), Entry("etc/"), Entry("etc/motd", b"base"), Entry("root/", mode=0o700))
WEB = Image((BASE, layer(Entry("etc/"), Entry("etc/web", b"1"))), {"Cmd": ["web"]}, ("web:1", "web"))
DB = Image((BASE, layer(Entry("etc/"), Entry("etc/db", b"2"))), {"Cmd": ["db"]}, ("ghcr.io/x/db:2",))

Pack = Callable[[bytes], bytes]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def load(
    store: Store, content: bytes, limits: Limits | None = None, platform: Platform | None = None
) -> list[Loaded]:
    return loading.load(store, io.BytesIO(content), limits=limits, platform=platform)


def load_file(store: Store, content: bytes) -> list[Loaded]:
    """From a file, in which something else stands first."""
    path = store.root.parent / "archive.tar"
    path.write_bytes(b"first\n" + content)
    with open(path, "rb", buffering=0) as file:
        assert file.read(6) == b"first\n"
        return loading.load(store, file)


def plain_layout(*images: Image) -> bytes:
    return oci_layout(*images, compress=False)


def mixed(*images: Image) -> bytes:
    return oci_layout(*images, mixed=True)


def files_of(store: Store, name: str) -> set[str]:
    return {path.name for lower in store.layers(store.demand(name).id) for path in (lower / "etc").iterdir()}


def all_of(store: Store) -> set[str]:
    return {str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.name != "lock"}


@pytest.mark.parametrize("bring", [load, load_file])
@pytest.mark.parametrize("form", [docker_save, oci_layout, plain_layout, mixed])
def test_several_images_and_names_of_one_archive_come_in(
    store: Store, form: Callable[..., bytes], bring: Callable[..., list[Loaded]]
) -> None:
    loaded = bring(store, form(WEB, DB))
    assert loaded == [
        Loaded(id=WEB.id, names=("web:1", "web:latest")),
        Loaded(id=DB.id, names=("ghcr.io/x/db:2",)),
    ]
    assert files_of(store, "web") == {"motd", "web"}
    assert files_of(store, "ghcr.io/x/db:2") == {"motd", "db"}
    assert store.config(WEB.id).command == ("web",)
    # The layer that both have is unpacked once, and what lies in the store is what its name says.
    assert len(os.listdir(store.root / "layers")) == 3
    for path in (store.root / "blobs" / "sha256").iterdir():
        assert digest(path.read_bytes()) == f"sha256:{path.name}"
    assert os.listdir(store.root / "tmp") == []


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_the_archive_may_be_compressed(store: Store, pack: Pack) -> None:
    assert load(store, pack(docker_save(WEB)))[0].id == WEB.id


def test_layers_may_be_compressed_each_in_its_way_and_are_kept_as_they_came(store: Store) -> None:
    """In docker's form too, where nothing tells: the manifest that is made for it says so."""
    packed = [zstandard.compress(WEB.layers[0]), b"".join(map(gzip.compress, _halves(WEB.layers[1])))]
    files = {"c.json": WEB.config, "a": packed[0], "b": packed[1]}
    files["manifest.json"] = archives.dumps(
        [{"Config": "c.json", "RepoTags": ["web:1"], "Layers": ["a", "b"]}]
    )
    assert load_file(store, archives.pack(files))[0].id == WEB.id
    assert files_of(store, "web:1") == {"motd", "web"}
    rows = store.manifest(store.demand("web:1").manifest)["layers"]
    assert [row["mediaType"].rpartition(".")[2] for row in rows] == ["tar+zstd", "tar+gzip"]
    assert [store.blob_path(row["digest"]).read_bytes() for row in rows] == packed


def _halves(content: bytes) -> list[bytes]:
    return [content[:700], content[700:]]


def test_a_pipe_will_do(store: Store) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.stdin is not None
        assert cat.stdout is not None
        cat.stdin.write(docker_save(WEB))
        cat.stdin.close()
        assert loading.load(store, cat.stdout)[0].id == WEB.id


def test_a_manifest_that_the_archive_has_keeps_its_digest(store: Store) -> None:
    """Then a later push has the digest that others know the image by."""
    content = mixed(WEB)
    load(store, content)
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        index = tar.extractfile("index.json")
        assert index is not None
        wanted = json.load(index)["manifests"][0]["digest"]
    assert store.demand("web").manifest == wanted


def test_layers_that_are_here_are_not_unpacked_again(store: Store) -> None:
    load(store, docker_save(WEB))
    before = {path: path.stat().st_ino for path in (store.root / "layers").iterdir()}
    load(store, docker_save(WEB, DB))
    now = {path: path.stat().st_ino for path in (store.root / "layers").iterdir()}
    assert now.items() >= before.items()
    assert len(now) == 3


def test_layers_that_are_here_are_believed_only_with_the_blobs_they_came_by(store: Store) -> None:
    """Else an archive could make an image of which manifest and config say two things."""
    import tarfile

    load(store, oci_layout(WEB))
    made = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(oci_layout(WEB))) as old,
        tarfile.open(fileobj=made, mode="w") as new,
    ):
        rows = {one.name: old.extractfile(one) for one in old if one.isfile()}
        files = {name: file.read() for name, file in rows.items() if file is not None}
        index = json.loads(files["index.json"])
        row = index["manifests"][0]
        manifest = json.loads(files[f"blobs/sha256/{row['digest'][7:]}"])
        manifest["layers"].reverse()
        content = json.dumps(manifest).encode()
        row |= {"digest": archives.digest(content), "size": len(content)}
        files |= {"index.json": json.dumps(index).encode(), f"blobs/sha256/{row['digest'][7:]}": content}
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            new.addfile(member, io.BytesIO(text))
    with pytest.raises(UserError, match="a layer should be"):
        load(store, made.getvalue())
    assert len(store.images()) == 1


def test_an_archive_of_before_docker_1_10_becomes_images_as_docker_makes_them(store: Store) -> None:
    loaded = load_file(store, docker_save_of_old(WEB, DB))
    assert [one.names for one in loaded] == [("web:1", "web:latest"), ("ghcr.io/x/db:2",)]
    assert files_of(store, "web:1") == {"motd", "web"}
    config = json.loads(store.blob(loaded[0].id, limit=10_000))
    assert config == {
        "architecture": "amd64",
        "config": {"Cmd": ["web"]},
        "container_config": {"Cmd": ["/bin/sh", "-c", "step 1"]},
        "created": "2015-06-02T00:00:00Z",
        "history": [
            {"created": "2015-06-01T00:00:00Z", "created_by": "/bin/sh -c step 0"},
            {"created": "2015-06-02T00:00:00Z", "created_by": "/bin/sh -c step 1"},
        ],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest(one) for one in WEB.layers]},
    }
    assert load(store, docker_save_of_old(WEB, DB)) == loaded


def test_an_old_archive_without_names_holds_the_image_that_no_other_is_built_on(store: Store) -> None:
    loaded = load(store, docker_save_of_old(WEB, names=False))
    assert [one.names for one in loaded] == [()]
    assert files_of(store, loaded[0].id) == {"motd", "web"}


def test_an_image_without_a_name_is_loaded_by_its_id(store: Store) -> None:
    nameless = dataclasses.replace(WEB, tags=())
    for form in (docker_save, oci_layout):
        assert load(store, form(nameless)) == [Loaded(id=WEB.id, names=())]
    assert [image.names for image in store.images()] == [()]


def test_a_layer_that_is_twice_in_an_image_is_one_lower_directory(store: Store) -> None:
    empty = layer()
    load(store, docker_save(Image((BASE, empty, WEB.layers[1], empty), tags=("twice",))))
    assert len(store.layers(store.demand("twice").id)) == 3


def test_of_several_platforms_this_machines_is_taken(store: Store) -> None:
    files = {"oci-layout": b"{}"}
    rows = []
    for arch, image in (("s390x", DB), ("amd64", WEB), ("arm64", dataclasses.replace(WEB, run={}))):
        head, layers = archives.parts_of(image, files, compress=True)
        data = {"schemaVersion": 2, "mediaType": MANIFEST, "config": head, "layers": layers}
        manifest = archives.put(files, archives.dumps(data))
        rows.append({"mediaType": MANIFEST, **manifest, "platform": {"os": "linux", "architecture": arch}})
    attestation = {**rows[0], "platform": {"os": "unknown", "architecture": "unknown"}}
    children = archives.put(files, archives.dumps({"mediaType": INDEX, "manifests": [attestation, *rows]}))
    top = {"mediaType": INDEX, **children, "annotations": {"io.containerd.image.name": "docker.io/x/web:1"}}
    files["index.json"] = archives.dumps({"manifests": [top]})
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    expected = {"amd64": WEB.id, "arm64": dataclasses.replace(WEB, run={}).id}[machine]
    assert load(store, archives.pack(files)) == [Loaded(id=expected, names=("x/web:1",))]
    other = platforms.parse("linux/s390x")
    assert load(store, archives.pack(files), platform=other) == [Loaded(id=DB.id, names=("x/web:1",))]
    assert store.demand("x/web:1").id == DB.id
    with pytest.raises(
        UserError, match=r"no image for linux/arm/v7 .* linux/amd64, linux/arm64, linux/s390x"
    ):
        load(store, archives.pack(files), platform=platforms.parse("linux/arm/v7"))

    others = archives.put(files, archives.dumps({"mediaType": INDEX, "manifests": rows[:1]}))
    files["index.json"] = archives.dumps({"manifests": [{"mediaType": INDEX, **others}]})
    with pytest.raises(UserError, match=r"no image for linux/\w+ in the archive; it has: linux/s390x"):
        load(store, archives.pack(files))


# --- where layers meet ---------------------------------------------------------------------------


def merged(store: Store, name: str, script: str, tmp_path: Path) -> str:
    """What a script says in the image's root under a real overlay."""
    lowers = ":".join(str(path) for path in store.layers(store.demand(name).id))
    (tmp_path / "merged").mkdir(exist_ok=True)
    mount = f"mount -t overlay overlay -o ro,lowerdir={lowers} {tmp_path}/merged"
    command = ["unshare", "-m", "sh", "-c", f"{mount} && cd {tmp_path}/merged && {script}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_directory_that_an_upper_layer_does_not_list_keeps_what_the_lower_says_of_it(
    store: Store, tmp_path: Path
) -> None:
    """Else /tmp would lose its sticky bit and /root its privacy."""
    low = layer(
        Entry("./", mode=0o750, uid=3),
        *(
            Entry("tmp/", mode=0o1777),
            Entry("root/", mode=0o700, uid=1, gid=2),
            Entry("root/deep/", mode=0o711),
        ),
        *(Entry("opt/", mode=0o2775), Entry("plain/"), Entry("relisted/", mode=0o700)),
    )
    high = layer(
        *(Entry("tmp/a", b"x"), Entry("root/deep/b", b"x"), Entry("opt/c", b"x"), Entry("plain/d", b"x")),
        *(Entry("relisted/"), Entry("relisted/e", b"x")),
    )
    load(store, docker_save(Image((low, high), tags=("x",))))
    seen = merged(
        store,
        "x",
        "stat -c '%n %a %u %g' . tmp root root/deep opt plain relisted; find . -type f | sort",
        tmp_path,
    )
    assert seen.splitlines() == [
        *(". 750 3 0", "tmp 1777 0 0", "root 700 1 2", "root/deep 711 0 0", "opt 2775 0 0", "plain 755 0 0"),
        *("relisted 755 0 0", "./opt/c", "./plain/d", "./relisted/e", "./root/deep/b", "./tmp/a"),
    ]
    store.remove("x")
    assert os.listdir(store.root / "layers") == []


def test_ordinary_layers_need_no_repair(store: Store) -> None:
    load(store, docker_save(WEB, DB))
    assert not [name for name in os.listdir(store.root / "layers") if name.startswith("fix-")]


def test_a_directory_that_was_replaced_between_is_not_repaired(store: Store, tmp_path: Path) -> None:
    low = layer(Entry("a/", mode=0o700), Entry("b/", mode=0o700), Entry("c/", mode=0o700))
    middle = layer(Entry(".wh.a"), Entry("b", b"a file"), Entry("c/", mode=0o701), Entry("c/.wh..wh..opq"))
    high = layer(Entry("a/x", b""), Entry(".wh.b"), Entry("c/x", b""))
    load(store, docker_save(Image((low, middle, high), tags=("x",))))
    assert merged(store, "x", "stat -c '%n %a' a c; ls", tmp_path).split() == [
        "a",
        "755",
        "c",
        "701",
        "a",
        "c",
    ]


def test_a_hard_link_to_a_file_of_a_lower_layer_becomes_a_copy(store: Store, tmp_path: Path) -> None:
    low = layer(Entry("bin/", mode=0o711), Entry("bin/tool", b"tool", mode=0o4755, uid=4))
    high = layer(
        Entry("bin/", mode=0o711), Entry("bin/alias", hardlink="bin/tool"), Entry("new", hardlink="bin/tool")
    )
    load(store, docker_save(Image((low, high), tags=("x",))))
    seen = merged(store, "x", "stat -c '%n %a %u' bin bin/alias new; cat bin/alias new", tmp_path)
    assert seen == "bin 711 0\nbin/alias 4755 4\nnew 4755 4\ntooltool"


def test_a_hard_link_to_nothing_is_refused(store: Store) -> None:
    with pytest.raises(UserError, match="which is not there"):
        load(store, docker_save(Image((BASE, layer(Entry("x", hardlink="missing"))))))


# --- what is wrong with an archive ---------------------------------------------------------------


def broken(change: Callable[[dict[str, bytes]], None]) -> bytes:
    """An OCI layout with one thing changed."""
    files = {"oci-layout": b"{}"}
    head, layers = archives.parts_of(WEB, files, compress=True)
    data = {"schemaVersion": 2, "mediaType": MANIFEST, "config": head, "layers": layers}
    manifest = archives.put(files, archives.dumps(data))
    files["index.json"] = archives.dumps({"manifests": [{"mediaType": MANIFEST, **manifest}]})
    change(files)
    return archives.pack(files)


def other_content(files: dict[str, bytes]) -> None:
    name = max(files, key=lambda key: len(files[key]) if key.startswith("blobs") else -1)
    files[name] = gzip.compress(b"other")


def without(kind: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        name = next(
            key for key, content in files.items() if key.startswith("blobs") and content.startswith(kind)
        )
        del files[name]

    return change


def with_index(text: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({"index.json": text})


def deep(files: dict[str, bytes]) -> None:
    row = json.loads(files["index.json"])["manifests"][0]
    for _ in range(8):
        row = {
            "mediaType": INDEX,
            **archives.put(files, archives.dumps({"mediaType": INDEX, "manifests": [row]})),
        }
    files["index.json"] = archives.dumps({"manifests": [row]})


def artifact(files: dict[str, bytes]) -> None:
    head = {"mediaType": "application/x-chart", **archives.put(files, b"{}")}
    manifest = archives.put(files, archives.dumps({"mediaType": MANIFEST, "config": head, "layers": []}))
    files["index.json"] = archives.dumps({"manifests": [{"mediaType": MANIFEST, **manifest}]})


def wrong_size(files: dict[str, bytes]) -> None:
    head, layers = archives.parts_of(WEB, files, compress=True)
    rows = [{**row, "size": 1} for row in layers]
    manifest = archives.put(files, archives.dumps({"mediaType": MANIFEST, "config": head, "layers": rows}))
    files["index.json"] = archives.dumps({"manifests": [{"mediaType": MANIFEST, **manifest}]})


def lying_diff_ids(files: dict[str, bytes]) -> None:
    liar = dataclasses.replace(WEB, more={"rootfs": {"diff_ids": [digest(b"1"), digest(b"2")]}})
    head, layers = archives.parts_of(liar, files, compress=True)
    manifest = archives.put(files, archives.dumps({"mediaType": MANIFEST, "config": head, "layers": layers}))
    files["index.json"] = archives.dumps({"manifests": [{"mediaType": MANIFEST, **manifest}]})


def docker_table(table: object) -> bytes:
    config = archives.dumps({"rootfs": {"diff_ids": []}, "architecture": "amd64"})
    return archives.pack({"manifest.json": archives.dumps(table), "c.json": config, "big": b" " * (5 << 20)})


ROTTEN = {
    "other content under a blob's name": (broken(other_content), "has the digest"),
    "no layer": (broken(without(b"\x1f\x8b")), "has no blob"),
    "no config": (broken(without(b'{"architecture')), "has no blob"),
    "no manifest": (broken(without(b'{"schemaVersion')), "has no blob"),
    "a wrong size": (broken(wrong_size), "bytes, not 1"),
    "diff_ids that lie": (broken(lying_diff_ids), "should be sha256"),
    "diff_ids that lie in a docker archive": (
        docker_save(dataclasses.replace(WEB, more={"rootfs": {"diff_ids": [digest(b"1"), digest(b"2")]}})),
        "has the digest|should be sha256",
    ),
    "indexes without end": (broken(deep), "nested too deep"),
    "an artifact": (broken(artifact), "not a runnable image"),
    "an index that is no JSON": (broken(with_index(b"{")), "not JSON"),
    "an index that is a list": (broken(with_index(b"[]")), "not a JSON object"),
    "an index of nothing": (broken(with_index(b"{}")), "holds no image"),
    "an index of texts": (broken(with_index(b'{"manifests": "x"}')), "not a list"),
    "a digest that is none": (
        broken(with_index(b'{"manifests": [{"digest": "sha256:../../x"}]}')),
        "not a sha256",
    ),
    "a table of nothing": (docker_table([]), "holds no image"),
    "a table that is no list": (docker_table({}), "not a list"),
    "a table of texts": (docker_table(["x"]), "not a list"),
    "a config that is missing": (docker_table([{"Config": "../../etc/passwd", "Layers": []}]), "has no"),
    "a config too large": (docker_table([{"Config": "big", "Layers": []}]), "not JSON"),
    "more layers than diff_ids": (
        docker_table([{"Config": "c.json", "Layers": ["c.json"]}]),
        "1 layers, but 0",
    ),
    "a tag that is no name": (docker_table([{"Config": "c.json", "RepoTags": ["A B"]}]), "invalid reference"),
    "a config for another system": (
        docker_save(dataclasses.replace(WEB, more={"os": "windows"})),
        "for windows, not for linux",
    ),
    "an old archive of nothing": (archives.pack({"repositories": b"{}", "abc/json": b"{}"}), "no image"),
    "an old archive without its layer": (
        archives.pack({"repositories": b'{"x": {"1": "abc"}}', "abc/json": b"{}"}),
        "has no 'abc/layer.tar'",
    ),
    "an old image built on itself": (
        archives.pack({"repositories": b'{"x": {"1": "abc"}}', "abc/json": b'{"parent": "abc"}'}),
        "built on itself",
    ),
    "an old image of no config": (
        docker_save_of_old(dataclasses.replace(WEB, run={}, more={"config": "x"})),
        "config is not an object",
    ),
    "names that are none": (
        archives.pack({"repositories": b'{"x": []}', "abc/json": b"{}"}),
        "table of tags",
    ),
    "a root file system": (layer(Entry("etc/"), Entry("etc/passwd", b"x")), "neither manifest.json nor"),
    "an empty archive": (layer(), "the archive is empty"),
    "no archive": (b"hello" * 1000, "not a tar archive"),
    "nothing": (b"", "the archive is empty"),
    "half an archive": (docker_save(WEB)[:2000], "unexpected end"),
    "a name that climbs": (layer(Entry("../manifest.json", b"[]")), "leads out"),
    "a broken zstd archive": (b"\x28\xb5\x2f\xfd\x00\xff" + bytes(99), "damaged"),
    "a layer that is no tar": (docker_save(Image((b"junk" * 500,))), "not a tar archive"),
    "a hostile layer": (docker_save(Image((layer(Entry("../x", b"")),))), "leads out"),
}


@pytest.mark.parametrize("what", ROTTEN)
def test_a_bad_archive_is_refused_in_words_and_leaves_the_store_as_it_was(store: Store, what: str) -> None:
    load(store, docker_save(DB))
    before = all_of(store)
    content, words = ROTTEN[what]
    for bring in (load, load_file):
        with pytest.raises(PystackError, match=words) as caught:
            bring(store, content)
        assert caught.value.exit_code is ExitCode.IMAGE
        assert all_of(store) == before


def test_a_bad_image_keeps_the_good_one_beside_it_out_too(store: Store) -> None:
    with pytest.raises(UserError):
        load(store, docker_save(WEB, Image((b"junk" * 500,), tags=("junk",))))
    assert store.images() == []


def test_an_archive_larger_than_the_limit_is_refused_while_it_is_read(store: Store) -> None:
    with pytest.raises(UserError, match="more than 1048576 bytes"):
        load(store, gzip.compress(archives.pack({"x": bytes(2 << 20)})), Limits(max_bytes=1 << 20))


# --- at once and interrupted ---------------------------------------------------------------------

LOADER = """
import sys
from pathlib import Path
from orchestrator.images.archives import loading, saving
from orchestrator.images.store.content import Store
with open(sys.argv[2], "rb") as source:
    loading.load(Store(Path(sys.argv[1])), source)
"""


def loader(store: Store, path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", LOADER, str(store.root), str(path)], stderr=subprocess.PIPE
    )


def test_processes_may_load_the_same_image_at_once(store: Store, tmp_path: Path) -> None:
    paths = [tmp_path / "web.tar", tmp_path / "both.tar"]
    paths[0].write_bytes(docker_save(WEB))
    paths[1].write_bytes(oci_layout(WEB, DB))
    loaders = [loader(store, paths[number % 2]) for number in range(4)]
    for process in loaders:
        _, errors = process.communicate(timeout=patient(60))
        assert process.returncode == 0, errors
    assert files_of(store, "web") == {"motd", "web"}
    assert files_of(store, "ghcr.io/x/db:2") == {"motd", "db"}
    assert os.listdir(store.root / "tmp") == []


def test_when_the_layers_vanish_under_a_load_it_unpacks_them_itself(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody removes the image just after this load has found its layers here."""
    load(store, docker_save(WEB))
    rival = Store(store.root)
    real = Store.add
    turns: list[int] = []

    def add(self: Store, *arguments: object, **named: object) -> object:
        if not turns:
            turns.append(1)
            rival.remove(WEB.id, force=True)
        return real(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "add", add)
    load(store, docker_save(WEB))
    assert files_of(store, "web") == {"motd", "web"}


def test_nobody_else_can_reach_what_was_unpacked(store: Store) -> None:
    load(store, docker_save(WEB))
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700


def test_media_types_of_docker_are_taken_too(store: Store) -> None:
    files = {"oci-layout": b"{}"}
    head, layers = archives.parts_of(WEB, files, compress=True)
    docker = "application/vnd.docker"
    data = {
        "schemaVersion": 2,
        "mediaType": f"{docker}.distribution.manifest.v2+json",
        "config": {**head, "mediaType": f"{docker}.container.image.v1+json"},
        "layers": [{**row, "mediaType": f"{docker}.image.rootfs.diff.tar.gzip"} for row in layers],
    }
    manifest = archives.put(files, archives.dumps(data))
    files["index.json"] = archives.dumps({"manifests": [{"mediaType": data["mediaType"], **manifest}]})
    assert load(store, archives.pack(files))[0].id == WEB.id
    assert head["mediaType"] == CONFIG


@pytest.mark.parametrize("form", [docker_save, oci_layout])
def test_what_save_writes_comes_back_with_equal_digests_and_names(
    store: Store, tmp_path: Path, form: Callable[..., bytes]
) -> None:
    load(store, form(WEB, DB))
    with (tmp_path / "saved.tar").open("wb") as out:
        chosen = saving.merged(
            [one for word in ("web", "ghcr.io/x/db:2") for one in saving.choose(store, word)]
        )
        saving.save(store, chosen, out.fileno())
    other = Store(tmp_path / "other")
    load(other, (tmp_path / "saved.tar").read_bytes())

    assert sorted(map(repr, other.images())) == sorted(map(repr, store.images()))
    assert files_of(other, "web") == {"motd", "web"}
