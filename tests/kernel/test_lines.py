"""A dependent starts when the line of its dependency is in the log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.site import Site

pytestmark = pytest.mark.kernel


@pytest.fixture
def fresh(state_root: Path) -> Iterator[Site]:
    with Site(state_root) as site:
        yield site


LINES = """
name: lines
services:
  db:
    x-rootfs: {path: $BOX}
    command: sh -c 'echo starting; while [ ! -e /go ]; do sleep 0.05; done; echo ready on 5432 >&2; sleep 1000'
    x-log-ready: ready on [0-9]+
  quick: {x-rootfs: {path: $BOX}, command: echo ready, x-log-ready: ready}
  mute: {x-rootfs: {path: $BOX}, command: echo nothing, x-log-ready: ready}
  app:
    x-rootfs: {path: $BOX}
    command: sleep 1000
    depends_on: {db: {condition: service_log_ready}, quick: {condition: service_log_ready}}
  lost:
    x-rootfs: {path: $BOX}
    command: sleep 1000
    depends_on: {mute: {condition: service_log_ready}}
"""


def test_dependents_wait_for_a_line_and_a_killed_supervisor_does_not_miss_it(fresh: Site) -> None:
    """The line comes while nobody reads: it stands in the FIFO until somebody does."""
    talk = fresh.begin_up(LINES, "app")
    db = fresh.becomes("lines", "db", state="running")
    fresh.becomes("lines", "quick", state="exited")
    fresh.prints("lines", "db", b"starting")
    assert fresh.row("lines", "app")["state"] == "created"
    talk.leave()
    fresh.kill(fresh.supervisor)
    Path(f"/proc/{db['pid']}/root/go").touch()
    fresh.becomes("lines", "app", state="running")
    assert fresh.row("lines", "db")["pid"] == db["pid"]
    answer = fresh.up(LINES, "lost", exit_code=None)
    assert answer.exit_code == 1
    assert "had not logged that it was ready" in answer.error
    fresh.down("lines", timeout=0)
