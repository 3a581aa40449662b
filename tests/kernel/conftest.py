"""Fixtures of the tests that drive a supervisor on the real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.site import Site, anchored


@pytest.fixture(scope="module")
def site(state_root: Path) -> Iterator[Site]:
    """A supervisor for all tests of a module, which has to have a `state_root` as wide."""
    with anchored(state_root) as made:
        yield made
