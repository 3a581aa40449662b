"""The published schema: one valid document that judges as our own checks do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from orchestrator.cli.schema import published
from orchestrator.stackfile.check import fits
from orchestrator.stackfile.problem import Report
from orchestrator.stackfile.read import Source, read
from orchestrator.stackfile.tree import Tagged
from tests.unit.cli import command
from tests.unit.stackfile.given import web

TOP = Path(__file__).parents[3]


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for part in node for found in references(part)]
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for part in node.values() for found in references(part)]
    return []


def texts() -> list[str]:
    """Every first file of the golden table."""
    files = sorted((TOP / "tests/golden/stackfile").glob("*.yml"))
    rows = [row for path in files for row in yaml.safe_load(path.read_text())]
    return [row["text"] if "text" in row else web(row["body"], row.get("rest", "")) for row in rows]


def test_it_is_one_document_of_json_schema_2020_12(tmp_path: Path) -> None:
    code, out, err = command.run(tmp_path, "schema")
    schema = json.loads(out)

    assert (code, err) == (0, "")
    assert schema == published()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    targets = references(schema)
    assert len(targets) > 100
    for target in targets:
        head, *steps = target.split("/")
        assert head == "#"
        node = schema
        for step in steps:
            node = node[step]
    assert "x-expected" not in out


def test_it_may_go_to_a_file(tmp_path: Path) -> None:
    assert command.run(tmp_path, "schema", "-o", "s.json") == (0, "", "")
    assert json.loads((tmp_path / "s.json").read_text()) == published()
    assert command.run(tmp_path, "schema", "-o", "no/s.json")[0] == 1


def test_it_agrees_with_our_checks_on_the_golden_files() -> None:
    validator = Draft202012Validator(published())  # type: ignore[arg-type]
    judged = {True: 0, False: 0}
    for text in texts():
        report = Report()
        for tree in read(Source(path="x", text=text), report):
            if report.problems or _tagged(tree):
                continue
            verdict = fits(tree)
            judged[verdict] += 1
            assert validator.is_valid(tree) is verdict, text
    assert judged[True] > 300
    assert judged[False] > 50


def _tagged(node: Any) -> bool:
    if isinstance(node, Tagged):
        return True
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return any(map(_tagged, parts))


@pytest.mark.parametrize(
    "stack", sorted((TOP / "examples").glob("*/stack.yml")), ids=lambda path: path.parent.name
)
def test_the_examples_name_the_schema_for_editors(stack: Path) -> None:
    first = stack.read_text().partition("\n")[0]
    mark = "# yaml-language-server: $schema="

    assert first.startswith(mark)
    assert (stack.parent / first.removeprefix(mark)).resolve() == TOP / "schemas/stack.json"
