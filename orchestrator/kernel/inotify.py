"""Directories and files that are watched: the kernel tells what became of them (inotify(7)).

Control groups are no exception: what somebody writes into a control file is announced as any write is, and
what the kernel itself changes in one (memory.events) too. A group that is removed is announced to watchers of
the directory above alone (measured, Linux 6.18).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from orchestrator.kernel.syscalls import failure

# linux/inotify.h
MODIFY = 0x2
ATTRIBUTES = 0x4
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
OVERFLOW = 0x4000
IGNORED = 0x8000
IS_DIRECTORY = 0x40000000
_ONLY_DIRECTORY = 0x01000000
_NO_FOLLOW = 0x02000000
_MASK_ADD = 0x20000000

NAMES = CREATE | DELETE | MOVED_FROM | MOVED_TO
"""Whatever comes into a directory or leaves it."""

_HEAD = struct.Struct("=iIII")  # struct inotify_event: watch, mask, cookie, length of the name
_READ = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_init1.argtypes = [ctypes.c_int]
_libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
_libc.inotify_rm_watch.argtypes = [ctypes.c_int, ctypes.c_int]


@dataclass(frozen=True, slots=True)
class Seen:
    """One announcement. `name` is what in a watched directory it is about; "" for the watched itself.

    `watch` -1 with OVERFLOW: there was more than the queue holds, so anything may have changed.
    """

    watch: int
    mask: int
    name: str


class Inotify:
    """Any number of watches behind one descriptor, which is readable when there is something to tell."""

    __slots__ = ("_fd",)

    def __init__(self) -> None:
        """Raises OSError: EMFILE when the user has fs.inotify.max_user_instances of them."""
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise failure("inotify_init1", ctypes.get_errno())

    def fileno(self) -> int:
        return int(self._fd)

    def add(self, path: str, mask: int, *, directory: bool = False, follow: bool = True) -> int:
        """Watch `path`; the same path gives the same number, and what is watched for is added up.

        Raises OSError: ENOENT, ENOSPC at fs.inotify.max_user_watches, and with `directory` ENOTDIR.
        """
        flags = mask | _MASK_ADD | (_ONLY_DIRECTORY if directory else 0) | (0 if follow else _NO_FOLLOW)
        watch = int(_libc.inotify_add_watch(self._fd, os.fsencode(path), flags))
        if watch < 0:
            raise failure("inotify_add_watch", ctypes.get_errno(), path)
        return watch

    def drop(self, watch: int) -> None:
        """Watch no longer. Idempotent: what is watched may have gone, and its watch with it."""
        _libc.inotify_rm_watch(self._fd, watch)

    def read(self) -> Iterator[Seen]:
        """What is announced by now, without waiting; at most 64 KiB of it, as whoever changes things faster
        than we read would never let us go. The descriptor stays readable as long as there is more."""
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, offset)
            start = offset + _HEAD.size
            offset = start + length
            yield Seen(watch, mask, os.fsdecode(data[start:offset].rstrip(b"\0")))

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
