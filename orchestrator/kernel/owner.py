"""Owners of files where not every id exists: in a user namespace. Standard library only."""

from __future__ import annotations

import errno
import functools
import os

_OVERFLOW = 65534  # /proc/sys/kernel/overflowuid: what the owner looks like who has no id here


def give(
    where: int | str | bytes, uid: int, gid: int, *, dir_fd: int | None = None, follow_symlinks: bool = True
) -> None:
    """chown(2); to an id that does not exist here: then the file stays ours. Raises OSError."""
    try:
        if isinstance(where, int):
            os.fchown(where, uid, gid)
        else:
            os.chown(where, uid, gid, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def of_host(found: os.stat_result) -> tuple[int, int]:
    """Whose a file of the host is: in a user namespace, what is nobody's whom we know counts as root's, as
    it mostly is."""
    if keeps_ids():
        return found.st_uid, found.st_gid
    return (
        0 if found.st_uid == _OVERFLOW else found.st_uid,
        0 if found.st_gid == _OVERFLOW else found.st_gid,
    )


@functools.cache
def keeps_ids() -> bool:
    """Whether all ids exist: outside of any user namespace."""
    with open("/proc/self/uid_map", encoding="ascii") as lines:
        return lines.read().split() == ["0", "0", "4294967295"]
