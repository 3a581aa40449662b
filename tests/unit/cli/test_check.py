"""`check`: what it prints, and the exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from orchestrator.cli import diagnose
from orchestrator.model.errors import Place
from orchestrator.stackfile import findings
from orchestrator.stackfile.finding import Finding
from orchestrator.stackfile.problem import CODES
from tests.kit.sarif import SARIF
from tests.unit.cli import command

GOOD = "name: shop\nservices:\n  web:\n    image: nginx:1\n"
BODY = GOOD + "    privileged: true\n  db:\n    image: pg:1\n    ports: ['80:80']\nvolumes: {v: }\n"
FAILS = GOOD + "    scale: 3\n    ports: ['127.0.0.1:80-81:80']\n"
BROKEN = GOOD + "    imag: x\n    ports: [a]\n"


def check(root: Path, body: str, *words: str) -> tuple[int, str, str]:
    (root / "stack.yml").write_text(body)
    return command.run(root, "check", *words)


def codes(root: Path, body: str, *words: str) -> list[str]:
    _, out, _ = check(root, body, "--format", "json", *words)
    return [finding["code"] for finding in json.loads(out)]


@pytest.mark.parametrize(
    ("body", "words", "code"),
    [
        (GOOD, (), 0),
        (GOOD, ("--strict",), 0),
        (BODY, (), 0),
        (BODY, ("--strict",), 1),
        (BODY, ("--strict", "--ignore", "privileged"), 0),
        (FAILS, (), 1),
        (FAILS, ("--ignore", "C304"), 0),
        (BROKEN, (), 15),
        (GOOD.replace("image", "user"), (), 15),
        (BODY, ("nope",), 1),
        (BODY, ("--ignore", "nope"), 2),
        (BODY, ("-f", "nope.yml"), 14),
    ],
)
@pytest.mark.parametrize("form", ["text", "json", "sarif"])
def test_the_exit_code_says_how_bad_it_is(
    tmp_path: Path, body: str, words: tuple[str, ...], code: int, form: str
) -> None:
    assert check(tmp_path, body, "--format", form, *words)[0] == code


def test_a_finding_looks_like_an_error_and_a_last_line_counts(tmp_path: Path) -> None:
    code, out, err = check(tmp_path, BODY)

    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "stack.yml:5:17: warning[C401]: web is privileged: its root is root of this machine",
        "    5 |     privileged: true",
        "      |                 ^^^^",
        "  hint: `cap_add:` and `devices:` give only what is needed",
        "stack.yml:8:13: note[C301]: port 80 of db can be reached from every network of this machine",
        "    8 |     ports: ['80:80']",
        "      |             ^^^^^^^",
        '  hint: for this machine only: "127.0.0.1:80:80"',
        "stack.yml:9:11: note[C701]: no service uses the volume v",
        "    9 | volumes: {v: }",
        "      |           ^",
        "  hint: leave it out, or look for a misspelt name",
        "1 warning, 2 notes",
    ]
    assert check(tmp_path, GOOD)[1] == "nothing found\n"


def test_errors_of_an_invalid_file_come_in_the_same_form(tmp_path: Path) -> None:
    _, out, err = check(tmp_path, BROKEN, "--format", "json")

    assert err == ""
    unknown, port = json.loads(out)
    assert unknown == {
        "file": "stack.yml",
        "range": {"start": {"line": 5, "column": 5}, "end": {"line": 5, "column": 9}},
        "severity": "error",
        "code": "E012",
        "message": "unknown key 'imag' in services.web",
        "path": "services.web.imag",
        "hint": "did you mean 'image'?",
    }
    assert (port["code"], port["path"]) == ("E013", "services.web.ports[0]")


def test_what_is_ignored_is_left_out(tmp_path: Path) -> None:
    assert codes(tmp_path, BODY) == ["C401", "C301", "C701"]
    assert codes(tmp_path, BODY, "--ignore", "C401,unused") == ["C301"]
    assert codes(tmp_path, f"x-check-ignore: [C301]\n{BODY}") == ["C401", "C701"]


def test_only_the_services_that_are_named_are_looked_at(tmp_path: Path) -> None:
    assert codes(tmp_path, BODY, "web") == ["C401"]
    assert codes(tmp_path, BODY, "db") == ["C301"]


def test_what_loading_warns_about_is_a_finding(tmp_path: Path) -> None:
    body = GOOD.replace("nginx:1", "nginx:1$NOPE")
    _, out, err = check(tmp_path, body)

    assert err == ""
    assert "stack.yml:4:12: warning[W001]: the variable NOPE is not set" in out
    assert codes(tmp_path, body, "--ignore", "W001") == []
    assert codes(tmp_path, f"x-check-ignore: W001\n{body}") == []


def test_a_typo_in_ignore_is_told(tmp_path: Path) -> None:
    code, _, err = check(tmp_path, BODY, "--ignore", "priviledged")

    assert (code, err) == (
        2,
        "error: --ignore: 'priviledged' is no finding\n  hint: did you mean 'privileged'?\n",
    )


@pytest.mark.parametrize("body", [BODY, BROKEN, FAILS])
def test_sarif_has_what_the_standard_demands(tmp_path: Path, body: str) -> None:
    """SARIF 2.1.0: version (3.13.2), runs with a tool's driver (3.14, 3.19), and results whose rules, levels
    and regions exist (3.27, 3.30, 3.49)."""
    _, out, _ = check(tmp_path, body, "--format", "sarif")
    log: dict[str, Any] = json.loads(out)

    assert log["version"] == "2.1.0"
    assert "sarif-schema-2.1.0" in log["$schema"]
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "pystack"
    rules = driver["rules"]
    ids = [rule["id"] for rule in rules]
    assert len(ids) == len(set(ids))
    assert {rule.code for rule in findings.TABLE} | set(CODES) | {findings.WARNED} == set(ids)
    assert all(rule["shortDescription"]["text"] and rule["name"] for rule in rules)
    assert run["columnKind"] == "unicodeCodePoints"
    assert run["results"]
    for result in run["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        (location,) = result["locations"]
        where = location["physicalLocation"]
        assert where["artifactLocation"]["uri"] == "stack.yml"
        region = where["region"]
        assert 1 <= region["startLine"] <= len(body.splitlines())
        assert 1 <= region["startColumn"] < region["endColumn"]


def test_sarif_fits_the_rules_of_the_standard_for_every_finding() -> None:
    """Also what no check shows: files with blanks and letters of any language, absolute ones, no place at all."""
    places = [
        None,
        Place(file="a b/ä#1%.yml", line=1, column=1),
        Place(file="/abs/x.yml", line=2, column=3, end_column=9),
        Place(file="-", line=1, column=1, end_column=1),
    ]
    found = [
        Finding(code=rule.code, severity=rule.severity, message=rule.because, place=place, hint=hint)
        for rule in findings.TABLE
        for place in places
        for hint in ("", rule.hint)
    ]
    rules = [(rule.code, rule.name, rule.severity, rule.because) for rule in findings.TABLE]
    log = json.loads(diagnose.sarif(found, rules, "1"))
    told = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(SARIF).iter_errors(log)]
    assert told == []
    assert len(log["runs"][0]["results"]) == len(found)


def test_colours_only_where_somebody_looks(tmp_path: Path) -> None:
    assert "\x1b" not in check(tmp_path, BODY)[1]
    shown = check(tmp_path, BODY, "--ansi", "always")[1]
    assert "\x1b[33mwarning[C401]:\x1b[0m" in shown
    assert re.sub(r"\x1b\[\d*m", "", shown) == check(tmp_path, BODY)[1]
