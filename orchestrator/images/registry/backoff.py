"""How long to wait before the next try. Pure: chance and the time of day are given."""

from __future__ import annotations

from orchestrator.model.frozen import dataclass

RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))
"""Answers that a later try may not get. 401, 403 and 404 are not among them."""

WORTH_WAITING = 60.0
"""Seconds. A registry that says "come back in six hours" is told to the user, not waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often and how long."""

    tries: int = 5
    first: float = 0.5
    longest: float = 16.0

    def delay(self, failed: int, *, chance: float, retry_after: float | None = None) -> float | None:
        """Seconds until the next try after `failed` of them (>= 1); None: give up.

        `chance` is in [0, 1): half of the delay is left to it, so that many who failed together do not come
        back together. What the registry asked for is the least.
        """
        if failed >= self.tries or (retry_after is not None and retry_after > WORTH_WAITING):
            return None
        # 64 doublings are more than any limit; without a bound a float overflows.
        whole = min(self.first * 2.0 ** min(failed - 1, 64), self.longest)
        return max(whole * (0.5 + chance / 2), retry_after or 0.0)


def retry_after(header: str, *, now: float) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3), None without one that can be read.

    `now` is the time of day, which a date is compared with.
    """
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) < 10 else float("inf")
    from email.utils import parsedate_to_datetime

    try:
        return max(parsedate_to_datetime(text).timestamp() - now, 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
