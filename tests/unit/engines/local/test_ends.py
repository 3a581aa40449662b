"""The end of processes whose keeper has died: as their parent, and as a stranger."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest
import trio

from orchestrator.engines.local import ends


def spawn(script: str) -> int:
    return os.posix_spawn(sys.executable, [sys.executable, "-ISc", script], {})


@pytest.fixture
def children() -> Iterator[list[int]]:
    found: list[int] = []
    yield found
    for pid in found:
        with pytest.raises(ChildProcessError):  # whoever asked has reaped it
            os.waitpid(pid, os.WNOHANG)


@pytest.mark.parametrize(
    ("script", "code"),
    [("raise SystemExit(7)", 7), ("pass", 0), ("import os; os.kill(os.getpid(), 9)", 128 + signal.SIGKILL)],
)
async def test_the_parent_learns_the_exit_code_and_reaps(children: list[int], script: str, code: int) -> None:
    pid = spawn(script)
    children.append(pid)
    pidfd = os.pidfd_open(pid)
    try:
        with trio.fail_after(20):
            assert await ends.end_of(pidfd, pid) == code
    finally:
        os.close(pidfd)


async def test_what_nobody_waits_for_is_buried(children: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "_BURY_SECONDS", 0.01)
    awaited, forgotten = spawn("pass"), spawn("pass")
    children.append(forgotten)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.bury, lambda pid: pid != forgotten)
            while os.path.exists(f"/proc/{forgotten}"):
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert os.waitpid(awaited, 0) == (awaited, 0)
