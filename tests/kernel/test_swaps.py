"""SIGKILL of the supervisor at the k-th step of exchanging a file in a running container, for all k."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from pathlib import Path

import pytest

from orchestrator.kernel import syscalls
from orchestrator.kernel.swap import Exchange, identity, swap
from tests.kit.site import Site
from tests.kit.steps import HERE, Steps

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not HERE, reason="system calls are counted by their numbers on x86-64"),
]
SEED = int(os.environ.get("PYSTACK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
MOMENTS = int(os.environ.get("PYSTACK_KILLS", "2"))
"""So many are drawn by lot; 0: all there are."""
STACK = """
name: swaps
services:
  a:
    x-rootfs: {path: $BOX}
    command:
      - sh
      - -c
      - |
        trap 'echo heard $$(cat /key)' HUP
        echo up
        while :; do sleep 0.05; done
    configs: [key]
    x-on-change: {signal: SIGHUP}
configs: {key: {content: VALUE}}
"""


@pytest.mark.timeout(60 if MOMENTS else 0)
def test_a_kill_at_any_step_of_a_swap_is_made_good_by_the_next_look(state_root: Path) -> None:
    """The new content is there as a whole, mounted once, its process has heard of it and has not ended."""
    lots = random.Random(SEED)
    with Site(state_root) as site:
        site.up(STACK.replace("VALUE", "v0"))
        site.prints("swaps", "a", b"up")
        pid = site.row("swaps", "a")["pid"]
        with Steps([site.supervisor]) as steps:
            site.up(STACK.replace("VALUE", "v1"))
        total = steps.count
        print(f"PYSTACK_SEED={SEED}, {total} steps")
        for at in sorted(lots.sample(range(1, total + 1), MOMENTS)) if MOMENTS else range(1, total + 3):
            value, supervisor = f"v{at + 1}", [site.supervisor]
            with Steps(supervisor, at, supervisor) as steps:
                talk = site.begin_up(STACK.replace("VALUE", value))
                with contextlib.suppress(AssertionError):
                    talk.wait(10)
            talk.leave()
            site.up(STACK.replace("VALUE", value))
            site.prints("swaps", "a", f"heard {value}\n".encode())
            assert site.row("swaps", "a")["pid"] == pid
            assert Path(f"/proc/{pid}/root/key").read_text() == value
            assert Path(f"/proc/{pid}/mountinfo").read_text().count(" /key ") == 1, steps.killed_at
            assert [path.name for path in site.places.stacks.glob("swaps/containers/*/files/*")] == ["0"]
            print(f"{at}: {steps.killed_at or 'it was over'}", flush=True)
        site.down("swaps")


def test_a_kernel_that_mounts_nothing_beneath_has_the_new_file_too(
    state_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.5; there the file that is replaced takes along whatever is mounted on top of it."""
    move = syscalls.move_mount

    def before_6_5(tree: int, place: int, *, beneath: bool = False) -> None:
        if beneath:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        move(tree, place)

    monkeypatch.setattr(syscalls, "move_mount", before_6_5)
    with Site(state_root) as site:
        site.up(STACK.replace("VALUE", "old"))
        site.prints("swaps", "a", b"up")
        pid = site.row("swaps", "a")["pid"]
        (mounted,) = site.places.stacks.glob("swaps/containers/*/files/0")
        init = os.pidfd_open(pid)
        try:
            for text in ("new", "newer"):
                fresh = mounted.with_name("0.new")
                fresh.write_text(text)
                held = [one for one in (identity(str(mounted)), identity(str(fresh))) if one]
                swap(init, [Exchange(source=str(fresh), target="/key", held=held)], "a")
                fresh.replace(mounted)
                assert site.execute("swaps", "a", "cat", "/key") == text
                assert Path(f"/proc/{pid}/mountinfo").read_text().count(" /key ") == 1
        finally:
            os.close(init)
        site.down("swaps")
