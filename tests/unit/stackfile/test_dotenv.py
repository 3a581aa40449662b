"""Env files: what stands in tests/golden/stackfile/environment.yml, and here their limits."""

from __future__ import annotations

import time

import pytest

from orchestrator.stackfile.dotenv import MAX_TEXT, parse
from orchestrator.stackfile.problem import Report, StackfileError
from orchestrator.stackfile.read import Source


def read(text: str, outside: dict[str, str] | None = None, report: Report | None = None) -> dict[str, str]:
    return parse(Source(path=".env", text=text), (outside or {}).get, report or Report())


def test_a_text_that_takes_nothing_from_outside_is_read_once_and_given_to_each_as_its_own() -> None:
    text = "A=1\nB='two'\n"
    first = read(text)
    first["A"] = "changed"
    assert read(text, {"A": "other"}) == {"A": "1", "B": "two"}
    assert read(text)["B"] is first["B"]


def test_a_text_that_takes_something_from_outside_is_read_for_each() -> None:
    assert [read("A=$V\nB\n", {"V": value, "B": value}) for value in "12"] == [
        {"A": "1", "B": "1"},
        {"A": "2", "B": "2"},
    ]


def test_a_problem_is_told_each_time_with_its_place() -> None:
    for _ in range(2):
        report = Report()
        read("A=1\nB C=2\n", report=report)
        assert [str(problem.place) for problem in report.problems] == [".env:2:1"]


def test_a_missing_variable_is_told_at_its_line() -> None:
    report = Report()
    read("A=1\n\nB=x$NO$NO\n", report=report)
    assert [str(warned.place) for warned in report.warnings] == [".env:3:3"]


def test_a_large_text_is_refused() -> None:
    with pytest.raises(
        StackfileError, match=r"\.env:1:1: error\[E003\]: an env file can't be larger than 1 MiB"
    ):
        read("#" * (MAX_TEXT + 1))


def test_variables_that_grow_out_of_each_other_are_refused() -> None:
    with pytest.raises(StackfileError, match=r"E003.*million characters"):
        read(f"A={'x' * 1_000_000}\n" + "".join(f"B{number}=$A\n" for number in range(200)))


def test_time_grows_with_the_text() -> None:
    """Each line looks at what the lines before have set."""
    text = "".join(f"KEY{number}=value $OUTSIDE $NO{number}\n" for number in range(20_000))
    began = time.process_time()
    assert len(read(text, {"OUTSIDE": "x"})) > 1000
    assert time.process_time() - began < 5
