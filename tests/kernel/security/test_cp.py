"""`cp` beside containers that are against it (CVE-2018-15664, CVE-2019-14271, CVE-2026-41567, CVE-2026-42306).

Names, files and mounts are exchanged while we copy both ways, code lies where an interpreter would look for it,
links lead out through /proc, and archives say what they must not.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli import cp, lent
from orchestrator.cli.scope import Scope
from orchestrator.images.files.packing import FilesError, Packer
from orchestrator.images.files.placing import Placer
from orchestrator.images.files.visiting import Visitor
from orchestrator.images.layers import tar
from orchestrator.images.trees import discard
from orchestrator.kernel import capabilities
from orchestrator.model.errors import PystackError
from tests.kit.archives import Entry, layer
from tests.kit.site import Site

pytestmark = pytest.mark.kernel

PLACES = 60
SECRET = "the host's own"


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cp")


def copy(site: Site, source: str, destination: str, **more: bool) -> int:
    flags = {"archive": False, "follow_link": False, "quiet": True, "all": False, **more}
    scope = Scope(root=str(site.root), project_name="bad")
    return cp.cp(scope, source=source, destination=destination, index=None, **flags)  # type: ignore[arg-type]


@pytest.fixture
def decoy(site: Site) -> Iterator[Path]:
    """A directory of the host, of which the containers know the path."""
    place = site.dir / "decoy"
    place.mkdir()
    (place / "secret").write_text(SECRET)
    yield place
    shutil.rmtree(place)


def tree(place: Path) -> list[tuple[str, int, bytes]]:
    rows = [(str(path.relative_to(place)), path.lstat()) for path in sorted(place.rglob("*"))]
    return [(name, row.st_mode, _content(place / name, row.st_mode)) for name, row in rows]


def _content(path: Path, mode: int) -> bytes:
    if stat.S_ISLNK(mode):
        return os.fsencode(os.readlink(path))
    return path.read_bytes() if stat.S_ISREG(mode) else b""


SWAPS = """
    name: bad
    services:
      web:
        x-rootfs: {path: $BOX}
        cap_add: [SYS_ADMIN]
        security_opt: ["seccomp=unconfined"]
        volumes: ["$DIR/attack:/attack:ro"]
        stop_grace_period: 0s
        command: ["sh", "/attack/script"]
"""


def test_nothing_of_the_host_comes_out_or_changes_while_names_files_and_mounts_are_exchanged(
    site: Site, decoy: Path, attacker: Path, tmp_path: Path
) -> None:
    """Directories, files and FIFOs change places with links to a path of the host all the time, and one
    directory is covered by another and uncovered."""
    script = f"""
        mkdir -p {decoy} /data/mount; echo harmless > {decoy}/secret
        for n in $(seq {PLACES}); do
            mkdir -p /data/$n/dir; echo own > /data/$n/dir/secret; ln -s {decoy} /data/$n/dir.link
            echo own > /data/$n/file; ln -s {decoy}/secret /data/$n/file.link
            echo own > /data/$n/node; mkfifo /data/$n/node.fifo
            set -- $@ /data/$n/dir /data/$n/dir.link /data/$n/file /data/$n/file.link /data/$n/node /data/$n/node.fifo
        done
        (while :; do mount --bind /etc /data/mount; umount /data/mount; done) 2>/dev/null &
        exec /attack/attacker swap $@
    """
    (site.dir / "attack").mkdir()
    (site.dir / "attack/script").write_text(script)
    shutil.copy(attacker, site.dir / "attack/attacker")
    site.up(SWAPS)
    site.prints("bad", "web", b"ready")
    before, links, real = tree(site.dir), 0, 0
    for number in range(2):
        out = tmp_path / str(number)
        out.mkdir()
        assert copy(site, "web:/data", str(out)) == 0
        for path in out.rglob("*"):
            mode = path.lstat().st_mode
            links += stat.S_ISLNK(mode)
            real += stat.S_ISREG(mode)
            assert not stat.S_ISREG(mode) or SECRET not in path.read_text(errors="replace")
        assert copy(site, "web:/data/1/dir/", str(out), follow_link=True) == 0
        assert copy(site, "web:/data/2/file", str(out / "file"), follow_link=True) == 0
        assert SECRET not in (out / "file").read_text()
    entries = [Entry(f"data/{n}/dir/planted", b"planted") for n in range(1, PLACES + 1)]
    archive = tmp_path / "archive"
    archive.write_bytes(layer(*entries, *(Entry(f"data/{n}/file", b"planted") for n in range(1, PLACES + 1))))
    (tmp_path / "planted").write_text("planted")
    for _ in range(2):
        with Input(archive):
            assert copy(site, "-", "web:/") == 0
        assert copy(site, str(tmp_path / "planted"), "web:/data/3/dir/") == 0
        assert copy(site, str(tmp_path / "planted"), "web:/data/4/file") == 0
    assert min(links, real) > PLACES, "nothing was exchanged"
    assert tree(site.dir) == before
    assert "planted" in site.execute("bad", "web", "ls", str(decoy))


class Input:
    """Standard input of the command."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._old = sys.stdin
        sys.stdin = open(self._path)

    def __exit__(self, *_: object) -> None:
        sys.stdin.close()
        sys.stdin = self._old


