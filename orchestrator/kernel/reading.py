"""A JSON object read with the types one expects; whatever else stands there is refused by name.

Absent and null are the same and give the empty value of the type, as in Go, where OCI's documents come
from. No `Any` leaves this file.
"""

from __future__ import annotations

import json
import os

LIMIT = 4 << 20
"""Bytes of a document: more than a command and an environment can take that execve(2) accepts."""


class RefusedError(ValueError):
    """A document asks for something we don't do, or says it in a wrong form."""


class Document:
    """A view of one JSON object; `place` names it in errors."""

    __slots__ = ("place", "raw")

    def __init__(self, raw: object, place: str = "") -> None:
        if raw is None:
            raw = {}
        if not isinstance(raw, dict):
            raise RefusedError(f"{place or 'document'}: not an object")
        self.raw: dict[str, object] = raw
        self.place = place

    def names(self) -> list[str]:
        """The names in it, in order."""
        return list(self.raw)

    def __contains__(self, key: str) -> bool:
        return self.raw.get(key) is not None

    def only(self, *names: str) -> None:
        """Refuse every other name that has a value."""
        for key, value in self.raw.items():
            if key not in names and value not in (None, "", [], {}, False):
                raise RefusedError(f"{self._at(key)} is not supported")

    def text(self, key: str) -> str:
        """A string without NUL, "" when absent."""
        value = self.raw.get(key)
        if value is None:
            return ""
        if not isinstance(value, str) or "\0" in value:
            raise RefusedError(f"{self._at(key)}: not a string")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        values = self._list(key)
        for value in values:
            if not isinstance(value, str) or "\0" in value:
                raise RefusedError(f"{self._at(key)}: not a list of strings")
        return [str(value) for value in values]

    def number(self, key: str, default: int = 0) -> int:
        """An integer that fits in 64 bits."""
        value = self.raw.get(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**64:
            raise RefusedError(f"{self._at(key)}: not a number")
        return value

    def flag(self, key: str) -> bool:
        """A boolean."""
        value = self.raw.get(key)
        if value is not None and not isinstance(value, bool):
            raise RefusedError(f"{self._at(key)}: neither true nor false")
        return bool(value)

    def table(self, key: str) -> Document:
        """An object."""
        return Document(self.raw.get(key), self._at(key))

    def tables(self, key: str) -> list[Document]:
        """A list of objects."""
        place = self._at(key)
        return [Document(value, f"{place}[{index}]") for index, value in enumerate(self._list(key))]

    def members(self, key: str) -> list[str | int]:
        """A list of strings and integers."""
        values: list[str | int] = []
        for value in self._list(key):
            if not isinstance(value, str | int) or isinstance(value, bool):
                raise RefusedError(f"{self._at(key)}: neither names nor numbers")
            values.append(value)
        return values

    def _list(self, key: str) -> list[object]:
        value = self.raw.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise RefusedError(f"{self._at(key)}: not a list")
        return value

    def _at(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key


def load(path: str, without: tuple[int, int] = (0, 0)) -> Document:
    """The JSON object in a file of at most LIMIT bytes. Raises RefusedError, or OSError if unreadable.

    `without`: where a long object begins and ends that the caller has no use for; it reads as null.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        data = b""
        while len(data) <= LIMIT and (part := os.read(fd, LIMIT + 1)):
            data += part
    finally:
        os.close(fd)
    if len(data) > LIMIT:
        raise RefusedError(f"{path}: larger than {LIMIT} bytes")
    start, end = without
    if start > 0 and data[start : start + 1] == b"{" and data[end - 1 : end] == b"}":
        data = data[:start] + b"null" + data[end:]
    try:
        return Document(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{path}: {error}") from None
