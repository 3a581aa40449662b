"""What the kernel tells of watched directories."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from orchestrator.kernel import inotify
from orchestrator.kernel.inotify import Inotify


def test_what_comes_and_goes_in_a_directory_is_told_by_name(tmp_path: Path) -> None:
    with Inotify() as watching:
        watch = watching.add(str(tmp_path), inotify.NAMES, directory=True)
        (tmp_path / "one").mkdir()
        (tmp_path / "one").rename(tmp_path / "zwei \udcff")
        (tmp_path / "zwei \udcff").rmdir()
        told = [(seen.watch, seen.mask & inotify.NAMES, seen.name) for seen in watching.read()]
    assert told == [
        (watch, inotify.CREATE, "one"),
        (watch, inotify.MOVED_FROM, "one"),
        (watch, inotify.MOVED_TO, "zwei \udcff"),
        (watch, inotify.DELETE, "zwei \udcff"),
    ]


def test_who_changes_things_faster_than_we_read_lets_us_go(tmp_path: Path) -> None:
    """Something new is announced for each thing read: what is read at once ends nevertheless."""
    with Inotify() as watching:
        watching.add(str(tmp_path), inotify.NAMES, directory=True)
        (tmp_path / ("0" * 200)).touch()
        read = 0
        for _ in watching.read():
            read += 1
            (tmp_path / f"{read:0200}").touch()
            assert read < 1000
        assert read == 1
        assert next(iter(watching.read())).name == f"{1:0200}"


def test_masks_for_the_same_path_add_up(tmp_path: Path) -> None:
    with Inotify() as watching:
        first = watching.add(str(tmp_path), inotify.CREATE)
        assert watching.add(str(tmp_path), inotify.DELETE) == first
        (tmp_path / "a").touch()
        (tmp_path / "a").unlink()
        assert [seen.mask for seen in watching.read()] == [inotify.CREATE, inotify.DELETE]


def test_nothing_is_told_of_what_was_dropped(tmp_path: Path) -> None:
    with Inotify() as watching:
        watching.drop(watching.add(str(tmp_path), inotify.NAMES))
        (tmp_path / "a").touch()
        assert [seen.mask for seen in watching.read()] == [inotify.IGNORED]
        watching.drop(4711)


def test_what_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with Inotify() as watching, pytest.raises(OSError, match=f"inotify_add_watch {tmp_path}/no") as wrong:
        watching.add(f"{tmp_path}/no", inotify.NAMES)
    assert wrong.value.errno == errno.ENOENT


def test_it_is_closed_on_exec() -> None:
    with Inotify() as watching:
        assert not os.get_inheritable(watching.fileno())
