"""YAML 1.2 core scalars, as docker compose's loader reads them (yaml.v3): no yes/no booleans, no base 60.

Facts that differ from the letter of YAML 1.2 and that real files rely on: a leading 0 is octal, 0b is binary,
and _ may stand between digits.
"""

from __future__ import annotations

import math
import re

from orchestrator.stackfile.tree import Scalar, Tagged, Timestamp

_INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0[bB][01]+|0|[1-9][0-9]*)$")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_DATE = (
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"(?:(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9:]+))?)?$"
)
_WORDS: dict[str, Scalar] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
    ".inf": math.inf,
    ".Inf": math.inf,
    ".INF": math.inf,
    "+.inf": math.inf,
    "+.Inf": math.inf,
    "+.INF": math.inf,
    "-.inf": -math.inf,
    "-.Inf": -math.inf,
    "-.INF": -math.inf,
    ".nan": math.nan,
    ".NaN": math.nan,
    ".NAN": math.nan,
}
_MAX_DIGITS = 300
_UNSIGNED_64 = 2**64
_BASES = {"x": 16, "o": 8, "b": 2}


def scalar(text: str) -> Scalar | Timestamp:
    """The value of a plain (unquoted) scalar."""
    if not text:
        return None
    first = text[0]
    if first in "tTfFnN~.+-" and text in _WORDS:
        return _WORDS[text]
    if first not in "0123456789+-.":
        return text
    return _number(text)


def _number(text: str) -> Scalar | Timestamp:
    digits = text.replace("_", "") if "_" in text else text
    if len(digits) > _MAX_DIGITS:
        return text
    if _INTEGER.match(digits):
        whole = integer(digits)
        return whole if abs(whole) < _UNSIGNED_64 else float(whole)
    if _FLOAT.match(digits):
        real = float(digits)
        return text if math.isinf(real) else real
    if text[4:5] == "-" and re.match(_DATE, text):
        return Timestamp(text)
    return text


def integer(digits: str) -> int:
    """The value of an integer in any of the notations (10, 0x1F, 0o17, 017, 0b11). Raises ValueError."""
    sign = -1 if digits.startswith("-") else 1
    body = digits.lstrip("+-").lower()
    if len(body) > 1 and body[0] == "0":
        base = _BASES.get(body[1])
        return sign * (int(body[2:], base) if base else int(body[1:], 8))
    return sign * int(body)


def text_of(value: Scalar | Timestamp | Tagged) -> str:
    """A scalar where text is wanted (an environment value, a label): the way docker compose prints it."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Timestamp):
        return value.text
    if isinstance(value, Tagged):
        return ""
    return _float_text(value)


def _float_text(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    shortest = repr(value)
    if "e" not in shortest:
        return shortest
    mantissa, _, exponent = shortest.partition("e")
    return f"{mantissa}e{'-' if exponent.startswith('-') else '+'}{exponent.lstrip('+-'):0>2}"
