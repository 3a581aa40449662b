"""What the keeper knows of containers that it has read of before."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestrator.kernel import capabilities
from orchestrator.kernel.reading import RefusedError
from orchestrator.kernel.shelf import Shelf
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
    shelf = Shelf()
    assert shelf.read(str(bundle)) is shelf.read(str(bundle))


@pytest.mark.parametrize("name", ["config.json", "launch.json"])
def test_a_bundle_that_was_changed_is_read_anew(bundle: Path, name: str) -> None:
    """Also by one that is as long as it was and has its time."""
    shelf = Shelf()
    first, status = shelf.read(str(bundle)), (bundle / name).stat()
    (bundle / f"{name}.new").write_text((bundle / name).read_text())
    os.utime(bundle / f"{name}.new", ns=(status.st_atime_ns, status.st_mtime_ns))
    (bundle / f"{name}.new").rename(bundle / name)
    assert shelf.read(str(bundle)) is not first


def test_a_bundle_that_is_gone_is_no_longer_known(bundle: Path) -> None:
    shelf = Shelf()
    shelf.read(str(bundle))
    (bundle / "config.json").unlink()
    with pytest.raises(FileNotFoundError):
        shelf.read(str(bundle))


def test_what_ended_is_forgotten(bundle: Path) -> None:
    shelf = Shelf()
    kept = shelf.read(str(bundle))
    shelf.forget(str(bundle))
    assert shelf.read(str(bundle)) is not kept


def test_hundreds_are_kept_and_say_what_is_the_same_once(tmp_path: Path) -> None:
    """Checks come to all containers in turn: with less room each would read its bundle anew."""
    shelf, paths = Shelf(), [str(write(tmp_path / str(number))) for number in range(500)]
    first = [shelf.read(path) for path in paths]
    assert all(shelf.read(path) is entry for path, entry in zip(paths, first, strict=True))
    texts = [
        text
        for entry in first
        for text in entry.bundle.config.table("process").table("capabilities").texts("bounding")
    ]
    assert len({id(text) for text in texts}) == len(set(texts)) > 1


def test_an_entry_is_what_an_exec_asks_for(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "filter").write_bytes(bytes(16))
    told = json.loads((bundle / "launch.json").read_text())
    (bundle / "launch.json").write_text(json.dumps({**told, "seccomp": str(tmp_path / "filter")}))
    entry = Shelf(held=capabilities.mask(["CAP_CHOWN", "CAP_SYS_ADMIN"])).read(str(bundle))
    assert entry.sets.bounding == capabilities.mask(["CAP_CHOWN"])
    assert entry.seccomp == bytes(16)
    assert entry.bundle.config.names() == ["process"]
    assert "root" not in entry.bundle.launch


@pytest.mark.parametrize("content", [b"", bytes(7), bytes(8 * 4097)])
def test_what_is_no_filter_is_refused(bundle: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "filter").write_bytes(content)
    told = json.loads((bundle / "launch.json").read_text())
    (bundle / "launch.json").write_text(json.dumps({**told, "seccomp": str(tmp_path / "filter")}))
    with pytest.raises(RefusedError, match="not a compiled seccomp filter"):
        Shelf().read(str(bundle))
