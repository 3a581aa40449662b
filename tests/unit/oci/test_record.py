"""What is remembered of a container, and what an id may be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.oci import hierarchy, record, signals, status
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.record import Record


def example(**change: object) -> Record:
    known = Record(
        id="c",
        bundle="/b",
        rootfs="/b/rootfs",
        version="1.0.2",
        created="2026-01-01T00:00:00.000000000Z",
        uid=0,
        annotations={"a": "b"},
        boot_id=status.boot_id(),
        groups=("/x", "/y"),
    )
    return known._replace(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a", "0", "_", "-x", "+", "a.b", "A_b-c+d.e", "x" * 255])
def test_ids(name: str) -> None:
    assert record.check_id(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "a/b", "/", "a b", "a\n", "ä", "a\0", "x" * 256, "../a"]
)
def test_ids_that_are_none(name: str) -> None:
    with pytest.raises(Complaint):
        record.check_id(name)


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record.write(str(tmp_path), example())
    assert record.read(str(tmp_path)) == example()
    assert os.listdir(tmp_path) == ["state.json"]
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1}', '{"format": 9}', "\0", '{"format": 1, "id": "c"}']
)
def test_a_damaged_record_is_an_error_that_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(Complaint, match=r"damaged|another version"):
        record.read(str(tmp_path))


def test_a_container_is_made_once_and_locked_by_one(tmp_path: Path) -> None:
    path = record.make(str(tmp_path / "root"), "c")
    with pytest.raises(Complaint, match="already exists"):
        record.make(str(tmp_path / "root"), "c")
    with record.locked(path):
        assert record.is_busy(path)
    assert not record.is_busy(path)
    record.remove(path)
    with pytest.raises(Complaint, match="does not exist"), record.locked(path):
        pass


def test_who_is_alive_is_told_by_pid_start_time_and_boot() -> None:
    fields = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()
    ours = example(pid=os.getpid(), start_time=int(fields[19]))
    assert status.is_alive(ours)
    assert not status.is_alive(ours._replace(start_time=1))
    assert not status.is_alive(ours._replace(boot_id="another"))
    assert not status.is_alive(ours._replace(pid=0))


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("", "pystack-oci/c"),
        ("/a/b", "a/b"),
        ("a/b", "pystack-oci/a/b"),
        ("/", "pystack-oci/c"),
        ("//a/./b/", "a/b"),
    ],
)
def test_where_the_control_group_is(asked: str, path: str) -> None:
    assert hierarchy.path_of(asked, "c") == path


def test_a_control_group_stays_in_the_hierarchy() -> None:
    with pytest.raises(Complaint, match="leads out"):
        hierarchy.path_of("/a/../../b", "c")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigkill", 9),
        ("9", 9),
        ("64", 64),
        ("RTMIN+3", 37),
        ("SIGRTMAX-1", 63),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert signals.number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "-9", "NOSIG", "SIG", "9x", "1e1", "SIGSIGTERM", "9" * 50])
def test_signals_that_are_none(text: str) -> None:
    with pytest.raises(Complaint, match="unknown signal"):
        signals.number(text)
