"""Our schema of OCI's config.json as a judge."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA = Path(__file__).parents[2] / "schemas/oci-runtime.json"


@functools.cache
def judge() -> Draft202012Validator:
    document = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def wrong(config: dict[str, Any]) -> list[str]:
    """What the specification does not allow in it."""
    return [f"{error.json_path}: {error.message[:200]}" for error in judge().iter_errors(config)]
