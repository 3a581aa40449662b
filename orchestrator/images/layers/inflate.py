"""Decompression of a stream, by what its first bytes say: gzip, bzip2, xz, zstd, or none.

A few bytes can inflate to gigabytes, so output is asked for in bounded pieces and both sides are counted.

isal and zstandard do the work where they are installed; gzip falls back to zlib. They are imported when a
stream begins (`Inflater.start`), never later: the unpacking worker is locked into the image by then.
"""

from __future__ import annotations

import bz2
import contextlib
import importlib
import lzma
import zlib
from collections.abc import Callable, Generator
from typing import IO, Protocol, cast

PIECE = 1 << 20
_RATIO = 1000
_RATIO_FREE = 1 << 30
"""A ratio says nothing about a small archive: a tar of one empty disk image is fine."""
_WINDOW_LIMIT = 128 << 20
"""Bytes that a zstd stream may refer back to: what zstd(1) takes without `--long`."""
_XZ_LIMIT = 100 << 20
"""Bytes that an xz stream may make us take; `xz -9` needs 65 MiB."""
_HEADER_LIMIT = 1 << 16
LIBRARIES = ("isal", "zstandard")


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
    """bz2, lzma and isal share one interface."""

    def __init__(self, engine: _Decompressor) -> None:
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


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


class _Isal(_Other):
    """ISA-L loses its way when a gzip header with optional fields comes in pieces: it gets it whole."""

    def __init__(self, engine: _Decompressor) -> None:
        super().__init__(engine)
        self._head: bytes | None = b""

    def feed(self, data: bytes) -> bytes:
        if self._head is None:
            return self._engine.decompress(data, PIECE)
        data = self._head + data
        if not _has_header(data):
            if len(data) > _HEADER_LIMIT:
                raise InflateError("compressed data is damaged: endless gzip header")
            self._head = data
            return b""
        self._head = None
        return self._engine.decompress(data, PIECE)

    @property
    def hungry(self) -> bool:
        return self._head is not None or self._engine.needs_input


def _has_header(data: bytes) -> bool:
    """Whether the whole header of a gzip member is there (RFC 1952, section 2.3)."""
    if len(data) < 10:
        return False
    flags, at = data[3], 10
    if flags & 4:
        if len(data) < 12:
            return False
        at += 2 + int.from_bytes(data[10:12], "little")
    for flag in (8, 16):
        if flags & flag:
            end = data.find(b"\0", at)
            if end < 0:
                return False
            at = end + 1
    return len(data) >= at + (2 if flags & 2 else 0)


def _gzip() -> Callable[[], _Engine]:
    try:
        from isal import igzip_lib
    except ImportError:
        return _Zlib
    return lambda: _Isal(igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP))


def _bzip2() -> Callable[[], _Engine]:
    return lambda: _Other(bz2.BZ2Decompressor())


def _xz() -> Callable[[], _Engine]:
    return lambda: _Other(lzma.LZMADecompressor(memlimit=_XZ_LIMIT))


_KINDS: tuple[tuple[bytes, Callable[[], Callable[[], _Engine]]], ...] = (
    (b"\x1f\x8b", _gzip),
    (b"BZh", _bzip2),
    (b"\xfd7zXZ\0", _xz),
)
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"
"""After a byte 0x50 to 0x5f (RFC 8878, section 3.1.2)."""


