"""Tables as text. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

GAP = 3
LEAST = 10
"""Columns that a cell takes with the gap behind it, at the least, in docker's tables."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, three blanks apart, as docker prints them."""
    lines = [head, *rows]
    widths = [max(*map(width, column), LEAST - GAP) for column in zip(*lines, strict=True)]
    return "".join(_line(cells, widths) for cells in lines)


def ragged(lines: Sequence[Sequence[str]]) -> str:
    """The same for lines of different numbers of cells; each line's last one pushes nothing aside."""
    count = max(map(len, lines))
    widths = [
        max((width(cells[place]) for cells in lines if place < len(cells) - 1), default=0)
        for place in range(count)
    ]
    return "".join(_line(cells, [max(size, LEAST - GAP) for size in widths]) for cells in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell + " " * (size + GAP - width(cell)) for cell, size in zip(cells, widths, strict=False)]
    return "".join(padded).rstrip() + "\n"


def width(text: str) -> int:
    """Columns of a terminal that `text` takes: two for wide East Asian characters and emoji, none for
    combining marks (Unicode Standard Annex 11).
    """
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0
        if unicodedata.combining(letter) or letter in "\u200b\u200d\ufe0f"
        else 2
        if unicodedata.east_asian_width(letter) in "WF"
        else 1
        for letter in text
    )


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters; an ellipsis says that there was more."""
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def size(count: int) -> str:
    """Bytes in decimal units with three digits, as docker images prints them: "1.24MB"."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            return f"{value:.3g}{unit}"
        value /= 1000
    raise AssertionError
