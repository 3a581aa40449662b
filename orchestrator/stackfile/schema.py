"""Our JSON Schemas, read from the package, as one document.

They are package data like the code beside them; reading them is the one look at the disk in this room.
"""

from __future__ import annotations

import functools
import json
import posixpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

Schema: TypeAlias = "dict[str, Schema] | list[Schema] | str | int | float | bool | None"
Object = dict[str, Schema]

NOUNS = (
    "stack include "
    "service extends rootfs build provider use envfile device blkio request ulimit credential dependency "
    "healthcheck deploy update placement hook init watch logging attachment port mount file mounted "
    "network volume config secret model common"
).split()
_HERE = posixpath.dirname(posixpath.abspath(__file__))
_PLACES = ("../schemas", "../../schemas")
"""In a wheel beside this room, in a checkout at the top."""


@functools.cache
def whole() -> Object:
    """All schemas as one, with references within it. Raises FileNotFoundError when the package is broken."""
    return {"$ref": "#/$defs/stack", "$defs": {noun: _noun(noun) for noun in NOUNS}}


@functools.cache
def _noun(noun: str) -> Schema:
    return _inward(_read(noun))


def _read(noun: str) -> Schema:
    for place in _PLACES:
        try:
            with open(posixpath.join(_HERE, place, f"{noun}.json"), encoding="utf-8") as file:
                found: Schema = json.load(file)
        except FileNotFoundError:
            continue
        return found
    raise FileNotFoundError(f"the schema {noun}.json is not part of this installation")


def _inward(node: Schema) -> Schema:
    """References to other files (port.json, common.json#/$defs/size) become references into one document."""
    if isinstance(node, list):
        return [_inward(part) for part in node]
    if not isinstance(node, dict):
        return node
    fresh: Object = {}
    for key, value in node.items():
        if key == "$ref" and isinstance(value, str):
            noun, _, inside = value.partition(".json")
            fresh[key] = f"#/$defs/{noun}{inside.removeprefix('#')}"
        elif key != "$schema":
            fresh[key] = _inward(value)
    return fresh


def at(reference: str) -> Schema:
    """The part of the whole that a reference such as #/$defs/port names. Reads only the file it is in."""
    noun, *steps = reference.removeprefix("#/$defs/").split("/")
    node = _noun(noun)
    for step in steps:
        assert isinstance(node, dict)
        node = node[step]
    return node
