"""The commands that docs/{images,format,store}.md show are understood, and no command on images is left out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from orchestrator.cli import fast, template
from orchestrator.cli.table import COMMANDS

DOCS = Path(__file__).resolve().parents[2] / "docs"
SHOWN = [
    (page, line[line.index("pystack ") :].partition(" | ")[0])
    for page in ("images.md", "format.md", "store.md")
    for block in re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize(("page", "line"), SHOWN)
def test_a_line_of_the_page_is_understood(page: str, line: str) -> None:
    call = fast.parse(shlex.split(line, comments=True)[1:])

    assert call is not None, page
    form = call.values.get("format")
    if isinstance(form, str) and "{{" in form:
        template.compile(form.removeprefix("table "))


def test_the_pages_have_lines() -> None:
    assert len({page for page, _ in SHOWN}) == 3
    assert len(SHOWN) > 20


def test_every_command_that_takes_a_format_is_on_its_page() -> None:
    page = (DOCS / "format.md").read_text()
    takers = {
        name
        for name, command in COMMANDS.items()
        for option in command.options
        if option.name == "format" and not option.choices and not command.hidden
    }

    told = {name for name in takers if f"`{name}`" in page}
    assert takers - told <= {"image ls", "image history", "version"}
