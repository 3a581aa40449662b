"""What a template can call. Each raises ValueError with a reason that the caller puts a place before."""

from __future__ import annotations

import re

from orchestrator.cli.template.values import kind, shown, true

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

WIDTH_LIMIT = 10_000
_VERB = re.compile(r"%([-+# 0]*)(\d+|\*)?(?:\.(\d+|\*)?)?(.?)", re.DOTALL)


# --- docker's ------------------------------------------------------------------------------------


def json(value: object) -> str:
    """Compact, and without the escapes of Go's encoder that are meant for HTML."""
    import json as encoder

    return encoder.dumps(_data(value), ensure_ascii=False, separators=(",", ":"))


def _data(value: object) -> object:
    """Without the functions that an object may have for templates."""
    if isinstance(value, dict) and any(map(callable, value.values())):
        return {key: one for key, one in value.items() if not callable(one)}
    return value


def split(text: object, separator: object) -> list[str]:
    whole, between = _text(text), _text(separator)
    return whole.split(between) if between else list(whole)


def join(parts: object, separator: object) -> str:
    if parts is None:
        return ""
    if not isinstance(parts, (list, tuple)):
        raise ValueError(f"wrong type for value; expected []string; got {kind(parts)}")
    return _text(separator).join(map(shown, parts))


def title(text: object) -> str:
    return re.sub(r"\b\w", lambda first: first.group().upper(), _text(text))


def lower(text: object) -> str:
    return _text(text).lower()


def upper(text: object) -> str:
    return _text(text).upper()


def pad(text: object, before: object, after: object) -> str:
    """With blanks around, unless it is empty."""
    whole = _text(text)
    return whole and " " * _count(before) + whole + " " * _count(after)


def truncate(text: object, length: object) -> str:
    return _text(text)[: _count(length)]


# --- Go's ----------------------------------------------------------------------------------------


