"""YAML text -> tree: places, types, and text that is out to hurt."""

from __future__ import annotations

import math

import pytest

from orchestrator.stackfile.problem import Report
from orchestrator.stackfile.read import MAX_BYTES, Source, read
from orchestrator.stackfile.scalar import scalar, text_of
from orchestrator.stackfile.tree import Map, Seq, find


def tree(text: str) -> Map:
    report = Report()
    documents = read(Source(path="s.yml", text=text), report)
    assert not report.problems, report.problems
    return documents[0]


def codes(text: str) -> list[str]:
    report = Report()
    read(Source(path="s.yml", text=text), report)
    return [problem.code for problem in report.problems]


def test_every_key_and_value_knows_its_place() -> None:
    found = tree("a: 1\nb:\n  - x\n  - y: 'z'\n")
    assert found.key_at["a"] == ("s.yml", 1, 1, 2)
    assert found.at["a"] == ("s.yml", 1, 4, 5)
    assert find(found, ("b", 0)) == ("s.yml", 3, 5, 6)
    assert find(found, ("b", 1, "y")) == ("s.yml", 4, 8, 11)


def test_an_absent_value_stands_where_its_key_does() -> None:
    assert tree("a:\nb: 1\n").mark("a") == ("s.yml", 1, 1, 2)


def test_merged_values_keep_the_place_of_their_anchor() -> None:
    found = tree("x: &x {q: 1}\ny: {<<: *x}\n")
    inner = found["y"]
    assert isinstance(inner, Map)
    assert inner.mark("q") == ("s.yml", 1, 11, 12)


def test_columns_count_characters_not_bytes() -> None:
    assert tree("ä: 'öö'\nb: 1\n").at["ä"] == ("s.yml", 1, 4, 8)


def test_a_key_twice_is_told_with_both_places() -> None:
    report = Report()
    read(Source(path="s.yml", text="a: 1\nb: 2\na: 3\n"), report)
    (problem,) = report.problems
    assert str(problem.place) == "s.yml:3:1"
    assert "line 1, column 1" in problem.hint


@pytest.mark.parametrize(
    ("text", "value"),
    [("yes", "yes"), ("022", 18), ("0x1f", 31), ("-5", -5), ("1e3", 1000.0), ("~", None), (".inf", math.inf)],
)
def test_plain_scalars(text: str, value: object) -> None:
    assert scalar(text) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.5, "1.5"), (1000.0, "1000"), (1e21, "1e+21"), (1.5e-7, "1.5e-07"), (True, "true"), (None, "")],
)
def test_numbers_become_text_as_docker_compose_prints_them(value: float | None, text: str) -> None:
    assert text_of(value) == text


def test_quoted_scalars_are_text() -> None:
    assert tree("a: '1'\nb: \"true\"\nc: |\n  null\n") == {"a": "1", "b": "true", "c": "null\n"}


def test_several_documents_are_read_and_empty_ones_left_out() -> None:
    report = Report()
    assert read(Source(path="s", text="a: 1\n---\n---\nb: 2\n"), report) == [{"a": 1}, {"b": 2}]


def test_an_alias_bomb_is_refused_before_anybody_walks_it() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert codes("\n".join(lines)) == ["E003"]


def test_aliases_can_not_nest_without_end() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 500)]
    assert codes("\n".join(lines)) == ["E003"]


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000])
def test_deep_nesting_is_refused(text: str) -> None:
    assert codes(text)[0] in ("E003", "E001")


def test_an_anchor_can_not_hold_itself() -> None:
    assert codes("a: &a [*a]") == ["E001"]
    assert codes("a: &a\n  b: *a\n") == ["E001"]


def test_a_file_larger_than_the_limit_is_refused() -> None:
    assert codes("a: " + "x" * MAX_BYTES) == ["E003"]


@pytest.mark.parametrize(
    "text", ["a: \x00", "a: \x1b[31m", "a: \ud800", "a: '", "*x", "a: b: c", "%", "\t- a", "a: !<x"]
)
def test_what_is_no_yaml_is_refused(text: str) -> None:
    assert codes(text) == ["E001"]


def test_a_tab_gets_a_hint_of_its_own() -> None:
    report = Report()
    read(Source(path="s.yml", text="a:\n\tb: 1\n"), report)
    assert "tab" in report.problems[0].hint


def test_an_excerpt_shows_nothing_that_a_terminal_would_obey() -> None:
    report = Report()
    read(Source(path="s.yml", text='a: 1\na: "\x85\u202e"\n'), report)
    assert all(line.isprintable() for line in report.problems[0].excerpt)


def test_trees_are_maps_and_lists_with_places() -> None:
    found = tree("a: [1]\n")
    assert isinstance(found["a"], Seq)
    assert found.alike() == {}
    assert found.alike().mark("a") == found.mark("a")
