"""Two unpacked layers, path by path: kind, mode, owner, size, time, content, links and attributes."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

_PIECE = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def difference(wanted: Path, found: Path, *, undated: Collection[str] = ()) -> str:
    """What is first seen to be otherwise in `found`, in words, times last; "" when nothing is.

    The times of directories in `undated` (paths, "" for the top) do not count. No link is followed.
    """
    tops = os.open(wanted, _DIRECTORY), os.open(found, _DIRECTORY)
    try:
        return next(_Pair(*tops, frozenset(undated)).differences(), "")
    finally:
        for fd in tops:
            os.close(fd)


class _Pair:
    """Both trees by the descriptors of their tops: a path may be as long as the kernel takes one."""

    def __init__(self, wanted: int, found: int, undated: frozenset[str]) -> None:
        self._wanted = wanted
        self._found = found
        self._undated = undated
        self._groups: dict[int, int] = {}
        """Inode of a file with several names -> that of the file it should be."""

    def differences(self) -> Iterator[str]:
        waiting = [""]
        late: list[str] = []
        yield from self._entry("", late)
        while waiting:
            directory = waiting.pop()
            names, others = _names(self._wanted, directory), _names(self._found, directory)
            for name in sorted(names ^ others):
                yield f"{_join(directory, name)} is {'gone' if name in names else 'not of this layer'}"
            for name in sorted(names & others):
                path = _join(directory, name)
                yield from self._entry(path, late)
                if _is_directory(self._wanted, path) and _is_directory(self._found, path):
                    waiting.append(path)
        # What was changed in a directory changes its time.
        yield from (f"{path or '/'} has another time" for path in late)

    def _entry(self, path: str, late: list[str]) -> Iterator[str]:
        shown = path or "/"
        wanted, found = _status(self._wanted, path), _status(self._found, path)
        if stat.S_IFMT(wanted.st_mode) != stat.S_IFMT(found.st_mode):
            yield f"{shown} is of another kind"
            return
        if not stat.S_ISLNK(wanted.st_mode) and wanted.st_mode != found.st_mode:
            modes = stat.S_IMODE(found.st_mode), stat.S_IMODE(wanted.st_mode)
            yield f"{shown} has the mode {modes[0]:04o}, not {modes[1]:04o}"
        owners = (found.st_uid, found.st_gid), (wanted.st_uid, wanted.st_gid)
        if owners[0] != owners[1]:
            yield f"{shown} belongs to {owners[0][0]}:{owners[0][1]}, not {owners[1][0]}:{owners[1][1]}"
        yield from self._content(path, wanted, found)
        if wanted.st_mtime_ns != found.st_mtime_ns and path not in self._undated and _has_time(wanted):
            late.append(path)

    def _content(self, path: str, wanted: os.stat_result, found: os.stat_result) -> Iterator[str]:
        mode = wanted.st_mode
        if stat.S_ISLNK(mode):
            if os.readlink(path, dir_fd=self._wanted) != os.readlink(path, dir_fd=self._found):
                yield f"{path} points elsewhere"
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            if wanted.st_rdev != found.st_rdev:
                yield f"{path} is another device"
        elif stat.S_ISREG(mode):
            if wanted.st_size != found.st_size:
                yield f"{path} has {found.st_size} bytes, not {wanted.st_size}"
            elif wanted.st_nlink != found.st_nlink or not self._linked(wanted, found):
                yield f"{path} is linked otherwise"
            else:
                yield from self._opened(path, _FILE, contents=True)
        elif stat.S_ISDIR(mode):
            yield from self._opened(path, _DIRECTORY, contents=False)

    def _linked(self, wanted: os.stat_result, found: os.stat_result) -> bool:
        """Names of one file here are names of one file there."""
        if wanted.st_nlink == 1:
            return True
        return self._groups.setdefault(found.st_ino, wanted.st_ino) == wanted.st_ino

    def _opened(self, path: str, flags: int, *, contents: bool) -> Iterator[str]:
        with _opened(self._wanted, path, flags) as one, _opened(self._found, path, flags) as other:
            if _xattrs(one) != _xattrs(other):
                yield f"{path or '/'} has other attributes"
            if contents and not _same_bytes(one, other):
                yield f"{path} has other content"


@contextlib.contextmanager
def _opened(top: int, path: str, flags: int) -> Iterator[int]:
    fd = os.open(path or ".", flags, dir_fd=top)
    try:
        yield fd
    finally:
        os.close(fd)


def _names(top: int, directory: str) -> set[str]:
    with _opened(top, directory, _DIRECTORY) as fd:
        return set(os.listdir(fd))


def _status(top: int, path: str) -> os.stat_result:
    return os.stat(path or ".", dir_fd=top, follow_symlinks=False)


def _is_directory(top: int, path: str) -> bool:
    return stat.S_ISDIR(_status(top, path).st_mode)


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _has_time(status: os.stat_result) -> bool:
    """A whiteout gets its time when it is made."""
    return not (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0)


def _xattrs(fd: int) -> dict[str, bytes]:
    return {name: os.getxattr(fd, name) for name in os.listxattr(fd)}


def _same_bytes(one: int, other: int) -> bool:
    while True:
        piece = os.read(one, _PIECE)
        if piece != os.read(other, len(piece) or 1):
            return False
        if not piece:
            return True
