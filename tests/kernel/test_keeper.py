"""The keeper: what it promises about starts, exits, the store and the supervisor, on the real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.keeper import Machine

pytestmark = pytest.mark.kernel


@pytest.fixture
def machine(state_root: Path) -> Iterator[Machine]:
    with Machine(state_root) as machine:
        yield machine


def test_a_program_runs_and_its_exit_code_is_told(machine: Machine) -> None:
    assert machine.outcome(["sh", "-c", "echo out; echo err >&2; exit 3"]) == (3, "out\n", "err\n")
