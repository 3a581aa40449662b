"""Unpacking layers: everything that a tar can say arrives on the disk, and nothing gets out of the target."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.images.layers import unpacking, workers
from orchestrator.images.layers.copying import copy_tree
from orchestrator.images.layers.meta import Meta
from orchestrator.images.layers.unpacking import Limits
from orchestrator.model.errors import PystackError, UserError
from tests.kit.archives import Entry, digest, layer, tree_of

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("state_root")]


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    return tmp_path / "layer" / "fs"


def unpack(content: bytes, fs: Path, limits: Limits | None = None) -> Meta:
    blob = fs.parent.parent / "blob"
    blob.write_bytes(content)
    return unpacking.unpack(blob, fs.parent, limits or Limits())


# --- what a tar can say --------------------------------------------------------------------------

NAME = st.sampled_from(["a", "b", "c", "ü", "n" * 120, "with space", "new\nline", "\udcff"])
XATTRS = st.dictionaries(
    st.sampled_from(["user.a", "user.b"]), st.binary(min_size=1, max_size=60), max_size=2
)
STAMP = st.tuples(
    st.integers(0, 0o7777), st.integers(0, 70_000), st.integers(0, 3_000_000), st.integers(-(10**9), 2**33)
)
Grown = tuple[str, tuple[int, int, int, int], dict[str, bytes], object]
FILE = st.tuples(st.just("file"), STAMP, XATTRS, st.one_of(st.binary(max_size=3000), st.integers(0, 400_000)))
LINK: st.SearchStrategy[object] = st.tuples(
    st.just("link"), STAMP, st.just({}), st.sampled_from(["a", "/etc/passwd", "../../x", "t" * 200])
)
NODE: st.SearchStrategy[object] = st.tuples(
    st.just("node"), STAMP, st.just({}), st.sampled_from([(stat.S_IFIFO, 0), (stat.S_IFCHR, 0x105)])
)
HARD: st.SearchStrategy[object] = st.tuples(st.just("hard"), STAMP, st.just({}), st.integers(0, 10))


def folder(children: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.tuples(st.just("folder"), STAMP, XATTRS, st.dictionaries(NAME, children, max_size=4))


TREE = folder(st.recursive(st.one_of(FILE, LINK, NODE, HARD), folder, max_leaves=12))


def grow(path: str, node: Grown, files: list[str]) -> None:
    """Make the drawn tree on the disk."""
    kind, (mode, uid, gid, mtime), xattrs, what = node
    if kind == "hard":
        if files:
            assert isinstance(what, int)
            os.link(files[what % len(files)], path)
        return
    if kind == "folder":
        assert isinstance(what, dict)
        os.makedirs(path, exist_ok=True)
        for name, child in what.items():
            grow(f"{path}/{name}", child, files)
    elif kind == "link":
        os.symlink(str(what), path)
        os.chown(path, uid, gid, follow_symlinks=False)
    elif kind == "node":
        assert isinstance(what, tuple)
        os.mknod(path, what[0], what[1])
    else:
        with open(path, "wb") as file:
            if isinstance(what, int):
                file.seek(what)
            file.write(what if isinstance(what, bytes) else b"end")
        files.append(path)
    if kind != "link":
        os.chown(path, uid, gid)
        os.chmod(path, mode)
        for name, value in xattrs.items():
            os.setxattr(path, name, value)
    os.utime(path, ns=(0, mtime * 10**9), follow_symlinks=False)


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """A place whose file system has extended attributes."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        yield Path(name)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREE, st.sampled_from(["gnu", "posix"]))
def test_a_tree_packed_by_gnu_tar_comes_back_path_by_path(ground: Path, tree: Grown, form: str) -> None:
    with tempfile.TemporaryDirectory(dir=ground) as name:
        top = Path(name)
        grow(f"{top}/tree", tree, [])
        options = ["--xattrs", "--sparse"] if form == "posix" else ["--sparse"]
        command = [
            "tar",
            f"--format={form}",
            "--numeric-owner",
            *options,
            "-C",
            f"{top}/tree",
            "-cf",
            "-",
            ".",
        ]
        packed = subprocess.run(command, check=True, capture_output=True).stdout
        found = unpack(packed, top / "layer" / "fs")
        expected, got = tree_of(top / "tree"), tree_of(top / "layer" / "fs")
        if form == "gnu":
            expected, got = ({key: row[:-1] for key, row in one.items()} for one in (expected, got))
        assert got == expected
        assert found.diff_id == digest(packed)
        assert found.entries == len(expected)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREE)
