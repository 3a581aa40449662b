"""Who floods us waits: all floods together get a fifth of our time, and everybody else the rest.

The supervisor is one thread for all stacks. A container that prints or asks for names as fast as it can would
have all of it, and the gates of other stacks would open late; and so they would behind a hundred starts.
"""

from __future__ import annotations

import trio

SLICE = 0.002
"""Seconds of work for one container after which others are to have their turn."""
_REST = 4.0
"""So long a rest follows, in parts of the work: 1 / (1 + 4), a fifth of our time is for floods."""


class Turns:
    """One for all that can flood. Its lock is given in the order of asking, so floods share what they get."""

    def __init__(self) -> None:
        self._resting = trio.Lock()

    async def rest(self, worked: float) -> None:
        """To be called after `worked` seconds of work, at least SLICE, for somebody who may have more."""
        async with self._resting:
            await trio.sleep(worked * _REST)


WIDTH = 4
"""Starts of one stack that are under way at a time. Forty services came up no faster without a limit."""


class Lanes:
    """One for each stack, so that a start waits for a few of each other stack, and not for all of them."""

    def __init__(self) -> None:
        self._lanes: dict[str, trio.CapacityLimiter] = {}

    def of(self, stack: str) -> trio.CapacityLimiter:
        """The lane to be in during a start."""
        return self._lanes.setdefault(stack, trio.CapacityLimiter(WIDTH))
