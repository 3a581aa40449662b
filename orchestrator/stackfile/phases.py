"""When a stack file is asked what is wrong with it: each file, and the result of each step of merging, is
asked only for what docker compose finds then. A later file may replace a time that is none, but not a flag.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Phase = Literal["read", "step", "whole"]
    """As soon as a file is read: texts that should be numbers or flags. After each step of merging: all that
    the schemas say but for times, sizes and modes of files, which are only read when everything is merged.
    """

PHASES: tuple[Phase, ...] = ("read", "step", "whole")
