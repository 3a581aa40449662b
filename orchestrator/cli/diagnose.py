"""Diagnostics as text for people, as JSON for editors, as SARIF for code hosts. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator.cli import say
from orchestrator.stackfile.finding import Finding
from orchestrator.stackfile.problem import Problem, Warned

_COLOURS = {"error": say.RED, "warning": say.YELLOW, "note": say.CYAN}
_SARIF = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def of_problem(problem: Problem) -> Finding:
    return Finding(
        code=problem.code,
        severity="error",
        message=problem.message,
        place=problem.place,
        path=problem.path,
        hint=problem.hint,
        excerpt=problem.excerpt,
        via=problem.via,
    )


def of_warning(warned: Warned, code: str, excerpt: tuple[str, ...]) -> Finding:
    return Finding(code=code, severity="warning", message=warned.message, place=warned.place, excerpt=excerpt)


def text(findings: Iterable[Finding], *, colour: bool) -> str:
    """`stack.yml:3:5: error[E012]: ...`, the source line with a caret, and what would be right."""
    return "".join(_one(finding, colour=colour) for finding in findings)


def _one(finding: Finding, *, colour: bool) -> str:
    tint = _COLOURS[finding.severity]
    place = say.paint(f"{say.printable(str(finding.place))}: ", say.BOLD, on=colour) if finding.place else ""
    head = say.paint(f"{finding.severity}[{finding.code}]:", tint, on=colour)
    rows = [f"{place}{head} {say.printable(finding.message)}"]
    for number, row in enumerate(finding.excerpt):
        margin, bar, source = row.partition(" | ")
        shown = say.paint(source, tint, on=colour and number == 1 and bool(source.strip()))
        rows.append(say.paint(f"{margin}{bar}", say.FAINT, on=colour) + shown)
    rows += [f"  {say.printable(way)}" for way in finding.via]
    if finding.hint:
        rows.append(f"  {say.paint('hint:', say.CYAN, on=colour)} {say.printable(finding.hint)}")
    return "".join(f"{row}\n" for row in rows)


def rows(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """One object a finding; what it does not have is left out."""
    return [_row(finding) for finding in findings]


def _row(finding: Finding) -> dict[str, Any]:
    row: dict[str, Any] = {}
    place = finding.place
    if place is not None:
        end = place.end_column or place.column + 1
        row["file"] = place.file
        row["range"] = {
            "start": {"line": place.line, "column": place.column},
            "end": {"line": place.line, "column": end},
        }
    row |= {"severity": finding.severity, "code": finding.code, "message": finding.message}
    if finding.path:
        row["path"] = finding.path
    if finding.hint:
        row["hint"] = finding.hint
    if finding.via:
        row["via"] = list(finding.via)
    return row


def as_json(findings: Iterable[Finding]) -> str:
    return json.dumps(rows(findings), indent=2, ensure_ascii=False) + "\n"


def sarif(findings: Sequence[Finding], rules: Sequence[tuple[str, str, str, str]], version: str) -> str:
    """SARIF 2.1.0 (OASIS). `rules` are (code, name, severity, sentence) of everything that may be found."""
    index = {code: number for number, (code, *_) in enumerate(rules)}
    run = {
        "tool": {
            "driver": {
                "name": "pystack",
                "version": version,
                "rules": [_rule(*rule) for rule in rules],
            }
        },
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, index) for finding in findings],
    }
    return (
        json.dumps({"$schema": _SARIF, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)
        + "\n"
    )


def _rule(code: str, name: str, severity: str, sentence: str) -> dict[str, Any]:
    return {
        "id": code,
        "name": name,
        "shortDescription": {"text": sentence},
        "defaultConfiguration": {"level": severity},
    }


def _result(finding: Finding, index: dict[str, int]) -> dict[str, Any]:
    message = f"{finding.message}. {finding.hint}" if finding.hint else finding.message
    result: dict[str, Any] = {"ruleId": finding.code, "level": finding.severity, "message": {"text": message}}
    if finding.code in index:
        result["ruleIndex"] = index[finding.code]
    location: dict[str, Any] = {}
    place = finding.place
    if place is not None:
        region = {"startLine": place.line, "startColumn": place.column}
        if place.end_column:
            region["endColumn"] = place.end_column
        location["physicalLocation"] = {"artifactLocation": {"uri": _uri(place.file)}, "region": region}
    if finding.path:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.path}]
    if location:
        result["locations"] = [location]
    return result


def _uri(path: str) -> str:
    """A relative reference, or file:///... (RFC 3986)."""
    from urllib.parse import quote

    if path == "-":
        return "stdin"
    return f"file://{quote(path)}" if path.startswith("/") else quote(path)
