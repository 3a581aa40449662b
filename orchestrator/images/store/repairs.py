"""What must be mended where layers meet.

Each layer is unpacked alone, so that equal layers are stored once. Two things cannot be known then:

- a directory that the archive uses without listing it was made with default owner and mode, and on top of the
  stack would hide those of the same directory below;
- a hard link whose target only a lower layer has could not be made.

Both are rare. The repair is one more layer, on top of the stack, holding only those directories (with
what the lower layer says of them) and copies of those files. It belongs to the chain of layers, not to one.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path

from orchestrator.images import config as configs
from orchestrator.images import trees
from orchestrator.images.layers.meta import Meta, read_meta, write_meta
from orchestrator.images.store.content import Store
from orchestrator.images.store.index import chain_id
from orchestrator.kernel.owner import give
from orchestrator.model.errors import UserError
from orchestrator.model.frozen import dataclass

_LIMIT = 100_000
"""Directories and links to look after in one image."""
_STEP_LIMIT = 2_000_000
"""Looks that may be needed for them: each goes down a path, in every layer."""
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    fs: Path
    meta: Meta
    called: str
    """In errors."""


def make_all(
    chains: Iterable[Sequence[str]],
    made: Mapping[str, Path],
    store: Store,
    work: Path,
    called: Mapping[str, str] | None = None,
) -> dict[str, Path]:
    """Repair layers by chain id, for those chains of diff_ids (lowest first) that need one.

    `called` says how errors call a layer, by its diff_id. Raises UserError.
    """
    names = called or {}
    repaired: dict[str, Path] = {}
    for chain in chains:
        name = chain_id(chain)
        if name in repaired:
            continue
        try:
            stack = [
                _layer(made.get(one) or store.layer_path(one), names.get(one, f"layer {one[7:19]}"))
                for one in chain
            ]
        except UserError:
            # Somebody removed a layer just now: `add` will say so.
            continue
        target = work / f"fix-{name[7:]}"
        trees.discard(str(target))
        try:
            if _make(stack, target):
                repaired[name] = target
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise configs.broken(f"{stack[-1].called}: a path that is too long to be mended") from None
    return repaired


def _layer(path: Path, called: str) -> _Layer:
    return _Layer(fs=path / "fs", meta=read_meta(path), called=called)


class _View(Enum):
    """What one layer says of a path."""

    ABSENT = "absent"
    """Nothing: look below."""
    HIDDEN = "hidden"
    """Gone, or below something that is not a directory: nothing further down counts."""
    DIRECTORY = "directory"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    view: _View
    last: bool
    """Layers below do not count for this path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dress:
    """Owner, mode, times and attributes of a directory."""

    uid: int = 0
    gid: int = 0
    mode: int = 0o755
    mtime: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()

    def differs(self) -> bool:
        """From what the worker gave to directories that were not listed."""
        return (self.uid, self.gid, self.mode, self.xattrs) != (0, 0, 0o755, ())


def _make(stack: list[_Layer], target: Path) -> bool:
    """Make the repair layer of a stack; False when none is needed."""
    implied = {path for layer in stack[1:] for path in layer.meta.implied}
    links = [(height, *link) for height, layer in enumerate(stack) for link in layer.meta.links]
    if len(implied) + len(links) > _LIMIT:
        raise configs.broken(
            f"{stack[-1].called}: more than {_LIMIT} unlisted directories and far links in one image"
        )
    depth = sum(path.count("/") + 1 for path in (*implied, *(path for _, path, _ in links)))
    if depth * len(stack) > _STEP_LIMIT:
        raise configs.broken(f"{stack[-1].called}: unlisted directories and far links too deep in one image")
    lame = {path for path in implied if _is_lame(stack, path)}
    copies = [
        (path, _find(stack[:height], goal, f"{stack[height].called}: {path!r:.200}"))
        for height, path, goal in links
        if _shows(stack, height, path)
    ]
    if not lame and not copies:
        return False
    wanted = {parent for path in (*lame, *(path for path, _ in copies)) for parent in _parents(path)} | lame
    (target / "fs").mkdir(parents=True)
    for path in sorted(wanted):
        if path:
            (target / "fs" / path).mkdir()
    for path, source in copies:
        _copy(source, target / "fs" / path)
    for path in sorted(wanted, reverse=True):
        _put_on(target / "fs" / path, _effective(stack, path))
    write_meta(target, Meta(diff_id="", entries=len(wanted) + len(copies)))
    return True


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts))]


