"""First use of a volume: it gets a copy of what the image has at that place.

A small state file beside the volume says how far that went, so that a copy cut short by SIGKILL is thrown
away and begun again, and a volume that somebody emptied later is not filled a second time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from orchestrator.kernel import owner
from orchestrator.kernel.reading import RefusedError

# Directories open at the same time: two descriptors a level.
_DEPTH_LIMIT = 256
_CHUNK = 1 << 30
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def fill(source: int, data: str, state: str) -> None:
    """Bring the volume at `data` to "done": copy `source`, an open directory (-1: nothing there), if due.

    Holds a lock on `state`, so containers that start together with one volume wait for the first.
    """
    try:
        book = os.open(state, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(book, fcntl.LOCK_EX)
        said = os.pread(book, 16, 0).strip()
        if said not in (b"pending", b"copying"):
            return
        volume = os.open(data, _DIRECTORY)
        try:
            if said == b"copying":
                wipe(volume)
            if source >= 0 and not os.listdir(volume):
                _write(book, b"copying")
                copy_tree(source, volume)
                os.fsync(volume)
        finally:
            os.close(volume)
        _write(book, b"done")
    finally:
        os.close(book)


def _write(book: int, word: bytes) -> None:
    """In place, for a rename would leave the lock on the old file. A torn "donepending" still reads as no
    known word, hence as done; "pending" and "copying" have the same length."""
    os.pwrite(book, word, 0)
    os.ftruncate(book, len(word))
    os.fsync(book)


def wipe(directory: int) -> None:
    """Remove everything in an open directory, following no link and crossing no mount."""
    device = os.fstat(directory).st_dev
    stack = [(os.dup(directory), "")]
    while stack:
        fd, name = stack[-1]
        inner = _remove_files(fd, device)
        if inner:
            if len(stack) > _DEPTH_LIMIT:
                raise OSError(errno.ELOOP, "directories nested too deeply")
            stack.append((os.open(inner, _DIRECTORY, dir_fd=fd), inner))
            continue
        stack.pop()
        os.close(fd)
        if stack:
            os.rmdir(name, dir_fd=stack[-1][0])


def _remove_files(fd: int, device: int) -> str:
    """Remove what isn't a directory; return the name of one that is, "" when there is none left."""
    with os.scandir(fd) as entries:
        for entry in list(entries):
            found = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
            if found.st_dev != device:
                raise RefusedError(f"{entry.name}: a mount inside a volume that is to be emptied")
            if stat.S_ISDIR(found.st_mode):
                return entry.name
            os.unlink(entry.name, dir_fd=fd)
    return ""


def copy_tree(source: int, target: int) -> None:
    """Copy an open directory's tree into another: owners, modes, times, extended attributes, hard links.

    Only descriptors and single names are used, so a link in either tree leads nowhere.
    """
    seen: dict[tuple[int, int], str] = {}
    stack = [_Level(os.dup(source), os.dup(target), "")]
    while stack:
        level = stack[-1]
        if not level.names:
            stack.pop()
            # Last, because filling a directory changes its times.
            _dress_directory(level)
            level.close()
            continue
        name = level.names.pop()
        found = os.stat(name, dir_fd=level.source, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            if len(stack) > _DEPTH_LIMIT:
                raise OSError(errno.ELOOP, f"{level.path}/{name}: directories nested too deeply")
            os.mkdir(name, 0o700, dir_fd=level.target)
            below = os.open(name, _DIRECTORY, dir_fd=level.target)
            stack.append(
                _Level(os.open(name, _DIRECTORY, dir_fd=level.source), below, f"{level.path}{name}/")
            )
            continue
        key = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and key in seen:
            os.link(seen[key], name, src_dir_fd=target, dst_dir_fd=level.target, follow_symlinks=False)
            continue
        _copy_entry(level, name, found)
        if found.st_nlink > 1:
            seen[key] = level.path + name


class _Level:
    """One directory of the copy under way; `path` is relative to the top, with a trailing slash."""

    __slots__ = ("names", "path", "source", "target")

    def __init__(self, source: int, target: int, path: str) -> None:
        self.source, self.target, self.path = source, target, path
        self.names = os.listdir(source)

    def close(self) -> None:
        os.close(self.source)
        os.close(self.target)


def _copy_entry(level: _Level, name: str, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode):
        _copy_file(level, name, found)
        return
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=level.source), name, dir_fd=level.target)
    elif stat.S_ISSOCK(found.st_mode):
        return
    else:
        os.mknod(name, stat.S_IFMT(found.st_mode) | 0o600, found.st_rdev, dir_fd=level.target)
    owner.give(name, found.st_uid, found.st_gid, dir_fd=level.target, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=level.target)
    times = (found.st_atime_ns, found.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=level.target, follow_symlinks=False)


def _copy_file(level: _Level, name: str, found: os.stat_result) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    source = os.open(name, flags, dir_fd=level.source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(name, flags, 0o600, dir_fd=level.target)
        try:
            if not stat.S_ISREG(os.fstat(source).st_mode):
                raise RefusedError(f"{level.path}{name}: changed while it was copied")
            _copy_bytes(source, target)
            _dress(source, target, found)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_bytes(source: int, target: int) -> None:
    while True:
        try:
            if not os.copy_file_range(source, target, _CHUNK):
                return
        except OSError as error:
            # Not between these two filesystems: EXDEV, EINVAL, EOPNOTSUPP (copy_file_range(2)).
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            break
    while os.sendfile(target, source, None, _CHUNK):
        pass


def _dress_directory(level: _Level) -> None:
    _dress(level.source, level.target, os.fstat(level.source))


def _dress(source: int, target: int, found: os.stat_result) -> None:
    """Owner first (it clears set-uid bits), then mode, extended attributes, times."""
    owner.give(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(source):
        # What overlayfs keeps for itself would mean something else in the copy.
        if not name.startswith(("trusted.overlay.", "user.overlay.")):
            _copy_attribute(source, target, name)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _copy_attribute(source: int, target: int, name: str) -> None:
    try:
        os.setxattr(target, name, os.getxattr(source, name))
    except OSError as error:
        # The volume's filesystem may know none (tmpfs, NFS).
        if error.errno not in (errno.EOPNOTSUPP, errno.ENODATA):
            raise
