"""Containers that are changed, paused and looked into while they run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.kernel import cgroups
from orchestrator.kernel.usage import Leader, usage
from tests.kit.patience import SLOWER, patient
from tests.kit.site import Answer, Site, until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("used_controllers")]

MIB = 1 << 20


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("st")


def update(site: Site, stack: str, *names: str, exit_code: int = 0, **changes: Any) -> Answer:
    return site.ask("update", stack=stack, names=list(names), changes=changes, exit_code=exit_code)


def rows(site: Site, stack: str, *names: str, **more: Any) -> dict[str, dict[str, Any]]:
    answer = site.ask("stats", stack=stack, names=list(names), count=1, **more)
    return {row["service"]: row for row in answer.lines[0]["rows"]}


def share(site: Site, stack: str, service: str, seconds: float = 0.5) -> float:
    """Of one core."""
    before = rows(site, stack, service)[service]
    time.sleep(seconds)
    after = rows(site, stack, service)[service]
    return float(after["cpu"] - before["cpu"]) / (after["at"] - before["at"])


def value(site: Site, stack: str, service: str, controller: str, file: str) -> str:
    """What a control file of the container says."""
    hier = site.hierarchies
    base = hier.unified if controller in hier.v2 else hier.v1[controller]
    return (
        Path(str(base), site.places.cgroup, stack, site.row(stack, service)["id"], file).read_text().strip()
    )


def on_v2(controller: str) -> bool:
    return controller in cgroups.detect().v2


# --- update ------------------------------------------------------------------------------------------

SPIN = """
    name: u1
    services:
      spin:
        x-rootfs: {path: $BOX}
        command: ["sh", "-c", "while :; do :; done & while :; do :; done & wait"]
        stop_grace_period: 0s
"""


def test_limits_that_there_were_not_reach_every_process_and_those_to_come(site: Site) -> None:
    """Two busy children of the first process, on one core, with a tenth of it; then without limits again."""
    site.up(SPIN)
    until(lambda: share(site, "u1", "spin", 0.3) > 0.4, "busy processes")
    answer = update(site, "u1", "spin", cpus=0.1, pids=9, cpuset="0")
    assert answer.actions("update") == ["container:u1-spin-1"]
    assert share(site, "u1", "spin") < 0.3
    used = rows(site, "u1", "spin")["spin"]
    assert (used["pids"], used["pids_limit"]) == (3, 9)
    own, first = (site.execute("u1", "spin", "cat", f"/proc/{pid}/cgroup") for pid in ("self", 1))
    assert own == first
    for pid in cgroups.pids(site.hierarchies, f"{site.places.cgroup}/u1/{site.row('u1', 'spin')['id']}"):
        assert os.sched_getaffinity(pid) == {0}
    update(site, "u1", "u1-spin-1", cpus=0, pids=-1, cpuset="")
    cores = ("grep", "Cpus_allowed_list", "/proc/self/status")
    assert site.execute("u1", "spin", *cores) == site.execute("anchor", "idle", *cores)
    until(lambda: share(site, "u1", "spin", 0.3) > 0.4, "busy processes without a limit")
    events = [line for line in site.ask("events", stack="u1").lines if line["verb"] == "update"]
    assert [line["because"] for line in events] == ["cpus=0.1, pids=9, cpuset=0", "cpus=0, pids=-1, cpuset="]
    site.down("u1")


def test_memory_that_is_in_use_is_not_taken_away(site: Site) -> None:
    site.up(
        """
        name: u2
        services:
          a:
            x-rootfs: host
            command: [python3, -Sc, "b = b'x' * (48 << 20); print(1, flush=True); input()"]
            stdin_open: true
            mem_limit: 96m
            memswap_limit: 96m
        """
    )
    site.prints("u2", "a", b"1")
    answer = update(site, "u2", "a", exit_code=1, memory=16 * MIB, memory_swap=16 * MIB)
    assert "container u2-a-1: cannot set memory." in answer.error
    assert "less than is in use" in answer.error
    used = rows(site, "u2", "a")["a"]
    assert (used["memory_limit"], used["counted"]) == (96 * MIB, "controller")
    assert 48 * MIB < used["memory"] < 64 * MIB
    update(site, "u2", "a", memory=128 * MIB, memory_swap=-1)
    assert rows(site, "u2", "a")["a"]["memory_limit"] == 128 * MIB
    answer = update(site, "u2", "a", exit_code=1, memory=256 * MIB, memory_swap=192 * MIB)
    assert answer.error.startswith("Minimum memoryswap limit should be larger")
    assert site.row("u2", "a")["state"] == "running"
    site.down("u2")


LASTING = """
    name: u3
    services:
      a: {x-rootfs: {path: $BOX}, command: sleep 1000, pids_limit: 50, stop_grace_period: 0s, labels: {v: "1"}}
      b: {x-rootfs: {path: $BOX}, command: sh -c "sleep 0.2; exit 1"}
