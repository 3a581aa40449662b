"""Fixtures of the tests that drive a supervisor on the real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.site import Site, anchored


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


@pytest.fixture(scope="module")
def used_controllers(anchored_site: Site) -> None:
    """What the first limit of a kind leaves until the last `down`, where controllers have trees of their own."""
    service = '{x-rootfs: {path: $BOX}, command: "true", cpuset: "0", blkio_config: {weight: 300}}'
    anchored_site.up(f"name: warm\nservices: {{any: {service}}}", exit_code=None)
    anchored_site.down("warm")
