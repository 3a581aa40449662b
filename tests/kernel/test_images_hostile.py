"""Images made to do harm, by `load` and by `pull`: refused in words, or harmless; nothing outside ever changes.

Each runs in a process whose workers' memory is measured: it stays under 200 MiB. What is refused is told with the
image, the layer and the entry, leaves the store as it was, and the next image comes in.
"""

from __future__ import annotations

import binascii
import functools
import gzip
import itertools
import lzma
import os
import random
import re
import struct
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zstandard

from orchestrator.images.trees import discard
from tests.kit.archives import (
    CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    Entry,
    Image,
    digest,
    docker_save,
    dumps,
    layer,
    tree_of,
)
from tests.kit.faults import Endless, Fault, Faults, Html, Length, Redirect, Resize, Say, Spoil
from tests.kit.trial import Outcome, Trial

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.usefixtures("state_root"),
    pytest.mark.skipif(os.geteuid() != 0, reason="what root could do to the machine is the point"),
]

MEMORY = 200
"""MiB that no worker, and no process that pulls or loads, may take."""
OUT = "OUTSIDE"
"""In names of entries: the path of a directory of the machine's, without its first slash."""
UP = "../" * 20
IMAGE_ERROR = 6

GOOD = Image((layer(Entry("./"), Entry("etc/"), Entry("etc/motd", b"hello")),), tags=("good:1",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """A layer that means harm. `words`: what must be said of it, "" when it does none inside the image."""

    entries: tuple[Entry, ...] = ()
    raw: Callable[[], bytes] | None = None
    """The layer as it comes, when entries can't say it."""
    plain: Callable[[], bytes] | None = None
    """What `raw` unpacks to, for the config, if somebody could know."""
    below: tuple[Entry, ...] = ()
    """What the layer beneath has."""
    words: str = ""
    entry: str = ""
    """The name that the error must bear; that of the last entry unless said otherwise. "-" for none."""
    limits: Mapping[str, int] = field(default_factory=dict)
    heavy: bool = False
    """It takes a second, and does so in the worker, which is the same for both ways: it comes by `load` alone."""

    @property
    def named(self) -> str:
        if self.entry or not self.entries:
            return self.entry.removeprefix("-")
        return self.entries[-1].name


def header(name: str, *, kind: bytes = b"0", size: bytes = b"00000000000\0", **more: bytes) -> bytes:
    """A header block with raw fields, whose sum is right."""
    places = {"mode": 100, "uid": 108, "mtime": 136, "link": 157, "sparse": 386, "extended": 482, "real": 483}
    block = bytearray(512)
    block[:100] = name.encode().ljust(100, b"\0")
    for place, value in (
        (100, b"0000644\0"),
        (108, b"0000000\0"),
        (116, b"0000000\0"),
        (136, b"0" * 11 + b"\0"),
    ):
        block[place : place + len(value)] = value
    block[124:136], block[156:157], block[257:265] = size, kind, b"ustar\x0000"
    for key, value in more.items():
        block[places[key] : places[key] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(*records: tuple[str, str]) -> bytes:
    content = b""
    for key, value in records:
        rest = len(f" {key}={value}\n".encode())
        length = rest + len(str(rest))
        length = rest + len(str(length))
        content += f"{length} {key}={value}\n".encode()
    return header("pax", kind=b"x", size=b"%011o\0" % len(content)) + content + bytes(-len(content) % 512)


def many_pieces() -> bytes:
    """A sparse file of two million pieces of nothing, as old GNU tar writes them."""
    piece = (b"%011o\0" % 0) * 2
    block = piece * 21 + b"\1" + bytes(7)
    return (
        header("holes", kind=b"S", sparse=piece * 4, extended=b"\1", real=b"00000000000\0") + block * 100_000
    )


def many_whiteouts() -> bytes:
    """A hundred megabytes of names to keep until the end."""
    return b"".join(
        pax(("path", f"{'d' * 240}/" * 15 + f".wh.{number}")) + header("x") for number in range(25_000)
    )


def wide_records() -> bytes:
    """Attributes of a file: a mebibyte of records, some hundred thousand of them, again and again."""
    records = b"".join(
        b"%d %x=\n" % (len(b"%x" % n) + 6 - (len(b"%x" % n) < 4), n) for n in range(16, 90_000)
    )
    block = header("pax", kind=b"g", size=b"%011o\0" % len(records)) + records + bytes(-len(records) % 512)
    return block * 20


def zeros(size: int) -> bytes:
    return header("zeros", size=b"%011o\0" % size)


@functools.cache
def bomb() -> bytes:
    """Three gigabytes of zeros in some hundred kilobytes."""
    size = 3 << 30
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    piece = bytes(1 << 24)
    parts = [packer.compress(zeros(size))]
    parts += [packer.compress(piece) for _ in range(size >> 24)]
    return b"".join([*parts, packer.flush()])


def greedy_xz() -> bytes:
    """A stream that says it needs a dictionary of 192 MiB, and fills it."""
    content = bytearray(lzma.compress(zeros(220 << 20) + bytes(220 << 20), preset=0))
    # The block's header: size, flags, filter 0x21, size of its properties, the properties, padding, CRC32.
    assert content[14:16] == b"\x21\x01"
    content[16] = 31
    content[20:24] = struct.pack("<I", binascii.crc32(content[12:20]))
    return bytes(content)


def greedy_zstd() -> bytes:
    """A window of 512 MiB."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=29)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(zeros(1 << 20) + bytes(1 << 20)) + packer.flush()


def full_zstd() -> bytes:
    """The largest window that is taken, 128 MiB, and filled."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    parts = [packer.compress(zeros(200 << 20))]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(200)]
    return b"".join([*parts, packer.flush()]) + zstandard.compress(b"\xff" * 1024)


OVERLAY = {
    f"SCHILY.xattr.{name}": value
    for name, value in {
        "trusted.overlay.redirect": "/etc",
        "trusted.overlay.opaque": "y",
        "trusted.overlay.metacopy": "",
        "user.overlay.redirect": "/etc",
        "user.overlay.whiteout": "y",
        "security.selinux": "x",
        "security.ima": "x",
    }.items()
}
CHAIN = [Entry("c0/"), *(Entry(f"c{n}", link=f"{'./' * 1500}c{n - 1}") for n in range(1, 45))]

TRAPS: dict[str, Trap] = {
    # --- traversal ---------------------------------------------------------------------------------------
    "a name that climbs": Trap(entries=(Entry(UP + OUT + "/x", b"x"),), words="leads out of the archive"),
    "a name that climbs from inside": Trap(
        entries=(Entry("a/"), Entry(f"a/b/../../{UP}{OUT}/x", b"x")), words="leads out of the archive"
    ),
    "a directory that climbs": Trap(
        entries=(Entry("a/"), Entry("a/../../")), words="leads out of the archive"
    ),
    "an absolute name": Trap(entries=(Entry(f"/{OUT}/x", b"x"), Entry(f"//{OUT}//y", b"y"))),
    "a link, then a file through it": Trap(
        entries=(Entry("out", link=f"/{OUT}"), Entry("out/x", b"x")), words="not a directory|No such file"
    ),
    "a link that climbs, then a file through it": Trap(
        entries=(Entry("out", link=UP + OUT), Entry("out/x", b"x")), words="not a directory|No such file"
    ),
    "a link to a directory that the image has, too": Trap(
        entries=(Entry(f"{OUT}/"), Entry("out", link=f"/{OUT}"), Entry("out/x", b"x"))
    ),
    "a link of the layer below, then a file through it": Trap(
        below=(Entry("out", link=f"/{OUT}"),), entries=(Entry("out/"), Entry("out/x", b"x"))
    ),
    "a file in the place of a link": Trap(entries=(Entry("out", link=f"/{OUT}/kept"), Entry("out", b"x"))),
    "a directory in the place of a link, with another mode": Trap(
        entries=(Entry("out", link=f"/{OUT}"), Entry("out/", mode=0o777))
    ),
    "links through /proc": Trap(
        entries=(Entry("out", link=f"/proc/self/root/{OUT}"), Entry("out/x", b"x")),
        words="not a directory|No such file",
    ),
    "a chain of links longer than a path": Trap(
        entries=(*CHAIN, Entry("c44/x", b"x")), words="Too many levels"
    ),
    "a link to itself": Trap(entries=(Entry("l", link="l"), Entry("l/x", b"x")), words="Too many levels"),
    # --- hard links --------------------------------------------------------------------------------------
    "a hard link that climbs": Trap(
        entries=(Entry("x", hardlink=f"{UP}{OUT}/kept"),), words="leads out of the archive"
    ),
    "a hard link to an absolute name": Trap(
        entries=(Entry("x", hardlink=f"/{OUT}/kept"),), words="not there"
    ),
    "a hard link through a link": Trap(
        entries=(Entry("out", link=f"/{OUT}"), Entry("x", hardlink="out/kept")),
        words="not there|not a directory",
    ),
    "a hard link to a link, then written through": Trap(
        entries=(Entry("out", link=f"/{OUT}/kept"), Entry("x", hardlink="out"), Entry("x", b"evil"))
    ),
    "a hard link to a link below, then written through": Trap(
        below=(Entry("out", link=f"/{OUT}/kept"),), entries=(Entry("x", hardlink="out"),)
    ),
    "a hard link to a directory": Trap(
        entries=(Entry("d/"), Entry("x", hardlink="d")), words="hard link to a directory"
    ),
    "a hard link with setuid to a file below": Trap(
        below=(Entry("sh", b"sh", mode=0o755, uid=5),), entries=(Entry("su", hardlink="sh", mode=0o4755),)
    ),
    # --- whiteouts ---------------------------------------------------------------------------------------
    "a whiteout of ..": Trap(
        entries=(
            Entry("a/"),
            Entry("a/.wh..."),
        ),
        words="impossible whiteout",
    ),
    "a whiteout of .": Trap(entries=(Entry(".wh..", b""),), words="impossible whiteout"),
    "a whiteout of nothing": Trap(entries=(Entry(".wh."),), words="impossible whiteout"),
    "a whiteout with a directory in its name": Trap(entries=(Entry(".wh.a/b", b"x"),)),
    "a whiteout through a link": Trap(
        entries=(Entry("out", link=f"/{OUT}"), Entry("out/.wh.kept")), words="not a directory|No such file"
    ),
    "a whiteout through a link of the layer below": Trap(
        below=(Entry("out", link=f"/{OUT}"),), entries=(Entry("out/.wh.kept"), Entry("out/.wh..wh..opq"))
    ),
    "a whiteout of a link to a directory": Trap(
        below=(Entry("out", link=f"/{OUT}"),), entries=(Entry(".wh.out"),)
    ),
    "an opaque mark on a link": Trap(
        entries=(Entry("out", link=f"/{OUT}"), Entry("out/.wh..wh..opq")),
        words="not a directory|No such file",
    ),
    "a whiteout made by hand": Trap(
        entries=(Entry("x", type=tarfile.CHRTYPE, device=(0, 0)),), words="device 0/0"
    ),
    # --- attributes, nodes, owners -----------------------------------------------------------------------
    "attributes that steer overlayfs": Trap(
        below=(Entry("d/"), Entry("d/x", b"1")),
        entries=(Entry("d/", pax=OVERLAY), Entry("f", b"x", pax=OVERLAY), Entry("l", link="f", pax=OVERLAY)),
    ),
    "an attribute with NUL in its name": Trap(
        raw=lambda: pax(("SCHILY.xattr.user.a\0.overlay.redirect", "/etc")) + header("f") + bytes(1024)
    ),
    "a device that cannot be": Trap(
        entries=(Entry("x", type=tarfile.BLKTYPE, device=(0o777777, 1)),), words="impossible device"
    ),
    "a directory in the place of a device": Trap(
        entries=(Entry("x", type=tarfile.FIFOTYPE), Entry("x/y", b"")), words="not a directory"
    ),
    "an owner that cannot be": Trap(
        raw=lambda: header("x", uid=b"\x80\0\0\1\0\0\0\0"), entry="x", words="impossible owner"
    ),
    # --- names -------------------------------------------------------------------------------------------
    "NUL in a name": Trap(
        raw=lambda: pax(("path", "a\0b")) + header("x"), words="impossible name", entry="-"
    ),
    "a name too long": Trap(entries=(Entry("x" * 300, b""),), words="File name too long"),
    "a path too long": Trap(
        entries=(Entry("d/" * 2100 + "x", b""),), words="impossible name", entry="d/d/d/d"
    ),
    "a tree too deep to name": Trap(
        entries=tuple(Entry("d/" * 1900) for _ in range(20)), words="", entry="-"
    ),
    "a tree too deep to name, in two layers": Trap(
        below=(Entry("d/" * 1900, mode=0o700),),
        entries=(Entry("d/" * 1900 + "x", b"x"),),
        words="too deep",
        entry="-",
        heavy=True,
    ),
    "a path too long to name, in two layers": Trap(
        below=(Entry(("d" * 250 + "/") * 16, mode=0o700),),
        entries=(Entry(("d" * 250 + "/") * 16 + "x", b"x"),),
        words="too long",
        entry="-",
    ),
    "a hard link to a device of the layer below": Trap(
        below=(Entry("null", type=tarfile.CHRTYPE, device=(1, 3)),),
        entries=(Entry("x", hardlink="null"),),
        words="not a regular file",
    ),
    "an empty link": Trap(entries=(Entry("l", type=tarfile.SYMTYPE),), words="link to nothing"),
    "the root is a file": Trap(
        entries=(Entry("./", type=tarfile.REGTYPE),), words="root is not a directory", entry="-"
    ),
    # --- numbers -----------------------------------------------------------------------------------------
    "a negative size": Trap(raw=lambda: header("x", size=b"\xff" * 12), words="impossible size", entry="-"),
    "a size of eight exbibytes": Trap(
        raw=lambda: header("x", size=b"\x80\0\0\0" + b"\x7f" + b"\xff" * 7),
        words="impossible size",
        entry="-",
    ),
    "a size that a record overrides": Trap(
        raw=lambda: pax(("size", "99999999999999")) + header("x") + b"x" * 512,
        words="more than .* bytes|unexpected end",
        entry="x",
    ),
    "a size in a record that is negative": Trap(
        raw=lambda: pax(("size", "-512")) + header("x"), words="not a number", entry="-"
    ),
    "a sparse file of eight exbibytes": Trap(
        raw=lambda: header("x", kind=b"S", real=b"\x80\0\0\0" + b"\x3f" + b"\xff" * 7) + bytes(1024),
        words="more than .* bytes",
        entry="x",
    ),
    "a sparse file whose pieces overlap": Trap(
        raw=lambda: (
            header(
                "x",
                kind=b"S",
                size=b"%011o\0" % 1024,
                sparse=(b"%011o\0" % 0 + b"%011o\0" % 512) * 2,
                real=b"%011o\0" % 512,
            )
            + bytes(1024)
        ),
        words="broken sparse map",
        entry="-",
    ),
    "a record of a gigabyte": Trap(
        raw=lambda: header("x", kind=b"x", size=b"10000000000\0"), words="too long", entry="-"
    ),
    "a long name of a gigabyte": Trap(
        raw=lambda: header("x", kind=b"L", size=b"10000000000\0"), words="too long", entry="-"
    ),
    "global records without end": Trap(raw=wide_records, words="records|too many|", entry="-", heavy=True),
    # --- bombs -------------------------------------------------------------------------------------------
    "a gigabyte of zeros from nothing": Trap(raw=bomb, words="refused as a bomb", entry="zeros"),
    "more bytes than allowed": Trap(
        entries=(Entry("a", b"x" * 600_000), Entry("b", b"x" * 600_000)),
        limits={"max_bytes": 1_000_000},
        words="more than 1000000 bytes",
    ),
    "more entries than allowed": Trap(
        entries=tuple(Entry(f"e{number}") for number in range(101)),
        limits={"max_entries": 100},
        words="more than 100 entries",
        entry="-",
    ),
    "a file of two million holes": Trap(raw=many_pieces, words="too many pieces", entry="-", heavy=True),
    "whiteouts without end": Trap(
        raw=many_whiteouts, words="too many directories, whiteouts", entry="ddd", heavy=True
    ),
    "a dictionary of 192 MiB": Trap(raw=greedy_xz, words="[Mm]emory", entry="-", heavy=True),
    "a window of 512 MiB": Trap(raw=greedy_zstd, words="memory|window|Frame requires too much", entry="-"),
    "a window of 128 MiB": Trap(raw=full_zstd, words="not a tar", entry="zeros", heavy=True),
    # --- damage ------------------------------------------------------------------------------------------
    "a layer that ends too early": Trap(
        raw=lambda: gzip.compress(layer(Entry("a-name", os.urandom(2 << 20))))[:-3000],
        words="too early",
        entry="a-name",
    ),
    "a layer that is damaged": Trap(
        raw=lambda: gzip.compress(layer(Entry("a", bytes(90_000))))[:-8] + bytes(8),
        words="damaged|checksum|incorrect",
        entry="-",
    ),
    "a tar that is cut": Trap(
        raw=lambda: layer(Entry("a", b"x" * 9000))[:5000], words="unexpected end", entry="a"
    ),
    "no tar at all": Trap(raw=lambda: b"#!/bin/sh\nrm -rf /\n" * 99, words="not a tar archive", entry="-"),
}


LIGHT = [name for name, trap in TRAPS.items() if not trap.heavy]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The machine's own directory, what it looks like, and a process that loads and pulls."""

    outside: Path
    before: Mapping[str, tuple[object, ...]]
    trial: Trial
    shelf: Faults


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def scene(state_root: Path) -> Iterator[Scene]:
    outside = state_root / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "kept").write_bytes(b"kept")
    (outside / "kept").chmod(0o4755)
    (outside / "sub" / "link").symlink_to("../kept")
    environment = {"DOCKER_CONFIG": str(state_root), "HOME": str(state_root), "REGISTRY_AUTH_FILE": ""}
    with Faults().serving() as shelf, Trial(state_root / "store", environment) as trial:
        (state_root / "good.tar").write_bytes(docker_save(GOOD))
        assert trial.load(state_root / "good.tar").error == ""
        yield Scene(outside=outside, before=tree_of(outside), trial=trial, shelf=shelf)
    # Some of it lies deeper than whoever cleans up here can go.
    discard(str(state_root / "store"))


def image_of(trap: Trap, scene: Scene) -> tuple[Image, tuple[bytes, ...]]:
    """The image, and its layers as they come."""

    def real(entry: Entry) -> Entry:
        import dataclasses

        place = str(scene.outside)[1:]
        texts = {key: getattr(entry, key).replace(OUT, place) for key in ("name", "link", "hardlink")}
        return dataclasses.replace(entry, **texts)

    top = trap.raw() if trap.raw else layer(*map(real, trap.entries))
    plain = trap.plain() if trap.plain else top
    below = (layer(*map(real, trap.below)),) if trap.below else ()
    return Image((*below, plain), tags=("evil:1",)), (*below, top)


def store_of(scene: Scene) -> set[str]:
    """Whatever the store holds, and what lies about in it."""
    root = scene.trial.store
    rooms = [root / name for name in ("blobs/sha256", "layers", "tmp", "partial")]
    index = (root / "index.json").read_text()
    return {f"{room.name}/{name}" for room in rooms if room.exists() for name in os.listdir(room)} | {index}


def judge(scene: Scene, trap: Trap, came: Outcome) -> None:
    """What must be true of every trap, however it came."""
    assert tree_of(scene.outside) == scene.before, "something outside has changed"
    assert max(came.workers_mib, came.own_mib) < MEMORY, came
    assert came.exit_code in (0, IMAGE_ERROR), came
    if not trap.words:
        assert came.error == "", came
        return
    assert re.search(trap.words, came.error), came.error
    assert "evil:1" in came.error, came.error
    assert trap.named.replace(OUT, str(scene.outside)[1:])[:100] in came.error, came.error


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_in_a_layer_does_no_harm_by_load(scene: Scene, name: str, tmp_path: Path) -> None:
    trap = TRAPS[name]
    image, forms = image_of(trap, scene)
    (tmp_path / "evil.tar").write_bytes(docker_save(image, packed={"evil:1": forms}))
    before = store_of(scene)
    came = scene.trial.load(tmp_path / "evil.tar", **trap.limits)
    judge(scene, trap, came)
    if came.error:
        assert store_of(scene) <= before
        assert image.id[7:19] in came.error or digest(image.layers[-1])[7:19] in came.error, came.error


@pytest.fixture(scope="module")
def pulled(scene: Scene) -> dict[str, tuple[Outcome, str]]:
    """Trap -> how its pull ended, and the digest of its layer on the line."""
    names, tops = {}, {}
    for number, name in enumerate(LIGHT):
        trap = TRAPS[name]
        image, forms = image_of(trap, scene)
        rows = []
        for form in forms:
            kind = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}.get(form[:2], "")
            found = scene.shelf.put_blob(f"t{number}/evil", form)
            rows.append({"mediaType": LAYER + kind, "digest": found, "size": len(form)})
        put_image(scene.shelf, f"t{number}/evil:1", image.config, rows)
        names[name], tops[name] = scene.shelf.name(f"t{number}/evil:1"), str(rows[-1]["digest"])
    easy = [name for name in LIGHT if not TRAPS[name].limits]
    ends = dict(zip(easy, scene.trial.pull(*(names[name] for name in easy)), strict=True))
    for name in LIGHT:
        if TRAPS[name].limits:
            (ends[name],) = scene.trial.pull(names[name], **TRAPS[name].limits)
    return {name: (ends[name], tops[name]) for name in LIGHT}


def put_image(
    shelf: Faults, name: str, config: bytes, layers: list[dict[str, object]], **more: object
) -> str:
    """A manifest at REPOSITORY:TAG that names this config and these layers; `more` are other fields of it."""
    repository, _, tag = name.rpartition(":")
    head = {"mediaType": CONFIG, "digest": shelf.put_blob(repository, config), "size": len(config)}
    data = {"schemaVersion": 2, "mediaType": MANIFEST, "config": head, "layers": layers, **more}
    return shelf.put_manifest(repository, tag, dumps(data))


@pytest.mark.parametrize("name", LIGHT)
def test_a_trap_in_a_layer_does_no_harm_by_pull(
    scene: Scene, pulled: dict[str, tuple[Outcome, str]], name: str
) -> None:
    came, top = pulled[name]
    judge(scene, TRAPS[name], came)
    if came.error:
        assert top[7:19] in came.error, came.error


def test_after_all_of_that_nothing_lies_about_and_the_next_image_comes_in(
    scene: Scene, pulled: dict[str, tuple[Outcome, str]], state_root: Path
) -> None:
    came = scene.trial.load(state_root / "good.tar")
    assert came.error == ""
    # The workers of all pulls have ended by now.
    assert max(came.workers_mib, came.own_mib) < MEMORY
    assert [name for name in os.listdir(scene.trial.store / "tmp") if name != "lock"] == []


# --- what a registry says ---------------------------------------------------------------------------------

_serial = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """An image that nobody has seen, and how it would come."""

    name: str
    top: bytes
    packed: bytes

    @property
    def config(self) -> bytes:
        return Image((self.top,)).config

    def row(self, shelf: Faults, **more: object) -> dict[str, object]:
        """Put the layer on the shelf; its descriptor."""
        found = shelf.put_blob(self.name, self.packed)
        return {"mediaType": f"{LAYER}+gzip", "digest": found, "size": len(self.packed), **more}


def fresh() -> Fresh:
    number = next(_serial)
    top = layer(Entry("./"), Entry("f", random.Random(number).randbytes(9000)))
    return Fresh(name=f"r{number}/evil", top=top, packed=gzip.compress(top, 1, mtime=0))


def ordinary(shelf: Faults, **more: object) -> Fresh:
    """An image that is as it should be."""
    made = fresh()
    put_image(shelf, f"{made.name}:1", made.config, [made.row(shelf)], **more)
    return made


def said(content: bytes, kind: str = MANIFEST) -> Callable[[Faults], str]:
    """These bytes as a manifest."""

    def put(shelf: Faults) -> str:
        name = fresh().name
        shelf.put_manifest(name, "1", content, kind)
        return name

    return put


def config(content: bytes) -> Callable[[Faults], str]:
    """These bytes as a config."""

    def put(shelf: Faults) -> str:
        made = fresh()
        put_image(shelf, f"{made.name}:1", content, [made.row(shelf)])
        return made.name

    return put


def when(fault: Fault, path: str) -> Callable[[Faults], str]:
    """An ordinary image, and this goes wrong at its MANIFEST, CONFIG or LAYER."""

    def put(shelf: Faults) -> str:
        made = ordinary(shelf)
        places = {
            "MANIFEST": "manifests/",
            "CONFIG": f"blobs/{digest(made.config)}",
            "LAYER": f"blobs/{digest(made.packed)}",
        }
        shelf.add(fault, f"/{made.name}/{places[path]}")
        return made.name

    return put


def in_a_circle(shelf: Faults) -> str:
    """An index whose entry is, says the registry, the index."""
    name = fresh().name
    fake = "sha256:" + "ab" * 32
    row: dict[str, object] = {
        "mediaType": INDEX,
        "digest": fake,
        "size": 0,
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    for _ in range(3):
        content = dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [row]})
        row["size"] = len(content)
    shelf.put_manifest(name, "1", content, INDEX)
    shelf.put_manifest(name, fake, content, INDEX, digest=fake)
    return name


