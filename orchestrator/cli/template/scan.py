"""Text -> pieces: literal text, and the tokens of each `{{action}}`."""

from __future__ import annotations

import re

LENGTH_LIMIT = 64 * 1024

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<string>"(?:\\.|[^"\\\n])*")
    |(?P<raw>`[^`]*`)
    |(?P<char>'(?:\\.[0-9a-fA-F]*|[^'\\\n])')
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(?:\d[\d_]*)?\.?\d[\d_]*(?:[eE][+-]?\d+)?))
    |(?P<variable>\$\w*)
    |(?P<field>\.[^\W\d]\w*)
    |(?P<word>[^\W\d]\w*)
    |(?P<mark>:=|[.=|(),])""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)


class TemplateError(ValueError):
    """The template is wrong, or does not fit the data. `hint` says what would."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Token:
    """`kind`: string, number, variable, field, word or mark. `joined`: nothing stands before it."""

    __slots__ = ("at", "joined", "kind", "text")

    def __init__(self, kind: str, text: str, at: int, *, joined: bool) -> None:
        self.kind = kind
        self.text = text
        self.at = at
        self.joined = joined


class Action:
    """What stands between `{{` and `}}`."""

    __slots__ = ("at", "tokens")

    def __init__(self, tokens: list[Token], at: int) -> None:
        self.tokens = tokens
        self.at = at


def wrong(template: str, at: int, message: str, hint: str = "") -> TemplateError:
    """An error of the template's form, with its line, in Go's words."""
    return TemplateError(f"template: :{template.count(chr(10), 0, at) + 1}: {message}", hint)


def pieces(template: str) -> list[str | Action]:
    """Literal text and actions in order; blanks next to `{{- ` and ` -}}` are gone. Raises TemplateError."""
    if len(template) > LENGTH_LIMIT:
        raise TemplateError(f"template: longer than {LENGTH_LIMIT >> 10} KiB")
    found: list[str | Action] = []
    position, trim = 0, False
    while True:
        start = template.find("{{", position)
        text = template[position:] if start < 0 else template[position:start]
        text = text.lstrip() if trim else text
        inside = start + 2
        if (
            start >= 0
            and template[inside : inside + 1] == "-"
            and template[inside + 1 : inside + 2].isspace()
        ):
            text, inside = text.rstrip(), inside + 1
        if text:
            found.append(text)
        if start < 0:
            return found
        action, position, trim = _action(template, start, inside)
        if action is not None:
            found.append(action)


def _action(template: str, start: int, inside: int) -> tuple[Action | None, int, bool]:
    """The action (None for a comment), where it ends, and whether what follows is trimmed."""
    blanks = len(template) - len(template[inside:].lstrip()) if template[inside:].strip() else inside
    comment = _COMMENT.match(template, blanks)
    if comment is not None:
        end = re.compile(r"\s+-\}\}|\}\}").match(template, comment.end())
        if end is None:
            raise wrong(template, start, "comment ends before closing delimiter")
        return None, end.end(), end.group() != "}}"
    tokens: list[Token] = []
    at, joined = inside, False
    while True:
        if template.startswith("}}", at):
            return Action(tokens, start), at + 2, False
        if template.startswith("-}}", at) and not joined and at > inside:
            return Action(tokens, start), at + 3, True
        match = _TOKEN.match(template, at)
        if match is None:
            raise _unreadable(template, start, at)
        kind = str(match.lastgroup)
        if kind != "space":
            tokens.append(_token(template, kind, match.group(), at, joined=joined))
        joined = kind != "space"
        at = match.end()


def _unreadable(template: str, start: int, at: int) -> TemplateError:
    if at >= len(template):
        return wrong(template, start, "unclosed action", "every {{ needs its }}")
    letter = template[at]
    if letter in "\"'`":
        name = {'"': "quoted string", "'": "character constant", "`": "raw quoted string"}[letter]
        return wrong(template, at, f"unterminated {name}")
    return wrong(template, at, f"unexpected {letter!r} in action")


def _token(template: str, kind: str, text: str, at: int, *, joined: bool) -> Token:
    if kind == "raw":
        return Token("string", text[1:-1], at, joined=joined)
    if kind == "string":
        return Token("string", _unescaped(template, text[1:-1], at), at, joined=joined)
    if kind == "char":
        return Token("number", str(ord(_unescaped(template, text[1:-1], at)[:1] or "\0")), at, joined=joined)
    return Token(kind, text, at, joined=joined)


def _unescaped(template: str, text: str, at: int) -> str:
    def one(match: re.Match[str]) -> str:
        two, four, eight, octal, letter = match.groups()
        if digits := two or four or eight:
            return chr(min(int(digits, 16), 0x10FFFF))
        if octal:
            return chr(int(octal, 8))
        if letter in "\\'\"":
            return str(letter)
        if letter not in _ESCAPES:
            raise wrong(template, at, f"bad escape \\{letter} in a quoted string")
        return _ESCAPES[letter]

    return _ESCAPE.sub(one, text)