def _is_lame(stack: list[_Layer], path: str) -> bool:
    """The topmost directory at `path` is one that was made up, and below is one that looks different."""
    made_up = False
    for layer in reversed(stack):
        look = _look(layer.fs, path)
        if look.view is _View.DIRECTORY:
            if path not in layer.meta.implied:
                return made_up and _dress_of(layer.fs / path).differs()
            made_up = True
        if look.last or look.view is _View.OTHER:
            return False
    return False


def _effective(stack: list[_Layer], path: str) -> _Dress:
    """What the whole stack would show at `path`, had every layer listed its directories."""
    for layer in reversed(stack):
        look = _look(layer.fs, path)
        if look.view is _View.DIRECTORY and path not in layer.meta.implied:
            return _dress_of(layer.fs / path)
        if look.last:
            break
    return _Dress()


def _shows(stack: list[_Layer], height: int, path: str) -> bool:
    """No layer above `height` has anything to say of `path`."""
    return all(_look(layer.fs, path).view is _View.ABSENT for layer in stack[height + 1 :])


def _find(below: list[_Layer], goal: str, called: str) -> Path:
    """The regular file or symbolic link that a far link means; `called` is the link in errors."""
    for layer in reversed(below):
        look = _look(layer.fs, goal)
        if look.view is _View.OTHER:
            kind = stat.S_IFMT(os.lstat(layer.fs / goal).st_mode)
            if kind not in (stat.S_IFREG, stat.S_IFLNK):
                raise configs.broken(f"{called} is a hard link to {goal!r:.200}, which is not a regular file")
            return layer.fs / goal
        if look.last:
            break
    raise configs.broken(f"{called} is a hard link to {goal!r:.200}, which is not there")


def _look(fs: Path, path: str) -> _Look:
    """Walks down by descriptors, following no link: the tree is the image's."""
    fd = os.open(fs, _FLAGS)
    opaque = _is_opaque(fd)
    try:
        parts = path.split("/") if path else []
        for count, part in enumerate(parts, 1):
            try:
                status = os.stat(part, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                return _Look(view=_View.HIDDEN if opaque else _View.ABSENT, last=opaque)
            if not stat.S_ISDIR(status.st_mode):
                whole = count == len(parts) and not _is_whiteout(status)
                return _Look(view=_View.OTHER if whole else _View.HIDDEN, last=True)
            below = os.open(part, _FLAGS, dir_fd=fd)
            os.close(fd)
            fd = below
            opaque = opaque or _is_opaque(fd)
        return _Look(view=_View.DIRECTORY, last=opaque)
    finally:
        os.close(fd)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(fd: int) -> bool:
    return any(trees.opaque(rootless=rootless) in os.listxattr(fd) for rootless in (False, True))


def _dress_of(path: Path) -> _Dress:
    """The caller has walked the path just now; nobody but us can reach an unpacked layer."""
    status = os.lstat(path)
    names = [name for name in os.listxattr(path) if trees.keeps_xattr(os.fsencode(name))]
    return _Dress(
        uid=status.st_uid,
        gid=status.st_gid,
        mode=stat.S_IMODE(status.st_mode),
        mtime=status.st_mtime_ns,
        xattrs=tuple((name, os.getxattr(path, name)) for name in sorted(names)),
    )


def _put_on(path: Path, dress: _Dress) -> None:
    give(str(path), dress.uid, dress.gid)
    os.chmod(path, dress.mode)
    for name, value in dress.xattrs:
        os.setxattr(path, name, value)
    os.utime(path, ns=(dress.mtime, dress.mtime))


def _copy(source: Path, target: Path) -> None:
    """A regular file or symbolic link with everything that belongs to it."""
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        target.symlink_to(os.readlink(source))
        give(str(target), status.st_uid, status.st_gid, follow_symlinks=False)
        return
    assert stat.S_ISREG(status.st_mode), "what was found is one of the two"
    with open(source, "rb") as reader, open(target, "xb") as writer:
        while piece := reader.read(1 << 20):
            writer.write(piece)
    _put_on(target, _dress_of(source))
