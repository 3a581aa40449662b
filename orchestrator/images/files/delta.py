"""What a container has changed: its upper directory against the layers below it. Both are read as they lie on
the disk, without a mount, by descriptors alone: the container may go on changing them."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

from orchestrator.images.files.packing import FilesError, is_opaque

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH_LIMIT = 1000
"""Some descriptors are open for each level, and three calls."""


class Change(NamedTuple):
    """`kind`: A(dded), C(hanged), D(eleted); `path` from the root on, as bytes."""

    kind: str
    path: bytes


class Delta(NamedTuple):
    """All changes in order, and what the runtime made in the upper directory itself (relative paths)."""

    changes: tuple[Change, ...]
    made: frozenset[bytes]


def compare(upper: str, lowers: Iterable[str], targets: Collection[str] = (), prefix: bytes = b"") -> Delta:
    """`lowers`: topmost first. `targets`: where something was mounted, so that what is there in the upper
    directory is a mere mount point. Raises FilesError, OSError."""
    hidden = frozenset(os.fsencode(target.strip("/")) for target in targets)
    inner = (
        {path[len(prefix) + 1 :] for path in hidden if path.startswith(prefix + b"/")} if prefix else hidden
    )
    with ExitStack() as stack:
        if not os.path.isdir(upper):
            return Delta((), frozenset())  # it has never run
        top = _open(stack, upper)
        below = [_open(stack, lower) for lower in lowers]
        walk = _Walk(prefix, frozenset(inner))
        deep = sys.getrecursionlimit()
        sys.setrecursionlimit(max(deep, 4 * _DEPTH_LIMIT))
        stack.callback(sys.setrecursionlimit, deep)
        lines = walk.folder(top, below, b"", 0)
    return Delta(tuple(lines), frozenset(walk.made))


class _Walk:
    """One comparison."""

    def __init__(self, prefix: bytes, hidden: frozenset[bytes]) -> None:
        self._prefix = prefix
        self._hidden = hidden
        self.made: set[bytes] = set()

    def folder(self, upper: int, lowers: list[int], path: bytes, depth: int) -> list[Change]:
        """The changes in a directory. `lowers`: the directories below that it is merged with."""
        if depth > _DEPTH_LIMIT:
            raise FilesError(f"{os.fsdecode(path[:80])}...: directories nested too deep")
        changes: dict[bytes, list[Change]] = {}
        names = [os.fsencode(name) for name in os.listdir(upper)]
        for name in names:
            changes[name] = self._child(upper, lowers, name, _below(path, name), depth)
        return [change for name in sorted(changes) for change in changes[name]]

    def _child(self, upper: int, lowers: list[int], name: bytes, path: bytes, depth: int) -> list[Change]:
        try:
            found = os.stat(name, dir_fd=upper, follow_symlinks=False)
        except FileNotFoundError:
            return []
        before = _lookup(lowers, name)
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            return [self._change("D", path)] if before is not None else []
        if path in self._hidden and before is None:
            self.made.add(path)
            return []
        if not stat.S_ISDIR(found.st_mode):
            return [self._change("A" if before is None else "C", path)]
        return self._folder(upper, lowers, name, path, depth, found, before)

    def _folder(
        self,
        upper: int,
        lowers: list[int],
        name: bytes,
        path: bytes,
        depth: int,
        found: os.stat_result,
        before: os.stat_result | None,
    ) -> list[Change]:
        with ExitStack() as stack:
            try:
                fd = os.open(name, _FOLDER, dir_fd=upper)
            except OSError:
                return []  # it was a directory a moment ago
            stack.callback(os.close, fd)
            below = list(_merged(stack, lowers, name)) if before and stat.S_ISDIR(before.st_mode) else []
            gone: list[Change] = []
            if below and is_opaque(fd):
                kept = set(map(os.fsencode, os.listdir(fd)))
                gone = [self._change("D", _below(path, one)) for one in _names(below) if one not in kept]
            inside = self.folder(fd, below, path, depth + 1)
            inside = sorted(inside + gone, key=lambda change: change.path.split(b"/")) if gone else inside
            changed = before is None or _differs(found, before, self._runtimes_own(path))
        if before is None and not inside and self._runtimes_own(path):
            self.made.add(path)  # on the way to a mount point
            return []
        if not inside and not changed:
            self.made.add(path)
            return []
        return [self._change("A" if before is None else "C", path), *inside]

    def _runtimes_own(self, path: bytes) -> bool:
        """Whether the runtime has made something in there."""
        return any(one.startswith(path + b"/") for one in self.made)

    def _change(self, kind: str, path: bytes) -> Change:
        return Change(kind, b"/" + _below(self._prefix, path))


def _open(stack: ExitStack, path: str) -> int:
    fd = os.open(path, _FOLDER)
    stack.callback(os.close, fd)
    return fd


def _below(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def _lookup(lowers: Iterable[int], name: bytes) -> os.stat_result | None:
    """What the layers have under a name: the topmost that has it counts, and may have it deleted."""
    for fd in lowers:
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            continue
        return None if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0 else found
    return None


def _merged(stack: ExitStack, lowers: Iterable[int], name: bytes) -> Iterator[int]:
    """The directories of this name that are seen as one: down to the first that hides what is below."""
    for above in lowers:
        try:
            fd = os.open(name, _FOLDER, dir_fd=above)
        except FileNotFoundError:
            continue
        except OSError:
            return  # something else, or deleted
        stack.callback(os.close, fd)
        yield fd
        if is_opaque(fd):
            return


def _names(folders: Iterable[int]) -> list[bytes]:
    """What a merged directory shows."""
    folders = list(folders)
    every = {os.fsencode(name) for fd in folders for name in os.listdir(fd)}
    return sorted(name for name in every if _lookup(folders, name) is not None)


def _differs(found: os.stat_result, before: os.stat_result, made_there: bool) -> bool:
    """Of two directories. Its time tells of names that came or went; those of mount points mean nothing."""
    same = (found.st_mode, found.st_uid, found.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    return not same or (not made_there and found.st_mtime_ns != before.st_mtime_ns)
