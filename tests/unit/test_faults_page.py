"""docs/faults.md names the tests that hold us to it: they have to be there, for every fault."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/faults.md").read_text()


def test_every_fault_has_a_row_and_every_row_a_test() -> None:
    rows = re.findall(r"^\| (\d+) \|(.*)$", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 29))
    for number, row in rows:
        assert len(row.split("|")) == 5, number
        assert re.search(r"::test_\w+`", row), number


def test_every_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"`([\w./]+\.py)::(test_\w+)`", PAGE)
    assert len(named) > 50
    for path, name in named:
        place = "tests" if path.startswith("unit/") else "tests/kernel"
        text = (REPOSITORY / place / path).read_text()
        assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), (path, name)


def test_what_is_said_to_run_at_night_does() -> None:
    nightly = (REPOSITORY / "tests/nightly").read_text()
    for row in PAGE.splitlines():
        if "night:" in row and row.startswith("|"):
            first = re.findall(r"`([\w./]+\.py)::", row)[0]
            assert f"tests/kernel/{first}" in nightly, first
