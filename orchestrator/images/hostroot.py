"""A root file system made of this machine's own programs, for `x-rootfs: host`.

The host's /usr is used as it is, below a private writable layer that the engine mounts. Everything else
is a skeleton made here: empty /home, /root, /var, /tmp and the part of /etc that programs need and that
holds no secret. The part is a list of what comes along, never of what stays out, and what others than root
may not read stays out in any case.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from orchestrator.images import scratch
from orchestrator.kernel.owner import give, of_host
from orchestrator.model.errors import EngineError
from orchestrator.model.frozen import dataclass

_FORMAT = 1
_FILE_LIMIT = 16 << 20
_COUNT_LIMIT = 50_000
_DEPTH_LIMIT = 16

_ETC = (
    *("passwd", "group", "os-release", "debian_version", "lsb-release", "issue", "shells", "login.defs"),
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives"),
    *("ssl", "ca-certificates", "ca-certificates.conf", "pki"),
    *("localtime", "timezone", "adjtime", "default/locale", "gai.conf", "host.conf"),
    *(
        "services",
        "protocols",
        "rpc",
        "networks",
        "ethertypes",
        "mime.types",
        "mailcap",
        "magic",
        "magic.mime",
    ),
    *("terminfo", "profile", "bash.bashrc", "bash_completion.d", "inputrc", "skel"),
    *("perl", "fonts", "xml", "sgml", "vim", "X11/rgb.txt", "debuginfod", "gss"),
)
"""Names below /etc that come along, with everything below them."""

_ETC_FAMILIES = ("locale", "python3", "java")
"""What names that come along may begin with."""

_NEVER = re.compile(
    r"private|.*\.(?:key|p12)|.*(?:password|shadow|secret|credential|keytab).*", re.IGNORECASE
)
"""Names that do not, wherever they stand."""

_ENTERED = stat.S_IROTH | stat.S_IXOTH
_PRIVATE_KEY = b"PRIVATE KEY-----"

_DIRECTORIES = (
    *(("proc", 0o555), ("sys", 0o555), ("dev", 0o755), ("run", 0o755), ("run/lock", 0o1777)),
    *(("tmp", 0o1777), ("home", 0o755), ("root", 0o700), ("opt", 0o755), ("srv", 0o755), ("mnt", 0o755)),
    *(("media", 0o755), ("boot", 0o755), ("etc", 0o755), ("etc/profile.d", 0o755), ("usr", 0o755)),
    *(("var", 0o755), ("var/tmp", 0o1777), ("var/log", 0o755), ("var/lib", 0o755), ("var/cache", 0o755)),
    *(("var/spool", 0o755), ("var/local", 0o755), ("var/opt", 0o755)),
)

_WRITTEN = {
    "etc/nsswitch.conf": (
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
        "protocols: files\nservices: files\nethers: files\nrpc: files\n"
    ),
    # The engine mounts the container's own files over these.
    "etc/hosts": "127.0.0.1\tlocalhost\n",
    "etc/hostname": "",
    "etc/resolv.conf": "",
}

_LINKS = {"var/run": "/run", "var/lock": "/run/lock", "etc/mtab": "/proc/self/mounts"}

_PROGRAM_DIRECTORIES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """`lowers` (topmost first), below a private writable layer, go to `target` (relative to the root)."""

    target: str
    lowers: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTree:
    """The overlays that make the root, in the order of mounting; `key` changes when their content does."""

    key: str
    overlays: tuple[Overlay, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """Something of the host's /etc that comes along."""

    path: str
    status: os.stat_result


def build(directory: Path, *, host: Path = Path("/")) -> HostTree:
    """Make the skeleton below `directory`, or find it there, and say what makes the root.

    Repeatable and safe against being killed: a skeleton appears whole, under a name made of its content,
    so that a change of the host's /etc makes a new one. Old ones are left: containers may stand on them.
    Raises EngineError.
    """
    try:
        found = list(_survey(host))
        programs = _programs(host)
        key = _key(found, programs)
        skeleton = directory / key
        if not skeleton.is_dir():
            _assemble(directory, skeleton, host, found, programs)
    except OSError as error:
        raise EngineError(f"cannot assemble a root from the host: {error}") from error
    mounted = [name for name, link in programs.items() if not link]
    overlays = [Overlay(target=name, lowers=(host / name,)) for name in ("usr", *mounted)]
    return HostTree(key=key, overlays=(Overlay(target="", lowers=(skeleton,)), *overlays))


