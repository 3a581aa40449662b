"""Whether colours are used, and what may reach a terminal."""

from __future__ import annotations

import os
import pty

import pytest

from orchestrator.cli import say
from orchestrator.cli.painter import mode
from orchestrator.cli.scope import Scope


@pytest.mark.parametrize(
    ("ansi", "environ", "on_terminal", "on_pipe"),
    [
        (None, {}, True, False),
        ("auto", {"NO_COLOR": "1"}, False, False),
        ("auto", {"NO_COLOR": ""}, True, False),
        ("auto", {"TERM": "dumb"}, False, False),
        ("always", {"NO_COLOR": "1"}, True, True),
        ("never", {}, False, False),
        (None, {"COMPOSE_ANSI": "never"}, False, False),
        (None, {"COMPOSE_ANSI": "always"}, True, True),
        ("never", {"COMPOSE_ANSI": "always"}, False, False),
    ],
)
def test_colours_follow_the_option_then_the_environment_then_the_terminal(
    ansi: str | None, environ: dict[str, str], *, on_terminal: bool, on_pipe: bool
) -> None:
    master, slave = pty.openpty()
    read_end, write_end = os.pipe()

    assert say.colourful(slave, ansi, environ) == on_terminal
    assert say.colourful(write_end, ansi, environ) == on_pipe
    for fd in (master, slave, read_end, write_end):
        os.close(fd)


def test_control_characters_of_others_are_replaced_and_lines_kept() -> None:
    assert say.printable("a\x1b[2J\x07b\nc\td\u202eé") == "a\ufffd[2J\ufffdb\nc\td\ufffdé"


@pytest.mark.parametrize(
    ("option", "variable", "expected"),
    [(None, None, "plain"), ("json", "quiet", "json"), (None, "quiet", "quiet"), ("auto", "tty", "plain")],
)
def test_progress_is_shown_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, option: str | None, variable: str | None, expected: str
) -> None:
    monkeypatch.delenv("COMPOSE_PROGRESS", raising=False)
    if variable:
        monkeypatch.setenv("COMPOSE_PROGRESS", variable)

    assert mode(Scope(progress=option)) == expected
