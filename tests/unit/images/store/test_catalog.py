"""What registries said: found again, by several processes, and never in the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.images.store.catalog import Pull
from orchestrator.images.store.content import Store
from orchestrator.model.errors import PystackError

NAME = "docker.io/library/redis:7"
NOTER = """
import sys
from pathlib import Path
from orchestrator.images.store.content import Store
store = Store(Path(sys.argv[1]))
for number in range(20):
    store.note_pull(f"{sys.argv[2]}/{number}", "sha256:" + "0" * 64, number)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_the_last_answer_of_a_registry_is_remembered(store: Store) -> None:
    assert store.last_pull(NAME) is None
    assert not store.root.exists()
    store.note_pull(NAME, "sha256:1", 5.0)
    store.note_pull(NAME, "sha256:2", 6.5, '"etag"')
    again = Store(store.root)
    assert again.last_pull(NAME) == Pull(name=NAME, digest="sha256:2", at=6.5, etag='"etag"')
    assert again.last_pull("docker.io/library/other:1") is None


@pytest.mark.parametrize("garbage", [b"not a database" * 500, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_forgotten_and_made_anew(store: Store, garbage: bytes) -> None:
    store.note_pull(NAME, "sha256:1", 5.0)
    for suffix in ("-wal", "-shm"):
        (store.root / f"store.db{suffix}").unlink(missing_ok=True)
    (store.root / "store.db").write_bytes(garbage)
    assert store.last_pull(NAME) is None
    store.note_pull(NAME, "sha256:1", 7.0)
    assert store.last_pull(NAME) == Pull(name=NAME, digest="sha256:1", at=7.0)


def test_a_file_that_cannot_be_opened_is_named(store: Store) -> None:
    store.note_pull(NAME, "sha256:1", 5.0)
    for suffix in ("", "-wal", "-shm"):
        (store.root / f"store.db{suffix}").unlink(missing_ok=True)
    (store.root / "store.db").mkdir()
    with pytest.raises(PystackError, match=r"store\.db: unable to open"):
        store.last_pull(NAME)


def test_processes_take_turns_from_the_first_moment_on(store: Store) -> None:
    noters = [subprocess.Popen([sys.executable, "-c", NOTER, str(store.root), one]) for one in "abc"]
    assert [one.wait() for one in noters] == [0, 0, 0]
    assert all(store.last_pull(f"{one}/{number}") for one in "abc" for number in range(20))
