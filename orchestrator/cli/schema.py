"""`schema`: the JSON Schema of stack files, for editors."""

from __future__ import annotations

import json

from orchestrator.cli import say
from orchestrator.cli.scope import Scope
from orchestrator.stackfile import schema as schemas
from orchestrator.stackfile.schema import Object, Schema

_OURS = ("x-expected", "x-names")
"""Notes to our own messages, which mean nothing elsewhere."""


def schema(scope: Scope, *, output: str | None) -> int:  # noqa: ARG001 - every command gets the scope
    """Print the JSON Schema of stack files: one document that needs no other."""
    return say.put(json.dumps(published(), indent=2, ensure_ascii=False) + "\n", output)


def published() -> Object:
    """The document: JSON Schema 2020-12, with all its parts below $defs. Pure but for the package's files."""
    whole = _without_notes(schemas.whole())
    assert isinstance(whole, dict)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pystack stack file",
        "description": "A Compose file as pystack reads it, after interpolation of variables.",
        **whole,
    }


def _without_notes(node: Schema) -> Schema:
    if isinstance(node, list):
        return [_without_notes(part) for part in node]
    if isinstance(node, dict):
        return {key: _without_notes(part) for key, part in node.items() if key not in _OURS}
    return node
