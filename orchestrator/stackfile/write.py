"""Plain data -> YAML text, as `config` prints it: two blanks a level, quotes only where they are needed.

PyYAML's emitter indents lists less than people do and has no block text; this one knows the few kinds of
value there are in a stack, and quotes whatever a reader of YAML 1.1 or 1.2 could take for something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestrator.stackfile.scalar import scalar
from orchestrator.stackfile.tree import Plain

_STARTS = re.compile(r"[A-Za-z_./$(\\^]|[0-9+-](?=[^ ])")
"""What may begin a text without quotes: none of YAML's indicators."""
_STOPS = re.compile(r": |:$| #|^-$|^---|^\.\.\.| $")
_TYPED = re.compile(
    r"(?:null|true|false|yes|no|on|off|y|n)$"
    r"|[-+]?\.?_*[0-9][0-9a-fox_.:+-]*$"
    r"|[-+]?\.(?:inf|nan)$"
    r"|\d{4}-\d\d?-\d\d?(?:[Tt ]|$)",
    re.IGNORECASE,
)
"""What some version of YAML reads as no text: words, numbers (also base 60), dates."""
_BLOCK = re.compile(r"[^\s#][^\n]*(?:\n[^\n]*)*\n*")
_STEP = "  "


def write(value: Plain) -> str:
    """The value as a YAML document, which ends with a line feed."""
    return "".join(f"{line}\n" for line in _lines(value, ""))


def _lines(value: Plain, indent: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _entry(f"{indent}{_text(key)}:", part, indent)
    elif isinstance(value, list) and value:
        for part in value:
            yield from _item(part, indent)
    else:
        yield indent + _scalar(value)


def _entry(head: str, value: Plain, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield head
        yield from _lines(value, indent + _STEP)
    elif isinstance(value, str) and "\n" in value:
        yield from _long(head, value, indent)
    else:
        yield f"{head} {_scalar(value)}"


def _item(value: Plain, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        first = True
        for line in _lines(value, indent + _STEP):
            yield f"{indent}- {line[len(indent) + 2 :]}" if first else line
            first = False
    elif isinstance(value, str) and "\n" in value:
        yield from _long(f"{indent}-", value, indent)
    else:
        yield f"{indent}- {_scalar(value)}"


def _long(head: str, text: str, indent: str) -> Iterator[str]:
    """A text of several lines stands as it is, if that says all of it."""
    lines = text.split("\n")
    body = text.rstrip("\n")
    if not body or _BLOCK.fullmatch(text) is None or not all(map(str.isprintable, lines)):
        yield f"{head} {_quoted(text)}"
        return
    ends = len(text) - len(body)
    yield f"{head} |{'-' if ends == 0 else '' if ends == 1 else '+'}"
    for line in body.split("\n") + [""] * (ends - 1):
        yield f"{indent}{_STEP}{line}" if line else ""


def _scalar(value: Plain) -> str:
    if isinstance(value, str):
        return _text(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return "{}" if isinstance(value, dict) else "[]"
    if isinstance(value, float):
        return _number(value)
    return str(value)


def _number(value: float) -> str:
    if value != value:
        return ".nan"
    if value in (float("inf"), float("-inf")):
        return ".inf" if value > 0 else "-.inf"
    text = repr(value)
    # YAML 1.1 wants a dot in a number with an exponent.
    return text if "e" not in text or "." in text else text.replace("e", ".0e")


def _text(text: str) -> str:
    if (
        _STARTS.match(text) is None
        or not text.isprintable()
        or _STOPS.search(text) is not None
        or _TYPED.match(text) is not None
        or not isinstance(scalar(text), str)
    ):
        return _quoted(text)
    return text


def _quoted(text: str) -> str:
    """In double quotes, which take every character by an escape."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    if not escaped.isprintable():
        escaped = "".join(char if char.isprintable() else _escape(char) for char in escaped)
    return f'"{escaped}"'


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