PEEK = """
    name: bad
    services:
      web:
        x-rootfs: {path: $BOX}
        pid: host
        privileged: true
        stop_grace_period: 0s
        command: [sleep, "1000"]
"""


def test_no_way_leads_out_through_what_processes_have_open(site: Site, decoy: Path, tmp_path: Path) -> None:
    """With the host's processes in its /proc, links there would lead anywhere, for us who are root."""
    site.up(PEEK)
    site.execute("bad", "web", "ln", "-s", f"/proc/{os.getpid()}/root{decoy}", "/way")
    site.execute("bad", "web", "ln", "-s", "/proc/sys/kernel", "/settings")
    before = tree(decoy)
    (tmp_path / "panic").write_text("77")
    for path in ("/way/secret", "/way/", "/way/."):
        with pytest.raises(PystackError):
            copy(site, f"web:{path}", str(tmp_path / "out"))
    for target in ("/way", "/way/", "/way/secret", "/settings/", "/settings/panic", "/proc/sys/kernel/panic"):
        with pytest.raises(PystackError):
            copy(site, str(tmp_path / "panic"), f"web:{target}")
    with pytest.raises(PystackError, match="made up by the kernel"):
        copy(site, "web:/proc/version", str(tmp_path))
    assert tree(decoy) == before
    assert Path("/proc/sys/kernel/panic").read_text().strip() != "77"
    assert not (tmp_path / "out").exists()


TRAPPED = """
    name: bad
    services:
      web: {x-rootfs: {path: $BOX}, stop_grace_period: 0s, command: [sleep, "1000"]}
"""
_LOADED = re.compile(r"\.so|\.py|encodings|gconv|locale|nss|ld\.|/lib|/usr|/etc/(?!passwd)")


STRACE = ("strace", "-f", "-qq", "-A", "-e", "trace=%file,%process,setns")


def test_nothing_of_the_image_is_loaded_or_run(site: Site, tmp_path: Path) -> None:
    """Modules, libraries and settings lie in the container where our interpreter would look for them. From
    the moment that the worker sees the container's files, it looks at those alone that are copied."""
    site.up(TRAPPED)
    traps = [f"{place}/encodings/__init__.py" for place in sys.path if place.startswith("/")]
    traps += ["/etc/nsswitch.conf", "/usr/lib/locale/locale-archive", "/etc/ld.so.cache"]
    for trap in traps:
        site.execute(
            "bad", "web", "sh", "-c", f"mkdir -p $(dirname {trap}); echo 'raise SystemExit(3)' > {trap}"
        )
    log = tmp_path / "strace"
    program = f"""
import sys
sys.path.insert(0, {str(Path(cp.__file__).parents[2])!r})
from orchestrator.__main__ import main
sys.argv = ["pystack", "--root", {str(site.root)!r}, "-p", "bad", *sys.argv[1:]]
main()
"""
    for words in (["web:/etc/passwd", str(tmp_path / "out")], [str(log), "web:/tmp/x"], ["web:/none", "."]):
        subprocess.run(
            [*STRACE, "-o", log, "--", sys.executable, "-c", program, "cp", *words],
            capture_output=True,
            cwd=tmp_path,
        )
    inside, seen = set(), 0
    for line in log.read_text(errors="replace").splitlines():
        pid, _, call = line.partition(" ")
        call = call.strip()
        if call.startswith("setns(") and "CLONE_NEWNS" in call:
            inside.add(pid)
            continue
        if pid in inside:
            seen += 1
            assert not call.startswith(("execve", "clone", "fork", "vfork")), call
            assert not _LOADED.search(call), call
    assert len(inside) == 3
    assert seen >= 6


