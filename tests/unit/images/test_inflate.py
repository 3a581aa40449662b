"""Decompression: what comes out is what went in, and no more of it than allowed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable

import pytest

from orchestrator.images.inflate import InflateError, Inflater

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


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("piece", [1, 7, 4096, 1 << 20])
def test_each_kind_is_recognised_also_when_it_trickles(pack: Callable[[bytes], bytes], piece: int) -> None:
    content = CONTENT if piece > 7 else CONTENT[:5000]
    assert inflate(pack(content), piece=piece) == content


def test_several_gzip_members_are_one_stream_and_zeros_after_them_are_padding() -> None:
    assert inflate(gzip.compress(b"one") + gzip.compress(b"two") + bytes(1000)) == b"onetwo"


def test_nothing_is_nothing() -> None:
    assert inflate(b"") == b""


@pytest.mark.parametrize(
    "raw",
    [
        gzip.compress(CONTENT)[:-9],
        gzip.compress(CONTENT)[:1000],
        gzip.compress(b"x")[:-8] + bytes(8),
        gzip.compress(b"x") + b"trailing",
        lzma.compress(CONTENT)[:-20],
        bz2.compress(CONTENT)[:-4],
    ],
)
def test_damaged_data_is_an_error(raw: bytes) -> None:
    with pytest.raises(InflateError):
        inflate(raw)


def test_zstd_is_refused_with_advice() -> None:
    with pytest.raises(InflateError, match="zstd -d"):
        inflate(b"\x28\xb5\x2f\xfd" + bytes(100))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_no_more_than_the_limit_comes_out(pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(InflateError, match="more than 1000000 bytes"):
        inflate(pack(bytes(8 << 20)), limit=1_000_000)


def test_a_bomb_is_recognised_by_its_ratio() -> None:
    """bzip2 packs zeros better than a thousand to one."""
    source = io.BytesIO(bz2.compress(bytes(16 << 20)) * 3)
    inflater = Inflater(source.read, limit=1 << 40, free=16 << 20)
    with pytest.raises(InflateError, match="bomb"):
        sum(len(piece) for piece in iter(inflater.fill, b""))
