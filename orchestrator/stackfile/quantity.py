"""Durations and sizes: text <-> nanoseconds and bytes.

Durations are Go's (1h30m, 1.5s) with days and weeks; sizes are Docker's (64m, 1.5GiB; k is 1024).
"""

from __future__ import annotations

import re
from decimal import Decimal

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
    total = Decimal(0)
    at = 0
    while at < len(body):
        part = _DURATION_PART.match(body, at)
        if part is None:
            raise ValueError(f"{text!r} is not a duration")
        total += Decimal(part.group(1)) * _NANOSECONDS[part.group(2)]
        at = part.end()
    if total > _LARGEST:
        raise ValueError(f"{text!r} is too long a time")
    return -int(total) if text.startswith("-") else int(total)


def seconds(text: str) -> float:
    """Of a duration such as 1m30s. Raises ValueError."""
    return nanoseconds(text) / 1e9


def duration_text(span: int) -> str:
    """Nanoseconds the way Go and docker compose print them: 1h0m0s, 1.5s, 20ms."""
    if span < 0:
        return f"-{duration_text(-span)}"
    if span == 0:
        return "0s"
    for unit in ("ns", "µs", "ms"):
        size = _NANOSECONDS[unit]
        if span < size * 1000 and span < 1_000_000_000:
            return f"{_decimal(Decimal(span) / size)}{unit}"
    minutes, rest = divmod(span, _NANOSECONDS["m"])
    text = f"{_decimal(Decimal(rest) / _NANOSECONDS['s'])}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
    return text


def _decimal(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def size_in_bytes(text: str) -> int:
    """Of a size such as 64m or 1.5GiB; -1 means unlimited. Raises ValueError."""
    found = _SIZE.fullmatch(text) if len(text) <= _MAX_TEXT else None
    if found is None:
        raise ValueError(f"{text!r:.80} is not a size")
    value = int(Decimal(found.group(1)) * 1024 ** _POWERS[found.group(2).lower()])
    if value < -1 or value > _LARGEST:
        raise ValueError(f"{text!r} is out of range")
    return value
