"""docs/oci.md has every command and every property, and none that isn't there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema

from orchestrator.oci import grammar, spec
from orchestrator.oci.table import COMMANDS, COMMON

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/oci.md").read_text()


def properties() -> Iterator[str]:
    """The rows that there have to be: top level, and one level below what is large."""
    for name, form in grammar.CONFIG.fields.items():
        if name not in ("process", "linux"):
            yield name
            continue
        assert isinstance(form, grammar.Object)
        for inner, part in form.fields.items():
            if inner == "resources":
                assert isinstance(part, grammar.Object)
                yield from (f"linux.resources.{key}" for key in part.fields)
            else:
                yield f"{name}.{inner}"


def test_each_property_has_its_row() -> None:
    section = TEXT.partition("## The configuration")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    assert sorted(rows) == sorted(properties())


def test_each_command_and_global_option_is_there() -> None:
    section = TEXT.partition("## Commands")[2].partition("\n## ")[0]
    assert set(COMMANDS) == set(re.findall(r"`([a-z]+)`", section.partition("\n\nGlobal")[0])) & set(COMMANDS)
    for option in COMMON:
        assert option.name == "help" or f"--{option.name}" in section, option.name


def test_our_schema_of_the_specification_knows_the_same_properties() -> None:
    """schemas/oci-runtime.json is written apart from the grammar: neither may have what the other lacks."""
    schema = json.loads((ROOT / "schemas/oci-runtime.json").read_text())
    definitions = schema["$defs"]
    ours = grammar.CONFIG.fields
    assert set(schema["properties"]) == set(ours)
    for name, form in (
        ("process", grammar.PROCESS),
        ("resources", grammar.RESOURCES),
        ("linux", ours["linux"]),
    ):
        assert isinstance(form, grammar.Object)
        known = {key for key in definitions[name]["properties"] if key != "commandLine"}
        assert known <= set(form.fields), name
    for rootless in (False, True):
        jsonschema.validate(spec.document(rootless=rootless, uid=1000, gid=1000), schema)
