"""Somebody deletes what we need to find each other, or to find our containers again, while they run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit.keeper import REMEMBERS_EXITS
from tests.kit.patience import patient
from tests.kit.site import Site, alive, until

pytestmark = pytest.mark.kernel

LONG = bool(os.environ.get("PYSTACK_LONG"))
THREE = """
    name: one
    services:
      loud: {x-rootfs: {path: $BOX}, command: sh -c "while :; do echo tick; sleep 0.05; done", stop_grace_period: 0s}
      web:
        x-rootfs: {path: $BOX}
        command: httpd -f -p 80
        restart: always
        volumes: ["data:/data"]
        stop_grace_period: 0s
        healthcheck: {test: "true", interval: 0.2s}
      later: {x-rootfs: {path: $BOX}, command: ["sh", "-c", "trap 'exit 42' TERM; while :; do sleep 0.02; done"]}
    volumes: {data: {}}
"""


@pytest.fixture
def fresh(state_root: Path) -> Iterator[Site]:
    with Site(state_root) as site:
        yield site


def clear_run(site: Site) -> None:
    """As a zealous cleaner of /run does; the pidfds that are mounted in it stay where they are."""
    subprocess.run(["rm", "-rf", site.places.run], stderr=subprocess.DEVNULL, check=False)


def take_the_names(site: Site) -> None:
    site.places.keeper_socket.unlink()
    site.places.supervisor_socket.unlink()


def kill_and_clear(site: Site) -> None:
    site.kill(site.supervisor, site.keeper)
    clear_run(site)


def hide_the_keeper(site: Site) -> None:
    pid = site.supervisor
    site.places.keeper_socket.unlink()
    site.kill(pid)


FAULTS: dict[str, tuple[Callable[[Site], None], bool]] = {
    "the run directory": (clear_run, True),
    "the run directory, and a command is quicker than we": (clear_run, False),
    "the run directory, when supervisor and keeper are dead": (kill_and_clear, False),
    "both sockets": (take_the_names, True),
    "the keeper's socket, and the supervisor is dead": (hide_the_keeper, True),
}
BY_DAY = (*list(FAULTS)[:3],)


@pytest.mark.parametrize("fault", FAULTS if LONG else BY_DAY)
def test_what_is_deleted_of_ours_is_made_again_and_nobody_restarts(fresh: Site, fault: str) -> None:
    """Nor is anybody started twice: two databases on one volume would be its end."""
    fresh.up(THREE)
    pids = {row["service"]: row["pid"] for row in fresh.ps("one")}
    delete, wait = FAULTS[fault]
    before = (fresh.supervisor, fresh.keeper)
    delete(fresh)
    names = (fresh.places.supervisor_socket, fresh.places.keeper_socket)
    if wait:  # by itself
        until(lambda: all(name.exists() for name in names) and not alive(before[0]), "another supervisor")
        until(lambda: fresh.keeper == before[1], "the same keeper")
    assert {row["service"]: row["pid"] for row in fresh.ps("one")} == pids
    fresh.up(THREE, timeout=0)
    assert {row["service"]: row["pid"] for row in fresh.ps("one")} == pids
    assert "root:" in fresh.execute("one", "loud", "wget", "-q", "-O-", "http://web/etc/passwd")
    fresh.becomes("one", "web", health="healthy")
    seen = fresh.output("one", "loud").count(b"tick")
    until(lambda: fresh.output("one", "loud").count(b"tick") > seen + 2, "more of its output")
    os.kill(pids["later"], signal.SIGTERM)
    code = fresh.becomes("one", "later", state="exited")["exit_code"]
    assert code == 42 or not REMEMBERS_EXITS
    fresh.down("one", remove_volumes=True)
    until(lambda: not fresh.processes(), "the end of all", lambda: str(fresh.processes()), patient(5))


def test_a_stack_whose_records_are_deleted_leaves_no_process_behind(fresh: Site) -> None:
    """Nobody knows any more what they were: they end, and the next `up` begins anew."""
    fresh.up(THREE)
    pids = [row["pid"] for row in fresh.ps("one")]
    pid = fresh.supervisor
    os.kill(pid, signal.SIGSTOP)
    shutil.rmtree(fresh.places.stack("one"))
    fresh.kill(pid)
    until(lambda: not any(alive(pid) for pid in pids), "their end")
    fresh.up(THREE)
    assert len([row for row in fresh.processes() if "httpd" in row]) == 1
    fresh.down("one", remove_volumes=True)
