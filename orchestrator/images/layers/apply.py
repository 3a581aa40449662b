"""A layer's archive -> files below the current root directory, which chroot(2) has made the target.

There the kernel resolves every path and every link below the target, whatever the archive says.

Semantics: OCI image specification, layer.md; whiteouts become overlayfs' own (Linux, Documentation/
filesystems/overlayfs.rst). Standard library only: the unpacking worker imports this.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from orchestrator.images.layers import tar
from orchestrator.images.layers.tar import Member, TarError
from orchestrator.images.trees import discard, keeps_xattr, opaque, write
from orchestrator.kernel.owner import give

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_RESERVED = b".wh..wh."
_KEPT_LIMIT = 64 << 20
"""Bytes for names that are kept in memory: of directories, whose times are set in the end, of whiteouts, and
of what other layers must complete."""
_KEPT_EACH = 120


class Layer:
    """One layer being unpacked into the current root directory. Paths are relative and without dots."""

    def __init__(
        self, source: tar.Source, *, max_bytes: int, max_entries: int, parent: int, rootless: bool = False
    ) -> None:
        self._rootless = rootless
        self._source = source
        self._parent = parent
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._present: set[bytes] = {b""}
        """Directories, or links to some, that are known to be there."""
        self._times: dict[bytes, int] = {}
        self._whiteouts: set[bytes] = set()
        self._opaque: set[bytes] = set()
        self.implied: set[bytes] = {b""}
        """Directories that the archive uses and does not list."""
        self.links: list[tuple[bytes, bytes]] = []
        """Hard links to what only a lower layer can have: (path, target)."""
        self.entries = 0
        self.size = 0
        self._kept = 0
        self.entry = b""
        """The name that is being dealt with, as it stands in the archive."""
        self.between = False
        """It has been dealt with; the next one is being read."""

    def unpack(self) -> None:
        """Everything of the archive. Raises TarError and OSError."""
        for member in tar.members(self._source):
            self.entries += 1
            if self.entries > self._max_entries:
                raise TarError(f"more than {self._max_entries} entries")
            if os.getppid() != self._parent:
                raise TarError("nobody waits for this layer any more")
            self.entry, self.between = member.name, False
            self._member(member, tar.relative(member.name))
            self.between = True
        self.entry = b""
        self._finish()

    def _member(self, member: Member, path: bytes) -> None:
        parent, _, base = path.rpartition(b"/")
        if base.startswith(_WHITEOUT):
            self._mark(parent, base)
            self._source.skip(member.size)
            return
        self._parents(parent)
        if member.kind == tar.DIRECTORY:
            self._directory(member, path)
        elif not path:
            raise TarError("the root is not a directory")
        else:
            _MAKERS[member.kind](self, member, path)

    def _mark(self, parent: bytes, base: bytes) -> None:
        """Whiteouts are carried out at the end: they mean lower layers only, wherever they stand."""
        if base == _OPAQUE:
            self._opaque.add(parent)
            self._keep(parent)
        elif not base.startswith(_RESERVED):
            name = base[len(_WHITEOUT) :]
            if name in (b"", b".", b".."):
                raise TarError(f"impossible whiteout {base!r}")
            self._whiteouts.add(parent + b"/" + name if parent else name)
            self._keep(parent + name)
        else:
            # Bookkeeping of aufs, which means nothing to others.
            return
        self._parents(parent)

    def _keep(self, path: bytes) -> None:
        self._kept += len(path) + _KEPT_EACH
        if self._kept > _KEPT_LIMIT:
            raise TarError("too many directories, whiteouts and far links")

    def _parents(self, path: bytes) -> None:
        """Make the directories that the archive left out, and remember which."""
        missing: list[bytes] = []
        while path not in self._present:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        for one in reversed(missing):
            try:
                os.mkdir(one, 0o755)
                self.implied.add(one)
                self._keep(one)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(one).st_mode):
                    raise TarError(f"{one!r:.200} is not a directory, but has something in it") from None
            self._present.add(one)

    def _clear(self, path: bytes) -> None:
        """Whatever is there goes: the later entry wins."""
        self._present = {b""}
        self._times.pop(path, None)
        self.implied.discard(path)
        discard(os.fsdecode(path))

    def _make(self, path: bytes, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self._clear(path)
            make()

    # --- kinds -----------------------------------------------------------------------------------

    def _directory(self, member: Member, path: bytes) -> None:
        here = path or b"/"
        try:
            os.mkdir(here, 0o700)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(here).st_mode):
                _undress(here)
            else:
                self._clear(path)
                os.mkdir(here, 0o700)
        self._present.add(path)
        self.implied.discard(path)
        give(here, *tar.owner(member), follow_symlinks=False)
        os.chmod(here, member.mode)
        self._xattrs(here, member)
        self._times[path] = member.mtime
        self._keep(path)

    def _regular(self, member: Member, path: bytes) -> None:
        self.size += member.length
        if self.size > self._max_bytes:
            raise TarError(f"more than {self._max_bytes} bytes of files")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o600)
        except FileExistsError:
            self._clear(path)
            fd = os.open(path, flags, 0o600)
        try:
            self._content(fd, member)
            give(fd, *tar.owner(member))
            os.fchmod(fd, member.mode)
            self._xattrs(fd, member)
            os.utime(fd, ns=(member.mtime, member.mtime))
        finally:
            os.close(fd)

    def _content(self, fd: int, member: Member) -> None:
        if member.pieces is None:
            for chunk in self._source.chunks(member.size):
                write(fd, chunk)
            if member.size >= 1 << 16:
                os.ftruncate(fd, member.length)
            return
        for offset, size in member.pieces:
            os.lseek(fd, offset, os.SEEK_SET)
            for chunk in self._source.chunks(size):
                write(fd, chunk)
        os.ftruncate(fd, member.length)

    def _hardlink(self, member: Member, path: bytes) -> None:
        target = tar.relative(member.link)
        if target == path:
            return
        try:
            found = os.lstat(target)
        except (FileNotFoundError, NotADirectoryError):
            self.links.append((path, target))
            self._keep(path + target)
            return
        if stat.S_ISDIR(found.st_mode):
            raise TarError(f"{path!r:.200} is a hard link to a directory")
        self._make(path, lambda: os.link(target, path, follow_symlinks=False))

    def _symlink(self, member: Member, path: bytes) -> None:
        if not member.link or b"\0" in member.link:
            raise TarError(f"{path!r:.200} is a symbolic link to nothing")
        self._make(path, lambda: os.symlink(member.link, path))
        give(path, *tar.owner(member), follow_symlinks=False)
        os.utime(path, ns=(member.mtime, member.mtime), follow_symlinks=False)

    def _node(self, member: Member, path: bytes) -> None:
        kind = _NODES[member.kind]
        device = 0
        if member.kind != tar.FIFO:
            if member.major >= 1 << 12 or member.minor >= 1 << 20:
                raise TarError(f"{path!r:.200} has an impossible device number")
            device = os.makedev(member.major, member.minor)
        if kind == stat.S_IFCHR and device == 0:
            raise TarError(f"{path!r:.200} is a device 0/0, which overlayfs takes for a deleted file")
        if self._rootless and kind != stat.S_IFIFO:
            return  # only the machine's root makes devices; /dev is mounted over anyway
        self._make(path, lambda: os.mknod(path, kind | member.mode, device))
        give(path, *tar.owner(member), follow_symlinks=False)
        os.chmod(path, member.mode)
        os.utime(path, ns=(member.mtime, member.mtime), follow_symlinks=False)

    def _xattrs(self, where: int | bytes, member: Member) -> None:
        """After the owner: chown(2) takes file capabilities away."""
        for name, value in member.xattrs.items():
            if not keeps_xattr(name):
                continue
            try:
                os.setxattr(where, name, value)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise

    # --- the end ---------------------------------------------------------------------------------

    def _finish(self) -> None:
        for path in sorted(self._whiteouts):
            self._parents(path.rpartition(b"/")[0])
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                os.mknod(path, stat.S_IFCHR, 0)
                continue
            if stat.S_ISDIR(found.st_mode):
                self._opaque.add(path)
        for path in self._opaque:
            self._parents(path)
            os.setxattr(path or b"/", opaque(rootless=self._rootless), b"y")
        self.implied = {path for path in self.implied if _is_directory(path or b"/")}
        for path, mtime in self._times.items():
            if _is_directory(path or b"/"):
                os.utime(path or b"/", ns=(mtime, mtime))

    @property
    def opaque_root(self) -> bool:
        """Nothing of the layers below is to be seen."""
        return b"" in self._opaque


_NODES = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCKDEV: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}
_MAKERS: dict[bytes, Callable[[Layer, Member, bytes], None]] = {
    tar.REGULAR: Layer._regular,
    tar.HARDLINK: Layer._hardlink,
    tar.SYMLINK: Layer._symlink,
    tar.CHARACTER: Layer._node,
    tar.BLOCKDEV: Layer._node,
    tar.FIFO: Layer._node,
}


def _undress(directory: bytes) -> None:
    """Drop the attributes of an earlier entry: the later one says all."""
    for name in os.listxattr(directory):
        if keeps_xattr(os.fsencode(name)):
            os.removexattr(directory, name)


def _is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
