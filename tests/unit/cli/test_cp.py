"""The words of `cp`."""

from __future__ import annotations

import pytest

from orchestrator.cli import cp
from orchestrator.images.files.finding import Source, Target, landing
from orchestrator.images.files.packing import FilesError


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("web:/etc", ("web", "/etc")),
        ("web:etc:x", ("web", "etc:x")),
        ("web:", ("web", "")),
        ("/a:b", ("", "/a:b")),
        ("./a:b", ("", "./a:b")),
        ("../a:b", ("", "../a:b")),
        ("a", ("", "a")),
        ("-", ("", "-")),
    ],
)
def test_a_colon_parts_a_container_from_a_path_unless_the_path_is_plainly_of_this_machine(
    word: str, expected: tuple[str, str]
) -> None:
    assert cp.split(word) == expected


FILE = Source(-1, directory=False, name="f", contents=False, real="f")
FOLDER = Source(-1, directory=True, name="d", contents=False, real="d")
INSIDE = FOLDER._replace(contents=True)
THERE = Target(-1, exists=True, directory=True, name="t", insists=False)
OTHER = THERE._replace(directory=False)
NEW = OTHER._replace(exists=False)


@pytest.mark.parametrize(
    ("source", "target", "top"),
    [
        (FILE, THERE, "f"),
        (FOLDER, THERE, "d"),
        (INSIDE, THERE, "."),
        (FILE, OTHER, "t"),
        (FILE, NEW, "t"),
        (FOLDER, NEW, "t"),
        (INSIDE, NEW._replace(insists=True), "t"),
        (None, THERE, "."),
    ],
)
def test_what_it_is_called_where_it_lands(source: Source | None, target: Target, top: str) -> None:
    assert landing(source, target).top == top


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        (FOLDER, OTHER, "cannot copy directory"),
        (FILE, NEW._replace(insists=True), "no such directory"),
        (None, OTHER, "must be a directory"),
        (None, NEW, "must be a directory"),
    ],
)
def test_what_can_not_land(source: Source | None, target: Target, said: str) -> None:
    with pytest.raises(FilesError, match=said):
        landing(source, target)
