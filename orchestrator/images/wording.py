"""Words of Dockerfile instructions (Dockerfile reference, "Environment replacement").

`$NAME`, `${NAME}`, `${NAME:-word}`, `${NAME-word}`, `${NAME:+word}`, `${NAME+word}`; single quotes keep
everything, double quotes keep blanks, a backslash keeps the next letter. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

_NESTING_LIMIT = 16


def expand(text: str, variables: Mapping[str, str]) -> str:
    """One word, whatever blanks are in it. Raises ValueError."""
    return "".join(_Reader(text, variables).words(apart=False))


def split(text: str, variables: Mapping[str, str]) -> list[str]:
    """Words that blanks keep apart; a variable's blanks don't. Raises ValueError."""
    return _Reader(text, variables).words(apart=True)


class _Reader:
    def __init__(self, text: str, variables: Mapping[str, str], nesting: int = 0) -> None:
        if nesting > _NESTING_LIMIT:
            raise ValueError("variables nested too deep")
        self._text = text
        self._variables = variables
        self._nesting = nesting
        self._at = 0

    def words(self, *, apart: bool) -> list[str]:
        found: list[str] = []
        word: list[str] | None = None
        while self._at < len(self._text):
            letter = self._text[self._at]
            if apart and letter.isspace():
                if word is not None:
                    found.append("".join(word))
                word = None
                self._at += 1
                continue
            word = [] if word is None else word
            word.append(self._piece(letter))
        return found if word is None else [*found, "".join(word)]

    def _piece(self, letter: str) -> str:
        """What stands at the place where we are; go behind it."""
        self._at += 1
        if letter == "'":
            return self._until("'")
        if letter == '"':
            return self._quoted()
        if letter == "\\" and self._at < len(self._text):
            self._at += 1
            return self._text[self._at - 1]
        return self._variable() if letter == "$" else letter

    def _until(self, end: str) -> str:
        stop = self._text.find(end, self._at)
        if stop < 0:
            raise ValueError(f"{end} is never closed")
        piece, self._at = self._text[self._at : stop], stop + 1
        return piece

    def _quoted(self) -> str:
        parts: list[str] = []
        while self._at < len(self._text):
            letter = self._text[self._at]
            self._at += 1
            if letter == '"':
                return "".join(parts)
            if letter == "\\" and self._text[self._at : self._at + 1] in ('"', "$", "\\"):
                letter = self._text[self._at]
                self._at += 1
                parts.append(letter)
            else:
                parts.append(self._variable() if letter == "$" else letter)
        raise ValueError('" is never closed')

    def _variable(self) -> str:
        """Behind a "$"; a lone one is itself."""
        if self._text[self._at : self._at + 1] != "{":
            start = self._at
            while self._at < len(self._text) and _is_of_name(self._text[self._at], first=self._at == start):
                self._at += 1
            return self._variables.get(self._text[start : self._at], "") if self._at > start else "$"
        body = self._braced()
        name = ""
        for letter in body:
            if not _is_of_name(letter, first=not name):
                break
            name += letter
        rest = body[len(name) :]
        if not name or (rest and rest.lstrip(":")[:1] not in ("-", "+", "?")):
            raise ValueError(f"${{{body}}} is not understood")
        return self._chosen(name, rest)

    def _chosen(self, name: str, rest: str) -> str:
        value = self._variables.get(name)
        if rest.startswith(":"):
            rest, value = rest[1:], value or None
        word = _Reader(rest[1:], self._variables, self._nesting + 1)
        if rest[:1] == "-" and value is None:
            return "".join(word.words(apart=False))
        if rest[:1] == "+":
            return "".join(word.words(apart=False)) if value is not None else ""
        if rest[:1] == "?" and value is None:
            raise ValueError(f"{name}: {rest[1:] or 'is not set'}")
        return value or ""

    def _braced(self) -> str:
        """What stands between "{" and its "}"."""
        depth, start = 0, self._at + 1
        while self._at < len(self._text):
            depth += {"{": 1, "}": -1}.get(self._text[self._at], 0)
            self._at += 1
            if depth == 0:
                return self._text[start : self._at - 1]
        raise ValueError("${ is never closed")


def _is_of_name(letter: str, *, first: bool) -> bool:
    return letter == "_" or (letter.isascii() and (letter.isalpha() if first else letter.isalnum()))
