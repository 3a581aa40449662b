"""What stands twice in a list."""

from __future__ import annotations

from collections.abc import Sequence


def repeated(found: Sequence[object]) -> tuple[int, int] | None:
    """Where a list first says what it has said before, and where it did. Only of lists of texts and numbers:
    what else is in one is wrong there, and comparing it could take long.
    """
    seen: dict[object, int] = {}
    for index, entry in enumerate(found):
        if isinstance(entry, bool) or not isinstance(entry, str | int | float):
            return None
        if seen.setdefault(entry, index) != index:
            return index, seen[entry]
    return None
