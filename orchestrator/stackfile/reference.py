"""The reference page of all keys, made of the schemas and of the table of what is not supported.

docs/compose-support.md is this text; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.model.frozen import dataclass
from orchestrator.stackfile import schema as schemas
from orchestrator.stackfile.schema import Object, Schema
from orchestrator.stackfile.unsupported import TABLE, Row

_HEAD = """# Keys of a stack file

Made from `schemas/` and the table in `orchestrator/stackfile/unsupported.py`.

| key | what it says | pystack |
|---|---|---|
"""
_WORDS = {"refuse": "refuses to run it", "warn": "warns", "inert": "no effect"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key by its path; * stands for a name the user chose or an entry of a list."""

    path: str
    description: str
    row: Row | None


def page() -> str:
    """The page as Markdown."""
    lines = [
        f"| `{key.path}` | {key.description.replace('|', chr(92) + '|')} | {_verdict(key)} |"
        for key in every_key()
    ]
    return _HEAD + "\n".join(lines) + "\n"


def _verdict(key: Key) -> str:
    if key.row is None:
        return "yes"
    if key.row.path != key.path:
        return f"see `{key.row.path}`"
    return f"{_WORDS[key.row.verdict]}: it {key.row.because}"


def every_key() -> list[Key]:
    """Every key the schemas know, in their order; below a key of the table all keys have its row."""
    rows = {row.path: row for row in TABLE}
    return list(_below(schemas.at("#/$defs/stack"), (), rows, None))


def _below(schema: Schema, path: tuple[str, ...], rows: dict[str, Row], above: Row | None) -> Iterator[Key]:
    plain = _followed(schema)
    for name, part in _object(plain.get("properties")).items():
        known = _followed(part)
        dotted = ".".join((*path, name))
        row = rows.get(dotted, above)
        yield Key(
            path=dotted, description=str(_object(part).get("description", known.get("description"))), row=row
        )
        yield from _below(part, (*path, name), rows, row)
    for pattern, part in _object(plain.get("patternProperties")).items():
        if pattern != "^x-":
            yield from _below(part, (*path, "*"), rows, above)
    for keyword in ("items", "additionalProperties"):
        if isinstance(plain.get(keyword), dict):
            yield from _below(plain[keyword], (*path, "*"), rows, above)


def _followed(schema: Schema) -> Object:
    """A schema with the one it refers to beneath it."""
    plain = _object(schema)
    reference = plain.get("$ref")
    return {**_object(schemas.at(reference)), **plain} if isinstance(reference, str) else plain


def _object(schema: Schema) -> Object:
    return schema if isinstance(schema, dict) else {}