"""


def test_what_is_changed_lasts_until_the_file_says_otherwise(site: Site) -> None:
    site.up(LASTING)
    container = site.row("u3", "a")["id"]
    update(site, "u3", container[:12], pids=7, cpu_shares=512)
    shares = ("cpu.weight", "59") if on_v2("cpu") else ("cpu.shares", "512")

    def in_force() -> tuple[str, str]:
        return value(site, "u3", "a", "pids", "pids.max"), value(site, "u3", "a", "cpu", shares[0])

    assert in_force() == ("7", shares[1])
    site.ask("restart", stack="u3", services=["a"])
    assert in_force() == ("7", shares[1])
    site.up(LASTING, "a")
    assert site.row("u3", "a")["id"] == container
    site.up(LASTING.replace('v: "1"', 'v: "2"'), "a")
    assert value(site, "u3", "a", "pids", "pids.max") == "50"
    site.down("u3")


def test_a_restart_policy_that_is_changed_holds_for_the_next_end(site: Site) -> None:
    site.up(LASTING, "b")
    site.becomes("u3", "b", state="exited", restarts=0)
    answer = update(site, "u3", "b", restart="on-failure:1")
    assert answer.actions("update") == ["container:u3-b-1"]
    site.becomes("u3", "b", state="exited", restarts=1)
    site.down("u3")


def test_what_cannot_be_changed_is_refused_by_name_and_the_rest_is_done(site: Site) -> None:
    site.up(LASTING, "a")
    answer = update(site, "u3", "nothing", exit_code=1, pids=3)
    assert answer.error == "no such service or container: nothing"
    answer = update(site, "u3", "a", exit_code=1, cpuset="0,4000")
    assert "u3-a-1: cannot set cpuset.cpus to 0,4000: not available, there are 0" in answer.error
    answer = update(site, "u3", "a", "anchor-idle-1", exit_code=1, pids=60, memory=MIB)
    assert answer.error == "Minimum memory limit allowed is 6MB"
    assert value(site, "u3", "a", "pids", "pids.max") == "50"
    site.down("u3")


# --- pause -------------------------------------------------------------------------------------------

PAUSED = """
    name: p
    services:
      spin:
        x-rootfs: {path: $BOX}
        command: ["sh", "-c", "trap 'echo got TERM; exit 7' TERM; while :; do :; done"]
        healthcheck: {test: [CMD, "true"], interval: 100ms, timeout: 1s, retries: 2}
      other: {x-rootfs: {path: $BOX}, command: sleep 1000, stop_grace_period: 0s}
"""


def test_a_paused_container_stands_still_until_it_goes_on(site: Site) -> None:
    site.up(PAUSED, wait=True)
    assert site.ask("pause", stack="p", services=["spin"]).actions("pause") == ["container:p-spin-1"]
    row = site.row("p", "spin")
    assert row["state"] == "paused"
    assert row["status"].endswith("(Paused)")
    assert site.row("p", "other")["state"] == "running"
    assert "paused(1), running(1)" in [one["status"] for one in site.ask("ls").result]
    assert share(site, "p", "spin", 0.3) < 0.01
    talk = site.begin("exec", stack="p", service="spin", command=["true"]).wait()
    assert talk.error == "container p-spin-1 is paused"
    answer = site.ask("pause", stack="p", services=["spin"], exit_code=1)
    assert answer.error == "container p-spin-1 is already paused"
    time.sleep(0.4)
    site.ask("unpause", stack="p", services=[])
    row = site.row("p", "spin")
    assert (row["state"], row["health"]) == ("running", "healthy")
    assert share(site, "p", "spin", 0.3) > 0.1
    assert site.execute("p", "spin", "echo", "there") == "there\n"
    site.down("p")


def test_a_paused_container_can_be_stopped_and_hears_why(site: Site) -> None:
    site.up(PAUSED)
    site.ask("pause", stack="p", services=[])
    began = time.monotonic()
    site.ask("stop", stack="p", services=["spin"], timeout=10)
    assert time.monotonic() - began < 5
    assert site.row("p", "spin")["exit_code"] == 7
    assert site.output("p", "spin") == b"got TERM\n"
    site.ask("kill", stack="p", services=["other"], signal="SIGKILL")
    assert site.becomes("p", "other", state="exited")["exit_code"] == 137
    answer = site.ask("pause", stack="p", services=["other"], exit_code=1)
    assert answer.error == "container p-other-1 is not running"
    site.down("p")


def test_a_supervisor_that_was_killed_knows_of_changes_and_pauses(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.up(LASTING, "a")
        site.up(PAUSED, "other")
        update(site, "u3", "a", pids=7)
        site.ask("pause", stack="p", services=["other"])
        site.kill(site.supervisor)
        assert site.row("p", "other")["state"] == "paused"
        site.ask("restart", stack="u3", services=["a"])
        assert value(site, "u3", "a", "pids", "pids.max") == "7"
        site.ask("unpause", stack="p", services=["other"])
        assert site.row("p", "other")["state"] == "running"


# --- stats and top -----------------------------------------------------------------------------------

LOOK = """
    name: s
    services:
      sink: {x-rootfs: {path: $BOX}, command: sh -c "sleep 1000 | nc -l -p 9000 > /dev/null", stop_grace_period: 0s}
      source: {x-rootfs: {path: $BOX}, command: sleep 1000, stop_grace_period: 0s, depends_on: [sink]}
      hold:
        x-rootfs: host
        command:
        - python3
        - -Sc
        - |
          import os, threading
          b = b'x' * (32 << 20)
          threading.Thread(target=threading.Event().wait, daemon=True).start()
          if os.fork() == 0: threading.Event().wait()
          print(1, flush=True); threading.Event().wait()
        volumes: ["$DIR:/disk"]
        stop_grace_period: 0s
      off: {x-rootfs: {path: $BOX}, command: "true"}
