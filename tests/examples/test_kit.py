"""The suite's own eyes are tested too: a leak check that sees nothing would make every other test green."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.examples import readme
from tests.kit.leaks import Root, left, look, nothing_left

pytestmark = pytest.mark.kernel
TAG = "pystack-leaktest"


def test_a_process_that_stays_is_named() -> None:
    before = look()
    with subprocess.Popen(["sh", "-c", "sleep 60; exit", "kernel/keeper.py"]) as process:
        named = f"process: {process.pid} 'sh'"
        wait_for(lambda: any(named in row and "keeper.py" in row for row in left(before, settle=0)))
        process.kill()
    assert left(before) == []


def test_a_process_in_another_pid_namespace_is_seen_whatever_its_name() -> None:
    before = look()
    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "60"]) as process:
        wait_for(lambda: any("sleep 60" in row for row in left(before, settle=0)))
        process.kill()
    assert left(before) == []


def test_a_mount_is_named_by_its_place(tmp_path: Path) -> None:
    before = look()
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
    remains = left(before, settle=0)
    subprocess.run(["umount", tmp_path], check=True)
    assert f"mount: {tmp_path} (tmpfs)" in remains


def test_an_interface_and_a_mounted_namespace_are_seen(tmp_path: Path) -> None:
    before = look()
    place = tmp_path / "namespace"
    place.touch()
    subprocess.run(["ip", "link", "add", "leaktest0", "type", "bridge"], check=True)
    subprocess.run(["unshare", f"--net={place}", "true"], check=True)
    remains = left(before, settle=0)
    subprocess.run(["umount", place], check=True)
    subprocess.run(["ip", "link", "delete", "leaktest0"], check=True)
    assert "interface: leaktest0" in remains
    assert any(f"mounted at {place}" in row for row in remains)


def test_a_namespace_held_by_nothing_but_a_descriptor_is_seen() -> None:
    before = look()
    with subprocess.Popen(["unshare", "--net", "sleep", "60"]) as process:
        wait_for(
            lambda: os.readlink(f"/proc/{process.pid}/ns/net") != os.readlink("/proc/self/ns/net"),
        )
        held = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY)
        process.kill()
    remains = left(before, settle=0)
    os.close(held)
    assert any(f"held by descriptor {held} of process {os.getpid()}" in row for row in remains)
    assert left(before) == []


def test_a_control_group_of_any_hierarchy_is_seen() -> None:
    before = look()
    hierarchies = [
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if " - cgroup" in line and "cpuset" not in line
    ]
    for place in hierarchies:
        os.mkdir(f"{place}/{TAG}")
    remains = left(before, settle=0)
    for place in hierarchies:
        os.rmdir(f"{place}/{TAG}")
    assert {f"control group: {place}/{TAG}" for place in hierarchies} <= set(remains)


def test_an_nftables_table_is_seen() -> None:
    before = look()
    subprocess.run(["nft", "add", "table", "ip", TAG], check=True)
    remains = left(before, settle=0)
    subprocess.run(["nft", "delete", "table", "ip", TAG], check=True)
    assert f"nftables table: ip {TAG}" in remains


def test_of_one_state_root_only_what_bears_its_marks_counts(tmp_path: Path) -> None:
    root = Root(path=tmp_path)
    before = look(root)
    subprocess.run(["ip", "link", "add", "leaktest0", "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "add", f"ps{root.tag}b1", "type", "bridge"], check=True)
    root.run.mkdir()
    (root.run / "stale").touch()
    remains = left(before, root, settle=0)
    for name in ("leaktest0", f"ps{root.tag}b1"):
        subprocess.run(["ip", "link", "delete", name], check=True)
    assert remains == [f"interface: ps{root.tag}b1", f"file: {root.run}/stale"]


def test_nothing_left_fails_with_what_is_left(tmp_path: Path) -> None:
    root = Root(path=tmp_path)
    root.run.mkdir()

    def leave() -> None:
        with nothing_left(root, settle=0):
            (root.run / "stale").touch()

    with pytest.raises(AssertionError, match=f"left behind:\n  file: {root.run}/stale"):
        leave()


@pytest.mark.parametrize(
    ("told", "printed"),
    [
        ("hello", "hello\n"),
        ("a ... z", "a b\nc z"),
        ("a ... z", "a z"),
        ("...\nlast", "first\nlast\n"),
        ("NAME STATUS\nweb Up ... (healthy)", "NAME   STATUS\nweb    Up 3 seconds (healthy)\n"),
        ("", "\n"),
    ],
)
def test_a_readme_agrees_with_what_it_means(told: str, printed: str) -> None:
    assert readme.agrees(told, printed)


@pytest.mark.parametrize(
    ("told", "printed"),
    [("hello", "hello you"), ("a ... z", "a b"), ("a.c", "abc"), ("", "error"), ("x\n...", "y")],
)
def test_a_readme_that_tells_something_else_is_found_out(told: str, printed: str) -> None:
    assert not readme.agrees(told, printed)


def test_only_marked_blocks_of_a_readme_are_run() -> None:
    text = "```console\n$ rm -rf /\n```\n<!-- run -->\n```console\n$ one \\\n  two\nout\nput\n$ three\n```\n"
    assert [(row.command, row.output, row.line) for row in readme.commands(text)] == [
        ("one  two", "out\nput", 6),
        ("three", "", 6),
    ]


def wait_for(condition: object) -> None:
    assert callable(condition)
    import time

    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