class Inflater:
    """The plain bytes of a stream that may be compressed. `read(n)` gives up to about n raw bytes."""

    def __init__(self, read: Callable[[int], bytes], *, limit: int, free: int = _RATIO_FREE) -> None:
        self._read = read
        self._limit = limit
        self._free = free
        self._make: Callable[[], _Engine] | None = None
        self._engine: _Engine | None = None
        self._zstd: _Zstd | None = None
        self._raw = b""
        self._started = False
        self.taken = 0
        self.given = 0

    def start(self) -> None:
        """Take the first bytes, import what they ask for; `fill` does so otherwise. Raises InflateError."""
        self._started = True
        while len(self._raw) < 6 and (more := self._pull(PIECE)):
            self._raw += more
        if self._raw.startswith(_ZSTD) or _is_skippable(self._raw):
            self._zstd = _Zstd(lambda count: self._held() or self._pull(count))
            return
        kind = next((kind for magic, kind in _KINDS if self._raw.startswith(magic)), None)
        self._make = kind() if kind is not None else None

    def fill(self, count: int = PIECE) -> bytes:
        """The next plain bytes, at most 1 MiB or so; b"" at the end. Raises InflateError."""
        if not self._started:
            self.start()
        if self._zstd is not None:
            piece = self._zstd.fill()
        else:
            piece = self._next() if self._make is not None else (self._held() or self._pull(count))
        self.given += len(piece)
        if self.given > self._limit:
            raise InflateError(f"more than {self._limit} bytes of content")
        if self.given > self._free and self.given > _RATIO * max(self.taken, 1):
            raise InflateError(f"{self.taken} bytes inflate to more than {self.given}: refused as a bomb")
        return piece

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
            except InflateError:
                raise
            except Exception as error:
                # Each of the libraries has errors of its own, and no two a common ancestor.
                raise InflateError(f"compressed data is damaged: {error}") from None
            if self._engine.eof:
                self._raw, self._engine = self._engine.unused_data, None
            if piece:
                return piece


# --- zstd ----------------------------------------------------------------------------------------


class _Zstd:
    """Frames in a row, skippable ones among them (zstd:chunked has some).

    The library's reader bounds its output, which its other interfaces don't; but it takes a cut stream for
    a whole one, so we look along.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        try:
            import zstandard
        except ImportError:
            raise InflateError(
                "compressed with zstd, which needs the Python package zstandard; "
                "or decompress it first (zstd -d)"
            ) from None
        self._input = read
        self._error: Exception | None = None
        self._walk = _frames()
        self._want = next(self._walk)
        self._head = b""
        self._boundary = False
        self._reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT).stream_reader(
            cast("IO[bytes]", self), read_size=1 << 18, read_across_frames=True
        )

    def read(self, count: int) -> bytes:
        """For the reader."""
        try:
            raw = self._input(count)
            self._look(raw)
        except Exception as error:
            self._error = error
            raise
        return raw

    def fill(self) -> bytes:
        try:
            piece = self._reader.read(PIECE)
        except Exception as error:
            if error is self._error:
                raise
            raise InflateError(f"compressed data is damaged: {error}") from None
        if not piece and not (self._want == _MAGIC and not self._head):
            raise InflateError("compressed data ends too early")
        return piece

    def _look(self, raw: bytes) -> None:
        at = 0
        while at < len(raw):
            if self._want < 0:
                skipped = min(-self._want, len(raw) - at)
                at += skipped
                self._want += skipped
                if not self._want:
                    self._want = self._walk.send(b"")
                continue
            piece = raw[at : at + self._want - len(self._head)]
            at += len(piece)
            self._head += piece
            if len(self._head) == self._want:
                head, self._head = self._head, b""
                self._want = self._walk.send(head)


_MAGIC = 4


def _is_skippable(raw: bytes) -> bool:
    return raw[1:4] == _SKIPPABLE and raw[0] & 0xF0 == 0x50


def _frames() -> Generator[int, bytes, None]:
    """Walks along frames (RFC 8878, section 3.1): yields n for "give me n bytes" and -n for "pass n over".

    Between two frames it wants `_MAGIC` bytes, which nothing else does. What is no frame
    is left to the library.
    """
    while True:
        magic = yield _MAGIC
        if _is_skippable(magic):
            # Asked for in two steps, lest it look like the space between frames.
            size = (yield 2) + (yield 2)
            yield from _over(int.from_bytes(size, "little"))
            continue
        if magic != _ZSTD:
            while True:
                yield -PIECE
        described = (yield 1)[0]
        single = described >> 5 & 1
        content = (single, 2, 4, 8)[described >> 6]
        yield from _over((0 if single else 1) + (0, 1, 2, 4)[described & 3] + content)
        last = False
        while not last:
            block = int.from_bytes((yield 3), "little")
            last = bool(block & 1)
            yield from _over(1 if block >> 1 & 3 == 1 else block >> 3)
        if described >> 2 & 1:
            yield from _over(4)


def _over(count: int) -> Generator[int, bytes, None]:
    if count:
        yield -count


def preload() -> None:
    """Import the libraries now, for a process that will not be able to."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with contextlib.suppress(ImportError):
        from isal import igzip_lib  # noqa: F401
