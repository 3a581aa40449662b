"""The same images, unpacked by us, by Docker, by umoci and by GNU tar: the same trees, path by path.

Compared are modes, owners, contents, links and link groups, targets, times in nanoseconds, extended attributes. A
row names who is asked; where one of them falls short, `blind` says in what, and it is asked for the rest.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zstandard

from orchestrator.images.archives import loading
from orchestrator.images.store.content import Store
from tests.kit import layered, trees
from tests.kit.archives import Entry, Image, digest, docker_save, layer, tree_of
from tests.kit.programs import REPOSITORY
from tests.kit.trees import Docker, Tree

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.usefixtures("state_root"),
    pytest.mark.skipif(os.geteuid() != 0, reason="layers with owners and devices need root"),
]

MTIME, WHAT, XATTRS, GROUP, DIRTIME = 3, 4, 5, -1, -2
"""Places of a path's description. GROUP: which names are links to one file. DIRTIME: times of directories."""
CAPABILITY = "\x01\x00\x00\x02\x00\x04" + "\x00" * 14
TOP = (Entry("./"), Entry("d/"), Entry("d/kept", b"1"))


ROOT = -3
ALWAYS = {"docker": (ROOT,)}
"""Docker takes nothing of what an archive says of the root directory itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An image that says one thing, and who is asked about it."""

    layers: tuple[bytes, ...]
    packed: tuple[bytes, ...] = ()
    """How the layers come, when that is not as they are."""
    asked: tuple[str, ...] = ("docker", "umoci", "tar")
    blind: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Who -> places of a description that it gets wrong, or that it says nothing of."""
    holds: Mapping[str, object] = field(default_factory=dict)
    """Path -> by our own word: content, target of a link, or None when nothing may be there."""

    def image(self, name: str) -> Image:
        return Image(self.layers, tags=(name,))


def gnu(*entries: Entry) -> bytes:
    """As GNU tar and `docker save` of old write it: long names in records of their own, base-256 numbers."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as written:
        for entry in entries:
            written.addfile(entry.header, io.BytesIO(entry.content))
    return out.getvalue()


def by_gnu_tar(*options: str) -> bytes:
    """A file with holes, and one that is a hole as a whole."""
    with tempfile.TemporaryDirectory() as place:
        with open(f"{place}/holes", "wb") as file:
            for at in range(30):
                file.seek(at * 100_000)
                file.write(b"%04d" % at * 256)
            file.truncate(4_000_000)
        with open(f"{place}/hole", "wb") as file:
            file.truncate(1 << 20)
        command = ["tar", "--sparse", *options, "--mtime=@1600000000", "-C", place, "-cf", "-"]
        command += ["--numeric-owner", "--owner=3", "--group=4", "holes", "hole"]
        packed = subprocess.run(command, check=True, capture_output=True).stdout
    return layer(Entry("./"))[:512] + packed


