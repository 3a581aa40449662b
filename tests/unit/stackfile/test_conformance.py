"""Compose semantics, row by row: tests/golden/stackfile/*.yml.

A row says what a file gives (in canonical form) or with which code it is refused; `unrunnable` is the code with
which commands that run it refuse what can be loaded. Where we differ from docker
compose on purpose, the row also says what docker compose does, and docs/compose-differences.md says why.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.stackfile.given import loaded, refused, web

TOP = Path(__file__).parents[3]
Row = dict[str, Any]


@functools.cache
def rows() -> list[Any]:
    found = []
    for path in sorted((TOP / "tests/golden/stackfile").glob("*.yml")):
        for number, row in enumerate(yaml.load(path.read_text(), Loader=yaml.CSafeLoader)):
            found.append(pytest.param(row, id=f"{path.stem}-{row['row']}-{number}"))
    return found


def test_there_are_rows() -> None:
    assert len(rows()) > 500


@pytest.mark.parametrize("row", rows())
def test_compose_semantics(row: Row) -> None:
    text = row["text"] if "text" in row else web(row["body"], row.get("rest", ""))
    then = row.get("then", [])
    texts = [text, *([then] if isinstance(then, str) else then)]
    given = {key: row[key] for key in ("env", "files", "dotenv", "profiles") if key in row}
    if "refused" in row:
        assert refused(*texts, **given)[0].code == row["refused"]
        return
    found = loaded(*texts, **given)
    assert brief(found.canonical, single="body" in row) == row["gives"]
    assert [problem.code for problem in found.refusals][:1] == (
        [row["unrunnable"]] if "unrunnable" in row else []
    )


def brief(canonical: Any, *, single: bool) -> Any:
    """The canonical form without what every row would repeat."""
    if not (single and set(canonical["services"]) == {"web"}):
        return canonical
    service = dict(canonical["services"]["web"])
    if service.get("image") == "x":
        del service["image"]
    if service.get("networks") == {"default": None}:
        del service["networks"]
    rest = {key: value for key, value in canonical.items() if key not in ("services", "name")}
    if rest.get("networks") == {"default": {"name": "proj_default"}}:
        del rest["networks"]
    return {"web": service, **rest}


def test_every_difference_is_documented() -> None:
    """A row on which docker compose answers otherwise is named in docs/compose-differences.md."""
    documented = set(re.findall(r"\[([\w.-]+)\]", (TOP / "docs/compose-differences.md").read_text()))
    different = {
        f"{param.id.split('-')[0]}-{param.values[0]['row']}" for param in rows() if "peer" in param.values[0]
    }
    assert different <= documented, sorted(different - documented)


def agreement() -> tuple[int, float, float]:
    """How many rows there are, and which parts of them have docker compose's verdict and its JSON. A difference
    counts however well it is argued. tests/conformance/test_oracle_table.py holds `peer` to be true.
    """
    table = [param.values[0] for param in rows()]
    peers = [row for row in table if "peer" in row]
    verdicts = [row for row in peers if isinstance(row["peer"], str) != ("refused" in row)]
    return len(table), 1 - len(verdicts) / len(table), 1 - len(peers) / len(table)


def test_the_table_agrees_with_docker_compose() -> None:
    _, verdicts, same = agreement()
    assert verdicts >= 0.99
    assert same >= 0.98


def test_the_page_tells_how_far_the_table_agrees() -> None:
    count, verdicts, same = agreement()
    page = " ".join((TOP / "docs/compose-differences.md").read_text().split())
    parts = [f"{100 * part:.1f} %" for part in (verdicts, same)]
    assert f"Of {count:,} rows {parts[0]} give the same verdict and {parts[1]} the same JSON" in page
