"""No key is accepted and ignored: each one changes the Stack, and the table names what has no effect."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.model import codec
from orchestrator.model.stack import Stack
from orchestrator.stackfile import reference
from orchestrator.stackfile.load import Loaded
from orchestrator.stackfile.problem import StackfileError
from orchestrator.stackfile.unsupported import TABLE
from tests.unit.stackfile.given import loaded
from tests.unit.stackfile.keys import BASE, CASES, FILES, KEPT, NOT_CARRIED, REFUSED_VALUES, Tree

TOP = Path(__file__).parents[3]
VERDICTS = {row.path: row.verdict for row in TABLE}


def without(tree: Tree, path: str) -> Tree:
    """The tree without the key at a path, where that leaves something that still makes sense."""
    fresh = copy.deepcopy(tree)
    *above, last = path.split(".")
    nodes: list[Any] = [fresh]
    for step in above:
        if step == "*":
            nodes = [child for node in nodes for child in (node.values() if isinstance(node, dict) else node)]
        else:
            nodes = [node[step] for node in nodes if isinstance(node, dict) and step in node]
    for node in nodes:
        if isinstance(node, dict) and "." in path and last not in KEPT:
            node.pop(last, None)
    return fresh if "." in path else {}


def given(tree: Tree) -> Loaded:
    return loaded(json.dumps(BASE), json.dumps(tree), files=FILES)


def meaning(found: Loaded) -> Any:
    """The Stack as data, without places."""
    return codec.encode(replace(found.stack, files=()))


def stripped(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: stripped(value) for key, value in node.items() if key != "place"}
    return [stripped(value) for value in node] if isinstance(node, list) else node


def test_every_key_of_the_schemas_is_here() -> None:
    known = {key.path for key in reference.every_key()}
    assert known == set(CASES)


def test_every_row_of_the_table_is_a_key_of_the_schemas() -> None:
    assert set(VERDICTS) <= {key.path for key in reference.every_key()}


@pytest.mark.parametrize("path", CASES)
def test_a_key_is_named_as_the_table_says(path: str) -> None:
    """refuse: nothing is run; warn: said once, with its place; otherwise not a word."""
    found = given(CASES[path])
    verdict = "refuse" if path in REFUSED_VALUES else VERDICTS.get(path)
    name = path.rpartition(".")[2]
    if verdict == "refuse":
        assert any(problem.code == "E020" and name in problem.message for problem in found.refusals)
    elif verdict == "warn":
        assert sum(name in warned.message and warned.place is not None for warned in found.warnings) == 1
    elif verdict == "inert":
        assert not any(warned.message.startswith(f"{path} ") for warned in found.warnings)


@pytest.mark.parametrize("path", sorted(CASES.keys() - NOT_CARRIED))
def test_a_key_is_carried_in_the_stack(path: str) -> None:
    found = meaning(given(CASES[path]))
    try:
        bare = given(without(CASES[path], path))
    except StackfileError:
        return  # it changes whether there is a stack
    if stripped(meaning(bare)) == stripped(found) and path.rpartition(".")[2] in KEPT:
        bare = given({})
    assert stripped(found) != stripped(meaning(bare)), f"{path} changes nothing"


@pytest.mark.parametrize("path", sorted(CASES))
def test_what_is_carried_comes_through_the_codec(path: str) -> None:
    stack = given(CASES[path]).stack
    assert codec.decode(Stack, json.loads(json.dumps(codec.encode(stack)))) == stack


def test_every_property_has_a_description() -> None:
    assert [
        key.path for key in reference.every_key() if not key.description or key.description == "None"
    ] == []


def test_the_reference_page_is_made_from_the_schemas() -> None:
    """To write it anew, print(reference.page())."""
    assert (TOP / "docs/compose-support.md").read_text() == reference.page()
