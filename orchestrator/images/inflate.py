"""Decompression of a stream, by what its first bytes say.

A few bytes can inflate to gigabytes, so output is asked for in bounded pieces and both sides are counted.

Standard library only: the unpacking worker imports this.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

PIECE = 1 << 20
_RATIO = 1000
_RATIO_FREE = 1 << 30
"""A ratio says nothing about a small archive: a tar of one empty disk image is fine."""


class InflateError(ValueError):
    """The stream is damaged, of an unknown kind, or a bomb."""


class _Engine(Protocol):
    def feed(self, data: bytes) -> bytes: ...
    @property
    def hungry(self) -> bool: ...
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


class _Zlib:
    def __init__(self) -> None:
        self._engine = zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> bytes:
        return self._engine.decompress(self._engine.unconsumed_tail + data, PIECE)

    @property
    def hungry(self) -> bool:
        return not self._engine.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._engine.eof

    @property
    def unused_data(self) -> bytes:
        return self._engine.unused_data


class _Other:
    """bz2 and lzma share one interface."""

    def __init__(self, engine: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._engine = engine

    def feed(self, data: bytes) -> bytes:
        return self._engine.decompress(data, PIECE)

    @property
    def hungry(self) -> bool:
        return self._engine.needs_input

    @property
    def eof(self) -> bool:
        return self._engine.eof

    @property
    def unused_data(self) -> bytes:
        return self._engine.unused_data


def _xz() -> _Other:
    return _Other(lzma.LZMADecompressor(memlimit=256 << 20))


_KINDS: tuple[tuple[bytes, Callable[[], _Engine]], ...] = (
    (b"\x1f\x8b", _Zlib),
    (b"BZh", lambda: _Other(bz2.BZ2Decompressor())),
    (b"\xfd7zXZ\0", _xz),
)
_ZSTD = b"\x28\xb5\x2f\xfd"


class Inflater:
    """The plain bytes of a stream that may be compressed. `read(n)` gives up to about n raw bytes."""

    def __init__(self, read: Callable[[int], bytes], *, limit: int, free: int = _RATIO_FREE) -> None:
        self._read = read
        self._limit = limit
        self._free = free
        self._make: Callable[[], _Engine] | None = None
        self._engine: _Engine | None = None
        self._raw = b""
        self._started = False
        self.taken = 0
        self.given = 0

    def fill(self, count: int = PIECE) -> bytes:
        """The next plain bytes, at most 1 MiB or so; b"" at the end. Raises InflateError."""
        if not self._started:
            self._start()
        piece = self._next() if self._make is not None else (self._held() or self._pull(count))
        self.given += len(piece)
        if self.given > self._limit:
            raise InflateError(f"more than {self._limit} bytes of content")
        if self.given > self._free and self.given > _RATIO * max(self.taken, 1):
            raise InflateError(f"{self.taken} bytes inflate to more than {self.given}: refused as a bomb")
        return piece

    def _start(self) -> None:
        self._started = True
        while len(self._raw) < 6 and (more := self._pull(PIECE)):
            self._raw += more
        if self._raw.startswith(_ZSTD):
            raise InflateError("compressed with zstd, which is not supported: decompress it first (zstd -d)")
        self._make = next((make for magic, make in _KINDS if self._raw.startswith(magic)), None)

    def _pull(self, count: int) -> bytes:
        piece = self._read(count)
        self.taken += len(piece)
        return piece

    def _held(self) -> bytes:
        piece, self._raw = self._raw, b""
        return piece

    def _next(self) -> bytes:
        """Several members in a row are one stream (RFC 1952, section 2.2); zeros after them are padding."""
        assert self._make is not None
        while True:
            if self._engine is None:
                raw = self._held() or self._pull(PIECE)
                if not raw.strip(b"\0"):
                    if not raw:
                        return b""
                    continue
                self._engine, self._raw = self._make(), raw
            raw = self._held()
            if not raw and self._engine.hungry:
                raw = self._pull(PIECE)
                if not raw:
                    raise InflateError("compressed data ends too early")
            try:
                piece = self._engine.feed(raw)
            except (zlib.error, OSError, lzma.LZMAError, ValueError) as error:
                raise InflateError(f"compressed data is damaged: {error}") from None
            if self._engine.eof:
                self._raw, self._engine = self._engine.unused_data, None
            if piece:
                return piece
