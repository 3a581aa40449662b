"""Headers that say which part: Content-Range, the Range of an upload, Link. Pure."""

from __future__ import annotations

import re

from orchestrator.model.frozen import dataclass

_CONTENT = re.compile(r"\s*bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\s*", re.IGNORECASE)
_UPLOADED = re.compile(r"\s*(?:bytes=)?0-(\d{1,18})\s*")
_LINK = re.compile(r"<([^<>]*)>((?:\s*;\s*[\w*-]+\s*=\s*(?:\"[^\"]*\"|[^\s\",;]*))*)")
_NEXT = re.compile(r";\s*rel\s*=\s*(?:\"\s*(?:[^\"]*\s)?next(?:\s[^\"]*)?\"|next(?![\w-]))", re.IGNORECASE)
_LENGTH = re.compile(r"\d{1,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes `first` to `last`, both included, of `total` (None: not said)."""

    first: int
    last: int
    total: int | None


def content_range(header: str) -> Part | None:
    """What a 206 answer holds (RFC 9110, 14.4); None when that can't be told."""
    match = _CONTENT.fullmatch(header)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if last < first or (total is not None and last >= total):
        return None
    return Part(first=first, last=last, total=total)


def continues(header: str, *, offset: int, size: int) -> bool:
    """Whether a 206 answer is the rest, from `offset` on, of a blob of `size` bytes."""
    part = content_range(header)
    return part is not None and part.first == offset and part.last == size - 1 and part.total in (size, None)


def uploaded(header: str) -> int:
    """How many bytes a registry has, by the Range of an upload's answer.

    It is `0-<last byte>` (distribution specification, "Pushing a blob in chunks"), so 1 byte and none
    look the same; `0-0` is taken for none, which costs that byte again at worst.
    """
    match = _UPLOADED.fullmatch(header)
    return int(match[1]) + 1 if match and int(match[1]) else 0


def next_page(header: str) -> str:
    """The target of `Link: <target>; rel="next"` (RFC 8288), "" without one."""
    for match in _LINK.finditer(header[: 16 << 10]):
        if _NEXT.search(match[2]):
            return match[1]
    return ""


def length(header: str) -> int | None:
    """A Content-Length, or another header that is a count of bytes."""
    match = _LENGTH.fullmatch(header.strip())
    return int(match[0]) if match else None