def test_a_copied_tree_its_tar_and_the_tar_unpacked_are_the_same(ground: Path, tree: Grown) -> None:
    """And the tar is one that GNU tar lists without complaint."""
    with tempfile.TemporaryDirectory(dir=ground) as name:
        top = Path(name)
        grow(f"{top}/tree", tree, [])
        with open(top / "copied.tar", "wb") as blob:
            copied = copy_tree(top / "tree", top / "copy", blob, lambda _: None)
        packed = (top / "copied.tar").read_bytes()
        assert tree_of(top / "copy") == tree_of(top / "tree")
        found = unpack(packed, top / "layer" / "fs")
        assert tree_of(top / "layer" / "fs") == tree_of(top / "tree")
        assert (copied.diff_id, copied.tar_size) == (digest(packed), len(packed))
        assert (copied.size, copied.entries) == (found.size, found.entries)
        listed = subprocess.run(["tar", "-tf", "-"], input=packed, capture_output=True)
        assert (listed.returncode, listed.stderr) == (0, b"")


def test_holes_stay_holes(unpacked: Path) -> None:
    content = b"x" + bytes(64 << 20) + b"y"
    unpack(gzip.compress(layer(Entry("holes", content)), 1), unpacked)
    assert (unpacked / "holes").read_bytes() == content
    assert (unpacked / "holes").stat().st_blocks * 512 < 4 << 20


def test_the_digest_counts_also_what_stands_after_the_end(unpacked: Path) -> None:
    content = layer(Entry("a")) + b"after the end"
    assert unpack(gzip.compress(content), unpacked).diff_id == digest(content)


def test_setuid_and_file_capabilities_survive_the_change_of_owner(unpacked: Path) -> None:
    capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    unpack(
        layer(
            Entry("su", b"x", mode=0o6755, uid=5, gid=6),
            Entry("ping", b"x", uid=7, pax={"SCHILY.xattr.security.capability": capability}),
        ),
        unpacked,
    )
    assert stat.S_IMODE((unpacked / "su").stat().st_mode) == 0o6755
    assert os.getxattr(unpacked / "ping", "security.capability") == capability.encode()


# --- order and duplicates ------------------------------------------------------------------------


def test_the_later_of_two_entries_wins_whatever_it_replaces(unpacked: Path) -> None:
    unpack(
        layer(
            *(Entry("file", b"old", mode=0o600), Entry("file", b"new")),
            *(Entry("was-folder/"), Entry("was-folder/child", b"x"), Entry("was-folder", b"file")),
            *(Entry("was-file", b"x"), Entry("was-file/"), Entry("was-file/child", b"y")),
            *(Entry("was-link", link="/"), Entry("was-link/"), Entry("was-link/child", b"z")),
            *(Entry("same", b"x"), Entry("same", hardlink="same")),
            *(Entry("kept/", mode=0o700), Entry("kept/child", b"1"), Entry("kept/", mode=0o755)),
        ),
        unpacked,
    )
    assert (unpacked / "file").read_bytes() == b"new"
    assert (unpacked / "was-folder").read_bytes() == b"file"
    assert (unpacked / "was-file" / "child").read_bytes() == b"y"
    assert not (unpacked / "was-link").is_symlink()
    assert (unpacked / "same").read_bytes() == b"x"
    assert (unpacked / "kept" / "child").exists()
    assert stat.S_IMODE((unpacked / "kept").stat().st_mode) == 0o755


def test_times_of_directories_are_set_after_their_children(unpacked: Path) -> None:
    unpack(layer(Entry("d/", mtime=1000), Entry("d/a"), Entry(".wh.b"), Entry("d/.wh.c")), unpacked)
    assert (unpacked / "d").stat().st_mtime == 1000


