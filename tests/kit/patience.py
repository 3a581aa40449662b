"""How long tests wait before they give up, in one place: an emulated machine is many times slower.

PYTEST_SLOWER is the factor; tests/vm/run sets it. It stretches what is waited for in vain and budgets of time,
never what a test asserts about order or content.
"""

from __future__ import annotations

import os

SLOWER = float(os.environ.get("PYTEST_SLOWER", "1"))


def patient(seconds: float) -> float:
    """So many seconds of this kind of machine are as many of this very one."""
    return seconds * SLOWER
