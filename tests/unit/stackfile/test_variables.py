"""Which variables a file uses, and what it says of them."""

from __future__ import annotations

import pytest

from orchestrator.stackfile.problem import Report
from orchestrator.stackfile.read import Source, read
from orchestrator.stackfile.variables import used


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$A ${B}", {"A": (False, "", ""), "B": (False, "", "")}),
        ("$$A $${B} $ $1", {}),
        ("${A:-one} ${B-two}", {"A": (False, "one", ""), "B": (False, "two", "")}),
        ("${A:?why} ${B?}", {"A": (True, "", ""), "B": (True, "", "")}),
        ("${A:+yes} ${B+no}", {"A": (False, "", "yes"), "B": (False, "", "no")}),
        (
            "${A:-${B:-${C}}}",
            {"A": (False, "${B:-${C}}", ""), "B": (False, "${C}", ""), "C": (False, "", "")},
        ),
        ("${A?needs ${B}}", {"A": (True, "", ""), "B": (False, "", "")}),
        ("$A ${A:-one} ${A:?}", {"A": (True, "one", "")}),
        ("${A:-a:b}", {"A": (False, "a:b", "")}),
        ("${", {}),
        ("${1} ${}", {}),
    ],
)
def test_uses(text: str, found: dict[str, tuple[bool, str, str]]) -> None:
    (tree,) = read(Source(path="x", text=f"a: [{{b: '{text}'}}]\n$KEY: v\nn: 3\n"), Report())
    assert {one.name: (one.required, one.default, one.alternate) for one in used(tree).values()} == found


def test_tagged_values_count_and_names_are_in_order() -> None:
    (tree,) = read(Source(path="x", text="a: !override ['$B']\nb: $A\n"), Report())
    assert list(used(tree)) == ["A", "B"]