"""


def test_stats_come_from_the_kernel(site: Site) -> None:
    site.up(LOOK)
    site.prints("s", "hold", b"1")
    site.becomes("s", "off", state="exited")
    assert set(rows(site, "s")) == {"sink", "source", "hold"}
    assert rows(site, "s", all=True)["off"]["state"] == "exited"
    held = rows(site, "s")["hold"]
    assert held["pids"] == 3  # a thread, and a child
    assert 32 * MIB < held["memory"] < 56 * MIB  # the child shares it: once, not twice
    assert held["memory_limited"] is False
    assert held["counted"] == ("controller" if on_v2("memory") else "processes")
    before = rows(site, "s")
    send = "dd if=/dev/zero bs=1000 count=1000 2> /dev/null | nc sink 9000"
    until(lambda: site.execute("s", "source", "sh", "-c", send, exit_code=None) == "", "a connection")

    def arrived() -> int:
        return int(rows(site, "s")["sink"]["received"] - before["sink"]["received"])

    until(lambda: arrived() >= 1_000_000, "a million bytes")
    assert arrived() < 1_300_000
    assert 1_000_000 <= rows(site, "s")["source"]["sent"] - before["source"]["sent"] < 1_300_000
    site.execute(
        "s", "hold", "dd", "if=/dev/zero", "of=/disk/out", "bs=1M", "count=1", "conv=fsync", "status=none"
    )
    written = rows(site, "s")["hold"]["written"] - before["hold"]["written"]
    (site.dir / "out").unlink()
    # A process that is nobody's child in the container takes its count along, where processes are asked.
    on_disk = Path(
        f"/sys/dev/block/{os.major(site.dir.stat().st_dev)}:{os.minor(site.dir.stat().st_dev)}"
    ).exists()
    if on_v2("io"):
        assert (written >= MIB) is on_disk
    site.down("s")


def test_top_lists_the_processes_of_each_container(site: Site) -> None:
    site.up(SPIN)
    found = site.ask("top", stack="u1", names=[]).result
    (row,) = found["rows"]
    pid = site.row("u1", "spin")["pid"]
    assert (row["service"], row["slot"]) == ("spin", 1)
    assert row["processes"][0]["pid"] == pid
    assert [process["parent"] for process in row["processes"]][1:] == [pid, pid]
    assert row["processes"][0]["command"].startswith("sh -c while :; do :; done &")
    assert 0 <= found["now"] - row["processes"][0]["started"] < 20
    site.down("u1")


def test_a_hundred_containers_are_measured_within_a_tenth_of_a_second_of_processor_time(site: Site) -> None:
    """One, a hundred times: what each costs does not depend on the others. The best of five."""
    site.up("name: c\nservices: {a: {x-rootfs: {path: $BOX}, command: sleep 1000, stop_grace_period: 0s}}")
    row, hier = site.row("c", "a"), site.hierarchies
    leader = Leader(row["pid"], os.pidfd_open(row["pid"]))
    best = 1.0
    for _ in range(5):
        began = time.process_time()
        for _ in range(100):
            assert usage(hier, f"{site.places.cgroup}/c/{row['id']}", leader).pids == 1
        best = min(best, time.process_time() - began)
    os.close(leader.pidfd)
    assert best < (0.1 if SLOWER == 1 else patient(0.3))  # system calls suffer most by emulation
    site.down("c")
