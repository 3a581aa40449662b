"""JSON without blanks, and without the package `json`.

CPython's C scanner and encoder are used without what is around them, which imports `re` and `enum` and costs
each command some 7 ms; where they are missing, `json` it is.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _compact() -> tuple[Any, Any]:
    """(loads, dumps)."""
    try:
        import _json

        class Rules:
            strict = True
            object_hook = None
            object_pairs_hook = None
            parse_float = float
            parse_int = int
            parse_constant = float
            memo: dict[str, str] = {}  # noqa: RUF012 - one object, read by the C scanner

        scanner: Any = _json.make_scanner  # typeshed asks for a scanner to make one
        scan = scanner(Rules)
        make: Any = _json.make_encoder

        def default(value: object) -> object:
            raise TypeError(f"{type(value).__name__} does not go into a message")

        def dumps(value: object) -> str:
            text = _json.encode_basestring_ascii
            switches = (False, False, False)  # sort_keys, skipkeys, allow_nan
            return "".join(make({}, default, text, None, ":", ",", *switches)(value, 0))

        def loads(text: str) -> object:
            value, end = scan(text, 0)
            if end != len(text):
                raise ValueError(f"something follows at {end}")
            return value

        if loads(dumps({"a": [1, "é", None, 2.5]})) != {"a": [1, "é", None, 2.5]}:
            raise ImportError
    except (ImportError, AttributeError, TypeError):
        import json

        def dumps(value: object) -> str:
            return json.dumps(value, separators=(",", ":"), allow_nan=False)

        def loads(text: str) -> object:
            return json.loads(text)

    return loads, dumps


_loads, _dumps = _compact()


def dumps(value: object) -> str:
    """Compact JSON, ASCII only. Raises TypeError or ValueError for what is not JSON."""
    text: str = _dumps(value)
    return text


def loads(text: str) -> object:
    """Raises ValueError, or what the C scanner raises for what is not JSON: StopIteration, SystemError."""
    found: object = _loads(text)
    return found
