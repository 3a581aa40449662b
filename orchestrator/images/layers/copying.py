"""A directory tree -> a layer directory and its tar, read once.

Owners, modes, times (whole seconds, as images have them), links, devices, holes and harmless xattrs come
along. What lies on another file system is left out, as are sockets. The order is fixed, so equal trees give
equal tars, and the tar is what the layer's diff_id is the digest of.

The tree may be changed by others while it is read: no symbolic link is ever followed, and a file that
changes its size is an error.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO

from orchestrator.images import trees
from orchestrator.images.layers import tar
from orchestrator.images.layers.tar import Member
from orchestrator.kernel.owner import give, of_host
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass

DEPTH_LIMIT = 256
PATH_LIMIT = 4000
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """`diff_id` and `tar_size` are the tar's, `size` the files' bytes, `entries` counts everything."""

    diff_id: str
    tar_size: int
    size: int
    entries: int


def copy_tree(source: Path, target: Path, blob: IO[bytes], progress: Callable[[int], None]) -> Copied:
    """Copy the tree below `source` into the new directory `target`, and as a tar into `blob`.

    `progress` is told the bytes done so far. Raises UserError when the tree cannot be read or changes.
    """
    source_fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.mkdir(target, 0o755)
        target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            copy = _Copy(blob, progress, root=target_fd, device=os.fstat(source_fd).st_dev)
            copy.directory(source_fd, target_fd, b"", 0)
            return copy.finish()
        finally:
            os.close(target_fd)
    except OSError as error:
        raise UserError(f"cannot import {source}: {error}", exit_code=ExitCode.IMAGE) from error
    finally:
        os.close(source_fd)


class _Copy:
    """One copy under way."""

    def __init__(self, blob: IO[bytes], progress: Callable[[int], None], *, root: int, device: int) -> None:
        self._blob = blob
        self._progress = progress
        self._root = root
        self._device = device
        self._hash = hashlib.sha256()
        self._links: dict[int, bytes] = {}
        self._written = 0
        self._size = 0
        self._entries = 0

    def finish(self) -> Copied:
        self._put(bytes(2 * tar.BLOCK))
        return Copied(
            diff_id=f"sha256:{self._hash.hexdigest()}",
            tar_size=self._written,
            size=self._size,
            entries=self._entries,
        )

    def directory(self, source: int, target: int, path: bytes, depth: int) -> None:
        """Everything of one directory that both descriptors stand for; its times last."""
        if depth > DEPTH_LIMIT or len(path) > PATH_LIMIT:
            raise UserError(f"directories nested too deep: {path!r:.200}", exit_code=ExitCode.IMAGE)
        before = os.fstat(source)
        self._header(_member(path + b"/" if path else b"./", before, _xattrs(source)))
        for name in sorted(os.fsencode(entry) for entry in os.listdir(source)):
            self._child(source, target, name, path + b"/" + name if path else name, depth)
        _dress(target, before, _xattrs(source))

    def _child(self, source: int, target: int, name: bytes, path: bytes, depth: int) -> None:
        now = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(now.st_mode)
        if kind == stat.S_IFDIR:
            self._directory(source, target, name, path, now, depth)
        elif kind not in tar.KINDS or (kind == stat.S_IFCHR and now.st_rdev == 0):
            # A socket is nothing without its server; character device 0/0 is overlayfs' mark for "deleted".
            return
        elif now.st_nlink > 1 and now.st_ino in self._links and now.st_dev == self._device:
            self._hardlink(target, path, now)
        else:
            if now.st_nlink > 1:
                self._links[now.st_ino] = path
            if kind == stat.S_IFREG:
                self._regular(source, target, name, path)
            else:
                self._special(source, target, name, path, now)

    def _directory(
        self, source: int, target: int, name: bytes, path: bytes, now: os.stat_result, depth: int
    ) -> None:
        os.mkdir(name, 0o755, dir_fd=target)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        target_fd = os.open(name, flags, dir_fd=target)
        try:
            if now.st_dev != self._device:
                self._header(_member(path + b"/", now, {}))
                _dress(target_fd, now, {})
                return
            source_fd = os.open(name, flags, dir_fd=source)
            try:
                self.directory(source_fd, target_fd, path, depth + 1)
            finally:
                os.close(source_fd)
        finally:
            os.close(target_fd)

    def _hardlink(self, target: int, path: bytes, now: os.stat_result) -> None:
        first = self._links[now.st_ino]
        member = _member(path, now, {})
        member.kind, member.link, member.size = tar.HARDLINK, first, 0
        self._header(member)
        # The path leads through the tree being made, which nobody else can reach.
        name = path.rpartition(b"/")[2]
        os.link(first, name, src_dir_fd=self._root, dst_dir_fd=target, follow_symlinks=False)

    def _special(self, source: int, target: int, name: bytes, path: bytes, now: os.stat_result) -> None:
        member = _member(path, now, {})
        if member.kind == tar.SYMLINK:
            member.link = os.readlink(name, dir_fd=source)
            os.symlink(member.link, name, dir_fd=target)
        else:
            os.mknod(name, now.st_mode, now.st_rdev, dir_fd=target)
        self._header(member)
        give(name, *of_host(now), dir_fd=target, follow_symlinks=False)
        if member.kind != tar.SYMLINK:
            os.chmod(name, stat.S_IMODE(now.st_mode), dir_fd=target)
        whole = (member.mtime, member.mtime)
        os.utime(name, ns=whole, dir_fd=target, follow_symlinks=False)

    def _regular(self, source: int, target: int, name: bytes, path: bytes) -> None:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW
        source_fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=source)
        try:
            now = os.fstat(source_fd)
            if not stat.S_ISREG(now.st_mode):
                raise UserError(
                    f"{os.fsdecode(path)} changed while it was imported", exit_code=ExitCode.IMAGE
                )
            xattrs = _xattrs(source_fd)
            self._header(_member(path, now, xattrs))
            target_fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600, dir_fd=target)
            try:
                self._content(source_fd, target_fd, now.st_size, path)
                _dress(target_fd, now, xattrs)
            finally:
                os.close(target_fd)
        finally:
            os.close(source_fd)
        self._size += now.st_size

    def _content(self, source: int, target: int, size: int, path: bytes) -> None:
        """The data into the tar; into the file by reflink where the file system can, else written."""
        dense = os.fstat(source).st_blocks * 512 >= size
        shared = dense and size > _CHUNK and _reflink(source, target, size)
        left = size
        while left:
            chunk = os.read(source, min(left, _CHUNK))
            if not chunk:
                break
            left -= len(chunk)
            self._put(chunk)
            if not shared:
                trees.write(target, chunk)
        if left or os.read(source, 1):
            raise UserError(f"{os.fsdecode(path)} changed while it was imported", exit_code=ExitCode.IMAGE)
        if not shared:
            os.ftruncate(target, size)
        self._put(bytes(-size % tar.BLOCK))
        self._progress(self._written)

    def _header(self, member: Member) -> None:
        self._entries += 1
        self._put(tar.header(member))

    def _put(self, content: bytes) -> None:
        self._hash.update(content)
        self._blob.write(content)
        self._written += len(content)


def _member(path: bytes, now: os.stat_result, xattrs: dict[bytes, bytes]) -> Member:
    kind = tar.KINDS[stat.S_IFMT(now.st_mode)]
    device = now.st_rdev if kind in (tar.CHARACTER, tar.BLOCKDEV) else 0
    return Member(
        name=path,
        kind=kind,
        mode=stat.S_IMODE(now.st_mode),
        uid=now.st_uid,
        gid=now.st_gid,
        size=now.st_size if kind == tar.REGULAR else 0,
        mtime=now.st_mtime_ns // 1_000_000_000 * 1_000_000_000,
        major=os.major(device),
        minor=os.minor(device),
        xattrs=xattrs,
    )


def _xattrs(fd: int) -> dict[bytes, bytes]:
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise
    kept = [os.fsencode(name) for name in names if trees.keeps_xattr(os.fsencode(name))]
    return {name: os.getxattr(fd, name) for name in kept}


def _dress(fd: int, like: os.stat_result, xattrs: dict[bytes, bytes]) -> None:
    """Owner before mode and capabilities: chown(2) clears setuid and security.capability."""
    give(fd, *of_host(like))
    os.fchmod(fd, stat.S_IMODE(like.st_mode))
    for name, value in xattrs.items():
        os.setxattr(fd, name, value)
    whole = like.st_mtime_ns // 1_000_000_000 * 1_000_000_000
    os.utime(fd, ns=(whole, whole))


def _reflink(source: int, target: int, size: int) -> bool:
    """Share or copy the data inside the kernel; the offsets of both descriptors stay as they are."""
    done = 0
    try:
        while done < size:
            count = os.copy_file_range(source, target, size - done, done, done)
            if count == 0:
                break
            done += count
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    return done == size
