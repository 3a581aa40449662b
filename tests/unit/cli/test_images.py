"""Commands that change images, on a real store."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestrator.api.paths import Paths
from orchestrator.cli.images import image_users
from orchestrator.images.store.removal import ImageUser
from tests.unit.cli import command
from tests.unit.cli.scripted import Scripted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root unpacks images")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "sh").write_bytes(b"#!" + b"x" * 1000)
    return path


def test_a_directory_becomes_an_image_that_is_listed_and_can_be_removed(tmp_path: Path, tree: Path) -> None:
    code, image, err = command.run(tmp_path, "import", str(tree), "tiny:1", "-c", 'CMD ["sh"]')
    assert (code, err) == (0, "")
    assert image.startswith("sha256:")
    short = image.removeprefix("sha256:")[:12]

    table = command.run(tmp_path, "images")[1].splitlines()
    assert table[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert table[1].split()[:3] == ["tiny", "1", short]
    assert command.run(tmp_path, "images", "-q")[1] == f"{short}\n"
    assert json.loads(command.run(tmp_path, "images", "--format", "json")[1])["Repository"] == "tiny"

    code, out, _ = command.run(tmp_path, "rmi", "tiny:1", "nothere")
    assert code != 0
    assert out.startswith("Untagged: tiny:1\nDeleted: sha256:")
    assert command.run(tmp_path, "images", "-q")[1] == ""


def test_an_image_in_use_stays(tmp_path: Path, tree: Path) -> None:
    image = command.run(tmp_path, "import", str(tree), "tiny")[1].strip()
    users = {image: ["shop-web-1"]}
    with Scripted(Paths.find(str(tmp_path), {}), lambda talk: talk.end(users)):
        code, out, err = command.run(tmp_path, "rmi", "tiny")

    assert (code, out) == (7, "")
    assert "shop-web-1" in err
    assert "Traceback" not in err


def test_without_a_store_there_is_an_empty_table_and_none_is_made(tmp_path: Path) -> None:
    assert command.run(tmp_path, "images") == (0, "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n", "")
    assert not (tmp_path / "data").exists()


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"not an archive" * 100)
    code, out, err = command.run(tmp_path, "load", "-i", "x.tar")

    assert (code, out) == (6, "")
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_users_of_an_image_are_containers_by_name() -> None:
    users = {"i": ["a", {"container": "b", "running": False}]}

    assert image_users(users, "i") == [
        ImageUser(container="a", running=True),
        ImageUser(container="b", running=False),
    ]
    assert image_users(users, "j") == []
