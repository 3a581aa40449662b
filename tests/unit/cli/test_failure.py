"""What a failure looks like."""

from __future__ import annotations

import pytest

from orchestrator.cli import failure
from orchestrator.model.errors import ExitCode, UserError


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (UserError("no", exit_code=ExitCode.IMAGE), "no", 6),
        (PermissionError(13, "Permission denied", "/x"), "/x: permission denied", 4),
        (OSError(28, "No space left on device", "/x"), "/x: No space left on device", 1),
        (KeyError("x"), "internal error: KeyError: 'x'", 1),
    ],
)
def test_every_kind_of_failure_has_a_sentence_and_a_code(error: Exception, message: str, code: int) -> None:
    said, _, got = failure.describe(error)

    assert (said, got) == (message, code)


def test_a_message_that_names_its_place_gets_no_second_head() -> None:
    assert failure.render("stack.yml:3:5: error[E012]: no key imge", "", colour=True) == (
        "stack.yml:3:5: error[E012]: no key imge\n"
    )
    assert failure.render("no", "try yes", colour=False) == "error: no\n  hint: try yes\n"


def test_a_message_cannot_command_the_terminal() -> None:
    assert "\x1b" not in failure.render("x\x1b]0;title\x07", "h\x1b[2J", colour=False)


def test_a_closed_pipe_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    assert failure.report(BrokenPipeError()) == 141
    assert capfd.readouterr().err == ""