def _programs(host: Path) -> dict[str, str]:
    """/bin and its like: the link that each is, or "" for a real directory."""
    present: dict[str, str] = {}
    for name in _PROGRAM_DIRECTORIES:
        path = host / name
        if path.is_symlink():
            present[name] = os.readlink(path)
        elif path.is_dir():
            present[name] = ""
    return present


def _survey(host: Path) -> Iterator[_Found]:
    """What comes along of /etc, parents before children. Reads names and states only."""
    etc = host / "etc"
    count = 0
    for name in sorted(_selected(etc)):
        for found in _below(str(etc), name, os.lstat(etc / name), 0):
            count += 1
            if count > _COUNT_LIMIT:
                raise OSError(f"more than {_COUNT_LIMIT} files in {etc}")
            yield found


def _selected(etc: Path) -> set[str]:
    plain = {name for name in _ETC if os.path.lexists(etc / name)}
    return plain | {name for name in os.listdir(etc) if name.startswith(_ETC_FAMILIES)}


def _below(etc: str, path: str, status: os.stat_result, depth: int) -> Iterator[_Found]:
    mode = status.st_mode
    if _NEVER.fullmatch(path.rpartition("/")[2]):
        return
    if stat.S_ISLNK(mode) or (stat.S_ISREG(mode) and mode & stat.S_IROTH and status.st_size <= _FILE_LIMIT):
        yield _Found(path, status)
    elif stat.S_ISDIR(mode) and mode & _ENTERED == _ENTERED and depth < _DEPTH_LIMIT:
        yield _Found(path, status)
        with os.scandir(f"{etc}/{path}") as entries:
            children = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)
        for name, child in children:
            yield from _below(etc, f"{path}/{name}", child, depth + 1)


def _key(found: list[_Found], programs: dict[str, str]) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {sorted(programs.items())}".encode())
    for one in found:
        now = one.status
        # A link is never written to, only made anew: its inode and time stand for where it points.
        row = (now.st_mode, now.st_ino, now.st_uid, now.st_gid, now.st_size, now.st_mtime_ns, one.path)
        digest.update(repr(row).encode())
    return digest.hexdigest()[:32]


def _assemble(
    directory: Path, skeleton: Path, host: Path, found: list[_Found], programs: dict[str, str]
) -> None:
    work = directory / "tmp"
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = directory / "lock"
    with scratch.locked(lock):
        scratch.sweep(work)
    with scratch.directory(work, lock=lock) as fresh:
        root = fresh / "root"
        _frame(root, programs)
        for one in found:
            _bring(host / "etc" / one.path, root / "etc" / one.path, one)
        scratch.sync_tree(root)
        with scratch.locked(lock):
            if not skeleton.is_dir():
                os.rename(root, skeleton)
                scratch.sync_directory(directory)


def _frame(root: Path, programs: dict[str, str]) -> None:
    """The directories, links and written files that are the same everywhere."""
    root.mkdir()
    root.chmod(0o755)
    for path, mode in (*_DIRECTORIES, *((name, 0o755) for name, link in programs.items() if not link)):
        (root / path).mkdir()
        (root / path).chmod(mode)
    for path, target in (*_LINKS.items(), *((name, link) for name, link in programs.items() if link)):
        (root / path).symlink_to(target)
    for path, text in _WRITTEN.items():
        (root / path).write_text(text)
        (root / path).chmod(0o644)


def _bring(source: Path, target: Path, one: _Found) -> None:
    mode = one.status.st_mode
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if os.path.lexists(target):
        return
    if stat.S_ISLNK(mode):
        target.symlink_to(os.readlink(source))
        return
    if stat.S_ISDIR(mode):
        target.mkdir()
    else:
        content = _read(source)
        if content is None or _PRIVATE_KEY in content:
            return
        if one.path in ("passwd", "group"):
            content = _without_passwords(content)
        target.write_bytes(content)
    # Nothing of the host's /etc needs to be setuid or writable by others than its owner.
    target.chmod(stat.S_IMODE(mode) & 0o755)
    give(str(target), *of_host(one.status))
    os.utime(target, ns=(one.status.st_mtime_ns, one.status.st_mtime_ns))


def _read(path: Path) -> bytes | None:
    """A regular file that everybody may read, checked on the descriptor that is read; None otherwise."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(fd, "rb") as file:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode) or not mode & stat.S_IROTH:
            return None
        return file.read(_FILE_LIMIT)


def _without_passwords(content: bytes) -> bytes:
    """Lines of passwd(5) or group(5) with "x" for the password: old machines kept it there."""
    lines = [line.split(b":") for line in content.splitlines()]
    return b"".join(b":".join([line[0], b"x", *line[2:]]) + b"\n" for line in lines if len(line) > 2)