def nested(shelf: Faults) -> str:
    """Indexes in indexes, all of them honest."""
    name = fresh().name
    image = Image((fresh().top,))
    row: dict[str, object] = {"mediaType": MANIFEST, "digest": shelf.put_image(f"{name}:x", image), "size": 1}
    for _ in range(6):
        content = dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [row]})
        found = shelf.put_manifest(name, "1", content, INDEX)
        row = {"mediaType": INDEX, "digest": found, "size": len(content)}
    return name


def sized(size: Callable[[int], int]) -> Callable[[Faults], str]:
    """A layer of which the manifest says another size."""

    def put(shelf: Faults) -> str:
        made = fresh()
        row = made.row(shelf, size=size(len(made.packed)))
        put_image(shelf, f"{made.name}:1", made.config, [row])
        return made.name

    return put


LIES: dict[str, tuple[Callable[[Faults], str], str]] = {
    "a layer of another digest": (when(Spoil(at=2000), "LAYER"), "digest|damaged|checksum"),
    "a config of another digest": (when(Spoil(), "CONFIG"), "digest"),
    "a manifest of another digest": (when(Spoil(at=-2), "MANIFEST"), "digest"),
    "a layer larger than said": (sized(lambda size: size - 1), "bytes"),
    "a layer smaller than said": (sized(lambda size: size + 1), "bytes"),
    "a layer of a negative size": (sized(lambda _: -1), "size of -1"),
    "a layer of an exbibyte": (sized(lambda _: 1 << 60), "size of"),
    "a longer body": (when(Resize(1), "LAYER"), "bytes"),
    "a shorter body": (when(Resize(-1), "LAYER"), "bytes"),
    "a config longer than said": (when(Resize(1), "CONFIG"), "bytes|larger|more than"),
    "a Content-Length that says less": (when(Length(-7), "LAYER"), "bytes"),
    "redirects without end, of a manifest": (
        when(Redirect("http://{host}{path}?{number}"), "MANIFEST"),
        "redirects",
    ),
    "redirects without end, of a layer": (
        when(Redirect("http://{host}{path}?{number}"), "LAYER"),
        "redirects",
    ),
    "redirects without end, of a config": (
        when(Redirect("http://{host}{path}?{number}"), "CONFIG"),
        "redirects",
    ),
    "a redirect to a file": (when(Redirect("file:///etc/passwd"), "LAYER"), "not a web address"),
    "a page for people instead of a manifest": (when(Html(200), "MANIFEST"), "."),
    "a page for people instead of a layer": (when(Html(200), "LAYER"), "bytes"),
    "a manifest that never ends": (when(Endless(), "MANIFEST"), "larger|more than|too"),
    "a config that never ends": (when(Endless(), "CONFIG"), "bytes|larger|more than"),
    "another media type in the header": (when(Say(media_type=INDEX), "MANIFEST"), "calls it"),
    "an index that is its own entry": (in_a_circle, "digest"),
    "indexes in indexes": (nested, "nested"),
    "a manifest and an index at once": (
        lambda shelf: ordinary(shelf, manifests=[]).name,
        "index and a manifest at once",
    ),
    "a manifest of 5 MiB": (
        said(b'{"schemaVersion": 2, "x": "' + b"x" * (5 << 20) + b'"}'),
        "larger|more than|too",
    ),
    "a manifest that is one long text": (
        said(b'{"schemaVersion": 2, "x": "' + b"x" * 4_100_000 + b'"}'),
        "names no config",
    ),
    "a manifest of one long text of escapes": (
        said(b'{"schemaVersion": 2, "x": "' + b"\\\\n" * 1_300_000 + b'"}'),
        "names no config|nobody",
    ),
    "a manifest of quotes": (said(b'"' * 4_100_000), "more than 200000 parts"),
    "a manifest nested 100,000 levels": (said(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "nested|deep"),
    "a manifest of a million objects": (
        said(b'{"schemaVersion": 2, "x": [' + b"{}," * 1_300_000 + b"{}]}"),
        "more than 200000 parts",
    ),
    "a manifest of ten thousand layers": (
        said(
            dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": MANIFEST,
                    "config": {"mediaType": CONFIG, "digest": digest(b""), "size": 0},
                    "layers": [
                        {"mediaType": LAYER, "digest": digest(b"%d" % n), "size": 1} for n in range(10_000)
                    ],
                }
            )
        ),
        "at most",
    ),
    "a manifest that is no JSON": (said(b"\xff\xfe{"), "not JSON"),
    "a manifest that is a number": (said(b"1" * 100_000), "not"),
    "a config nested 100,000 levels": (
        config(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        "not JSON|nested|deep",
    ),
    "a config of three million objects": (
        config(b'{"os": "linux", "x": [' + b"{}," * 2_700_000 + b"{}]}"),
        "more than 200000 parts",
    ),
    "a config with other diff_ids": (config(Image((b"other",)).config), "config says"),
    "a config with fewer diff_ids": (config(Image(()).config), "1 layers, but 0"),
    "a config larger than read": (config(b'{"x": "' + b"x" * (9 << 20) + b'"}'), "at most|larger|too many"),
}


@pytest.fixture(scope="module")
def lied(state_root: Path) -> Iterator[dict[str, Outcome]]:
    """Lie -> how its pull ended; in a process of its own, for its memory's sake."""
    environment = {"DOCKER_CONFIG": str(state_root), "HOME": str(state_root), "REGISTRY_AUTH_FILE": ""}
    with Faults().serving() as shelf, Trial(state_root / "lied", environment) as trial:
        names = {lie: shelf.name(f"{put(shelf)}:1") for lie, (put, _) in LIES.items()}
        ends = dict(zip(names, trial.pull(*names.values()), strict=True))
        (good,) = trial.pull(shelf.name(f"{ordinary(shelf).name}:1"))
        assert good.error == ""
        assert good.workers_mib < MEMORY
        yield ends


@pytest.mark.parametrize("lie", LIES)
def test_a_registry_that_lies_is_not_believed(lied: dict[str, Outcome], lie: str) -> None:
    came = lied[lie]
    assert came.exit_code == IMAGE_ERROR, came
    assert re.search(LIES[lie][1], came.error), came.error
    assert "/evil" in came.error, came.error
    assert "<html" not in came.error
    assert came.own_mib < MEMORY, came
