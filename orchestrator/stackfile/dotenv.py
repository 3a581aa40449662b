"""The format of .env and env_file: KEY=value lines with quotes, comments and variables.

What docker compose reads (compose-go's dotenv, observed), except that a bare KEY in a last line without a
line feed is a bare key like any other.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Literal

from orchestrator.stackfile import problem
from orchestrator.stackfile.interpolate import InterpolationError, Variables, expand
from orchestrator.stackfile.problem import Mark, Report
from orchestrator.stackfile.read import Source

Format = Literal["", "raw"]
Lookup = Callable[[str], str | None]

_EXPORT = re.compile(r"export[ \t]+")
_KEY_END = re.compile(r"[=:\n]")
_ESCAPE = re.compile(r'\\([abfnrtv"\\$])')
_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    '"': '"',
    "\\": "\\",
    "$": "$$",
}


def parse(source: Source, lookup: Lookup, report: Report, *, format: Format = "") -> dict[str, str]:  # noqa: A002
    """The variables a text sets, in order. What is wrong goes to `report`.

    `lookup` answers for variables from outside: it wins inside ${...} and gives a bare KEY its value; a bare
    key it does not know is left out. `raw` takes every value as it stands.
    """
    report.knows(source.path, source.text)
    text = source.text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").replace("\r\n", "\n")
    reader = _Reader(source.path, text, lookup, report)
    with contextlib.suppress(_Stop):
        reader.raw() if format == "raw" else reader.all()
    return reader.found


class _Stop(Exception):
    """What follows can't be read any more; the report says why."""


class _Reader:
    def __init__(self, file: str, text: str, lookup: Lookup, report: Report) -> None:
        self.file = file
        self.text = text
        self.lookup = lookup
        self.report = report
        self.at = 0
        self.found: dict[str, str] = {}

    def raw(self) -> None:
        after = 0
        for line in self.text.split("\n"):
            self.at, after = after, after + len(line) + 1
            entry = line.lstrip()
            if not entry or entry.startswith("#"):
                continue
            key, equals, value = entry.partition("=")
            if " " in key or "\t" in key:
                self._wrong(self.at, f"the name {key!r:.60} can't hold a blank", hint="lines are NAME=value")
            self._set(key, value if equals else self.lookup(key))

    def all(self) -> None:
        while self._skip_blank():
            start = self.at
            exported = _EXPORT.match(self.text, self.at)
            if exported:
                self.at = exported.end()
            key, bare = self._key(start)
            if bare:
                self._set(key, self.lookup(key))
            else:
                self._set(key, self._value())

    def _skip_blank(self) -> bool:
        """To the next entry; False at the end of the text."""
        while self.at < len(self.text):
            if self.text[self.at].isspace():
                self.at += 1
            elif self.text[self.at] == "#":
                self.at = self._line_end()
            else:
                return True
        return False

    def _line_end(self) -> int:
        end = self.text.find("\n", self.at)
        return len(self.text) if end < 0 else end

    def _key(self, start: int) -> tuple[str, bool]:
        end = _KEY_END.search(self.text, self.at)
        stop = end.start() if end else len(self.text)
        bare = end is None or end.group() == "\n"
        key = self.text[self.at : stop].strip()
        if not key:
            self._wrong(start, "a line needs a name before its =")
        if " " in key or "\t" in key:
            self._wrong(start, f"the name {key!r:.60} can't hold a blank", hint="lines look like NAME=value")
        for char in key:
            if not (char.isalnum() or char in "_.-[]"):
                self._wrong(start, f"unexpected character {char!r} in the name {key!r:.60}")
        self.at = stop if bare else stop + 1
        return key, bare

    def _value(self) -> str:
        while self.at < len(self.text) and self.text[self.at] in " \t":
            self.at += 1
        quote = self.text[self.at : self.at + 1]
        if quote in ("'", '"') and quote:
            return self._quoted(quote)
        start, self.at = self.at, self._line_end()
        line = self.text[start : self.at]
        value = line.partition(" #")[0].rstrip()
        return self._expand(value, start)

    def _quoted(self, quote: str) -> str:
        start = self.at
        end = start + 1
        while end < len(self.text) and self.text[end] != quote:
            end += 2 if self.text[end] == "\\" else 1
        if end >= len(self.text):
            self._wrong(start, f"the quote {quote} is not closed")
        body = self.text[start + 1 : end]
        self.at = end + 1
        rest = self.text[self.at : self._line_end()].strip()
        if rest and not rest.startswith("#"):
            self._wrong(self.at, "text after the closing quote")
        self.at = self._line_end()
        if quote == "'":
            return body.replace("\\'", "'")
        return self._expand(_ESCAPE.sub(lambda found: _ESCAPES[found.group(1)], body), start)

    def _expand(self, value: str, start: int) -> str:
        if "$" not in value:
            return value
        mark = self._mark(start)

        def missing(name: str) -> None:
            self.report.warn(mark, f"the variable {name} is not set: an empty text takes its place")

        try:
            return expand(value, Variables(values=_Lookups(self.lookup, self.found), missing=missing))
        except InterpolationError as error:
            self.report.error(mark, problem.VARIABLE, error.message, hint=error.hint)
            return value

    def _set(self, key: str, value: str | None) -> None:
        if value is not None:
            self.found.pop(key, None)
            self.found[key] = value

    def _mark(self, at: int) -> Mark:
        before = self.text[:at]
        return (self.file, before.count("\n") + 1, at - before.rfind("\n"), 0)

    def _wrong(self, at: int, message: str, *, hint: str = "") -> None:
        self.report.error(self._mark(at), problem.ENV_FORMAT, message, hint=hint)
        raise _Stop


class _Lookups(dict[str, str]):
    """Variables from outside first, then those the file has set so far."""

    def __init__(self, lookup: Lookup, found: dict[str, str]) -> None:
        super().__init__(found)
        self.lookup = lookup

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        outside = self.lookup(key)
        return outside if outside is not None else super().get(key, default)
