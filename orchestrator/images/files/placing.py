"""A tar stream -> files below a directory, and nowhere else.

The stream and the directory may both be hostile: names with ".." are refused, directories on the way are
resolved by the kernel below the starting point (openat2(2)), every file is made anew (O_EXCL) and changed
through the descriptor that made it. A file, link or node in the way is replaced; a directory never is, and
never becomes a file.

Standard library only: the worker inside a container uses this.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from orchestrator.images.files.packing import FilesError, is_made_up
from orchestrator.images.layers import tar
from orchestrator.images.layers.tar import Member
from orchestrator.images.trees import keeps_xattr, write
from orchestrator.kernel import syscalls
from orchestrator.kernel.owner import give

_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCKDEV: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}


_DIRECTORY = os.O_PATH | os.O_DIRECTORY


class Placer:
    """Files on their way to one directory, `ground` (a descriptor).

    `owner`: give each file the owner that the archive names. `guarded`: the archive is a container's and
    the ground the host's: without `owner` no set-id bit and no file capability comes along, devices can be
    opened by their owner alone, and no link that is there already is followed. `whole`: the ground is a
    container's root, in which absolute links mean something.
    """

    def __init__(
        self,
        source: tar.Source,
        ground: int,
        descriptors: int,
        *,
        owner: bool,
        guarded: bool,
        whole: bool = False,
    ) -> None:
        self._source = source
        self._ground = ground
        self._descriptors = descriptors
        self._owner = owner
        self._guarded = guarded
        confined = syscalls.RESOLVE_IN_ROOT if whole else syscalls.RESOLVE_BENEATH
        self._resolve = confined | (syscalls.RESOLVE_NO_SYMLINKS if guarded else 0)
        self._parent: tuple[bytes, int] = (b"", os.dup(ground))
        self._folders: list[tuple[bytes, Member]] = []
        """Directories get their modes and times in the end: filling them changes those, or needs others."""
        self.entries = 0
        self.warnings: list[str] = []

    def place(self) -> None:
        """Everything in the stream. Raises FilesError, tar.TarError, OSError."""
        try:
            for member in tar.members(self._source):
                path = tar.relative(member.name)
                self.entries += 1
                try:
                    self._place(member, path)
                except OSError as error:
                    raise FilesError(f"{os.fsdecode(path) or '.'}: {error.strerror}", error.errno) from error
        finally:
            self._dress_folders()
            os.close(self._parent[1])

    def _place(self, member: Member, path: bytes) -> None:
        if not path:
            if member.kind != tar.DIRECTORY:
                raise FilesError("the archive has something without a name")
            return  # the ground itself stays as it is
        above, _, name = path.rpartition(b"/")
        parent = self._above(above)
        there = _look(parent, name)
        if member.kind == tar.DIRECTORY:
            self._folder(member, path, parent, name, there)
            return
        if there is not None and stat.S_ISDIR(there.st_mode):
            raise FilesError(f'cannot overwrite directory "{os.fsdecode(path)}" with non-directory')
        if there is not None and not self._clear(member, path, parent, name):
            return
        _MAKERS[member.kind](self, member, path, parent, name)

    def _above(self, path: bytes) -> int:
        """The directory that something goes into, made with those above it when it is missing."""
        if self._parent[0] == path:
            return self._parent[1]
        fd = self._reach(path) if path else os.dup(self._ground)
        if is_made_up(fd):
            os.close(fd)
            raise FilesError(f"{os.fsdecode(path)}: nothing can be put there, it is made up by the kernel")
        os.close(self._parent[1])
        self._parent = (path, fd)
        return fd

    def _reach(self, path: bytes) -> int:
        """A directory, which is made if it is not there, and those above it. No recursion: an archive may
        name one that is a thousand deep."""
        there, missing = path, []
        while (fd := self._open_directory(there)) < 0:
            above, _, _ = there.rpartition(b"/")
            missing.append(there)
            there = above
        for below in reversed(missing):
            try:
                os.mkdir(below.rpartition(b"/")[2], 0o755, dir_fd=fd)
            except FileExistsError:
                pass
            finally:
                os.close(fd)
            # From the ground again: what was made may be another thing by now.
            fd = syscalls.openat2(self._ground, below, _DIRECTORY, resolve=self._resolve)
        return fd

    def _open_directory(self, path: bytes) -> int:
        """-1 when there is none. Raises FilesError for a link that leads elsewhere."""
        if not path:
            return os.dup(self._ground)
        try:
            return syscalls.openat2(self._ground, path, _DIRECTORY, resolve=self._resolve)
        except FileNotFoundError:
            return -1
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EXDEV):
                raise FilesError(
                    f"{os.fsdecode(path)}: a link there leads elsewhere; it is not followed"
                ) from error
            raise

    def _clear(self, member: Member, path: bytes, parent: int, name: bytes) -> bool:
        """Whether what is in the way has gone; a file that something is mounted on is written to instead."""
        try:
            os.unlink(name, dir_fd=parent)
        except OSError as error:
            if error.errno != errno.EBUSY or member.kind != tar.REGULAR:
                raise
            self._overwrite(member, path, parent, name)
            return False
        return True

    # --- kinds -----------------------------------------------------------------------------------

    def _folder(
        self, member: Member, path: bytes, parent: int, name: bytes, there: os.stat_result | None
    ) -> None:
        if there is None:
            os.mkdir(name, 0o700, dir_fd=parent)
        elif not stat.S_ISDIR(there.st_mode):
            raise FilesError(f'cannot overwrite non-directory "{os.fsdecode(path)}" with directory')
        self._folders.append((path, member))

    def _regular(self, member: Member, _path: bytes, parent: int, name: bytes) -> None:
        fd = os.open(name, _FILE, 0o600, dir_fd=parent)
        try:
            self._content(fd, member)
            self._dress(fd, member)
        finally:
            os.close(fd)

    def _overwrite(self, member: Member, path: bytes, parent: int, name: bytes) -> None:
        handle = os.open(name, _LOOK, dir_fd=parent)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode) or is_made_up(handle):
                raise FilesError(f"{os.fsdecode(path)}: something is mounted there")
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_TRUNC | os.O_CLOEXEC
            fd = os.open(str(handle), flags, dir_fd=self._descriptors)
            try:
                self._content(fd, member)
            finally:
                os.close(fd)
        finally:
            os.close(handle)

    def _content(self, fd: int, member: Member) -> None:
        if member.pieces is None:
            for chunk in self._source.chunks(member.size):
                write(fd, chunk)
        else:
            for offset, size in member.pieces:
                os.lseek(fd, offset, os.SEEK_SET)
                for chunk in self._source.chunks(size):
                    write(fd, chunk)
        os.ftruncate(fd, member.length)

    def _hardlink(self, member: Member, path: bytes, parent: int, name: bytes) -> None:
        above, _, base = tar.relative(member.link).rpartition(b"/")
        if not base:
            raise FilesError(f"{os.fsdecode(path)} is a hard link to nothing")
        flags = os.O_PATH | os.O_DIRECTORY
        origin = syscalls.openat2(self._ground, above or b".", flags, resolve=self._resolve)
        try:
            os.link(base, name, src_dir_fd=origin, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(origin)

    def _symlink(self, member: Member, path: bytes, parent: int, name: bytes) -> None:
        if not member.link or b"\0" in member.link:
            raise FilesError(f"{os.fsdecode(path)} is a symbolic link to nothing")
        os.symlink(member.link, name, dir_fd=parent)
        self._dress_what_is_not_open(member, parent, name, stat.S_IFLNK, 0)

    def _node(self, member: Member, path: bytes, parent: int, name: bytes) -> None:
        kind, device, mode = _NODES[member.kind], 0, member.mode
        if kind != stat.S_IFIFO:
            if member.major >= 1 << 12 or member.minor >= 1 << 20:
                raise FilesError(f"{os.fsdecode(path)} has an impossible device number")
            device = os.makedev(member.major, member.minor)
            mode = mode & 0o600 if self._guarded and not self._owner else mode
        before = os.umask(0)  # made with its mode: by its name it could be another in a moment
        try:
            os.mknod(name, kind | mode, device, dir_fd=parent)
        except PermissionError:
            if kind == stat.S_IFIFO:
                raise
            self.warnings.append(f"{os.fsdecode(path)}: left out, for only root can make device nodes")
            return
        finally:
            os.umask(before)
        self._dress_what_is_not_open(member, parent, name, kind, device)

    def _dress_what_is_not_open(
        self, member: Member, parent: int, name: bytes, kind: int, device: int
    ) -> None:
        """By the number of a descriptor, which leads to what is behind it, be it a link: proc_pid_fd(5)."""
        handle = os.open(name, _LOOK, dir_fd=parent)
        try:
            made = os.fstat(handle)
            if stat.S_IFMT(made.st_mode) == kind and made.st_rdev == device:
                number = str(handle)
                if self._owner:
                    give(number, *tar.owner(member), dir_fd=self._descriptors)
                os.utime(number, ns=(member.mtime, member.mtime), dir_fd=self._descriptors)
        finally:
            os.close(handle)

    # --- attributes ------------------------------------------------------------------------------

    def _dress(self, fd: int, member: Member) -> None:
        """Owner first: chown(2) takes set-id bits and file capabilities away."""
        if self._owner:
            give(fd, *tar.owner(member))
        bare = self._guarded and not self._owner
        os.fchmod(fd, member.mode & 0o1777 if bare and member.kind == tar.REGULAR else member.mode)
        for name, value in member.xattrs.items():
            if keeps_xattr(name) and not (bare and name == b"security.capability"):
                try:
                    os.setxattr(fd, name, value)
                except OSError as error:
                    if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                        raise
        os.utime(fd, ns=(member.mtime, member.mtime))

    def _dress_folders(self) -> None:
        """The deepest first: the mode of one may keep us out of those below it."""
        for path, member in reversed(self._folders):
            try:
                fd = syscalls.openat2(self._ground, path, _FOLDER, resolve=self._resolve)
            except OSError:
                continue  # somebody has taken it away
            try:
                self._dress(fd, member)
            finally:
                os.close(fd)
        self._folders.clear()


_MAKERS: dict[bytes, Callable[[Placer, Member, bytes, int, bytes], None]] = {
    tar.REGULAR: Placer._regular,
    tar.HARDLINK: Placer._hardlink,
    tar.SYMLINK: Placer._symlink,
    tar.CHARACTER: Placer._node,
    tar.BLOCKDEV: Placer._node,
    tar.FIFO: Placer._node,
}


def _look(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
