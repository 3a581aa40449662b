"""An archive's files on disk, with their digests: read once, from a file or a pipe.

What an archive calls its files is never used as a path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from orchestrator.images import apply, tar
from orchestrator.images import config as configs
from orchestrator.images.inflate import InflateError, Inflater
from orchestrator.images.tar import TarError
from orchestrator.model.frozen import dataclass, field

_COUNT_LIMIT = 100_000
_LINK_LIMIT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """One file of the archive: where it lies now, its digest and its size in bytes."""

    path: Path
    digest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """Files and symbolic links of an archive by their names in it."""

    files: dict[str, Spooled] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> Spooled | None:
        """A file by name; old archives have links from one image's layer to another's."""
        for _ in range(_LINK_LIMIT):
            if name in self.files:
                return self.files[name]
            if name not in self.links:
                return None
            name = _joined(name, self.links[name])
        return None

    def demand(self, name: str) -> Spooled:
        found = self.find(name)
        if found is None:
            raise configs.broken(f"the archive has no {name!r:.200}")
        return found

    def blob(self, digest: str) -> Spooled | None:
        """A blob of an OCI layout, if the archive has it and it is what its name says."""
        found = self.find(f"blobs/sha256/{digest[7:]}")
        if found is not None and found.digest != digest:
            raise configs.broken(f"blob {digest[:19]} has the digest {found.digest[:19]}")
        return found


def read(source: IO[bytes], work: Path, *, limit: int, progress: Callable[[int], None]) -> Spool:
    """Write the archive's files below `work`. Raises UserError when it is not a proper archive."""
    inflater = Inflater(source.read, limit=limit)
    stream = tar.Source(inflater.fill)
    spool = Spool()
    try:
        for count, member in enumerate(tar.members(stream)):
            if count >= _COUNT_LIMIT:
                raise TarError(f"more than {_COUNT_LIMIT} files")
            name = apply.normal(member.name).decode("utf-8", "surrogateescape")
            if member.kind == tar.REGULAR and member.pieces is None:
                spool.files[name] = _keep(stream, member.size, work / f"file-{count}")
            elif member.kind in (tar.SYMLINK, tar.HARDLINK):
                relative = member.kind == tar.SYMLINK
                target = member.link.decode("utf-8", "surrogateescape")
                spool.links[name] = target if relative else f"/{target}"
            stream.skip(0 if member.kind == tar.REGULAR and member.pieces is None else member.size)
            progress(inflater.taken)
    except (TarError, InflateError) as error:
        raise configs.broken(f"archive: {error}") from None
    if not spool.files:
        raise configs.broken("the archive is empty")
    return spool


def _keep(stream: tar.Source, size: int, path: Path) -> Spooled:
    digest = hashlib.sha256()
    with open(path, "xb", buffering=0) as file:
        for chunk in stream.chunks(size):
            digest.update(chunk)
            file.write(chunk)
    return Spooled(path=path, digest=f"sha256:{digest.hexdigest()}", size=size)


def _joined(name: str, target: str) -> str:
    """Where a link at `name` leads, inside the archive; what leads outside leads nowhere."""
    parts = [] if target.startswith("/") else name.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
