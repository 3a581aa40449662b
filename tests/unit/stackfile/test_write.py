"""Plain data as YAML: what is written is read as the same by readers of YAML 1.1 and 1.2."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.stackfile.problem import Report
from orchestrator.stackfile.read import Source, read
from orchestrator.stackfile.tree import Plain, plain
from orchestrator.stackfile.write import write

_TEXT = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12
) | st.sampled_from(
    "yes NO on null ~ 12 0o14 014 1_000 1e3 .5 +1 -_0 22:22 1:30 2026-11-22 .inf = << - --- ? & * ! | > % @ ` "
    "#a a#b a: :a a:b {a} [a] 'a' \"a\" $x ${X} /x ./x ../x ~/x \\x <x a\\nb 0x1F :Y +.9 y n".split()
)
_SCALAR = _TEXT | st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
_TREE = st.recursive(
    _SCALAR,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(_TEXT, below, max_size=3),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(_TREE)
@example(" a\nb")
@example("a\n\n")
@example("\na")
@example("# no comment\nb")
@example("a\n b\n")
@example({"": [[], {}, [[]], [{"a": [1]}]]})
@example("\ud7ff\ue000\ufeff\u2028\x85\U0001f600")
def test_what_is_written_is_read_as_the_same(value: Plain) -> None:
    report = Report()
    text = write({"key": value})
    assert yaml.safe_load(text) == {"key": value}
    (tree,) = read(Source(path="x", text=text), report)
    assert plain(tree) == {"key": value}
    assert not report.problems


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": {"b": ["c", {"d": 1, "e": None}]}}, "a:\n  b:\n    - c\n    - d: 1\n      e: null\n"),
        (
            {"published": "8080", "version": "1.10", "on": "off"},
            'published: "8080"\nversion: "1.10"\n"on": "off"\n',
        ),
        ({"a": [], "b": {}, "c": ""}, 'a: []\nb: {}\nc: ""\n'),
        ({"c": "server {\n  x;\n}\n"}, "c: |\n  server {\n    x;\n  }\n"),
        (["a\nb"], "- |-\n  a\n  b\n"),
        ({"m": "/a b:c", "k": "a: b", "e": "$$HOME"}, 'm: /a b:c\nk: "a: b"\ne: $$HOME\n'),
        ([["a", "b"], ["c"]], "- - a\n  - b\n- - c\n"),
    ],
)
def test_how_it_looks(value: Plain, text: str) -> None:
    assert write(value) == text
