"""Bundles that the keeper has read before."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestrator.kernel import launch
from tests.kit.keeper import default_mounts, default_process


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write(tmp_path / "one")


def write(path: Path) -> Path:
    path.mkdir()
    config = {"ociVersion": "1.0.2", "process": default_process(["true"]), "mounts": default_mounts()}
    spaces = [{"type": "mount"}, {"type": "uts"}]
    (path / "config.json").write_text(
        json.dumps({**config, "hostname": "a", "linux": {"namespaces": spaces}})
    )
    root = {"target": "", "lower": [str(path)], "upper": "", "work": ""}
    (path / "launch.json").write_text(json.dumps({"format": 1, "root": [root]}))
    return path


def test_a_bundle_is_read_once(bundle: Path) -> None:
    shelf = launch.Shelf()
    assert shelf.read(str(bundle)) is shelf.read(str(bundle))


@pytest.mark.parametrize("name", ["config.json", "launch.json"])
def test_a_bundle_that_was_changed_is_read_anew(bundle: Path, name: str) -> None:
    """Also by one that is as long as it was and has its time."""
    shelf = launch.Shelf()
    first, status = shelf.read(str(bundle)), (bundle / name).stat()
    (bundle / f"{name}.new").write_text((bundle / name).read_text())
    os.utime(bundle / f"{name}.new", ns=(status.st_atime_ns, status.st_mtime_ns))
    (bundle / f"{name}.new").rename(bundle / name)
    assert shelf.read(str(bundle)) is not first


def test_a_bundle_that_is_gone_is_no_longer_known(bundle: Path) -> None:
    shelf = launch.Shelf()
    shelf.read(str(bundle))
    (bundle / "config.json").unlink()
    with pytest.raises(FileNotFoundError):
        shelf.read(str(bundle))


def test_what_ended_is_forgotten_and_so_are_the_oldest_of_many(tmp_path: Path) -> None:
    shelf, paths = launch.Shelf(), [str(write(tmp_path / str(number))) for number in range(40)]
    first = [shelf.read(path) for path in paths]
    again = [
        shelf.read(path) is bundle for path, bundle in zip(reversed(paths), reversed(first), strict=True)
    ]
    assert again == [True] * 32 + [False] * 8
    kept = shelf.read(paths[-1])
    shelf.forget(paths[-1])
    assert shelf.read(paths[-1]) is not kept
