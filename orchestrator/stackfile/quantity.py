"""Durations and sizes: text <-> nanoseconds and bytes.

Durations are Go's (1h30m, 1.5s) with days and weeks; sizes are Docker's (64m, 1.5GiB; k is 1024).
"""

from __future__ import annotations

import re

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w)", re.ASCII)
_SIZE = re.compile(
    r"(-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[0-9]{1,2})?)[ ]?([kmgtp]?)(?:i?b)?", re.ASCII | re.IGNORECASE
)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_LARGEST = 2**63 - 1
_MAX_TEXT = 64


def nanoseconds(text: str) -> int:
    """Of a duration such as 1m30s. Raises ValueError."""
    body = text.lstrip("+-") if text[:1] in "+-" else text
    if not body or len(text) > _MAX_TEXT:
        raise ValueError(f"{text!r:.80} is not a duration")
    if body == "0":
        return 0
    total, places = 0, 0  # of 10 ** -places nanoseconds
    at = 0
    while at < len(body):
        part = _DURATION_PART.match(body, at)
        if part is None:
            raise ValueError(f"{text!r} is not a duration")
        number, fraction = _digits(part.group(1))
        finest = max(places, fraction)
        number *= _NANOSECONDS[part.group(2)] * 10 ** (finest - fraction)
        total, places = total * 10 ** (finest - places) + number, finest
        at = part.end()
    if total > _LARGEST * 10**places:
        raise ValueError(f"{text!r} is too long a time")
    total //= 10**places
    return int(-total if text.startswith("-") else total)


def _digits(text: str) -> tuple[int, int]:
    """A number without its point, and how many digits stood behind that: importing `decimal` takes 3 ms."""
    whole, _, fraction = text.partition(".")
    return int(whole + fraction), len(fraction)


def seconds(text: str) -> float:
    """Of a duration such as 1m30s. Raises ValueError."""
    return nanoseconds(text) / 1e9


def duration_text(span: int) -> str:
    """Nanoseconds the way Go and docker compose print them: 1h0m0s, 1.5s, 20ms."""
    if span < 0:
        return f"-{duration_text(-span)}"
    if span == 0:
        return "0s"
    for unit, places in (("ns", 0), ("µs", 3), ("ms", 6)):
        if span < 10 ** (places + 3):
            return f"{_decimal(span, places)}{unit}"
    minutes, rest = divmod(span, _NANOSECONDS["m"])
    text = f"{_decimal(rest, 9)}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
    return text


def _decimal(value: int, places: int) -> str:
    """The value with its point moved to the left."""
    whole, fraction = divmod(value, 10**places)
    return f"{whole}.{fraction:0{places}}".rstrip("0").rstrip(".") if fraction else str(whole)


def size_in_bytes(text: str) -> int:
    """Of a size such as 64m or 1.5GiB; -1 means unlimited. Raises ValueError."""
    found = _SIZE.fullmatch(text) if len(text) <= _MAX_TEXT else None
    if found is None:
        raise ValueError(f"{text!r:.80} is not a size")
    number, _, exponent = found.group(1).lower().partition("e")
    value, places = _digits(number.lstrip("-"))
    value = value * 10 ** int(exponent or 0) * 1024 ** _POWERS[found.group(2).lower()] // 10**places
    value = int(-value if number.startswith("-") else value)
    if value < -1 or value > _LARGEST:
        raise ValueError(f"{text!r} is out of range")
    return value
