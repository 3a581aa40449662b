"""The tar format, read and written, against Python's tarfile and GNU tar as witnesses."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.images.layers import tar
from orchestrator.images.layers.tar import Member, Source, TarError
from tests.kit.archives import Entry, layer

NAMES = st.binary(min_size=1, max_size=300).map(lambda raw: raw.replace(b"\0", b"_").strip(b"/\n") or b"x")
KINDS = st.sampled_from(
    [tar.REGULAR, tar.HARDLINK, tar.SYMLINK, tar.CHARACTER, tar.BLOCKDEV, tar.DIRECTORY, tar.FIFO]
)


def read(raw: bytes, piece: int = 1 << 20) -> list[tuple[Member, bytes]]:
    source = io.BytesIO(raw)
    stream = Source(lambda count: source.read(min(count, piece)))
    return [(member, stream.take(member.size)) for member in tar.members(stream)]


@st.composite
def some_members(draw: st.DrawFn) -> Member:
    kind = draw(KINDS)
    linked = kind in (tar.HARDLINK, tar.SYMLINK)
    node = kind in (tar.CHARACTER, tar.BLOCKDEV)
    return Member(
        name=draw(NAMES) + (b"/" if kind == tar.DIRECTORY else b""),
        kind=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 2**32 - 2)),
        gid=draw(st.integers(0, 2**32 - 2)),
        size=0,
        mtime=draw(st.integers(-(10**19), 10**20)),
        link=draw(NAMES) if linked else b"",
        major=draw(st.integers(0, 4095)) if node else 0,
        minor=draw(st.integers(0, 2**20 - 1)) if node else 0,
        xattrs=draw(
            st.dictionaries(st.sampled_from([b"user.a", b"security.capability"]), st.binary(max_size=90))
        ),
    )


@settings(max_examples=200)
@given(st.lists(st.tuples(some_members(), st.binary(max_size=2000)), max_size=5), st.integers(1, 3000))
def test_what_is_written_is_read_back(rows: list[tuple[Member, bytes]], piece: int) -> None:
    raw = b""
    expected = []
    for member, content in rows:
        if member.kind == tar.REGULAR:
            member.size = member.length = len(content)
        data = content if member.kind == tar.REGULAR else b""
        raw += tar.header(member) + data + bytes(-len(data) % 512)
        expected.append((member, data))
    assert read(raw + bytes(1024), piece) == expected


@settings(max_examples=100)
@given(some_members())
def test_tarfile_understands_what_is_written(member: Member) -> None:
    raw = tar.header(member) + bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(raw), encoding="utf-8", errors="surrogateescape") as archive:
        info = archive.getmembers()[0]
    assert os.fsencode(info.name) == member.name.rstrip(b"/")
    assert (info.mode, info.uid, info.gid) == (member.mode, member.uid, member.gid)
    assert os.fsencode(info.linkname) == member.link


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_forms_of_tarfile_are_read(form: int) -> None:
    long = "directory/" * 12 + "file"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        info = tarfile.TarInfo(long)
        info.size, info.mtime, info.uid = 3, 1_600_000_000, 12345
        archive.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "t" * (99 if form == tarfile.USTAR_FORMAT else 400)
        archive.addfile(link)
    (first, content), (second, _) = read(out.getvalue())
    assert (first.name, content, first.uid, first.mtime) == (
        long.encode(),
        b"abc",
        12345,
        1_600_000_000 * 10**9,
    )
    assert (second.kind, second.link) == (tar.SYMLINK, link.linkname.encode())


@pytest.mark.parametrize(
    "form", ["gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax --sparse-version=1.0"]
)
def test_the_four_kinds_of_sparse_files_of_gnu_tar_are_read(form: str, tmp_path: Path) -> None:
    """More pieces than one header block holds, so that continuation is needed too."""
    with open(tmp_path / "holes", "wb") as file:
        for place in range(40):
            file.seek(place * 200_000)
            file.write(b"%04d" % place * 1024)
        file.truncate(9_000_000)
    command = ["tar", "--sparse", *f"--format={form}".split(), "-cf", "-", "holes"]
    raw = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout
    assert len(raw) < 1_000_000
    ((member, content),) = read(raw)
    assert (member.name, member.length) == (b"holes", 9_000_000)
    rebuilt = bytearray(member.length)
    at = 0
    for offset, size in member.pieces or ():
        rebuilt[offset : offset + size] = content[at : at + size]
        at += size
    assert bytes(rebuilt) == (tmp_path / "holes").read_bytes()


def header(**fields: bytes) -> bytes:
    """A header block with some raw fields replaced and the sum put right."""
    places = {
        "name": 0,
        "mode": 100,
        "uid": 108,
        "size": 124,
        "mtime": 136,
        "type": 156,
        "sparse": 386,
        "real": 483,
    }
    block = bytearray(tar.header(Member(name=b"x")))
    for key, value in fields.items():
        block[places[key] : places[key] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(content: bytes, kind: bytes = b"x") -> bytes:
    size = b"%011o\0" % len(content)
    return header(type=kind, size=size) + content + bytes(-len(content) % 512)


def test_a_size_in_base_256_is_read_and_a_negative_one_refused() -> None:
    assert read(header(size=b"\x80" + bytes(10) + b"\x03") + b"abc" + bytes(509))[0][1] == b"abc"
    with pytest.raises(TarError, match="size"):
        read(header(size=b"\xff" * 12))


def test_records_before_a_member_are_for_it_alone_and_global_ones_for_all() -> None:
    raw = pax(b"10 uid=77\n", b"g") + pax(b"12 path=abc\n") + header() + header(name=b"y\0")
    assert [(member.name, member.uid) for member, _ in read(raw)] == [(b"abc", 77), (b"y", 77)]


def test_an_old_header_with_signed_sum_is_accepted() -> None:
    block = bytearray(header(name=b"\xe9t\xe9\0"))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(byte - 256 if byte > 127 else byte for byte in block)
    assert read(bytes(block))[0][0].name == b"\xe9t\xe9"


def sparse(record: str) -> bytes:
    """pax records of a sparse file of 99 bytes."""
    rows = (f" GNU.sparse.{text}\n" for text in ("realsize=99", record))
    return pax("".join(f"{len(row) + 2}{row}" for row in rows).encode())


TWO, BLOCK = b"00000000002\0", b"00000001000\0"

HOSTILE = {
    "a bad sum": b"x" * 512,
    "a cut header": header()[:300],
    "cut content": header(size=b"00000001000\0") + b"abc",
    "letters in a number": header(mode=b"rwxr-xr\0"),
    "a sign in a number": header(size=b"-0000000001\0"),
    "an unknown type": header(type=b"Z"),
    "a huge size": header(size=b"\x80" + b"\xff" * 11),
    "a pax record without end": pax(b"99 path=abc\n"),
    "a pax record without length": pax(b"path=abc\n"),
    "a pax record of length nought": pax(b"0 path=abc\n"),
    "a pax record of length four": pax(b"4 a\n"),
    "a pax record without a value": pax(b"7 path\n"),
    "a pax size that is negative": pax(b"11 size=-1\n") + header(),
    "a pax size that is no number": pax(b"12 size=1_0\n") + header(),
    "a pax owner that is no number": pax(b"11 uid=0x1\n") + header(),
    "a pax header of a gigabyte": header(type=b"x", size=b"10000000000\0"),
    "a long name of a gigabyte": header(type=b"L", size=b"10000000000\0"),
    "a sparse file with more data than length": header(
        type=b"S", sparse=b"%011o\0%011o\0" % (0, 512), real=b"%011o\0" % 1
    ),
    "a sparse map that goes backwards": sparse("map=50,1,10,1") + header(size=TWO) + bytes(512),
    "a sparse map of odd length": sparse("map=1,1,1") + header(),
    "a sparse map that is no numbers": sparse("map=1,x") + header(),
    "a sparse map past the end": sparse("map=98,2") + header(size=TWO) + bytes(512),
    "a sparse map without end": sparse("major=1") + header(size=BLOCK) + b"9" * 512,
    "a sparse map of a billion pieces": sparse("major=1")
    + header(size=BLOCK)
    + b"999999999\n".ljust(512, b"\0"),
    "a sparse directory": sparse("map=0,0") + header(type=b"5"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_malformed_archive_is_an_error_and_never_a_crash(what: str) -> None:
    end = b"" if "cut" in what else bytes(1024)
    with pytest.raises(TarError):
        read(HOSTILE[what] + end)


@settings(max_examples=300)
@given(st.data())
def test_any_byte_may_be_wrong(data: st.DataObject) -> None:
    """A damaged archive is read or refused; no other error, no endless loop."""
    raw = bytearray(
        layer(
            Entry("d/"),
            Entry("d/" + "n" * 120, b"content", pax={"SCHILY.xattr.user.a": "b"}),
            Entry("l", link="d"),
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(TarError):
        read(bytes(raw))


@pytest.mark.parametrize(
    ("name", "path"),
    [(b"a/b", b"a/b"), (b"./a//b/.", b"a/b"), (b"/etc/x", b"etc/x"), (b"./", b""), (b"a/..b", b"a/..b")],
)
def test_names_are_below_where_the_archive_goes(name: bytes, path: bytes) -> None:
    assert tar.relative(name) == path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (b"../x", "leads out of the archive"),
        (b"a/../b", "leads out of the archive"),
        (b"a\0b", "impossible name"),
        (b"d/" * 2048, "impossible name"),
    ],
)
def test_names_that_are_elsewhere_or_nowhere_are_refused(name: bytes, words: str) -> None:
    with pytest.raises(TarError, match=words):
        tar.relative(name)


@pytest.mark.parametrize(("uid", "gid"), [(-1, 0), (0, -1), ((1 << 32) - 1, 0), (0, 1 << 63)])
def test_an_owner_that_no_file_can_have_is_refused(uid: int, gid: int) -> None:
    """2**32 - 1 is chown(2)'s word for nobody's id."""
    assert tar.owner(Member(b"x", uid=(1 << 32) - 2)) == ((1 << 32) - 2, 0)
    with pytest.raises(TarError, match="impossible owner"):
        tar.owner(Member(b"x", uid=uid, gid=gid))
