"""Programs that containers attack with, compiled once a session."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.keeper import Machine
from tests.kit.site import Site, anchored

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


@pytest.fixture(scope="module")
def anchored_site(state_root: Path) -> Iterator[Site]:
    """A supervisor for all tests of a module, which has to have a `state_root` as wide."""
    with anchored(state_root) as made:
        yield made


@pytest.fixture
def site(anchored_site: Site) -> Iterator[Site]:
    """The same for one test; stacks that the test leaves (because it failed) go with it."""
    yield anchored_site
    for row in anchored_site.ask("ls").result:
        if row["name"] != "anchor":
            anchored_site.down(row["name"], remove_volumes=True, remove_orphans=True)
