"""Where a state root keeps its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.api.paths import Paths


def test_a_root_named_by_option_beats_the_one_of_the_environment() -> None:
    paths = Paths.find("/srv/a", {"PYSTACK_ROOT": "/srv/b"})

    assert (paths.run, paths.data) == (Path("/srv/a/run"), Path("/srv/a/data"))
    assert Paths.find(None, {"PYSTACK_ROOT": "/srv/b"}).run_dir == "/srv/b/run"


def test_a_relative_root_is_made_absolute_because_the_supervisor_stands_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert Paths.find("state", {}).run_dir == f"{tmp_path}/state/run"


def test_root_has_the_directories_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    paths = Paths.find(None, {"XDG_RUNTIME_DIR": "/elsewhere"})

    assert (paths.run_dir, paths.data_dir, paths.tag) == ("/run/pystack", "/var/lib/pystack", "")


def test_a_user_has_the_directories_of_the_xdg_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    paths = Paths.find(None, {"XDG_RUNTIME_DIR": "/run/user/1000", "HOME": "/home/u"})

    assert (paths.run_dir, paths.data_dir) == ("/run/user/1000/pystack", "/home/u/.local/share/pystack")


def test_a_user_without_a_session_is_served_from_beside_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """su(1) makes no directory in /run; what others could have made in /tmp is not looked at."""
    there = {"/run/user/1000": True, "/run/user/1001": False}
    monkeypatch.setattr(os.path, "isdir", there.__getitem__)
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    assert Paths.find(None, {"HOME": "/home/u"}).run_dir == "/home/u/.local/share/pystack-run"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Paths.find(None, {"HOME": "/home/u"}).run_dir == "/run/user/1000/pystack"


def test_the_tag_tells_two_roots_apart_and_stays_the_same_for_one() -> None:
    one, again, other = (Paths.find(root, {}) for root in ("/a", "/a", "/b"))

    assert one.tag == again.tag != other.tag
    assert len(one.tag) == 6
    assert one == again != other
