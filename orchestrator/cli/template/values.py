"""How values are shown, and when they count as true, as in Go."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Struct(dict[str, "Any"]):
    """An object that has more fields than it shows: `zero` has the values of those left out, or null.

    A field that Go's encoder omits is still there for a template.
    """

    def __init__(self, fields: Mapping[str, Any], zero: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.zero = zero


def shown(value: object, *, nested: bool = False) -> str:
    """As Go's fmt prints it (%v)."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>" if nested else "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Struct):
        return f"{{{' '.join(shown(one, nested=True) for one in value.values())}}}"
    if isinstance(value, dict):
        pairs = " ".join(f"{key}:{shown(one, nested=True)}" for key, one in ordered(value))
        return f"map[{pairs}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(shown(one, nested=True) for one in value)}]"
    return str(value)


def _float(value: float) -> str:
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    return text if "e" not in text or 1e-4 <= abs(value) < 1e21 else f"{value:g}"


def ordered(value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The fields of an object in the order of their names; functions are not data."""
    return [(key, value[key]) for key in sorted(value) if not callable(value[key])]


def true(value: object) -> bool:
    return bool(value)


def kind(value: object) -> str:
    """The name of a value's type, in Go's words."""
    if isinstance(value, bool):
        return "bool"
    if value is None:
        return "nil"
    names = {str: "string", int: "int", float: "float64", dict: "map", list: "slice", tuple: "slice"}
    return next((name for type_, name in names.items() if isinstance(value, type_)), "value")
