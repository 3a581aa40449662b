"""CVE-2023-25153, CVE-2026-47262, CVE-2022-31030, CVE-2025-64329: containers that print without end, and clients
that come and go, cost no memory of ours."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.kit.patience import patient
from tests.kit.site import Site

pytestmark = pytest.mark.kernel

ALLOWANCE = 32 << 20
"""Bytes that supervisor and keeper may have grown by."""


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


def size(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) * 1024


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_flood_of_output_and_of_clients_is_not_kept(site: Site) -> None:
    """A container and its health check print as fast as they can, an exec prints to somebody who never reads, and
    a hundred clients attach, run something chatty, and are killed."""
    flood = "sh -c 'while :; do head -c 1000000 /dev/zero; echo; done'"
    site.up(
        f"""
        name: f1
        services:
          c:
            x-rootfs: {{path: $BOX}}
            command: {flood}
            logging: {{options: {{max-size: 1m, max-file: "2"}}}}
            healthcheck: {{test: [CMD, sh, -c, "head -c 50000000 /dev/zero"], interval: 0.2s, timeout: 1s}}
        """
    )
    pids = (site.supervisor, site.keeper)
    for _ in range(10):
        site.begin("logs", stack="f1", follow=True).leave()
    before = [(size(pid), descriptors(pid)) for pid in pids]
    reading, writing = os.pipe()
    try:
        deaf = site.begin("exec", [reading, writing, writing], stack="f1", service="c", command=["yes"])
        for number in range(100):
            if number % 2:
                site.begin("logs", stack="f1", follow=True).leave()
            else:
                ends = os.pipe()
                site.begin(
                    "exec", [ends[0], ends[1], ends[1]], stack="f1", service="c", command=["yes"]
                ).leave()
                os.close(ends[0])
                os.close(ends[1])
        time.sleep(1)
        deaf.leave()
    finally:
        os.close(reading)
        os.close(writing)
    grown = [size(pid) - was for pid, (was, _) in zip(pids, before, strict=True)]
    assert max(grown) < ALLOWANCE, grown
    logs = next(site.places.stacks.glob("f1/containers/*"))
    assert sum(path.stat().st_size for path in logs.glob("container.log*")) <= 2 << 20
    deadline = time.monotonic() + patient(10)
    while [descriptors(pid) for pid in pids] > [count + 12 for _, count in before]:
        assert time.monotonic() < deadline, [descriptors(pid) for pid in pids]
        time.sleep(0.1)
    site.down("f1")