def skippable(content: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


LONG = "x" * 90 + "/" + "y" * 120
DEEP = "/".join("z" * 60 for _ in range(8))
PLAIN = layer(*TOP, Entry("d/more", b"x" * 70_000))
HALF = len(PLAIN) // 2
SPARSE = {
    "old": ("--format=gnu",),
    "0.0": ("--format=pax", "--sparse-version=0.0"),
    "0.1": ("--format=pax", "--sparse-version=0.1"),
    "1.0": ("--format=pax", "--sparse-version=1.0"),
}

ROWS: dict[str, Row] = {
    "whiteouts": Row(
        layers=(
            layer(*TOP, Entry("d/gone", b"1"), Entry("tree/"), Entry("tree/a/"), Entry("tree/a/b", b"1")),
            layer(Entry("./"), Entry("d/"), Entry("d/.wh.gone"), Entry(".wh.tree"), Entry(".wh.never-was")),
        ),
        asked=("docker", "umoci"),
        holds={"d/gone": None, "tree": None, "d/kept": b"1", "never-was": None},
    ),
    "opaque directories": Row(
        layers=(
            layer(*TOP, Entry("d/hidden", b"1"), Entry("d/twice", b"1"), Entry("d/sub/"), Entry("d/sub/x")),
            layer(Entry("./"), Entry("d/"), Entry("d/.wh..wh..opq"), Entry("d/twice", b"2")),
        ),
        asked=("docker", "umoci"),
        holds={"d/hidden": None, "d/kept": None, "d/sub": None, "d/twice": b"2"},
    ),
    "an opaque mark behind what it does not mean": Row(
        layers=(
            layer(*TOP, Entry("d/hidden", b"1")),
            layer(Entry("./"), Entry("d/"), Entry("d/new", b"2"), Entry("d/.wh..wh..opq")),
        ),
        asked=("docker", "umoci"),
        holds={"d/hidden": None, "d/kept": None, "d/new": b"2"},
    ),
    "a whiteout and a directory of its name": Row(
        layers=(
            layer(*TOP, Entry("d/hidden", b"1")),
            layer(Entry("./"), Entry(".wh.d"), Entry("d/", mode=0o700), Entry("d/new", b"2")),
        ),
        # Docker's layer shows what is below: its directory is not opaque.
        asked=("umoci",),
        holds={"d/hidden": None, "d/kept": None, "d/new": b"2"},
    ),
    "a whiteout and a file of its name": Row(
        layers=(
            layer(*TOP, Entry("file", b"1")),
            layer(Entry("./"), Entry(".wh.file"), Entry("file", b"2")),
        ),
        asked=("docker", "umoci"),
        holds={"file": b"2"},
    ),
    "a whiteout of a link to a directory": Row(
        layers=(
            layer(*TOP, Entry("link", link="d")),
            layer(Entry("./"), Entry(".wh.link")),
        ),
        asked=("docker", "umoci"),
        holds={"link": None, "d/kept": b"1"},
    ),
    "hard links": Row(
        layers=(
            layer(
                *TOP,
                Entry("a", b"one", mode=0o640, uid=5),
                Entry("d/b", hardlink="a", mode=0o640, uid=5),
                Entry("c", hardlink="./d/b", mode=0o640, uid=5),
                Entry("e", hardlink="/a", mode=0o640, uid=5),
            ),
        ),
        blind={"tar": (DIRTIME,)},
        holds={"c": b"one"},
    ),
    "a hard link to a symbolic link": Row(
        layers=(
            layer(*TOP, Entry("soft", link="d/kept"), Entry("hard", hardlink="soft"), Entry("d/kept", b"2")),
        ),
        # Docker changes the mode and owner of what the link points to, and takes no name twice.
        asked=("umoci", "tar"),
        blind={"umoci": (DIRTIME,), "tar": (DIRTIME,)},
        holds={"hard": "d/kept"},
    ),
    "a hard link into the layer below": Row(
        layers=(
            layer(*TOP, Entry("a", b"one", mode=0o4750, uid=5)),
            layer(Entry("./"), Entry("b", hardlink="a")),
        ),
        # Docker can't. We copy, for a link can't lead from one layer's directory into another's.
        asked=("umoci", "tar"),
        blind={"umoci": (GROUP,), "tar": (GROUP,)},
        holds={"b": b"one"},
    ),
    "attributes": Row(
        layers=(
            layer(
                *TOP,
                Entry("file", b"x", pax={"SCHILY.xattr.user.a": "1", "SCHILY.xattr.user.b": "=\n="}),
                Entry("folder/", pax={"SCHILY.xattr.user.c": "3"}),
                Entry("ping", b"x", uid=7, mode=0o755, pax={"SCHILY.xattr.security.capability": CAPABILITY}),
            ),
        ),
    ),
    "device nodes and FIFOs": Row(
        layers=(
            layer(
                *TOP,
                Entry("null", type=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
                Entry("disk", type=tarfile.BLKTYPE, device=(259, 300), mode=0o660, gid=6),
                Entry("pipe", type=tarfile.FIFOTYPE, mode=0o622, uid=9),
            ),
        ),
        # Of these, it sets no times.
        blind={"docker": (MTIME,), "umoci": (MTIME,)},
    ),
    "setuid, setgid, sticky": Row(
        layers=(
            layer(
                *TOP,
                Entry("su", b"x", mode=0o4755),
                Entry("mail", b"x", mode=0o2755, uid=4, gid=8),
                Entry("both", b"x", mode=0o6711, uid=1, gid=1),
                Entry("tmp/", mode=0o1777),
                Entry("spool/", mode=0o3775, uid=3, gid=3),
                Entry("none", b"", mode=0o10000),
            ),
        ),
    ),
    "long names, as GNU": Row(
        layers=(
            gnu(
                *TOP,
                Entry(f"{LONG}/", mode=0o750),
                Entry(f"{LONG}/file", b"x"),
                Entry("soft", link="t/" * 200 + "end"),
                Entry("hard", hardlink=f"{LONG}/file"),
                Entry(f"{DEEP}/file", b"deep"),
            ),
        ),
        blind={"docker": (MTIME,), "umoci": (MTIME,), "tar": (MTIME,)},
        holds={f"{DEEP}/file": b"deep", "soft": "t/" * 200 + "end"},
    ),
    "long names, as pax": Row(
        layers=(
            layer(
                *TOP,
                Entry("x" * 90 + "/"),
                Entry(f"{LONG}/", mode=0o750),
                Entry(f"{LONG}/file", b"x"),
                Entry("soft", link="t/" * 200 + "end"),
                Entry("hard", hardlink=f"{LONG}/file"),
                Entry("n" * 255, b"longest"),
            ),
        ),
        holds={"n" * 255: b"longest"},
    ),
    "names of every kind": Row(
        layers=(
            layer(
                *TOP,
                Entry("/absolute", b"1"),
                Entry("./dotted", b"2"),
                Entry("e//doubled", b"3"),
                Entry("new\nline", b"4"),
                Entry("ünïcode/"),
                Entry("ünïcode/\udcff\udcfe", b"5"),
                Entry("-rf", b"6"),
                Entry("back\\slash", b"7"),
                Entry(" ", b"8"),
                Entry("...", b"9"),
            ),
        ),
        blind={"docker": (DIRTIME,), "umoci": (DIRTIME,), "tar": (DIRTIME,)},
        holds={"absolute": b"1", "e/doubled": b"3", "ünïcode/\udcff\udcfe": b"5"},
    ),
    "pax records": Row(
        layers=(
            layer(
                *TOP,
                Entry("ids", b"x", pax={"uid": "3000000000", "gid": "2999999999"}),
                Entry("time", b"x", pax={"mtime": "1234567890.123456789"}),
                Entry("short-time", b"x", pax={"mtime": "1234567890.5"}),
                Entry("dir-time/", pax={"mtime": "1234567890.25"}),
                Entry("renamed", b"x", pax={"path": "d/by-record", "comment": "no matter"}),
                Entry("soft", link="y", pax={"linkpath": "d/by-record"}),
            ),
        ),
        blind={"tar": (DIRTIME,)},
        holds={"d/by-record": b"x", "renamed": None, "soft": "d/by-record"},
    ),
    "base-256 numbers": Row(
        layers=(
            gnu(*TOP, Entry("ids", b"x", uid=3_000_000_000, gid=2**32 - 3), Entry("later", mtime=2**33 + 5)),
        ),
        holds={"ids": b"x"},
    ),
    "times before 1970": Row(
        layers=(
            gnu(*TOP, Entry("old", b"x", mtime=-86400)),
            layer(Entry("./"), Entry("older", b"x", pax={"mtime": "-86400.5"}), Entry("zero", b"", mtime=0)),
        ),
        # Both take them for the beginning of 1970.
        blind={"docker": (MTIME,), "umoci": (MTIME,)},
    ),
    **{
        f"sparse files, {form}": Row(
            layers=(by_gnu_tar(*options),),
            # The old form is a type of entry that neither Docker nor umoci knows.
            asked=("tar",) if form == "old" else ("docker", "umoci", "tar"),
        )
        for form, options in SPARSE.items()
    },
    "gzip members in a row": Row(
        layers=(PLAIN,),
        packed=(gzip.compress(PLAIN[:HALF]) + gzip.compress(b"") + gzip.compress(PLAIN[HALF:]) + bytes(99),),
        # Zeros after the last member are for tapes: Go's gzip takes them for damage, gzip(1) for what they are.
        asked=("tar",),
        holds={"d/more": b"x" * 70_000},
    ),
    "gzip members in a row, as pigz and estargz write them": Row(
        layers=(PLAIN,),
        packed=(b"".join(gzip.compress(PLAIN[at : at + 9999]) for at in range(0, len(PLAIN), 9999)),),
        holds={"d/more": b"x" * 70_000},
    ),
    "zstd frames, with skippable ones among them": Row(
        layers=(PLAIN,),
        packed=(
            skippable(b"index")
            + zstandard.compress(PLAIN[:HALF])
            + skippable(b"")
            + zstandard.ZstdCompressor(write_checksum=True).compress(PLAIN[HALF:])
            + skippable(b"x" * 999),
        ),
        # Those of Debian 12 are too old for zstd.
        asked=("tar",),
        holds={"d/more": b"x" * 70_000},
    ),
    "bzip2": Row(layers=(PLAIN,), packed=(bz2.compress(PLAIN),), asked=("docker", "tar")),
    "xz": Row(layers=(PLAIN,), packed=(lzma.compress(PLAIN),), asked=("docker", "tar")),
    "duplicates": Row(
        layers=(
            layer(
                *TOP,
                Entry("file", b"old", mode=0o600, pax={"SCHILY.xattr.user.old": "1"}),
                Entry("file", b"new", mode=0o644),
                Entry("d/", mode=0o711, uid=3),
                Entry("soft", link="old"),
                Entry("soft", link="new"),
                Entry("linked", b"shared"),
                Entry("other", hardlink="linked"),
                Entry("linked", b"parted"),
            ),
        ),
        # Docker takes no archive that names a path twice.
        asked=("umoci", "tar"),
        blind={"umoci": (XATTRS,)},
        holds={"file": b"new", "d/kept": b"1", "soft": "new", "other": b"shared", "linked": b"parted"},
    ),
    "types that change within a layer": Row(
        layers=(
            layer(
                *TOP,
                Entry("file-dir", b"x"),
                Entry("file-dir/", mode=0o700),
                Entry("file-dir/child", b"y"),
                Entry("file-link", b"x"),
                Entry("file-link", link="d"),
                Entry("link-file", link="d"),
                Entry("link-file", b"z"),
                Entry("file-pipe", b"x"),
                Entry("file-pipe", type=tarfile.FIFOTYPE),
            ),
        ),
        asked=("umoci", "tar"),
        blind={"umoci": (MTIME,), "tar": (MTIME,)},
        holds={"file-dir/child": b"y", "file-link": "d", "link-file": b"z", "d/kept": b"1"},
    ),
    "types that change from layer to layer": Row(
        layers=(
            layer(
                *TOP,
                Entry("dir-file/"),
                Entry("dir-file/child", b"x"),
                Entry("dir-link/"),
                Entry("dir-link/child", b"x"),
                Entry("file-dir", b"x"),
                Entry("link-dir", link="d"),
                Entry("file-node", b"x"),
            ),
            layer(
                Entry("./"),
                Entry("dir-file", b"y"),
                Entry("dir-link", link="d"),
                Entry("file-dir/"),
                Entry("file-dir/child", b"y"),
                Entry("link-dir/", mode=0o700),
                Entry("link-dir/child", b"y"),
                Entry("file-node", type=tarfile.CHRTYPE, device=(1, 5)),
            ),
        ),
        asked=("docker", "umoci"),
        blind={"docker": (MTIME,), "umoci": (MTIME,)},
        holds={"dir-file": b"y", "dir-link": "d", "link-dir/child": b"y", "d/child": None},
    ),
    "a directory listed anew": Row(
        layers=(
            layer(*TOP, Entry("e/", mode=0o700, uid=1, pax={"SCHILY.xattr.user.a": "1"}), Entry("e/x", b"1")),
            layer(Entry("./", mode=0o711), Entry("e/", mode=0o755, gid=2, mtime=1_500_000_000)),
        ),
        # Its attributes are the later entry's alone, as Docker has it; the others add up.
        asked=("docker", "umoci", "tar"),
        blind={"umoci": (XATTRS,), "tar": (XATTRS,)},
        holds={"e/x": b"1"},
    ),
    "directories that the upper layer does not list": Row(
        layers=(
            layer(
                *TOP,
                Entry("tmp/", mode=0o1777),
                Entry("root/", mode=0o700, uid=1, gid=2),
                Entry("root/deep/", mode=0o711, pax={"SCHILY.xattr.user.a": "1"}),
            ),
            layer(Entry("tmp/a", b"x"), Entry("root/deep/b", b"x"), Entry("d/.wh.kept")),
        ),
        # On Docker's overlay the made-up directory hides what the lower one was.
        asked=("umoci",),
        blind={"umoci": (MTIME,)},
    ),
    "a directory where the layer below has a link": Row(
        layers=(
            layer(
                *TOP, Entry("usr/"), Entry("usr/lib/"), Entry("usr/lib/a", b"1"), Entry("lib", link="usr/lib")
            ),
            layer(Entry("./"), Entry("lib/"), Entry("lib/b", b"2")),
        ),
        asked=("docker", "umoci"),
        holds={"lib/b": b"2", "usr/lib/b": None, "lib/a": None},
    ),
    "entries through a link of the same layer": Row(
        layers=(
            layer(
                *TOP, Entry("usr/"), Entry("lib", link="usr"), Entry("lib/b", b"2"), Entry("up", link="/d")
            ),
        ),
        blind={"docker": (MTIME,), "umoci": (MTIME,), "tar": (MTIME,)},
        holds={"usr/b": b"2"},
    ),
    "nothing at all": Row(
        layers=(layer(Entry("./")), layer()),
        # A layer that does not list the root has one all the same.
        blind={"umoci": (DIRTIME,), "tar": (DIRTIME,)},
    ),
}


NAMES = {row: f"row:{number}" for number, row in enumerate(ROWS)}
"""Row -> the image's name: tags have no blanks."""


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trees")


@pytest.fixture(scope="module")
def saved() -> bytes:
    """All rows in one archive, as `docker save` writes it; layers stand in it packed as they come."""
    return docker_save(
        *(row.image(NAMES[name]) for name, row in ROWS.items()),
        packed={NAMES[name]: row.packed for name, row in ROWS.items()},
    )


@pytest.fixture(scope="module")
def store(state_root: Path, saved: bytes) -> Store:
    made = Store(state_root / "store")
    loading.load(made, io.BytesIO(saved))
    return made


@pytest.fixture(scope="module")
def docker(state_root: Path) -> Iterator[Docker | None]:
    """None where there is no Docker."""
    if trees.no_docker():
        yield None
        return
    with trees.dockerd() as found:
        yield found


@pytest.fixture(scope="module")
def dockers(state_root: Path, docker: Docker | None) -> dict[str, Tree]:
    """Row -> what Docker has made of it; empty where there is no Docker."""
    if docker is None:
        return {}
    asked = [name for name, row in ROWS.items() if "docker" in row.asked]
    images = [ROWS[name].image(NAMES[name]) for name in asked]
    packed = {NAMES[name]: ROWS[name].packed for name in asked}
    wrong = trees.load_to_docker(docker, docker_save(*images, packed=packed))
    assert not wrong
    lowers = {name: trees.layers_of_docker(docker, NAMES[name]) for name in asked}
    return trees.merged(lowers, state_root / "theirs")


@pytest.fixture(scope="module")
def layouts(state_root: Path) -> Path:
    """All rows that umoci is asked about, by the numbers of their names."""
    chosen = {NAMES[name].partition(":")[2]: row for name, row in ROWS.items() if "umoci" in row.asked}
    return trees.layout(
        {tag: row.image(tag) for tag, row in chosen.items()},
        state_root / "layout",
        {tag: row.packed for tag, row in chosen.items()},
    )


@pytest.fixture(scope="module")
def ours(state_root: Path, store: Store) -> dict[str, Tree]:
    """Row -> what we have made of it."""
    lowers = {name: store.layers(store.demand(NAMES[name]).id) for name in ROWS}
    return trees.merged(lowers, state_root / "ours")


ROOTLESS = """
import io, sys
from pathlib import Path
from orchestrator.images.archives import loading
from orchestrator.images.store.content import Store
loading.load(Store(Path(sys.argv[1])), io.BytesIO(sys.stdin.buffer.read()))
"""
USER = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.fixture(scope="module")
def rootless(state_root: Path) -> dict[str, Tree]:
    """Row -> what somebody makes of it who is root in a user namespace only, of one id."""
    chosen = [name for name in ROWS if "whiteout" in name or "opaque" in name]
    images = docker_save(*(ROWS[name].image(NAMES[name]) for name in chosen))
    place = state_root / "rootless-store"
    command = [*USER, sys.executable, "-c", ROOTLESS, str(place)]
    done = subprocess.run(command, input=images, capture_output=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    found = Store(place)
    lowers = {name: found.layers(found.demand(NAMES[name]).id) for name in chosen}
    marks = {mark for rows in lowers.values() for lower in rows for mark in _marks(lower)}
    assert marks == {"user.overlay.opaque"}
    return trees.merged(lowers, state_root / "rootless", more=",userxattr", enter=USER)


def _marks(lower: Path) -> Iterator[str]:
    for folder, _, _ in os.walk(lower):
        yield from os.listxattr(folder)


def test_in_a_user_namespace_the_marks_have_another_form_and_mean_the_same(
    rootless: dict[str, Tree], ours: dict[str, Tree]
) -> None:
    assert len(rootless) > 5
    for name, tree in rootless.items():
        assert tree == ours[name], name


def differences(ours: Tree, theirs: Tree, blind: tuple[int, ...]) -> list[str]:
    """Paths of which two say different things, with both."""
    found = []
    for path in sorted({*ours, *theirs}):
        one, other = _seen(ours.get(path), blind), _seen(theirs.get(path), blind)
        if one != other and (path != "." or ROOT not in blind):
            found.append(f"{path!r}\n    ours   {one}\n    theirs {other}")
    return found


def _seen(row: tuple[object, ...] | None, blind: tuple[int, ...]) -> object:
    if row is None:
        return None
    mode = row[0]
    assert isinstance(mode, int)
    parts: list[object] = [oct(mode), *row[1:]]
    if GROUP in blind and isinstance(row[WHAT], tuple):
        parts[WHAT] = row[WHAT][0]
    if DIRTIME in blind and stat.S_ISDIR(mode):
        parts[MTIME] = 0
    return [part for place, part in enumerate(parts) if place not in blind]


@pytest.mark.parametrize("name", ROWS)
def test_others_make_the_same_tree_of_it(
    name: str, ours: dict[str, Tree], dockers: dict[str, Tree], layouts: Path, tmp_path: Path
) -> None:
    row = ROWS[name]
    for path, said in row.holds.items():
        there = ours[name].get(path)
        if isinstance(said, bytes):
            assert there is not None, path
            assert isinstance(there[WHAT], tuple)
            assert there[WHAT][0] == digest(said), path
        else:
            assert (there and there[WHAT]) == said, path
    theirs: dict[str, Tree] = {}
    if "docker" in row.asked and dockers:
        theirs["docker"] = dockers[name]
    if "umoci" in row.asked:
        tag = NAMES[name].partition(":")[2]
        theirs["umoci"] = tree_of(trees.by_umoci(layouts, tag, tmp_path / "umoci"))
    if "tar" in row.asked:
        theirs["tar"] = tree_of(trees.by_tar(row.packed or row.layers, tmp_path / "tar"))
    wrong = {
        who: rows
        for who, tree in theirs.items()
        if (rows := differences(ours[name], tree, (*row.blind.get(who, ()), *ALWAYS.get(who, ()))))
    }
    assert not wrong, "\n".join(f"{who}:\n  " + "\n  ".join(rows) for who, rows in wrong.items())


def test_of_a_real_image_they_make_the_same_tree_too(
    request: pytest.FixtureRequest, state_root: Path
) -> None:
    """Debian's minbase and redis on top of it: some 5,000 paths. The layer on top says nothing of /.

    Docker and umoci, which take their time, are asked by tests/nightly (PYSTACK_ALL_WITNESSES).
    """
    made = layered.layout("redis")
    room = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="pystack-trees-", dir=room) as name:
        place = Path(name)
        content = layered.save("redis", place / "redis.tar").read_bytes()
        store = Store(place / "store")
        loading.load(store, io.BytesIO(content))
        stacks = {"ours": store.layers(store.demand("redis:7").id)}
        every = bool(os.environ.get("PYSTACK_ALL_WITNESSES"))
        docker = request.getfixturevalue("docker") if every else None
        if docker is not None:
            assert not trees.load_to_docker(docker, content)
            stacks["docker"] = trees.layers_of_docker(docker, "redis:7")
        found = trees.merged(stacks, state_root / "real")
        if every:
            found["umoci"] = tree_of(trees.by_umoci(made, "redis", place / "umoci"))
        found["tar"] = tree_of(trees.by_tar(layered.blobs("redis"), place / "tar"))
    assert len(found["ours"]) > 4000
    for who, tree in found.items():
        assert not differences(found["ours"], tree, (ROOT,)), who