def test_the_worker_is_left_with_rights_over_files_alone(site: Site) -> None:
    """And with nothing of the host's open but its own descriptors."""
    site.up(TRAPPED)
    names = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID MKNOD SETFCAP".split()
    scope = Scope(root=str(site.root), project_name="bad")
    with lent.borrow(scope, "web") as (one,), Visitor(one.entry()) as visitor:
        home = Path(f"/proc/{visitor._worker.pid}")
        lines = (home / "status").read_text().splitlines()
        rows = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        held = {int(rows[kind], 16) for kind in ("CapPrm", "CapEff", "CapBnd")}
        assert held == {capabilities.mask(f"CAP_{name}" for name in names)}
        assert (home / "root").stat().st_ino == Path(f"/proc/{one_pid(site)}/root").stat().st_ino
        links = {os.readlink(path) for path in (home / "fd").iterdir()}
        left = {link for link in links if link.startswith("/")}
        assert left == {"/", "/dev/null", f"{home}/fd"}


def one_pid(site: Site) -> int:
    return int(site.row("bad", "web")["pid"])


# --- the host's side -------------------------------------------------------------------------------------


HOSTILE = {
    "up": [Entry("../out", b"x")],
    "absolute": [Entry("/ok", b"x")],
    "up in the middle": [Entry("a/../../out", b"x")],
    "link, then through it": [Entry("a", link=".."), Entry("a/out", b"x")],
    "link to the root, then through it": [Entry("a", link="/"), Entry("a/tmp/pystack-out", b"x")],
    "directory, link, file": [Entry("a/"), Entry("a", link=".."), Entry("a/out", b"x")],
    "link where one is already": [Entry("there/out", b"x")],
    "directory over a link": [Entry("there/"), Entry("there/out", b"x")],
    "hard link up": [Entry("a", hardlink="../victim"), Entry("a", b"x")],
    "hard link through a link": [Entry("a", link=".."), Entry("b", hardlink="a/victim")],
    "hard link through what is there": [Entry("b", hardlink="there/victim")],
    "hard link to a link, then written": [
        Entry("a", link="../victim"),
        Entry("b", hardlink="a"),
        Entry("b", b"x"),
    ],
    "no name": [Entry("./", type=b"0", content=b"x")],
    "device of impossible number": [Entry("d", type=b"3", device=(4096, 0))],
    "directory in place of a file": [Entry("file/"), Entry("file/x", b"x")],
    "file in place of a directory": [Entry("folder", b"x")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_never_leaves_its_destination(name: str, tmp_path: Path, state_root: Path) -> None:
    ground = tmp_path / "ground"
    (ground / "folder").mkdir(parents=True)
    (ground / "file").write_text("own")
    (ground / "there").symlink_to("..")
    (tmp_path / "victim").write_text("victim")
    outside = {path: path.lstat() for path in tmp_path.iterdir() if path != ground}
    place(layer(*HOSTILE[name]), ground, error=name not in ("absolute", "hard link to a link, then written"))
    now = {path: path.lstat() for path in tmp_path.iterdir() if path != ground}
    assert now.keys() == outside.keys()
    for path, row in now.items():
        assert (row.st_nlink, row.st_size, row.st_mode) == (
            outside[path].st_nlink,
            outside[path].st_size,
            outside[path].st_mode,
        )
    assert (tmp_path / "victim").read_text() == "victim"
    assert not Path("/tmp/pystack-out").exists()


def test_a_name_of_a_thousand_directories_is_made_or_refused_in_words(tmp_path: Path) -> None:
    ground = tmp_path / "ground"
    ground.mkdir()
    deep = "/".join("d" * 1500)
    place(layer(Entry(f"{deep}/file", b"x")), ground)
    here = os.open(ground, os.O_PATH)
    for _ in range(1500):
        below = os.open("d", os.O_PATH, dir_fd=here)
        os.close(here)
        here = below
    assert os.stat("file", dir_fd=here).st_size == 1
    os.close(here)
    discard(str(ground / "d"))


def place(
    content: bytes, ground: Path, *, error: bool = False, owner: bool = False, guarded: bool = True
) -> Placer:
    left = memoryview(content)

    def fill(count: int) -> bytes:
        nonlocal left
        piece, left = bytes(left[:count]), left[count:]
        return piece

    fd = os.open(ground, os.O_PATH | os.O_DIRECTORY)
    numbers = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY)
    try:
        placer = Placer(tar.Source(fill), fd, numbers, owner=owner, guarded=guarded)
        if error:
            with pytest.raises((FilesError, tar.TarError)):
                placer.place()
        else:
            placer.place()
        return placer
    finally:
        os.close(fd)
        os.close(numbers)


def test_a_container_hands_no_rights_to_the_host(tmp_path: Path, state_root: Path) -> None:
    """Without --archive: no set-id program, no file capability, no device that others can open. With it: all."""
    capability = b"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0".decode("latin-1")
    entries = layer(
        Entry("su", b"x", mode=0o6755, uid=5, gid=6, pax={"SCHILY.xattr.security.capability": capability}),
        Entry("disk", type=b"4", mode=0o666, device=(8, 0)),
        Entry("folder/", mode=0o3777),
    )
    plain, whole = tmp_path / "plain", tmp_path / "whole"
    for ground, owner in ((plain, False), (whole, True)):
        ground.mkdir()
        place(entries, ground, owner=owner)
    su, disk = (plain / "su").lstat(), (plain / "disk").lstat()
    assert (stat.S_IMODE(su.st_mode), su.st_uid, os.listxattr(plain / "su")) == (0o755, 0, [])
    assert (stat.S_IMODE(disk.st_mode), disk.st_rdev) == (0o600, os.makedev(8, 0))
    su = (whole / "su").lstat()
    assert (stat.S_IMODE(su.st_mode), su.st_uid, su.st_gid) == (0o6755, 5, 6)
    assert stat.S_IMODE((whole / "folder").lstat().st_mode) == 0o3777
    assert stat.S_IMODE((whole / "disk").lstat().st_mode) == 0o666


def test_what_changes_under_the_hand_of_the_packer_is_never_opened(tmp_path: Path, state_root: Path) -> None:
    """A FIFO or device takes a file's place between the look and the opening: it is the file that is read."""
    (tmp_path / "file").write_text("own")
    handle = os.open(tmp_path / "file", os.O_PATH | os.O_NOFOLLOW)
    os.unlink(tmp_path / "file")
    os.mkfifo(tmp_path / "file")
    numbers = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY)
    pieces: list[bytes] = []
    Packer(pieces.append, numbers).pack(handle, b"file")
    assert b"own" in b"".join(pieces)
    os.close(handle)
    os.close(numbers)


def test_a_directory_without_end_is_an_error(tmp_path: Path, state_root: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("n" * 100, dir_fd=fd)
        below = os.open("n" * 100, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    handle, numbers = os.open(tmp_path, os.O_PATH), os.open("/proc/self/fd", os.O_PATH)
    with pytest.raises(FilesError, match="too long"):
        Packer(len, numbers).pack(handle, b"top")
    os.close(handle)
    os.close(numbers)
    discard(str(tmp_path))
