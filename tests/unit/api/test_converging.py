"""The verbs that change what is wanted: the parts that only compute."""

from __future__ import annotations

import signal

import pytest

from orchestrator.api.converging import signal_number
from orchestrator.model.errors import UserError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGHUP", 1),
        ("hup", 1),
        ("TERM", 15),
        ("9", 9),
        ("64", 64),
        ("SIGRTMIN", signal.SIGRTMIN),
        ("RTMIN+3", signal.SIGRTMIN + 3),
        ("sigrtmin+1", signal.SIGRTMIN + 1),
    ],
)
def test_signals_by_name_and_number(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "-1", "NOPE", "RTMIN+99", "RTMIN+x", "SIG"])
def test_what_is_no_signal_is_refused_by_name(text: str) -> None:
    with pytest.raises(UserError, match="is no signal"):
        signal_number(text)
