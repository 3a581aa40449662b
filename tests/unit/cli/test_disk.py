"""`system df`, the prune commands and `image verify`: what they print, ask and refuse."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.paths import Paths
from orchestrator.cli import disk
from orchestrator.images.store.usage import ImageUsage, Usage
from orchestrator.model.errors import UserError
from tests.unit.cli import command
from tests.unit.cli.scripted import Scripted

CONTAINERS = [
    {
        "id": "a" * 64,
        "name": "shop-web-1",
        "image": "web:1",
        "image_id": "sha256:" + "1" * 64,
        "command": "web",
        "state": "running",
        "status": "Up 3 minutes",
        "size": 3000,
    },
    {
        "id": "b" * 64,
        "name": "shop-job-1",
        "image": "job:1",
        "image_id": "sha256:" + "2" * 64,
        "command": "job",
        "state": "exited",
        "status": "Exited (0) 2 hours ago",
        "size": 1000,
    },
]
VOLUMES = [
    {"name": "shop_data", "key": "data", "users": ["shop-web-1"], "size": 5000},
    {"name": "0a1b", "key": "", "users": [], "size": 5000},
]
IMAGES = Usage(
    images=(
        ImageUsage(
            id="sha256:" + "1" * 64,
            names=("docker.io/library/web:1", "ghcr.io/x/web:2"),
            created="2026-01-01T00:00:00Z",
            shared=1000,
            unique=500,
        ),
        ImageUsage(id="sha256:" + "3" * 64, names=(), created="", shared=1000, unique=0),
    ),
    size=2000,
    reclaimable=500,
)


def answer(talk: Any) -> None:
    """A supervisor with one stack; what it is asked to remove is removed."""
    match talk.request["verb"]:
        case "disk":
            talk.end(
                {"containers": CONTAINERS, "volumes": [{**v, "users": len(v["users"])} for v in VOLUMES]}
            )
        case "image_users":
            talk.end({})
        case "container_prune":
            talk.end({"removed": ["b" * 64], "gained": 1000})
        case "volumes":
            talk.end(VOLUMES)
        case "volume_rm":
            assert talk.request["names"] == ["0a1b"]
            talk.end({"removed": ["0a1b"], "errors": [], "gained": 5000})


def test_the_totals_count_what_nothing_uses_as_reclaimable() -> None:
    rows = disk.totals(IMAGES, {"containers": CONTAINERS, "volumes": VOLUMES})
    assert [tuple(row.values()) for row in rows] == [
        ("Images", "2", "1", "2kB", "500B (25%)"),
        ("Containers", "2", "1", "4kB", "1kB (25%)"),
        ("Local Volumes", "2", "1", "10kB", "5kB (50%)"),
        ("Build Cache", "0", "0", "0B", "0B"),
    ]


def test_the_long_form_has_a_line_for_each_name_container_and_volume() -> None:
    told = {"containers": CONTAINERS, "volumes": [{**one, "users": len(one["users"])} for one in VOLUMES]}
    text = disk.details(IMAGES, told, 1767225600.0 + 86400)
    lines = [line.split() for line in text.splitlines()]
    assert ["web", "1", "1" * 12, "24", "hours", "ago", "1.5kB", "1kB", "500B", "1"] in lines
    assert ["ghcr.io/x/web", "2", "1" * 12, "24", "hours", "ago", "1.5kB", "1kB", "500B", "1"] in lines
    assert ["<none>", "<none>", "3" * 12, "N/A", "1kB", "1kB", "0B", "0"] in lines
    assert ["b" * 12, "job:1", "exited", "1kB", "Exited", "(0)", "2", "hours", "ago", "shop-job-1"] in lines
    assert ["shop_data", "1", "5kB"] in lines


@pytest.mark.parametrize("text", ["foo", "until", "until=", "until=yesterday", "name=x", "=x"])
def test_a_filter_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no "):
        disk.time_limit([text])


def test_without_anything_there_is_nothing_and_nothing_is_started(tmp_path: Path) -> None:
    code, out, err = command.run(tmp_path, "system", "df", "--format", "json")
    assert (code, err) == (0, "")
    assert [json.loads(line)["TotalCount"] for line in out.splitlines()] == ["0"] * 4
    for words in (("image", "prune"), ("container", "prune"), ("system", "prune", "--volumes")):
        assert command.run(tmp_path, *words, "-f")[:2] == (0, "Total reclaimed space: 0B\n"), words
    assert command.run(tmp_path, "image", "verify")[0] == 0
    assert not (tmp_path / "data").exists()


def test_volumes_are_counted_though_no_supervisor_runs(tmp_path: Path) -> None:
    home = tmp_path / "data" / "volumes" / "shop_data"
    home.mkdir(parents=True)
    (home / "volume.json").write_text("{}")
    (home / "content").write_bytes(b"x" * 100_000)
    out = command.run(tmp_path, "system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}")[1]
    assert "Local Volumes 1 0\n" in out


def test_each_prune_asks_first_and_says_what_would_go(tmp_path: Path) -> None:
    asked = {
        ("image", "prune"): "remove all dangling images.\n",
        ("image", "prune", "-a"): "remove all images without at least one container associated to them.\n",
        ("image", "prune", "--filter", "until=24h"): "filtered with:\n  - until=24h\n",
        ("container", "prune"): "remove all stopped containers.\n",
        ("system", "prune"): "  - all stopped containers\n  - all dangling images\n",
        ("system", "prune", "-a", "--volumes"): (
            "  - all stopped containers\n  - all anonymous volumes not used by at least one container\n"
            "  - all images without at least one container associated to them\n"
        ),
    }
    with Scripted(Paths.find(str(tmp_path), {}), answer) as server:
        for words, warning in asked.items():
            code, out, err = command.run(tmp_path, *words)
            assert (code, out) == (0, ""), words
            assert err.startswith("WARNING! This will remove")
            assert warning in err
            assert err.endswith("Are you sure you want to continue? [y/N] ")
    assert server.requests == []


def test_system_prune_tells_all_that_went_and_one_sum(tmp_path: Path) -> None:
    with Scripted(Paths.find(str(tmp_path), {}), answer):
        code, out, err = command.run(tmp_path, "system", "prune", "--volumes", "-f")
    assert (code, err) == (0, "")
    assert out == (
        f"Deleted Containers:\n{'b' * 64}\n\nDeleted Volumes:\n0a1b\n\nTotal reclaimed space: 6kB\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root unpacks images")
def test_only_images_that_are_asked_for_go(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"x" * 1000)
    tree = str(tmp_path / "tree")
    ids = {
        name: command.run(tmp_path, "import", tree, name, "-c", f"LABEL keep={name}")[1].strip()
        for name in ("used", "old", "kept")
    }
    nameless = command.run(tmp_path, "import", tree, "-c", "USER 5")[1].strip()

    def left() -> set[str]:
        return set(command.run(tmp_path, "images", "-q", "--no-trunc")[1].split())

    def in_use(talk: Any) -> None:
        talk.end({ids["used"]: [{"container": "x", "running": False}]})

    with Scripted(Paths.find(str(tmp_path), {}), in_use):
        code, out, _ = command.run(tmp_path, "image", "prune", "-f")
        assert code == 0
        assert out.startswith(f"Deleted Images:\ndeleted: {nameless}\n\nTotal reclaimed space: ")
        assert left() == set(ids.values())
        command.run(tmp_path, "image", "prune", "-af", "--filter", "until=1h")
        command.run(tmp_path, "image", "prune", "-af", "--filter", "label=keep=nothing")
        assert left() == set(ids.values())
        out = command.run(tmp_path, "image", "prune", "-af", "--filter", "label!=keep=kept")[1]
        assert out.startswith(f"Deleted Images:\nuntagged: old:latest\ndeleted: {ids['old']}\n")
        assert left() == {ids["used"], ids["kept"]}
        command.run(tmp_path, "image", "prune", "-af")
        assert left() == {ids["used"]}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root unpacks images")
def test_verify_names_what_is_wrong_and_its_images_and_its_code_tells(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"x" * 1000)
    command.run(tmp_path, "import", str(tmp_path / "tree"), "one:1")
    code, out, err = command.run(tmp_path, "image", "verify")
    assert (code, err) == (0, "")
    assert out.startswith("1 image, 3 blobs, 1 layer, ")
    assert out.endswith(": all as they should be\n")

    file = next((tmp_path / "data" / "images" / "layers").glob("*/fs/file"))
    file.write_bytes(b"y" * 1000)
    code, out, err = command.run(tmp_path, "image", "verify")
    assert code == 6
    assert out.endswith(": file has other content\n  needed by one:1\n")
    assert err.startswith("error: 1 fault in 1 of 1 images\n")
    code, out, err = command.run(tmp_path, "image", "verify", "--repair")
    assert (code, err) == (0, "")
    assert ": file has other content (mended)\n" in out
    assert file.read_bytes() == b"x" * 1000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root unpacks images")
@pytest.mark.parametrize(
    "words", [("images",), ("rmi", "x"), ("system", "df"), ("image", "prune", "-f"), ("image", "verify")]
)
def test_a_damaged_index_is_one_sentence_and_a_way_out(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "tree").mkdir()
    command.run(tmp_path, "import", str(tmp_path / "tree"), "one:1")
    index = tmp_path / "data" / "images" / "index.json"
    index.write_bytes(index.read_bytes()[:100])
    code, out, err = command.run(tmp_path, *words)
    assert (code, out) == (6, "")
    assert err.count("\n") == 2
    assert f"error: {index} is damaged: it " in err
    assert "`pystack image verify`" in err
