"""Locks and work in flight, between threads and processes, and after a SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.images import scratch, trees

HOLDER = """
import sys, time
from pathlib import Path
from orchestrator.images import scratch
top = Path(sys.argv[1])
with scratch.directory(top / "tmp", lock=top / "lock") as path:
    (path / "deep").mkdir()
    (path / "deep" / "file").write_text("x")
    print(path, flush=True)
    sys.stdin.read()
"""


SWEEPER = """
import sys
from pathlib import Path
from orchestrator.images import scratch
print(scratch.sweep(Path(sys.argv[1])))
"""


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tmp_path


def holder(top: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(top)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_a_directory_of_a_living_process_is_not_swept_and_that_of_a_killed_one_is(top: Path) -> None:
    with holder(top) as process:
        with scratch.locked(top / "lock"):
            assert scratch.sweep(top / "tmp") == 0
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(os.listdir(top / "tmp")) == 1
    with scratch.locked(top / "lock"):
        assert scratch.sweep(top / "tmp") == 1
    assert os.listdir(top / "tmp") == []


def test_our_own_directory_is_not_swept_even_by_us(top: Path) -> None:
    with scratch.directory(top / "tmp", lock=top / "lock") as path:
        with scratch.locked(top / "lock"):
            assert scratch.sweep(top / "tmp") == 0
        # Looking at a lock must not have dropped it: record locks go with any close of the file.
        command = [sys.executable, "-c", SWEEPER, str(top / "tmp")]
        other = subprocess.run(command, capture_output=True, text=True)
        assert other.stdout == "0\n", other.stderr
        assert path.is_dir()
    assert os.listdir(top / "tmp") == []


def test_threads_and_processes_take_turns(top: Path) -> None:
    """Everybody adds to a number in a file, without care but for the lock."""
    (top / "count").write_text("0")

    def add() -> None:
        for _ in range(50):
            with scratch.locked(top / "lock"):
                (top / "count").write_text(str(int((top / "count").read_text()) + 1))

    script = """
import sys
from pathlib import Path
from orchestrator.images import scratch
top = Path(sys.argv[1])
for _ in range(50):
    with scratch.locked(top / "lock"):
        (top / "count").write_text(str(int((top / "count").read_text()) + 1))
"""
    others = [subprocess.Popen([sys.executable, "-c", script, str(top)]) for _ in range(2)]
    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait() for other in others] == [0, 0]
    assert (top / "count").read_text() == "250"


def test_a_file_is_replaced_whole_and_leaves_no_temporary(top: Path) -> None:
    scratch.write_file(top / "tmp" / "a", b"one")
    scratch.write_file(top / "tmp" / "a", b"two")
    assert os.listdir(top / "tmp") == ["a"]
    assert (top / "tmp" / "a").read_bytes() == b"two"


def test_a_tree_deeper_than_paths_and_recursion_go_is_removed(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    os.mkdir("top", dir_fd=fd)
    here = os.open("top", os.O_RDONLY, dir_fd=fd)
    for _ in range(1200):
        os.mkdir("directory", dir_fd=here)
        os.symlink("/etc/passwd", "link", dir_fd=here)
        below = os.open("directory", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    os.close(fd)
    trees.discard(str(tmp_path / "top"))
    assert os.listdir(tmp_path) == []


def test_removing_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to("../kept")
    trees.discard(str(tmp_path / "link"))
    trees.discard(str(tmp_path / "tree"))
    trees.discard(str(tmp_path / "missing"))
    assert sorted(os.listdir(tmp_path)) == ["kept"]
    assert (tmp_path / "kept" / "file").exists()
