"""Whatever the text, loading ends in a Stack or in a StackfileError; and two judges of the schemas agree."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from orchestrator.model import codec
from orchestrator.model.stack import Stack
from orchestrator.stackfile import dotenv, schema, words
from orchestrator.stackfile.check import fits
from orchestrator.stackfile.interpolate import InterpolationError, Variables, expand
from orchestrator.stackfile.problem import MAX_PROBLEMS, Problem, Report, StackfileError
from orchestrator.stackfile.quantity import duration_text, nanoseconds
from orchestrator.stackfile.read import Source
from tests.unit.stackfile.given import loaded

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
VALIDATOR = Draft202012Validator(cast("dict[str, Any]", schema.whole()))

dollars = st.text(alphabet=st.sampled_from(list("${}:-+?AB_1 \n")), max_size=30)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 70000),
    st.floats(allow_nan=False),
    st.sampled_from(
        "a b:/c 80:80 /x service:db 10m 90s 1.5g always 0400 ${A:-x} ${ host CMD true yes 1.1.0.0/24".split()
    ),
    st.text(max_size=8),
)


def known_keys(node: Any, found: set[str]) -> set[str]:
    if isinstance(node, dict):
        found.update(node.get("properties", {}))
        for part in node.values():
            known_keys(part, found)
    return found


KEYS = sorted(known_keys(schema.whole(), set()))
keys = st.one_of(st.sampled_from(KEYS), st.sampled_from(["web", "db", "x-a", "typo", "A=1"]))
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)
services = st.dictionaries(keys, trees, max_size=5).map(lambda part: {"image": "x", **part})
stacks = st.fixed_dictionaries(
    {
        "services": st.dictionaries(
            st.sampled_from(["web", "db", "a/b"]), st.one_of(services, trees), max_size=3
        )
    },
    optional=dict.fromkeys(("networks", "volumes", "configs", "secrets", "name", "typo"), trees),
)


def ends_well(text: str) -> None:
    problems: tuple[Problem, ...] | None = None
    try:
        found = loaded(text, env={"A": "1"})
    except StackfileError as error:
        problems = error.problems
    if problems is not None:
        assert 0 < len(problems) <= MAX_PROBLEMS
        return
    assert codec.decode(Stack, codec.encode(found.stack)) == found.stack


@QUICK
@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    ends_well(text)


@QUICK
@given(st.text(alphabet=st.sampled_from(list("&*!<[]{}:,- \n\t'\"#|>%@ax1")), max_size=40))
def test_any_text_of_yaml_signs(text: str) -> None:
    ends_well(text)


@QUICK
@given(stacks)
def test_any_tree_of_known_keys(tree: Any) -> None:
    ends_well(json.dumps(tree))


@QUICK
@given(st.one_of(stacks, trees))
def test_both_judges_of_the_schemas_agree(tree: Any) -> None:
    assert fits(tree) == VALIDATOR.is_valid(tree)


@QUICK
@given(services)
def test_both_judges_agree_about_services(service: Any) -> None:
    tree = {"services": {"web": service}}
    assert fits(tree) == VALIDATOR.is_valid(tree)


@QUICK
@given(st.one_of(dollars, st.text(max_size=40)))
def test_interpolation_ends_in_text_or_its_own_error(text: str) -> None:
    with suppress(InterpolationError):
        assert isinstance(expand(text, Variables(values={"A": "1", "B": ""}, missing=lambda name: None)), str)


@QUICK
@given(st.text(max_size=40))
def test_doubled_dollars_are_literal(text: str) -> None:
    assert expand(text.replace("$", "$$"), Variables(values={}, missing=lambda name: None)) == text


@QUICK
@given(
    st.one_of(
        st.text(max_size=60), st.text(alphabet=st.sampled_from(list("AB=:'\"\\ #\n$\texport")), max_size=40)
    )
)
def test_env_files_end_in_variables_or_problems(text: str) -> None:
    report = Report()
    found = dotenv.parse(Source(path="e", text=text), {"A": "1"}.get, report)
    assert not any(set(name) & set('\n\t "=') for name in found)
    raw = dotenv.parse(Source(path="e", text=text), {"A": "1"}.get, report, format="raw")
    assert isinstance(raw, dict)


@QUICK
@given(st.integers(0, 10**18))
def test_durations_survive_printing(span: int) -> None:
    assert nanoseconds(duration_text(span)) == span


@QUICK
@given(st.lists(st.text(max_size=8), max_size=5))
def test_quoted_words_survive_splitting(parts: list[str]) -> None:
    line = " ".join("'" + part.replace("'", "'\\''") + "'" for part in parts)
    assert words.split(line) == parts
