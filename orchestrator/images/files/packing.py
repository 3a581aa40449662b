"""A tree of files -> a tar stream. The tree may be changed by somebody hostile while it is read.

Every name is taken once, as a descriptor that opens nothing (O_PATH, not following links); what is behind it
is looked at, and only a regular file or a directory is then opened, through that descriptor. So no link
leads anywhere, and no FIFO or device is ever opened, however quickly names are exchanged.

Standard library only: the worker inside a container uses this.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from orchestrator.images.layers import tar
from orchestrator.images.layers.tar import Member
from orchestrator.images.trees import keeps_xattr
from orchestrator.kernel import syscalls

CHUNK = 1 << 20
PATH_LIMIT = 4095
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ZEROS = bytes(CHUNK)
# include/uapi/linux/magic.h: what the kernel makes up as it is read, or obeys when it is written.
_MADE_UP = frozenset(
    (
        0x9FA0,  # proc
        0x62656572,  # sysfs
        0x27E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x1CD1,  # devpts
        0x19800202,  # mqueue
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0xCAFE4A11,  # bpf
        0x62656570,  # configfs
        0x6165676C,  # pstore
        0xDE5E81E4,  # efivarfs
        0x65735543,  # fusectl
        0x42494E4D,  # binfmt_misc
        0x6E736673,  # nsfs
        0x50494446,  # pidfs
        0xF97CFF8C,  # selinuxfs
        0x67596969,  # rpc_pipefs
        0x187,  # autofs
    )
)


class FilesError(Exception):
    """What can't be copied, in words for the user; with the system's number where there is one."""

    def __init__(self, said: str, number: int | None = 0) -> None:
        super().__init__(said)
        self.number = number or 0


def is_made_up(fd: int) -> bool:
    """Whether a descriptor is on a filesystem that has no files of its own: /proc, /sys and the like."""
    return syscalls.filesystem_type(fd) in _MADE_UP


class Packer:
    """One archive being written. `owner`: of everything in it, None for what the files have."""

    def __init__(
        self,
        put: Callable[[bytes], object],
        descriptors: int,
        *,
        owner: tuple[int, int] | None = None,
        leave_out: frozenset[bytes] = frozenset(),
        whiteouts: bool = False,
    ) -> None:
        self._put = put
        self._descriptors = descriptors
        self._owner = owner
        self._leave_out = leave_out
        self._whiteouts = whiteouts
        """The tree is the upper directory of an overlay, the archive a layer (OCI image-spec, layer.md)."""
        self._links: dict[tuple[int, int], bytes] = {}
        self.entries = 0
        self.warnings: list[str] = []

    def pack(self, handle: int, top: bytes) -> None:
        """What is behind an O_PATH descriptor, with all below it, under the name `top`: "." for its content,
        "" for its content without a word about itself. Raises FilesError, OSError."""
        found = os.fstat(handle)
        if is_made_up(handle):
            raise FilesError("it is made up by the kernel, not a file: read it with `pystack exec`")
        if not stat.S_ISDIR(found.st_mode):
            self._entry(handle, found, top)
            return
        stack = [self._open(handle, found, top)]
        try:
            while stack:
                level = stack[-1]
                if not level.names:
                    os.close(stack.pop().fd)
                    continue
                below = self._child(level, level.names.pop())
                if below is not None:
                    stack.append(below)
        finally:
            for level in stack:
                os.close(level.fd)

    def finish(self) -> None:
        """The end marker."""
        self._put(bytes(2 * tar.BLOCK))

    def _open(self, handle: int, found: os.stat_result, path: bytes) -> _Level:
        """Begin a directory: its header, and the names in it."""
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=handle)
        try:
            if path:
                self._header(self._member(path + b"/", found, _xattrs(fd)))
            if self._whiteouts and is_opaque(fd):
                self._header(Member(name=_below(path, b".wh..wh..opq"), mode=0o644))
            names = [] if is_made_up(handle) else sorted(map(os.fsencode, os.listdir(fd)), reverse=True)
            return _Level(fd, path, found.st_dev, names)
        except BaseException:
            os.close(fd)
            raise

    def _child(self, level: _Level, name: bytes) -> _Level | None:
        path = _below(level.path, name)
        if path in self._leave_out:
            return None
        if len(path) > PATH_LIMIT:
            raise FilesError(f"{os.fsdecode(path[:80])}...: the path is too long for an archive")
        try:
            handle = os.open(name, _LOOK, dir_fd=level.fd)
        except FileNotFoundError:
            return None  # it was there a moment ago
        try:
            found = os.fstat(handle)
            if found.st_dev != level.device and not stat.S_ISDIR(found.st_mode) and is_made_up(handle):
                return None
            if stat.S_ISDIR(found.st_mode):
                return self._open(handle, found, path)
            if self._whiteouts and stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
                self._header(Member(name=_below(level.path, b".wh." + name), mode=0o644))
            else:
                self._entry(handle, found, path)
        except OSError as error:
            raise FilesError(f"{os.fsdecode(path)}: {error.strerror}", error.errno) from error
        finally:
            os.close(handle)
        return None

    def _entry(self, handle: int, found: os.stat_result, path: bytes) -> None:
        kind = stat.S_IFMT(found.st_mode)
        if kind not in tar.KINDS:
            return  # a socket is nothing without its server
        key = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and key in self._links:
            member = self._member(path, found, {})
            member.kind, member.link, member.size = tar.HARDLINK, self._links[key], 0
            self._header(member)
            return
        if kind == stat.S_IFREG:
            self._regular(handle, found, path)
        else:
            member = self._member(path, found, {})
            if kind == stat.S_IFLNK:
                member.link = os.fsencode(os.readlink("", dir_fd=handle))
            self._header(member)
        if found.st_nlink > 1:
            self._links[key] = path

    def _regular(self, handle: int, found: os.stat_result, path: bytes) -> None:
        # O_NONBLOCK: somebody may hold a lease on it, and we would wait for them (fcntl(2)).
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(str(handle), flags, dir_fd=self._descriptors)
        try:
            self._header(self._member(path, found, _xattrs(fd)))
            left = found.st_size
            while left:
                chunk = os.read(fd, min(left, CHUNK))
                if not chunk:
                    self.warnings.append(f"{os.fsdecode(path)} became shorter while it was copied")
                    break
                left -= len(chunk)
                self._put(chunk)
            while left:
                self._put(_ZEROS[: min(left, CHUNK)])
                left -= min(left, CHUNK)
        finally:
            os.close(fd)
        if padding := -found.st_size % tar.BLOCK:
            self._put(bytes(padding))

    def _member(self, path: bytes, found: os.stat_result, xattrs: dict[bytes, bytes]) -> Member:
        kind = tar.KINDS[stat.S_IFMT(found.st_mode)]
        device = found.st_rdev if kind in (tar.CHARACTER, tar.BLOCKDEV) else 0
        uid, gid = self._owner or (found.st_uid, found.st_gid)
        return Member(
            name=path,
            kind=kind,
            mode=stat.S_IMODE(found.st_mode),
            uid=uid,
            gid=gid,
            size=found.st_size if kind == tar.REGULAR else 0,
            # Whole seconds, as in Docker's archives: a fraction takes a kilobyte of pax records.
            mtime=found.st_mtime_ns // 1_000_000_000 * 1_000_000_000,
            major=os.major(device),
            minor=os.minor(device),
            xattrs=xattrs,
        )

    def _header(self, member: Member) -> None:
        self.entries += 1
        self._put(tar.header(member))


class _Level:
    """A directory that is being packed; `names` are those left, the next one last."""

    __slots__ = ("device", "fd", "names", "path")

    def __init__(self, fd: int, path: bytes, device: int, names: list[bytes]) -> None:
        self.fd, self.path, self.device, self.names = fd, path, device, names


def _below(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def is_opaque(fd: int) -> bool:
    """Whether a directory of an overlay hides what the layers below have in it (overlayfs.rst)."""
    for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
        try:
            if os.getxattr(fd, name) == b"y":
                return True
        except OSError:
            continue
    return False


def _xattrs(fd: int) -> dict[bytes, bytes]:
    try:
        kept = [name for name in map(os.fsencode, os.listxattr(fd)) if keeps_xattr(name)]
        return {name: os.getxattr(fd, name) for name in kept}
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENODATA):
            return {}
        raise
