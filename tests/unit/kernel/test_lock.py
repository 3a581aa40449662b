"""One holder at a time, also while the lock's file is being taken away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.kernel import lock
from orchestrator.kernel.lock import try_lock


def test_a_lock_is_held_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = try_lock(path)
    assert held is not None
    assert try_lock(path) is None
    os.close(held)
    again = try_lock(path)
    assert again is not None
    os.close(again)


def test_a_file_that_was_removed_while_we_waited_for_it_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last holder unlinks it and leaves between our open and our flock: the next would not meet us."""
    path = tmp_path / "lock"
    flock, removed = lock.fcntl.flock, []

    def late(fd: int, operation: int) -> None:
        if not removed:
            removed.append(path.unlink())
        flock(fd, operation)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    held = try_lock(path)
    assert held is not None
    assert os.fstat(held).st_ino == path.stat().st_ino
    os.close(held)
