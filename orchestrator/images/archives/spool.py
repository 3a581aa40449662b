"""An archive's files: where they are, and their digests.

A tar in a regular file is left where it is, and read where needed. What comes through a pipe, or is
compressed, is written to disk as it comes, for its table of contents may stand at its end.

What an archive calls its files is never used as a path.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from orchestrator.images import config as configs
from orchestrator.images.layers import tar
from orchestrator.images.layers.inflate import InflateError, Inflater
from orchestrator.images.layers.tar import TarError
from orchestrator.model.frozen import dataclass, field

_COUNT_LIMIT = 100_000
_LINK_LIMIT = 8
_PIECE = 1 << 20

Progress = Callable[[int], None]


class Part:
    """One file of an archive: `size` bytes at `offset` of an open file, or of a file of our own at `path`.

    Its digest is found out when it is asked for. `claim` puts that off: the archive's word counts until
    `keep` makes sure.
    """

    def __init__(self, *, size: int, fd: int = -1, offset: int = 0, path: Path | None = None) -> None:
        self.size = size
        self._fd = fd
        self._offset = offset
        self._path = path
        self._digest = ""
        self._sure = False

    @classmethod
    def of(cls, content: bytes, path: Path) -> Part:
        """A file that the archive does not have but means, written to `path`."""
        path.write_bytes(content)
        return cls(size=len(content), path=path)

    @property
    def is_ours(self) -> bool:
        """It lies in a file of our own."""
        return self._path is not None

    @property
    def digest(self) -> str:
        if not self._digest:
            digest = hashlib.sha256()
            for piece in self.chunks():
                digest.update(piece)
            self.settle(f"sha256:{digest.hexdigest()}")
        return self._digest

    def settle(self, digest: str) -> None:
        """Its digest, of its bytes."""
        self._digest, self._sure = digest, True

    def claim(self, digest: str) -> None:
        """What the archive says that its digest is. Raises UserError when that is known to be wrong."""
        if not self._sure:
            self._digest = digest
        elif self._digest != digest:
            raise _other(digest, self._digest)

    def chunks(self) -> Iterator[bytes]:
        """All of it. Raises UserError when the file has become shorter."""
        fd = self._fd if self._path is None else os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            at, end = self._offset, self._offset + self.size
            while at < end:
                piece = os.pread(fd, min(_PIECE, end - at), at)
                if not piece:
                    raise configs.broken("archive: unexpected end of archive")
                at += len(piece)
                yield piece
        finally:
            if self._path is not None:
                os.close(fd)

    def head(self, count: int) -> bytes:
        """Its first bytes."""
        return next(self.chunks(), b"")[:count]

    def read(self, limit: int) -> bytes:
        """A small file, whole, and what it was claimed to be. Raises UserError."""
        if self.size > limit:
            raise configs.broken(f"a file of {self.size} bytes where at most {limit >> 20} MiB belong")
        content = b"".join(self.chunks())
        self._check(f"sha256:{hashlib.sha256(content).hexdigest()}")
        return content

    def keep(self, target: Path) -> Path:
        """Where its bytes are a file of our own: `target`, or where they have been one from the start.

        Raises UserError when its digest is not what was claimed.
        """
        if self._path is not None:
            return self._path
        digest = hashlib.sha256()
        with open(target, "xb", buffering=0) as file:
            for piece in self.chunks():
                digest.update(piece)
                file.write(piece)
        self._check(f"sha256:{digest.hexdigest()}")
        self._path, self._offset = target, 0
        return target

    def _check(self, digest: str) -> None:
        if self._digest and self._digest != digest:
            raise _other(self._digest, digest)
        self.settle(digest)


def _other(claimed: str, digest: str) -> Exception:
    return configs.broken(f"blob {claimed[:19]} has the digest {digest[:19]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Files and symbolic links of an archive by their names in it."""

    files: dict[str, Part] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> Part | None:
        """A file by name; old archives have links from one image's layer to another's."""
        for _ in range(_LINK_LIMIT):
            if name in self.files:
                return self.files[name]
            if name not in self.links:
                return None
            name = _joined(name, self.links[name])
        return None

    def demand(self, name: str) -> Part:
        """A file by name; among the blobs of a layout that is its digest. Raises UserError."""
        found = self.find(name)
        if found is None:
            raise configs.broken(f"the archive has no {name!r:.200}")
        directory, _, last = name.rpartition("/")
        if directory == "blobs/sha256":
            found.claim(f"sha256:{last}")
        return found

    def blob(self, digest: str) -> Part | None:
        """A blob of an OCI layout, if the archive has it. Raises UserError when it is known to be another."""
        found = self.find(f"blobs/sha256/{digest[7:]}")
        if found is not None:
            found.claim(digest)
        return found


