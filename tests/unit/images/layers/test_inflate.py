"""Decompression: what comes out is what went in, and no more of it than allowed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import zlib
from collections.abc import Callable

import pytest
import zstandard

from orchestrator.images.layers.inflate import InflateError, Inflater

CONTENT = b"".join(os.urandom(4096) + bytes(100_000) for _ in range(30))


def inflate(raw: bytes, *, limit: int = 1 << 40, piece: int = 1 << 20) -> bytes:
    source = io.BytesIO(raw)
    inflater = Inflater(lambda count: source.read(min(count, piece)), limit=limit)
    out = b""
    while got := inflater.fill():
        assert len(got) <= 2 << 20
        out += got
    assert inflater.taken == len(raw)
    return out


PACKERS = [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress]


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("piece", [1, 7, 4096, 1 << 20])
def test_each_kind_is_recognised_also_when_it_trickles(pack: Callable[[bytes], bytes], piece: int) -> None:
    content = CONTENT if piece > 7 else CONTENT[:5000]
    assert inflate(pack(content), piece=piece) == content


def test_several_gzip_members_are_one_stream_and_zeros_after_them_are_padding() -> None:
    assert inflate(gzip.compress(b"one", mtime=0) + gzip.compress(b"two") + bytes(1000)) == b"onetwo"


def skippable(kind: int, content: bytes) -> bytes:
    return bytes([0x50 + kind]) + b"\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_zstd_frames_in_a_row_are_one_stream_and_skippable_ones_say_nothing(piece: int) -> None:
    """zstd:chunked images end in a skippable frame; pzstd writes one before each frame of data."""
    checked = zstandard.ZstdCompressor(write_checksum=True).compress(b"two")
    streamed = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    third = streamed.compress(b"three" * 1000) + streamed.flush()
    raw = skippable(0, b"x") + zstandard.compress(b"one") + skippable(3, bytes(5000)) + checked + third
    assert inflate(raw + skippable(15, b""), piece=piece) == b"onetwo" + b"three" * 1000


def headed(flags: int) -> bytes:
    """A gzip member with optional header fields."""
    plain = gzip.compress(b"x" * 100, mtime=0)
    head = b"\x1f\x8b\x08" + bytes([flags]) + plain[4:10]
    head += b"\x04\x00abcd" if flags & 4 else b""
    head += b"name\0" if flags & 8 else b""
    head += b"comment\0" if flags & 16 else b""
    head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little") if flags & 2 else b""
    return head + plain[10:]


@pytest.mark.parametrize("flags", range(0, 32, 2))
@pytest.mark.parametrize("piece", [1, 2, 3, 7, 13, 1000])
def test_gzip_headers_may_have_everything_and_come_in_pieces(flags: int, piece: int) -> None:
    """ISA-L itself fails at that."""
    assert inflate(headed(flags) * 2, piece=piece) == b"x" * 200


def test_a_gzip_header_has_an_end() -> None:
    with pytest.raises(InflateError, match="endless"):
        inflate(gzip.compress(b"x", mtime=0)[:3] + b"\x08" + b"n" * (1 << 18), piece=4096)


def test_nothing_is_nothing() -> None:
    assert inflate(b"") == b""


@pytest.mark.parametrize(
    "raw",
    [
        gzip.compress(CONTENT, mtime=0)[:-9],
        gzip.compress(CONTENT, mtime=0)[:1000],
        gzip.compress(b"x", mtime=0)[:-8] + bytes(8),
        gzip.compress(b"x", mtime=0) + b"trailing",
        lzma.compress(CONTENT)[:-20],
        bz2.compress(CONTENT)[:-4],
        zstandard.compress(CONTENT)[:-1],
        zstandard.compress(CONTENT)[:1000],
        zstandard.compress(b"x") + zstandard.compress(b"x")[:6],
        zstandard.compress(b"x") + b"\x50\x2a\x4d",
        zstandard.compress(b"x") + skippable(1, b"12345")[:-1],
        zstandard.compress(b"x") + b"trailing",
        zstandard.compress(b"x") + bytes(4),
        zstandard.ZstdCompressor(write_checksum=True).compress(CONTENT)[:-4] + bytes(4),
        b"\x28\xb5\x2f\xfd" + bytes([0x00, 0xF8]) + bytes(100),
    ],
)
def test_damaged_data_is_an_error(raw: bytes) -> None:
    with pytest.raises(InflateError):
        inflate(raw)


def test_without_the_libraries_gzip_works_and_zstd_is_refused_with_advice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert inflate(gzip.compress(CONTENT, mtime=0)) == CONTENT
    with pytest.raises(InflateError, match="zstd -d"):
        inflate(zstandard.compress(b"x"))


def test_a_failure_of_the_source_stays_what_it_is() -> None:
    """The zstd library is called in between."""
    raw = zstandard.compress(CONTENT)[:2000]
    pieces = iter((raw[:1000],))

    def read(count: int) -> bytes:
        for piece in pieces:
            return piece
        raise TimeoutError("the line is cut")

    inflater = Inflater(read, limit=1 << 40)
    with pytest.raises(TimeoutError, match="the line is cut"):
        sum(len(piece) for piece in iter(inflater.fill, b""))


@pytest.mark.parametrize("pack", PACKERS)
def test_no_more_than_the_limit_comes_out(pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(InflateError, match="more than 1000000 bytes"):
        inflate(pack(bytes(8 << 20)), limit=1_000_000)


def test_a_bomb_is_recognised_by_its_ratio() -> None:
    """bzip2 packs zeros better than a thousand to one."""
    source = io.BytesIO(bz2.compress(bytes(16 << 20)) * 3)
    inflater = Inflater(source.read, limit=1 << 40, free=16 << 20)
    with pytest.raises(InflateError, match="bomb"):
        sum(len(piece) for piece in iter(inflater.fill, b""))


def test_a_zstd_bomb_stops_at_the_limit_piece_by_piece() -> None:
    """Blocks of four bytes that say "128 KiB of zeros": thirty thousand to one."""
    block = (128 << 10 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    bomb = b"\x28\xb5\x2f\xfd\x00\x60" + block * 30_000
    source = io.BytesIO(bomb)
    inflater = Inflater(source.read, limit=1 << 40, free=16 << 20)
    with pytest.raises(InflateError, match="bomb"):
        list(filter(lambda piece: len(piece) > 2 << 20, iter(inflater.fill, b"")))
