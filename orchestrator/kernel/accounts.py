"""Who a process runs as: `user: name[:group]` resolved against the passwd and group files of its own root.

Both files are the image's, so hostile: they are read with a size limit and only when regular, and parsed
here (the C library would load plug-ins from inside the container: CVE-2019-14271). A number is never
looked up as a name (CVE-2026-46680).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from orchestrator.kernel import syscalls

FILE_LIMIT = 1 << 20
HIGHEST_ID = 2**31 - 1  # as Docker: the upper half is where -1 and its kin end up
_NGROUPS_LIMIT = 65536  # setgroups(2)


class Account(NamedTuple):
    """Numeric identity of a process; `groups` are the supplementary ones, the primary one among them."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


class AccountError(ValueError):
    """The user or group asked for isn't there, or isn't well-formed."""


def resolve(user: str, groups: Sequence[str | int], passwd: str, group: str) -> Account:
    """The account for `user` ("" is root; "name", "uid", "name:group", "uid:gid", ...) plus extra groups.

    As Docker does: a number need not be in passwd, then its group is 0 and its home "/"; supplementary
    groups are those that list the user's name, unless a group was named. Raises AccountError.
    """
    name, colon, group_name = (user or "0").partition(":")
    if not name or (colon and not group_name):
        raise AccountError(f"user {user!r} is not of the form name[:group]")
    entry = _user_entry(name, passwd)
    uid, gid, home, login = entry
    members: list[int] = []
    if colon:
        gid = _group_id(group_name, group)
    elif login:
        members = [number for title, number, users in _groups(group) if login in users]
    extra = [_group_id(str(wanted), group) for wanted in groups]
    together = tuple(dict.fromkeys([gid, *members, *extra]))
    if len(together) > _NGROUPS_LIMIT:
        raise AccountError(f"user {user!r} is in {len(together)} groups; the limit is {_NGROUPS_LIMIT}")
    return Account(uid, gid, together, home or "/")


def home(uid: int, passwd: str) -> str:
    """The home directory of a uid; "/" when nobody has it."""
    return next((place for _, number, _, place in _users(passwd) if number == uid and place), "/")


def _user_entry(name: str, passwd: str) -> tuple[int, int, str, str]:
    """uid, gid, home and login name for a name or number."""
    if not _is_number(name):
        _demand_name(name)
        for login, uid, gid, home in _users(passwd):
            if login == name:
                return uid, gid, home, login
        raise AccountError(f"unable to find user {name}: no matching entries in passwd file")
    wanted = _number(name)
    for login, uid, gid, home in _users(passwd):
        if uid == wanted:
            return uid, gid, home, login
    return wanted, 0, "/", ""


def _group_id(name: str, group: str) -> int:
    if _is_number(name):
        return _number(name)
    _demand_name(name)
    for title, gid, _ in _groups(group):
        if title == name:
            return gid
    raise AccountError(f"unable to find group {name}: no matching entries in group file")


def _is_number(text: str) -> bool:
    """Digits only."""
    return text.isascii() and text.isdecimal()


def _demand_name(text: str) -> None:
    """Refuse a number in another notation ("0x0", "-1", " 0"): an image could have it as a name of root's."""
    if _reads(text, 0) or _reads(text, 10):
        raise AccountError(f"{text[:32]!r} is neither a name nor a plain number")


def _reads(text: str, base: int) -> bool:
    try:
        int(text[:32], base)
    except ValueError:
        return False
    return True


def _number(text: str) -> int:
    # The length first: int() of a very long text is slow.
    if len(text) > 10 or int(text) > HIGHEST_ID:
        raise AccountError(f"{text[:24]} is out of range: uids and gids go from 0 to {HIGHEST_ID}")
    return int(text)


def _users(passwd: str) -> Iterator[tuple[str, int, int, str]]:
    """name, uid, gid, home of the well-formed lines of passwd(5)."""
    for line in passwd.split("\n"):
        fields = line.split(":")
        if len(fields) >= 6 and _is_id(fields[2]) and _is_id(fields[3]):
            yield fields[0], int(fields[2]), int(fields[3]), fields[5]


def _groups(group: str) -> Iterator[tuple[str, int, list[str]]]:
    """name, gid, members of the well-formed lines of group(5)."""
    for line in group.split("\n"):
        fields = line.split(":")
        if len(fields) >= 4 and _is_id(fields[2]):
            yield fields[0], int(fields[2]), fields[3].split(",")


def _is_id(text: str) -> bool:
    return _is_number(text) and len(text) <= 10 and int(text) <= HIGHEST_ID


def read(root: int, path: str) -> str:
    """A small text file below the directory `root`; "" when there is none.

    Raises OSError when it is not a regular file (a FIFO would block us, a device would be woken) or
    larger than FILE_LIMIT. Bytes that are not UTF-8 survive as surrogates.
    """
    try:
        looked = syscalls.openat2(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        seen = os.fstat(looked)
        if not stat.S_ISREG(seen.st_mode):
            raise OSError(0, f"{path} is not a regular file")
    finally:
        os.close(looked)
    fd = syscalls.openat2(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        opened = os.fstat(fd)
        if (opened.st_dev, opened.st_ino) != (seen.st_dev, seen.st_ino):
            raise OSError(0, f"{path} was replaced while it was read")
        data = _read_whole(fd)
    finally:
        os.close(fd)
    if len(data) > FILE_LIMIT:
        raise OSError(0, f"{path} is larger than {FILE_LIMIT} bytes")
    return data.decode("utf-8", "surrogateescape")


def _read_whole(fd: int) -> bytes:
    """Up to one byte more than FILE_LIMIT."""
    parts: list[bytes] = []
    room = FILE_LIMIT + 1
    while room and (part := os.read(fd, room)):
        parts.append(part)
        room -= len(part)
    return b"".join(parts)