def test_directories_that_the_tar_left_out_are_made_and_noted(unpacked: Path) -> None:
    found = unpack(layer(Entry("a/b/c", b"x"), Entry("a/b/", mode=0o700)), unpacked)
    assert found.implied == ("", "a")
    assert stat.S_IMODE((unpacked / "a").stat().st_mode) == 0o755
    assert stat.S_IMODE((unpacked / "a" / "b").stat().st_mode) == 0o700


def test_a_link_to_a_file_of_a_lower_layer_is_noted(unpacked: Path) -> None:
    found = unpack(layer(Entry("./"), Entry("here", hardlink="./usr/there")), unpacked)
    assert found.links == (("here", "usr/there"),)
    assert os.listdir(unpacked) == []


# --- whiteouts -----------------------------------------------------------------------------------


def is_whiteout(path: Path) -> bool:
    now = path.lstat()
    return stat.S_ISCHR(now.st_mode) and now.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)


def test_whiteouts_become_those_of_overlayfs(unpacked: Path) -> None:
    unpack(
        layer(Entry("d/"), Entry("d/.wh.gone"), Entry("o/"), Entry("o/.wh..wh..opq"), Entry("o/x")), unpacked
    )
    assert is_whiteout(unpacked / "d" / "gone")
    assert is_opaque(unpacked / "o")
    assert not is_opaque(unpacked / "d")
    assert sorted(os.listdir(unpacked / "o")) == ["x"]


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_means_lower_layers_only_wherever_it_stands(unpacked: Path, first: bool) -> None:
    """What the layer itself has under that name stays, and a directory hides the lower one."""
    mark = (Entry(".wh.file"), Entry(".wh.folder"))
    real = (Entry("file", b"x"), Entry("folder/"), Entry("folder/child", b"y"))
    unpack(layer(*((*mark, *real) if first else (*real, *mark))), unpacked)
    assert (unpacked / "file").read_bytes() == b"x"
    assert (unpacked / "folder" / "child").read_bytes() == b"y"
    assert is_opaque(unpacked / "folder")


def test_an_opaque_root_is_noted(unpacked: Path) -> None:
    assert unpack(layer(Entry(".wh..wh..opq"), Entry("x")), unpacked).opaque_root


def test_bookkeeping_of_aufs_is_left_out(unpacked: Path) -> None:
    unpack(
        layer(Entry(".wh..wh.plnk/"), Entry(".wh..wh.plnk/1", b"x"), Entry(".wh..wh.aufs", b"x")), unpacked
    )
    assert os.listdir(unpacked) == [] or os.listdir(unpacked) == [".wh..wh.plnk"]


def test_the_kernel_sees_the_marks_as_meant(tmp_path: Path) -> None:
    """Two layers under a real overlay: deleted is gone, opaque hides, the rest merges."""
    unpack(
        layer(
            Entry("./"),
            *(
                Entry("gone", b"1"),
                Entry("kept", b"1"),
                Entry("d/"),
                Entry("d/hidden", b"1"),
                Entry("d/twice", b"1"),
            ),
            *(Entry("e/"), Entry("e/gone", b"1"), Entry("e/kept", b"1")),
        ),
        tmp_path / "low" / "fs",
    )
    unpack(
        layer(
            Entry("./"),
            *(Entry(".wh.gone"), Entry("d/"), Entry("d/.wh..wh..opq"), Entry("d/twice", b"2")),
            *(Entry("e/"), Entry("e/.wh.gone")),
        ),
        tmp_path / "high" / "fs",
    )
    merged = tmp_path / "merged"
    merged.mkdir()
    script = (
        f"mount -t overlay overlay -o ro,lowerdir={tmp_path}/high/fs:{tmp_path}/low/fs {merged} && "
        f"cd {merged} && find . -mindepth 1 | sort | tr '\\n' ' ' && cat d/twice"
    )
    seen = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert seen == "./d ./d/twice ./e ./e/kept ./kept 2"


