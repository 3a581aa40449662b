"""Programs that containers attack with, compiled once a session."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.keeper import Machine

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """attacker.c as a static program."""
    return build(tmp_path_factory.mktemp("attacker") / "attacker", "-static", "-O1", HERE / "attacker.c")


@pytest.fixture(scope="session")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """loader.c as a static program without a C library."""
    alone = ("-static", "-nostdlib", "-nostartfiles", "-ffreestanding", "-fno-stack-protector", "-no-pie")
    return build(tmp_path_factory.mktemp("loader") / "loader", *alone, HERE / "loader.c")


def build(program: Path, *words: object) -> Path:
    subprocess.run(["gcc", "-w", "-o", program, *map(str, words)], check=True)
    return program


@pytest.fixture
def machine(state_root: Path) -> Iterator[Machine]:
    with Machine(state_root) as machine:
        yield machine
