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
