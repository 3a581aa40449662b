"""Diagnostics as text, JSON and SARIF."""

from __future__ import annotations

import json

from orchestrator.cli import diagnose
from orchestrator.model.errors import Place
from orchestrator.stackfile.finding import Finding

FULL = Finding(
    code="C1",
    severity="error",
    message="no\x1b[2J",
    place=Place(file="a b.yml", line=3, column=5, end_column=9),
    path="services.a",
    hint="try yes",
    excerpt=("    3 | x: yes", "      |    ^^^"),
    via=("included from top.yml:1",),
)
BARE = Finding(code="C2", severity="note", message="hm")


def test_text_has_the_place_the_source_the_way_and_the_hint() -> None:
    assert diagnose.text([FULL, BARE], colour=False) == (
        "a b.yml:3:5: error[C1]: no\N{REPLACEMENT CHARACTER}[2J\n"
        "    3 | x: yes\n"
        "      |    ^^^\n"
        "  included from top.yml:1\n"
        "  hint: try yes\n"
        "note[C2]: hm\n"
    )


def test_in_colours_the_severity_and_the_carets_stand_out() -> None:
    text = diagnose.text([FULL], colour=True)

    assert "\x1b[1ma b.yml:3:5: \x1b[0m\x1b[31merror[C1]:\x1b[0m" in text
    assert "\x1b[31m   ^^^\x1b[0m" in text
    assert "\x1b[2J" not in text


def test_json_leaves_out_what_is_not_known() -> None:
    full, bare = json.loads(diagnose.as_json([FULL, BARE]))

    assert bare == {"severity": "note", "code": "C2", "message": "hm"}
    assert full["range"] == {"start": {"line": 3, "column": 5}, "end": {"line": 3, "column": 9}}
    assert full["via"] == ["included from top.yml:1"]


def test_sarif_names_files_as_addresses() -> None:
    absolute = Finding(
        code="C2", severity="note", message="hm", place=Place(file="/a/b.yml", line=1, column=1)
    )
    log = json.loads(diagnose.sarif([FULL, absolute, BARE], [("C1", "one", "error", "One.")], "1.0"))
    results = log["runs"][0]["results"]

    uris = [one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in results[:2]]
    assert uris == ["a%20b.yml", "file:///a/b.yml"]
    assert results[0]["message"]["text"] == "no\x1b[2J. try yes"
    assert "locations" not in results[2]
    assert "ruleIndex" not in results[2]
