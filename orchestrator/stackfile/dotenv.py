"""The format of .env and env_file: KEY=value lines with quotes, comments and variables.

What docker compose reads (compose-go's dotenv, observed), except that a bare KEY in a last line without a
line feed is a bare key like any other.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping

from orchestrator.stackfile import problem
from orchestrator.stackfile.interpolate import InterpolationError, Variables, expand
from orchestrator.stackfile.problem import Mark, Report
from orchestrator.stackfile.read import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

Format: TypeAlias = 'Literal["", "raw"]'
Lookup = Callable[[str], str | None]

MAX_TEXT = 1024 * 1024
"""Characters of one env file."""
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
    key it does not know is left out. `raw` takes every value as it stands. Raises StackfileError when the
    text, or all texts of a load together, are too large.
    """
    report.knows(source.path, source.text)
    start = (source.path, 1, 1, 0)
    if len(source.text) > MAX_TEXT:
        report.error(start, problem.LIMIT, f"an env file can't be larger than {MAX_TEXT >> 20} MiB")
        report.settle()
    constant = _constant(source.text, format)
    if constant is not None:
        return dict(constant)
    report.spend(start, len(source.text))
    return _read(source, lookup, report, format)


def _read(source: Source, lookup: Lookup, report: Report, format: Format) -> dict[str, str]:  # noqa: A002
    text = source.text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").replace("\r\n", "\n")
    reader = _Reader(source.path, text, lookup, report)
    with contextlib.suppress(_Stop):
        reader.raw() if format == "raw" else reader.all()
    return reader.found


@functools.lru_cache(maxsize=16)
def _constant(text: str, format: Format) -> Mapping[str, str] | None:  # noqa: A002
    """The variables of a text that depends on nothing else; None when it does, or has something wrong.

    Ten thousand services may have the same env file.
    """

    def outside(_name: str) -> str | None:
        raise _Depends

    report = Report()
    try:
        found = _read(Source(path="", text=text), outside, report, format)
    except _Depends:
        return None
    return None if report.problems or report.warnings or report.refusals else found


class _Stop(Exception):
    """What follows can't be read any more; the report says why."""


class _Depends(Exception):
    """A text takes something from outside."""


class _Reader:
    def __init__(self, file: str, text: str, lookup: Lookup, report: Report) -> None:
        self.file = file
        self.text = text
        self.lookup = lookup
        self.report = report
        self.at = 0
        self.found: dict[str, str] = {}
        self.lookups = _Lookups(lookup, self.found)
        self._ends: list[int] | None = None

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
            # docker compose goes on there with another variable; what it is may be a secret
            message = "the text after the closing quote is read as another variable"
            self.report.refuse(self._mark(self.at), problem.ENV_FORMAT, message, hint="begin a line for it")
        else:
            self.at = self._line_end()
        if quote == "'":
            return body.replace("\\'", "'")
        return self._expand(_ESCAPE.sub(lambda found: _ESCAPES[found.group(1)], body), start)

    def _expand(self, value: str, start: int) -> str:
        if "$" not in value:
            return value

        def missing(name: str) -> None:
            if name not in told:
                told.add(name)
                message = f"the variable {name} is not set: an empty text takes its place"
                self.report.warn(self._mark(start), message)

        told: set[str] = set()

        try:
            expanded = expand(value, Variables(values=self.lookups, missing=missing))
        except InterpolationError as error:
            self.report.error(self._mark(start), problem.VARIABLE, error.message, hint=error.hint)
            return value
        self.report.spend((self.file, 1, 1, 0), len(expanded))
        return expanded

    def _set(self, key: str, value: str | None) -> None:
        if value is not None:
            self.found.pop(key, None)
            self.found[key] = value

    def _mark(self, at: int) -> Mark:
        if self._ends is None:
            self._ends = [found.start() for found in re.finditer("\n", self.text)]
        line = bisect.bisect_left(self._ends, at)
        return (self.file, line + 1, at - (self._ends[line - 1] if line else -1), 0)

    def _wrong(self, at: int, message: str, *, hint: str = "") -> None:
        self.report.error(self._mark(at), problem.ENV_FORMAT, message, hint=hint)
        raise _Stop


class _Lookups(Mapping[str, str]):
    """Variables from outside first, then those the file has set so far."""

    def __init__(self, lookup: Lookup, found: Mapping[str, str]) -> None:
        self.lookup = lookup
        self.found = found

    def __getitem__(self, key: str) -> str:
        outside = self.lookup(key)
        return outside if outside is not None else self.found[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)
