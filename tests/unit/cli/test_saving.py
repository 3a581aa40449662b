"""save, tag and rmi, on a store made by hand; what is saved is read by skopeo and by `load`'s own reader."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from orchestrator.api.paths import Paths
from tests.kit.archives import Entry, Image, digest, layer
from tests.kit.shelves import shelve
from tests.unit.cli import command
from tests.unit.cli.scripted import Scripted
from tests.unit.cli.test_describe import Line

BASE = layer(Entry("etc/"), Entry("etc/motd", b"m" * 4000))
WEB = Image((BASE, layer(Entry("web", b"1"))), {"Cmd": ["web"]}, ("web:1", "web:latest", "reg.example/web:1"))
DB = Image((BASE, layer(Entry("db", b"2"))), {}, ("db:2",))
BARE = Image((BASE,), {"Cmd": ["bare"]})


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shelf")
    shelve(path, WEB, DB, BARE)
    return path


@pytest.fixture
def line(shelf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Line:
    """On a copy of the store, which the test may change."""
    shutil.copytree(shelf, tmp_path, dirs_exist_ok=True)
    return Line(tmp_path, capfd)


def _saved(line: Line, *words: str) -> tuple[dict[str, bytes], list[dict[str, object]]]:
    """Files of the archive, and its manifest.json."""
    target = line.root / "saved.tar"
    assert line("save", "-o", str(target), *words) == (0, "", "")
    with tarfile.open(target) as archive:
        files = {
            member.name: content.read()
            for member in archive
            if (content := archive.extractfile(member)) is not None
        }
    return files, json.loads(files["manifest.json"])


# --- what is in an archive -----------------------------------------------------------------------


def test_images_share_their_layers_and_every_blob_is_what_it_was(line: Line) -> None:
    files, table = _saved(line, "web:1", "db:2")
    blobs = {name: content for name, content in files.items() if name.startswith("blobs/")}

    assert len(blobs) == 7  # two manifests, two configs, three layers
    assert all(name == f"blobs/sha256/{digest(content)[7:]}" for name, content in blobs.items())
    store = line.root / "data" / "images"
    assert all((store / name).read_bytes() == content for name, content in blobs.items())
    assert [row["RepoTags"] for row in table] == [["web:1"], ["db:2"]]
    assert [row["Config"] for row in table] == [f"blobs/sha256/{one.id[7:]}" for one in (WEB, DB)]
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    rows = json.loads(files["index.json"])["manifests"]
    assert [row["annotations"]["io.containerd.image.name"] for row in rows] == [
        "docker.io/library/web:1",
        "docker.io/library/db:2",
    ]


@pytest.mark.parametrize(
    ("words", "tags"),
    [
        (("web",), [["web:1", "web:latest"]]),
        (("reg.example/web",), [["reg.example/web:1"]]),
        (("web:1", "reg.example/web:1", "web:1"), [["web:1", "reg.example/web:1"]]),
        ((WEB.id[7:19],), [None]),
        ((BARE.id, DB.id), [None, None]),
        ((DB.id, "db:2"), [["db:2"]]),
    ],
)
def test_a_name_keeps_its_tags_and_an_id_has_none(
    line: Line, words: tuple[str, ...], tags: list[list[str] | None]
) -> None:
    files, table = _saved(line, *words)

    assert [row["RepoTags"] for row in table] == tags
    rows = json.loads(files["index.json"])["manifests"]
    assert sum("annotations" in row for row in rows) == sum(len(one or ()) for one in tags)


def test_equal_images_make_equal_archives_by_any_way_out(line: Line) -> None:
    """Into a file, into a pipe, and behind something that a file has already."""
    line("save", "-o", str(line.root / "a.tar"), "web:1", "db:2")
    whole = (line.root / "a.tar").read_bytes()
    done = [*command.MAIN, "--root", str(line.root), "save", "web:1", "db:2"]
    piped = subprocess.run(
        done, capture_output=True, check=True, timeout=20, env=command.environment()
    ).stdout
    with (line.root / "b.tar").open("ab") as behind:
        behind.write(b"x")
        behind.flush()
        subprocess.run(done, stdout=behind, check=True, timeout=20, env=command.environment())

    assert piped == whole
    assert (line.root / "b.tar").read_bytes() == b"x" + whole


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
@pytest.mark.parametrize(
    ("source", "found"),
    [("docker-archive:{}:web:1", WEB), ("docker-archive:{}:db:2", DB), ("oci-archive:{}:2", DB)],
)
def test_skopeo_reads_it(line: Line, source: str, found: Image) -> None:
    target = line.root / "s.tar"
    line("save", "-o", str(target), "web:1", "db:2")
    told = subprocess.run(
        ["skopeo", "inspect", "--config", source.format(target)], capture_output=True, timeout=20, check=True
    )

    config = json.loads(told.stdout)
    assert config["rootfs"]["diff_ids"] == [digest(one) for one in found.layers]
    assert config["config"] == found.run


# --- what is refused -----------------------------------------------------------------------------


def test_a_terminal_gets_no_archive(line: Line) -> None:
    master, slave = pty.openpty()
    process = subprocess.run(
        [*command.MAIN, "--root", str(line.root), "save", "web"],
        stdout=slave,
        stderr=subprocess.PIPE,
        timeout=20,
        env=command.environment(),
    )
    os.close(slave)
    os.close(master)

    assert process.returncode == 2
    assert b"refusing to save to a terminal" in process.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("-o", "x.tar", "nothere"), 6, "No such image: nothere:latest"),
        (("-o", "x.tar", "web:1", "nothere"), 6, "No such image: nothere:latest"),
        (("-o", "none/x.tar", "web"), 14, "none/x.tar: no such file or directory"),
        (("-o", ".", "web"), 1, ".: is a directory"),
        (("-o", "/dev/full", "web"), 1, "/dev/full: no space left on device"),
    ],
)
def test_what_cannot_be_saved_leaves_no_file(
    line: Line, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, message: str
) -> None:
    monkeypatch.chdir(line.root)
    before = sorted(os.listdir(line.root))

    assert line("save", *words) == (code, "", f"error: {message}\n")
    assert sorted(os.listdir(line.root)) == before


def test_a_full_disk_behind_standard_output_is_told_as_such(line: Line) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*command.MAIN, "--root", str(line.root), "save", "web"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=20,
            env=command.environment(),
        )

    assert (done.returncode, done.stderr) == (1, b"error: standard output: no space left on device\n")


def test_a_blob_that_is_gone_is_told_before_anything_is_written(line: Line) -> None:
    store = line.root / "data" / "images" / "blobs" / "sha256"
    (store / DB.id[7:]).unlink()
    target = line.root / "old.tar"
    target.write_bytes(b"old")
    code, _, err = line("save", "-o", str(target), "web:1", "db:2")

    assert code == 6
    assert f"blob {DB.id[:19]} is not here any more" in err
    assert target.read_bytes() == b"old"


def test_a_link_to_a_file_stays_and_a_pipe_is_written_into(line: Line) -> None:
    (line.root / "link.tar").symlink_to("real.tar")
    line("save", "-o", str(line.root / "link.tar"), "db:2")

    assert (line.root / "link.tar").is_symlink()
    with tarfile.open(line.root / "real.tar") as archive:
        assert "manifest.json" in archive.getnames()

    os.mkfifo(line.root / "pipe")
    reader = subprocess.Popen(["cat", str(line.root / "pipe")], stdout=subprocess.PIPE)
    line("save", "-o", str(line.root / "pipe"), "db:2")
    out, _ = reader.communicate(timeout=20)
    assert out == (line.root / "real.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        assert len(archive.getnames()) == 9


# --- tag and rmi ---------------------------------------------------------------------------------


def test_a_second_name_is_given_in_silence(line: Line) -> None:
    assert line("tag", "web:1", "reg.example:5000/team/web") == (0, "", "")
    assert line("image", "tag", WEB.id[7:15], "other:2") == (0, "", "")
    assert line("tag", "db:2", "other:2") == (0, "", "")

    tags = line("image", "inspect", "-f", '{{join .RepoTags " "}}', WEB.id, DB.id)[1]
    assert tags == "web:1 web:latest reg.example/web:1 reg.example:5000/team/web:latest\ndb:2 other:2\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothere", "x"), "No such image: nothere:latest"),
        (("web", "Upper:1"), "repository name must be lowercase"),
        (("web", f"x@sha256:{'a' * 64}"), "refusing to create a tag with a digest reference"),
        (("web", "a" * 64), "64 hexadecimal digits are an id, not a name"),
        (("web", "x:" + "y" * 129), "a tag has at most 128"),
    ],
)
def test_a_name_that_cannot_be_is_refused(line: Line, words: tuple[str, ...], message: str) -> None:
    code, out, err = line("tag", *words)

    assert (code, out) == (6, "")
    assert message in err


def test_a_container_given_in_place_of_an_image_is_named(line: Line) -> None:
    box = {"Id": "c0ffee", "Config": {"Image": "web:1"}}
    with Scripted(Paths.find(str(line.root), {}), lambda talk: talk.end({"containers": {"c0ffee": box}})):
        for words in (("tag", "c0ffee", "mine:1"), ("save", "c0ffee", "-o", "/dev/null")):
            code, _, err = line(*words)
            assert code == 6
            assert "No such image: c0ffee:latest" in err
            assert "c0ffee is a container, made of image web:1; `pystack commit c0ffee NAME`" in err
        assert "c0ffee is a container, made of image web:1; `pystack rm`" in line("rmi", "c0ffee")[2]


def test_rmi_tries_every_name_and_force_forgives_what_is_not_here(line: Line) -> None:
    code, out, err = line("rmi", "web:1", "nothere", "db:2")
    assert code == 6
    assert out.splitlines()[:3] == ["Untagged: web:1", "Untagged: db:2", f"Deleted: {DB.id}"]
    assert "No such image: nothere:latest" in err

    code, out, err = line("image", "rm", "-f", "nothere")
    assert (code, out) == (0, "")
    assert "No such image: nothere:latest" in err


def test_an_id_with_names_in_two_repositories_needs_force(line: Line) -> None:
    short = WEB.id[7:19]
    refused = "(must be forced) - image is referenced in multiple repositories"
    assert line("rmi", short) == (7, "", f"error: conflict: unable to delete {short} {refused}\n")

    code, out, _ = line("rmi", "-f", short)
    assert code == 0
    assert out.splitlines()[:4] == [
        "Untagged: web:1",
        "Untagged: web:latest",
        "Untagged: reg.example/web:1",
        f"Deleted: {WEB.id}",
    ]


@pytest.mark.parametrize(
    ("force", "running", "words", "refusal"),
    [
        (
            False,
            False,
            "db:2",
            'remove repository reference "db:2" (must force) - container shop-db-1 is using',
        ),
        (False, False, DB.id, "(must be forced) - image is being used by stopped container shop-db-1"),
        (True, True, DB.id, "(cannot be forced) - image is being used by running container shop-db-1"),
    ],
)
def test_an_image_in_use_is_refused_with_the_container(
    line: Line, force: bool, running: bool, words: str, refusal: str
) -> None:
    users = {DB.id: [{"container": "shop-db-1", "running": running}]}
    with Scripted(Paths.find(str(line.root), {}), lambda talk: talk.end(users)):
        code, out, err = line("rmi", *(["-f"] if force else []), words)

    assert (code, out) == (7, "")
    assert refusal in err


def test_what_is_no_file_is_not_imported(line: Line) -> None:
    code, _, err = line("import", "https://example.org/rootfs.tar")

    assert code == 2
    assert "curl -fsSL https://example.org/rootfs.tar | pystack import - NAME" in err
