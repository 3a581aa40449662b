"""docs/security.md names the tests that hold us to it: they have to be there."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_every_test_that_the_page_names_is_there() -> None:
    page = (REPOSITORY / "docs/security.md").read_text()
    named = re.findall(r"`([\w./]+\.py)::(test_\w+)`", page)
    assert len(named) > 60
    for path, name in named:
        text = (REPOSITORY / "tests/kernel" / path).read_text()
        assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), (path, name)


def test_every_way_in_which_a_layer_can_do_harm_stands_in_the_table() -> None:
    """The traps are grouped as runtime's known failures are; a group that loses its last one shows here."""
    text = (REPOSITORY / "tests/kernel/test_images_hostile.py").read_text()
    page = (REPOSITORY / "docs/security.md").read_text()
    for group, row in {
        "traversal": "archives that lead out",
        "hard links": "hard links across layers",
        "whiteouts": "whiteouts",
        "attributes, nodes, owners": "attributes that steer overlayfs",
        "bombs": "archives that grow without end",
    }.items():
        assert re.search(rf"# --- {group} -+\n    \"", text), group
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {row}"))
        assert "test_a_trap_in_a_layer_does_no_harm_by_pull" in line
