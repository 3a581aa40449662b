"""`cp`: what goes where, by what docker does in the same cases (tests/golden/cp), and what containers show."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli import cp, lent
from orchestrator.cli.scope import Scope
from orchestrator.model.errors import PystackError
from tests.kit import leaks
from tests.kit.archives import Entry, layer
from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel

GOLDEN = Path(__file__).resolve().parents[1] / "golden/cp/docker.txt"


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cp")


def copy(site: Site, *words: str, index: int | None = None) -> int:
    """`pystack cp` with these words, from the test's directory."""
    flags = {"-a": "archive", "-L": "follow_link", "-q": "quiet", "--all": "all"}
    given = {name: flag in words for flag, name in flags.items()}
    source, destination = (word for word in words if word not in flags)
    scope = Scope(root=str(site.root), project_name="c")
    with contextlib.chdir(site.dir):
        return cp.cp(scope, source=source, destination=destination, index=index, **given)


class Standard:
    """Standard input of the command."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


# --- docker's table ------------------------------------------------------------------------------------

ONE = """
    name: c
    services:
      web:
        x-rootfs: {path: $BOX}
        container_name: CC
        volumes: ["$DIR/t:/t"]
        stop_grace_period: 0s
        command: [sleep, "1000"]
"""


def lay_out(place: Path, *, inside: bool) -> None:
    """The same tree with which docker was asked."""
    shutil.rmtree(place / "dir", ignore_errors=True)
    for path in list(place.iterdir()):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (place / "dir/sub").mkdir(parents=True)
    (place / "empty").mkdir()
    mark = "" if inside else "h"
    for name, text in (("file", "f"), ("dir/sub/s", "s"), ("dir/a", "a")):
        (place / name).write_text(f"{mark}{text}\n")
    for name, goal in (("ldir", "dir"), ("lfile", "file"), ("dang", "nowhere")):
        (place / name).symlink_to(goal)
    os.mkfifo(place / "dir/fifo", 0o644)
    if inside:
        (place / "dir/a").chmod(0o640)
        os.chown(place / "dir/a", 7, 8)
        (place / "dir").chmod(0o750)
        (place / "labs").symlink_to("/t/dir")
        os.link(place / "dir/a", place / "dir/hard")
        os.mknod(place / "dir/null", stat.S_IFCHR | 0o644, os.makedev(1, 3))
        (place / "dir/sub/s").chmod(0o4755)
    else:
        (place / "dir/a").chmod(0o600)
        for name in ("dir/a", "file", "dir"):
            os.chown(place / name, 1000, 1001)


KINDS = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "character special file",
}


def listed(place: Path) -> set[str]:
    rows = set()
    for path in place.rglob("*"):
        found = path.lstat()
        size = f" {found.st_size}" if stat.S_ISREG(found.st_mode) else ""
        kind = KINDS[stat.S_IFMT(found.st_mode)]
        owner = f"{found.st_uid}:{found.st_gid}"
        rows.add(f"./{path.relative_to(place)} {kind} {found.st_mode & 0o7777:o} {owner}{size}")
    return rows


def cases() -> Iterator[tuple[str, list[str]]]:
    for block in GOLDEN.read_text().split("### ")[1:]:
        head, *rows = block.rstrip("\n").split("\n")
        yield head, rows


def differs_on_purpose(row: str, words: list[str]) -> str:
    """What the documentation of docker says and docker does not do, and what we do not hand to the host."""
    if words[-1].startswith("CC:") and "-a" not in words and "-" not in words:
        row = row.replace("1000:1001", "0:0") if row.startswith(">") else row
    elif row.startswith("> ") and "-a" not in words:
        row = row.replace(" 4755 ", " 755 ").replace(
            "file 644 0:0", "file 600 0:0" if "special" in row else "file 644 0:0"
        )
    return row.replace(": got a device", "").replace("in container X", "in container CC")


def test_everything_goes_where_docker_puts_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Files, directories, their contents and links, onto what is there, is not there, is a link, both ways."""
    host, inside = site.dir / "h", site.dir / "t"
    host.mkdir()
    inside.mkdir()
    lay_out(host, inside=False)
    with tarfile.open(site.dir / "in.tar", "w") as archive, contextlib.chdir(host):
        for name in ("dir", "file", "ldir"):
            archive.add(name)
    site.up(ONE)
    wrong = []
    for head, rows in cases():
        words = head.split()
        lay_out(inside, inside=True)
        lay_out(host, inside=False)
        place = inside if words[-1].startswith("CC:") else host
        before = listed(place)
        monkeypatch.setattr(sys, "stdin", Standard((site.dir / "in.tar").read_bytes()))
        capfdbinary.readouterr()
        try:
            said, code = "", copy(site, *words)
        except PystackError as error:
            said, code = error.message.replace(str(site.dir), "W"), 1
        out = capfdbinary.readouterr().out
        got = {f"< {row}" for row in before - listed(place)} | {f"> {row}" for row in listed(place) - before}
        if out:
            got |= {f"tar {member.name} {member.linkname}" for member in members(out)}
        expected = {differs_on_purpose(row, words) for row in rows[1:]}
        if words[-1] == "-":
            expected = {in_archive(row) for row in expected}
        if code and "lstat" not in "".join(expected):
            got.add(said)
        elif code:
            expected = set()
        if (f"rc={code}", got) != (rows[0], expected):
            wrong.append((head, code, sorted(got - expected), sorted(expected - got)))
    assert not wrong


