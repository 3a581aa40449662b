"""Writing and removing directory trees that came from elsewhere.

Standard library only: the unpacking worker imports this.
"""

from __future__ import annotations

import os

HOLE = 1 << 16
_ZERO = bytes(HOLE)


def opaque(*, rootless: bool) -> str:
    """The attribute of a layer's directory that says: nothing of the layers below shows through. In a user
    namespace overlayfs is mounted with `userxattr` and looks for another (overlayfs.rst)."""
    return f"{'user' if rootless else 'trusted'}.overlay.opaque"


def keeps_xattr(name: bytes) -> bool:
    """Whether an extended attribute may come into a layer.

    trusted.* and *.overlay.* steer overlayfs (a redirect could point anywhere); labels of security modules
    belong to the machine they were made on. File capabilities and user.* stay.
    """
    if b"\0" in name or b".overlay." in name:
        return False
    return name == b"security.capability" or name.startswith(b"user.")


def write(fd: int, chunk: bytes) -> None:
    """Write all of it; runs of zeros become holes, so the caller sets the file's size in the end."""
    if len(chunk) < HOLE or chunk[0] or chunk[-1]:
        _write(fd, chunk)
        return
    for at in range(0, len(chunk), HOLE):
        piece = chunk[at : at + HOLE]
        if piece == _ZERO[: len(piece)]:
            os.lseek(fd, len(piece), os.SEEK_CUR)
        else:
            _write(fd, piece)


def _write(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]


def discard(top: str) -> None:
    """Remove a tree of any depth; what is gone already is fine.

    Directories are moved up to `top` before they are emptied: an image can nest directories deeper than
    a path may be long, than we may recurse and than we may hold descriptors open.
    """
    try:
        if os.path.isdir(top) and not os.path.islink(top):
            _empty(top)
            os.rmdir(top)
        else:
            os.unlink(top)
    except FileNotFoundError:
        return


def _empty(top: str) -> None:
    prefix = os.urandom(8).hex()
    moved = 0
    waiting = _unlink_files(top)
    while waiting:
        here = waiting.pop()
        for child in _unlink_files(here):
            moved += 1
            place = f"{top}/{prefix}{moved}"
            os.rename(child, place)
            waiting.append(place)
        os.rmdir(here)


def _unlink_files(directory: str) -> list[str]:
    """Remove everything but directories; returns those."""
    if os.geteuid() != 0:
        os.chmod(directory, 0o700)
    deeper: list[str] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                deeper.append(entry.path)
            else:
                os.unlink(entry.path)
    return deeper