def length(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if value is None:
        return 0
    if isinstance(value, (list, tuple, dict)):
        return len(value)
    raise ValueError(f"len of type {kind(value)}")


def index(value: object, *keys: object) -> object:
    """`index x 1 "a"` is x[1]["a"]; what an object does not have is the zero value."""
    for key in keys:
        value = _item(value, key)
    return value


def _item(value: object, key: object) -> object:
    if value is None:
        raise ValueError("index of untyped nil")
    if isinstance(value, dict):
        if key in value:
            return value[key]
        return "" if value and all(isinstance(one, str) for one in value.values()) else None
    if not isinstance(value, (list, tuple, str)):
        raise ValueError(f"can't index item of type {kind(value)}")
    if not isinstance(key, int) or isinstance(key, bool):
        raise ValueError(f"cannot index slice/array with type {kind(key)}")
    if not 0 <= key < len(value):
        raise ValueError(f"index out of range: {key}")
    return ord(value[key]) if isinstance(value, str) else value[key]


def cut(value: object, *bounds: object) -> object:
    """`slice x 1 3` is x[1:3]."""
    if not isinstance(value, (list, tuple, str)):
        raise ValueError(f"can't slice item of type {kind(value)}")
    places = [_count(one) for one in bounds]
    if len(places) > 2 or any(place > len(value) for place in places) or places != sorted(places):
        raise ValueError(f"index out of range: {places[-1]}")
    return value[slice(*places)] if len(places) > 1 else value[places[0] if places else 0 :]


def print_(*values: object) -> str:
    """Blanks between operands when neither is a text."""
    text = ""
    for place, value in enumerate(values):
        apart = place and not isinstance(value, str) and not isinstance(values[place - 1], str)
        text += (" " if apart else "") + shown(value, nested=True)
    return text


def println(*values: object) -> str:
    return " ".join(shown(value, nested=True) for value in values) + "\n"


def printf(form: object, *values: object) -> str:
    left = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not verb:
            return "%!(NOVERB)"
        if width == "*":
            width = str(_count(left.pop(0))) if left else "0"
        if not left:
            return f"%!{verb}(MISSING)"
        if int(width or 0) > WIDTH_LIMIT or int(precision or 0) > WIDTH_LIMIT:
            raise ValueError("width or precision is too large")
        text = _formatted(verb, flags, precision, left.pop(0))
        if "-" in flags:
            return text.ljust(int(width or 0))
        zeros = "0" in flags and verb in "dxXofeEgG"
        return text.zfill(int(width or 0)) if zeros else text.rjust(int(width or 0))

    text = _VERB.sub(one, _text(form))
    if left:
        rest = ", ".join("<nil>" if value is None else f"{kind(value)}={shown(value)}" for value in left)
        return f"{text}%!(EXTRA {rest})"
    return text


def _formatted(verb: str, flags: str, precision: str | None, value: object) -> str:
    wrong = f"%!{verb}({kind(value)}={shown(value)})" if value is not None else f"%!{verb}(<nil>)"
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if verb == "v" or (verb == "s" and value is not None):
        text = shown(value, nested=True)
        return text[: int(precision)] if precision else text
    if verb == "q":
        return json(value if isinstance(value, str) else shown(value))
    if verb == "T":
        return kind(value)
    if verb == "t":
        return shown(value) if isinstance(value, bool) else wrong
    if verb in "dboxX" and isinstance(value, int) and number:
        return f"{value:{'+' if '+' in flags else ''}{'#' if '#' in flags and verb != 'd' else ''}{verb}}"
    if verb in "xX" and isinstance(value, str):
        digits = value.encode("utf-8", "surrogateescape").hex()
        return digits.upper() if verb == "X" else digits
    if verb == "c" and isinstance(value, int) and number:
        return chr(value) if 0 <= value < 0x110000 else "\ufffd"
    if verb in "feEgG" and number:
        places = (
            "" if precision is None and verb in "gG" else f".{precision or (6 if precision is None else 0)}"
        )
        assert isinstance(value, (int, float))
        return f"{value:{'+' if '+' in flags else ''}{places}{verb}}"
    return wrong


def eq(first: object, *others: object) -> bool:
    """Whether the first equals any of the others."""
    if not others:
        raise ValueError("missing argument for comparison")
    return any(_equal(first, other) for other in others)


def ne(first: object, second: object) -> bool:
    return not _equal(first, second)


def _equal(first: object, second: object) -> bool:
    if first is None or second is None:
        return first is second
    if _sort(first) != _sort(second):
        raise ValueError(f"incompatible types for comparison: {kind(first)} and {kind(second)}")
    if isinstance(first, (dict, list, tuple)):
        raise ValueError(f"non-comparable type {shown(first)}: {kind(first)}")
    return first == second


def _sort(value: object) -> str:
    return "number" if kind(value) in ("int", "float64") else kind(value)


def _ordering(test: Callable[[Any, Any], bool]) -> Callable[[object, object], bool]:
    def compare(first: object, second: object) -> bool:
        if _sort(first) != _sort(second):
            raise ValueError(f"incompatible types for comparison: {kind(first)} and {kind(second)}")
        if _sort(first) not in ("number", "string"):
            raise ValueError(f"invalid type for comparison: {kind(first)}")
        return test(first, second)

    return compare


def not_(value: object) -> bool:
    return not true(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"wrong type for value; expected string; got {kind(value)}")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= WIDTH_LIMIT:
        raise ValueError(f"{shown(value)} is not a number from 0 to {WIDTH_LIMIT}")
    return value


def _unused(*_: object) -> object:
    """`and` and `or` stop at the argument that decides: that is `evaluate`'s."""
    raise AssertionError


OF_DOCKER = ("join", "json", "lower", "pad", "split", "title", "truncate", "upper")
FUNCTIONS: dict[str, Callable[..., object]] = {
    "and": _unused,
    "eq": eq,
    "ge": _ordering(lambda first, second: first >= second),
    "gt": _ordering(lambda first, second: first > second),
    "index": index,
    "join": join,
    "json": json,
    "le": _ordering(lambda first, second: first <= second),
    "len": length,
    "lower": lower,
    "lt": _ordering(lambda first, second: first < second),
    "ne": ne,
    "not": not_,
    "or": _unused,
    "pad": pad,
    "print": print_,
    "printf": printf,
    "println": println,
    "slice": cut,
    "split": split,
    "title": title,
    "truncate": truncate,
    "upper": upper,
}
