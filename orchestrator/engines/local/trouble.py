"""What goes wrong in the background, where nobody waits for an answer: a line in the supervisor's log."""

from __future__ import annotations

import contextlib
import sys
import traceback

from orchestrator.model.errors import PystackError


def report(error: BaseException) -> None:
    """An expected error as one line, a bug with its traceback. Never raises: the log's disk may be full."""
    try:
        if isinstance(error, PystackError):
            sys.stderr.write(f"{error}\n")
        else:
            traceback.print_exception(error, file=sys.stderr)
        sys.stderr.flush()
    except OSError:
        return


def note(sentence: str) -> None:
    """Something worth knowing that is no error."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{sentence}\n")
        sys.stderr.flush()
