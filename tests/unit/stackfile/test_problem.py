"""Problems: how many are told, and how a place is shown."""

from __future__ import annotations

import pytest

from orchestrator.stackfile.problem import (
    CODES,
    MAX_PROBLEMS,
    Report,
    StackfileError,
    excerpt,
    reject,
    written,
)
from tests.unit.stackfile.given import loaded, refused, web


@pytest.mark.parametrize(("count", "last"), [(20, ""), (21, "... and 1 more"), (5000, "... and 4980 more")])
def test_twenty_are_told_and_the_rest_is_counted(count: int, last: str) -> None:
    report = Report()
    for number in range(count):
        report.error(("x", number + 1, 1, 0), "E013", f"number {number}")
    with pytest.raises(StackfileError) as caught:
        report.settle()
    lines = str(caught.value).splitlines()
    assert len(caught.value.problems) == MAX_PROBLEMS
    assert lines[0] == "x:1:1: error[E013]: number 0"
    assert lines[MAX_PROBLEMS:] == ([last] if last else [])


def test_one_look_finds_what_later_phases_mind_in_the_rest() -> None:
    """The schema minds the key and the condition, the long form the port; all are told."""
    keys = (
        "imag: x",
        "depends_on: {db: {condition: a}}",
        "ports: ['a:b', '80:80']",
        "healthcheck: {test: [A]}",
    )
    body = "\n    ".join(keys)
    codes = [
        (problem.code, problem.place.line)
        for problem in refused(f"services:\n  web:\n    {body}\n")
        if problem.place
    ]
    assert codes == [("E012", 3), ("E013", 4), ("E013", 5), ("E013", 6)]


def test_the_end_of_a_long_line_is_shown_around_the_place() -> None:
    source = "a: " + "x" * 1000 + " wrong " + "y" * 1000
    line, carets = excerpt({"f": source}, ("f", 1, 1005, 1010))
    assert len(line) < 200
    assert line[carets.index("^") :].startswith("wrong ")
    assert carets.endswith("^^^^^")
    assert not carets.endswith("^^^^^^")


def test_carets_stand_below_wide_characters() -> None:
    _, carets = excerpt({"f": "名: 値 wrong"}, ("f", 1, 6, 11))
    assert carets == "      | " + " " * 7 + "^^^^^"


@pytest.mark.parametrize("mark", [None, ("g", 1, 1, 0), ("f", 9, 1, 0)])
def test_without_the_text_there_is_no_excerpt(mark: tuple[str, int, int, int] | None) -> None:
    assert excerpt({"f": "a"}, mark) == ()
    assert written({"f": "a"}, mark) == ""


def test_what_stands_at_a_place() -> None:
    assert written({"f": "a: b # c"}, ("f", 1, 4, 5)) == "b"
    assert written({"f": "a: b # c"}, ("f", 1, 4, 0)) == "b # c"


def test_a_problem_in_a_file_that_another_names_tells_the_way() -> None:
    report = Report()
    report.knows("inc.yml", "a: b\n")
    report.came("inc.yml", ("included from top.yml:3",))
    report.error(("inc.yml", 1, 4, 5), "E013", "wrong", hint="right")
    assert str(report.problems[0]).splitlines() == [
        "inc.yml:1:4: error[E013]: wrong",
        "    1 | a: b",
        "      |    ^",
        "  included from top.yml:3",
        "  hint: right",
    ]


def test_every_code_that_is_used_is_described() -> None:
    from orchestrator.stackfile import problem

    used = {value for name, value in vars(problem).items() if name.isupper() and str(value).startswith("E0")}
    assert used == set(CODES)
    assert len({name for name, _ in CODES.values()}) == len(CODES)
    assert reject("x").problems[0].code in CODES


def test_loading_keeps_the_texts_for_later_looks() -> None:
    stack = loaded(web("user: a"))
    assert "user: a" in stack.texts["stack.yml"]
    assert stack.tree["services"]


def test_where_little_is_allowed_all_of_it_is_told() -> None:
    (problem,) = refused(web("healthcheck: {qqq: 1}"))
    assert problem.hint.startswith("known here: test, interval")
    (problem,) = refused(web("qqq: 1"))
    assert problem.hint == "keys of your own begin with x-"