def members(content: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return archive.getmembers()


def in_archive(row: str) -> str:
    """A line of `tar tvf`, cut to some columns."""
    name, arrow, goal = " ".join(row.split()[3:]).partition(" -> ")
    if not arrow:
        name, _, goal = name.partition(" link to")
        goal = f"{name.rpartition('/')[0] or '.'}/a" if row.startswith("h") else ""
    return f"tar {name.strip('/') or '.'} {goal.strip()}"


# --- what a container shows -----------------------------------------------------------------------------

MOUNTS = """
    name: c
    services:
      web:
        x-rootfs: {path: $BOX}
        volumes: [data:/data, "$DIR/bound:/bound", "$DIR/bound:/closed:ro"]
        tmpfs: [/scratch]
        configs: [{source: setting, target: /etc/setting}]
        stop_grace_period: 0s
        command: ["sh", "-c", "echo volume > /data/x; echo memory > /scratch/x; echo root > /x; sleep 1000"]
      closed:
        x-rootfs: {path: $BOX}
        read_only: true
        volumes: [data:/data]
        tmpfs: [/scratch]
        stop_grace_period: 0s
        command: [sleep, "1000"]
    volumes: {data: {}}
    configs: {setting: {content: "by content"}}
"""


def text_of(site: Site, source: str) -> str:
    copy(site, "-q", source, "got")
    text = (site.dir / "got").read_text()
    (site.dir / "got").unlink()
    return text


def test_volumes_binds_and_memory_are_seen_running_or_not(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    (site.dir / "bound").mkdir()
    (site.dir / "bound/x").write_text("bound\n")
    (site.dir / "new").write_text("new\n")
    site.up(MOUNTS)
    until(lambda: "x" in site.execute("c", "web", "ls", "/"), "its files")
    before = leaks.mount_points()
    for path, text in (
        ("/x", "root"),
        ("/data/x", "volume"),
        ("/bound/x", "bound"),
        ("/scratch/x", "memory"),
    ):
        assert text_of(site, f"web:{path}") == f"{text}\n"
    assert text_of(site, "web:/etc/setting") == "by content"
    assert "127.0.0.1" in text_of(site, "web:/etc/hosts")
    assert copy(site, "new", "web:/scratch/new") == copy(site, "new", "web:/data/") == 0
    assert site.execute("c", "web", "cat", "/scratch/new", "/data/new") == "new\nnew\n"
    assert copy(site, "new", "web:/etc/hosts") == 0, "a file that is mounted is written to"
    assert site.execute("c", "web", "cat", "/etc/hosts") == "new\n"
    assert copy(site, "new", "closed:/scratch/") == copy(site, "new", "closed:/data/seen") == 0
    for target, said in (("web:/closed/y", "volume"), ("closed:/y", "rootfs")):
        with pytest.raises(PystackError, match=f"{said} is marked read-only"):
            copy(site, "new", target)
    assert "Successfully copied 2.05kB to web:/data/\n" in capfd.readouterr().err
    site.ask("stop", stack="c", services=["web", "closed"], timeout=0)
    for path, text in (("/x", "root"), ("/data/x", "volume"), ("/bound/x", "bound"), ("/data/seen", "new")):
        assert text_of(site, f"web:{path}") == f"{text}\n"
    assert copy(site, "new", "web:/fresh") == copy(site, "new", "web:/bound/fresh") == 0
    for target in ("web:/closed/y", "closed:/y"):
        with pytest.raises(PystackError, match="read-only"):
            copy(site, "new", target)
    assert (site.dir / "bound/fresh").read_text() == "new\n"
    assert leaks.mount_points() == before
    site.ask("start", stack="c", services=["web"])
    assert site.execute("c", "web", "cat", "/fresh") == "new\n"
    site.ask("stop", stack="c", services=["web"], timeout=0)
    shutil.rmtree(site.dir / "bound")
    with pytest.raises(
        PystackError, match=r"container c-web-1: its files can't be reached: .*bound: No such file"
    ):
        copy(site, "web:/x", ".")


KEPT = """
    name: c
    services:
      web: {x-rootfs: {path: $BOX}, stop_grace_period: 0s, command: [sleep, "1000"], scale: 2}
"""


def test_a_tree_goes_in_and_comes_back_as_it_was(site: Site) -> None:
    """Owners with -a, modes, whole seconds, attributes, hard links, nodes, a hole; the numbers of replicas."""
    site.up(KEPT)
    top = site.dir / "tree"
    (top / "d").mkdir(parents=True)
    (top / "d/file").write_bytes(b"x" * 70_000)
    os.link(top / "d/file", top / "hard")
    os.mkfifo(top / "fifo")
    os.mknod(top / "node", stat.S_IFBLK | 0o640, os.makedev(7, 99))
    (top / "link").symlink_to("/nowhere")
    with open(top / "hole", "wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"middle")
    os.chown(top / "d/file", 1234, 4321)
    (top / "d/file").chmod(0o4711)
    (top / "d").chmod(0o1770)
    for path in (top / "hole", top / "d/file", top / "d", top):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    assert copy(site, "-q", "-a", "tree", "web:/back") == 0  # into both
    for number in (1, 2):
        assert copy(site, "-q", "-a", "web:/back", f"back{number}", index=number) == 0
        back = site.dir / f"back{number}"
        assert rows_of(back) == rows_of(top)
        assert (back / "hole").stat().st_blocks < 1000, "the hole was filled"
        assert (back / "hard").stat().st_ino == (back / "d/file").stat().st_ino
    copy(site, "-q", "tree/d", "web:/plain", index=2)
    said = site.execute("c", "web", "stat", "-c", "%u:%g %a", "/plain/file", index=2)
    assert said == "0:0 4711\n"
    with pytest.raises(PystackError, match="no container with index 3"):
        copy(site, "web:/plain", ".", index=3)


def rows_of(top: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for path in [top, *top.rglob("*")]:
        row = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(row.st_mode) else b""
        times = row.st_mtime if stat.S_ISREG(row.st_mode) or stat.S_ISDIR(row.st_mode) else 0
        found[str(path.relative_to(top))] = (row.st_mode, row.st_uid, row.st_gid, row.st_rdev, times, content)
    return found


def test_an_archive_goes_in_as_it_is_into_all_replicas_and_its_end_is_drained(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.up(KEPT)
    content = layer(Entry("etc/own", b"own", uid=7, gid=8, mode=0o600)) + bytes(1 << 20)
    monkeypatch.setattr(sys, "stdin", Standard(content))
    assert copy(site, "-", "web:/") == 0
    for number in (1, 2):
        said = site.execute("c", "web", "stat", "-c", "%u:%g %a", "/etc/own", index=number)
        assert said == "7:8 600\n"
    monkeypatch.setattr(sys, "stdin", Standard(b"no archive at all" * 100))
    with pytest.raises(PystackError, match="not a tar archive"):
        copy(site, "-", "web:/")


def test_a_start_waits_for_the_end_of_a_copy(site: Site) -> None:
    """Two mounts of one upper directory are what overlayfs calls undefined."""
    site.up(KEPT)
    site.ask("stop", stack="c", services=["web"], timeout=0)
    scope = Scope(root=str(site.root), project_name="c")
    with lent.borrow(scope, "web"):
        talk = site.begin("start", stack="c", services=["web"])
        site.becomes("c", "web", slot=2, state="running")
        time.sleep(0.1)
        assert site.row("c", "web")["state"] != "running"
    assert talk.wait().exit_code == 0
    assert site.row("c", "web")["state"] == "running"


def test_names_that_mean_nothing_are_told(site: Site) -> None:
    site.up(KEPT)
    rows = {
        ("web:/etc", "nowhere:/x"): "copying between containers",
        ("nobody:/x", "."): "no such service or container: nobody",
        ("web:", "."): "a path is missing",
        ("./web:/x", "x"): "at least one container",
        ("", "web:/"): "source can not be empty",
        ("web:/etc", "/dev/null"): "must be a directory or a regular file",
        ("web:/etc/passwd/", "."): "ot a directory",
    }
    for words, said in rows.items():
        with pytest.raises(PystackError, match=said):
            copy(site, *words)


def test_ctrl_c_leaves_no_worker(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.up(KEPT)
    before = threading.active_count()

    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(cp._Counted, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        copy(site, "web:/bin", "bin")
    assert threading.active_count() == before
    until(lambda: not workers(), "the end of the worker")


def workers() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"files.visitor" in path.read_bytes():
                found.append(str(path))
    return found