# --- hostile -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entries",
    [
        (Entry("../out", b"x"),),
        (Entry("a/../../out", b"x"),),
        (Entry("a", b"x"), Entry("hard", hardlink="../../etc/shadow")),
        (Entry("a/.wh..."),),
        (Entry(".wh."),),
        (Entry("a/.wh..", b""),),
        (Entry("whiteout", type=tarfile.CHRTYPE),),
        (Entry("node", type=tarfile.CHRTYPE, device=(5000, 1)),),
        (Entry("./", b"", type=tarfile.REGTYPE),),
        (Entry("file", b"x"), Entry("file/child", b"y")),
        (Entry("loop", link="loop"), Entry("loop/child", b"y")),
        (Entry("nowhere", link="/missing"), Entry("nowhere/child", b"y")),
        (Entry("d/"), Entry("hard", hardlink="d")),
        (Entry("x" * 300, b""),),
        (Entry("d/" * 2100 + "x", b""),),
        (Entry("link", type=tarfile.SYMTYPE),),
        (Entry("huge", pax={"uid": "99999999999"}),),
        (Entry("nul", pax={"path": "a\0b"}),),
    ],
    ids=lambda entries: entries[-1].name[:20],
)
def test_what_must_not_be_is_refused(unpacked: Path, entries: tuple[Entry, ...]) -> None:
    before = set(os.listdir(unpacked.parent.parent))
    with pytest.raises(UserError, match="broken image: layer: "):
        unpack(layer(*entries), unpacked)
    assert set(os.listdir(unpacked.parent.parent)) - before <= {"blob", "layer"}


def test_links_out_of_the_image_lead_nowhere_else(tmp_path: Path, unpacked: Path) -> None:
    """The target is the whole world of the worker: absolute, climbing and chained links end inside it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    chain = [Entry("l0/"), *(Entry(f"l{n}", link=f"l{n - 1}/../l{n - 1}") for n in range(1, 5))]
    unpack(
        layer(
            *(Entry("abs", link=str(outside)), Entry(str(outside)[1:] + "/"), Entry("abs/one", b"x")),
            *(Entry("up", link="../../../../../../../.."), Entry("up/two", b"x")),
            *(Entry("/absolute-name", b"x"), *chain, Entry("l4/three", b"x")),
            *(Entry("proc", link="/proc/self/root"), Entry("proc2/")),
        ),
        unpacked,
    )
    assert os.listdir(outside) == []
    assert not Path("/two").exists()
    assert (unpacked / str(outside)[1:] / "one").exists()
    assert (unpacked / "two").exists()
    assert (unpacked / "absolute-name").exists()
    assert (unpacked / "l0" / "three").exists()


def test_what_steers_overlayfs_or_belongs_to_a_machine_is_dropped(unpacked: Path) -> None:
    names = (
        *("trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.overlay.metacopy", "trusted.x"),
        *("user.overlay.opaque", "user.overlay.redirect", "security.selinux", "security.ima", "system.x"),
    )
    pax = {**{f"SCHILY.xattr.{name}": "y" for name in names}, "SCHILY.xattr.user.kept": "z"}
    unpack(layer(Entry("d/", pax=pax), Entry("f", b"x", pax=pax)), unpacked)
    assert os.listxattr(unpacked / "d") == os.listxattr(unpacked / "f") == ["user.kept"]


def test_the_image_cannot_slip_code_to_the_worker(tmp_path: Path) -> None:
    """Where the interpreter would look for modules lies inside the image once the worker is locked in."""
    package = Path(unpacking.__file__).parents[3]
    for place in (package, Path(os.__file__).parent):
        evil = tmp_path / str(place)[1:] / "evil.py"
        evil.parent.mkdir(parents=True)
        evil.write_text("print('image code ran')")
    script = f"""
import sys
sys.path.append({str(package)!r})
from orchestrator.images.layers import worker
worker.enter({str(tmp_path)!r})
try:
    import evil