def read(source: IO[bytes], work: Path, *, limit: int, progress: Progress) -> Contents:
    """The files of an archive; what must be written to disk goes below `work`.

    `source` must stay open for as long as they are used. Raises UserError when it is not a proper archive.
    """
    fd = _plain_file(source)
    try:
        contents = _copied(source, work, limit, progress) if fd is None else _found(fd)
    except (TarError, InflateError) as error:
        raise configs.broken(f"archive: {error}") from None
    if not contents.files:
        raise configs.broken("the archive is empty")
    return contents


def _plain_file(source: IO[bytes]) -> int | None:
    """The descriptor of a regular file that holds a tar from its position on, or else None."""
    try:
        fd = source.fileno()
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        start = os.lseek(fd, 0, os.SEEK_CUR)
    except (OSError, ValueError):
        return None  # nothing of the system's, but an object that reads: io.UnsupportedOperation is both
    return fd if os.pread(fd, 5, start + 257) == b"ustar" else None


def _found(fd: int) -> Contents:
    contents = Contents()
    start = at = os.lseek(fd, 0, os.SEEK_CUR)
    end = os.fstat(fd).st_size

    def fill(_: int) -> bytes:
        nonlocal at
        piece = os.pread(fd, 1 << 14, at)
        at += len(piece)
        return piece

    def seek(count: int) -> None:
        nonlocal at
        at += count
        if at > end:
            raise TarError("unexpected end of archive")

    stream = tar.Source(fill, seek)
    for member in _members(stream, contents):
        name = _name(member)
        contents.files[name] = Part(size=member.size, fd=fd, offset=start + stream.position)
        stream.skip(member.size)
    return contents


def _copied(source: IO[bytes], work: Path, limit: int, progress: Progress) -> Contents:
    inflater = Inflater(source.read, limit=limit)
    stream = tar.Source(inflater.fill)
    contents = Contents()
    for count, member in enumerate(_members(stream, contents)):
        contents.files[_name(member)] = _kept(stream, member.size, work / f"file-{count}")
        progress(inflater.taken)
    return contents


def _members(stream: tar.Source, contents: Contents) -> Iterator[tar.Member]:
    """The regular files; links are noted, and what else there is is passed over."""
    for count, member in enumerate(tar.members(stream)):
        if count >= _COUNT_LIMIT:
            raise TarError(f"more than {_COUNT_LIMIT} files")
        if member.kind == tar.REGULAR and member.pieces is None:
            yield member
            continue
        if member.kind in (tar.SYMLINK, tar.HARDLINK):
            relative = member.kind == tar.SYMLINK
            target = member.link.decode("utf-8", "surrogateescape")
            contents.links[_name(member)] = target if relative else f"/{target}"
        stream.skip(member.size)


def _name(member: tar.Member) -> str:
    return tar.relative(member.name).decode("utf-8", "surrogateescape")


def _kept(stream: tar.Source, size: int, path: Path) -> Part:
    digest = hashlib.sha256()
    with open(path, "xb", buffering=0) as file:
        for chunk in stream.chunks(size):
            digest.update(chunk)
            file.write(chunk)
    part = Part(size=size, path=path)
    part.settle(f"sha256:{digest.hexdigest()}")
    return part


def _joined(name: str, target: str) -> str:
    """Where a link at `name` leads, inside the archive; what leads outside leads nowhere."""
    parts = [] if target.startswith("/") else name.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
