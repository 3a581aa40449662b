"""A virtual clock, and a trio whose scheduler repeats itself.

With the autojump threshold at 0 the clock jumps while a thread or a child process is at work (trio issue
456), so nothing in this folder uses threads, processes or sockets.
"""

from __future__ import annotations

import pytest

from tests.simulation.stage import repeatable_trio


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    repeatable_trio()