except ModuleNotFoundError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("refused\n", "")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_a_whole_layer_is_unpacked_with_what_was_loaded_before(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """glibc loads libgcc_s when a thread ends, Python its modules when they are named: both have happened."""
    target = tmp_path / "fs"
    for place in ("lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "usr/lib", "lib"):
        (target / place).mkdir(parents=True, exist_ok=True)
        (target / place / "libgcc_s.so.1").write_bytes(b"\x7fELF and nothing else")
    blob = tmp_path / "blob"
    blob.write_bytes(pack(layer(Entry("a", b"x" * (3 << 20)), Entry("b", link="a"), Entry("d/"))))
    order = {"target": str(target), "path": str(blob), "max_bytes": 1 << 30, "max_entries": 99}
    script = f"""
import os, sys
sys.path += {[str(Path(unpacking.__file__).parents[3]), *workers._homes()]!r}
from orchestrator.images.layers import hashing, worker
hashing.warm()
worker.preload()
worker.keeps_ids()
maps = open("/proc/self/maps")
def mapped():
    maps.seek(0)
    return {{line.split()[-1] for line in maps if "/" in line}}
before, modules = mapped(), set(sys.modules)
found = worker._open({order!r} | {{"parent": os.getppid()}})
print(sorted(mapped() - before), sorted(set(sys.modules) - modules), found.get("error"), found["entries"])
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[] [] None 3\n", "")


def test_an_error_names_the_entry(unpacked: Path) -> None:
    impossible = Entry("usr/bad", type=tarfile.CHRTYPE, device=(1 << 12, 0))
    with pytest.raises(UserError, match="b'usr/bad' has an impossible device number"):
        unpack(layer(Entry("fine", b"x"), impossible), unpacked)
    with pytest.raises(UserError, match="entry 'loop/child': Too many levels of symbolic links"):
        unpack(layer(Entry("loop", link="loop"), Entry("loop/child")), unpacked.parent.parent / "2" / "fs")
    with pytest.raises(UserError, match="after entry 'fine': not a number"):
        unpack(layer(Entry("fine"), Entry("x", pax={"uid": "-5"})), unpacked.parent.parent / "3" / "fs")


def test_limits_hold(tmp_path: Path) -> None:
    rows = {
        "entries": (Limits(max_entries=10), layer(*(Entry(f"f{n}") for n in range(11)))),
        "bytes": (Limits(max_bytes=100_000), layer(*(Entry(f"f{n}", b"x" * 30_000) for n in range(4)))),
        "zeros": (Limits(max_bytes=1 << 20), gzip.compress(layer(Entry("f", bytes(4 << 20))))),
        "sparse": (Limits(max_bytes=1 << 20), _sparse_file(1 << 40)),
    }
    for name, (limits, content) in rows.items():
        (tmp_path / name).mkdir()
        with pytest.raises(UserError, match="more than"):
            unpack(content, tmp_path / name / "layer" / "fs", limits)


@pytest.mark.parametrize(
    "content", [b"no tar at all" * 100, gzip.compress(layer(Entry("a", b"x" * 9999)))[:-50]]
)
def test_damage_is_an_error_in_words(unpacked: Path, content: bytes) -> None:
    with pytest.raises(PystackError, match="broken image: layer"):
        unpack(content, unpacked)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_byte_may_be_wrong_and_is_then_the_images_fault_not_ours(
    ground: Path, data: st.DataObject
) -> None:
    entries = (
        Entry("d/", pax={"SCHILY.xattr.user.a": "b"}),
        Entry("d/f", b"x" * 900),
        Entry("l", link="d/f"),
    )
    raw = bytearray(layer(*entries, Entry("h", hardlink="d/f"), Entry("n", type=tarfile.FIFOTYPE)))
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory(dir=ground) as name, contextlib.suppress(UserError):
        unpack(bytes(raw), Path(name) / "layer" / "fs")


def _sparse_file(length: int) -> bytes:
    """A pax sparse file of one byte at the start and nothing after it."""
    info = tarfile.TarInfo("sparse")
    info.size = 1
    info.pax_headers = {"GNU.sparse.size": str(length), "GNU.sparse.map": "0,1"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"x"))
    return out.getvalue()
