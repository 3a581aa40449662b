"""Every limit of a service, seen to work on the hierarchies that this machine has, v1 or v2."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.kernel import cgroups
from tests.kit.site import Site, until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("used_controllers")]

MIB = 1 << 20
SHORT = """
    name: l1
    services:
      eater:
        x-rootfs: {path: $BOX}
        command: ["sh", "-c", "sleep 0.2; dd if=/dev/zero of=/dev/null bs=200M count=1"]
        mem_limit: 16m
        memswap_limit: 16m
        restart: "on-failure:1"
      sibling: {x-rootfs: {path: $BOX}, command: sleep 1000, mem_limit: 64m, stop_grace_period: 0s}
"""
BOMB = """
    name: l2
    services:
      bomb:
        x-rootfs: host
        command: [python3, -Sc, "import os\\nwhile True:\\n  try: os.fork()\\n  except OSError: pass"]
        pids_limit: 48
        cpus: 0.3
      sibling: {x-rootfs: {path: $BOX}, command: sleep 1000, stop_grace_period: 0s}
"""
STEADY = """
    name: l
    services:
      slow: {x-rootfs: {path: $BOX}, command: sh -c "while :; do :; done", cpus: 0.2, stop_grace_period: 0s}
      small:
        x-rootfs: {path: $BOX}
        command: sleep 1000
        cpuset: "0"
        shm_size: 1m
        tmpfs: ["/scratch:size=512k"]
        mem_swappiness: 10
        stop_grace_period: 0s
"""


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("l")


@pytest.fixture
def here(site: Site) -> Iterator[Site]:
    site.up(STEADY)
    yield site
    site.down("l")


def spent(site: Site, service: str) -> float:
    """Seconds of processor time, by the kernel's count for the container."""
    rows = site.ask("stats", stack="l", names=[service], count=1).lines[0]["rows"]
    return float(rows[0]["cpu"]) / 1e9


def test_memory_one_that_takes_more_is_killed_restarted_and_said_to_be_out_of_memory(site: Site) -> None:
    site.up(SHORT)
    row = site.becomes("l1", "eater", restarts=1, state="exited")
    assert (row["exit_code"], row["oom_killed"]) == (137, True)
    assert row["status"].startswith("Exited (137) OOM killed")
    sibling = site.row("l1", "sibling")
    assert (sibling["state"], sibling["restarts"], sibling["oom_killed"]) == ("running", 0, False)

    def story() -> list[dict[str, Any]]:
        lines = site.ask("events", stack="l1").lines
        return [line for line in lines if line["target"] == "container:l1-eater-1"]

    until(lambda: len(story()) >= 7, "the whole story", lambda: str(story()))
    told = story()
    words = [line["verb"] for line in told]
    assert words == ["create", "start", "oom", "exit", "start", "oom", "exit"]
    assert told[-1]["because"] == "exit 137, out of memory"
    assert told[4]["because"] == "restarting (exit 137, out of memory, attempt 2)"
    site.down("l1")


def test_cpu_no_more_than_the_quota_is_had(here: Site) -> None:
    before, began = spent(here, "slow"), time.monotonic()
    time.sleep(0.5)
    after, lasted = spent(here, "slow"), time.monotonic() - began
    assert 0 < after - before <= 0.2 * (lasted + 0.2)  # a period of 0.1 s may begin and end within


def test_cpu_shares_divide_a_core(site: Site) -> None:
    site.up(
        """
        name: shares
        services:
          much: &one
            x-rootfs: {path: $BOX}
            command: sh -c "while :; do :; done"
            cpuset: "0"
            cpu_shares: 2048
            stop_grace_period: 0s
          little: {<<: *one, cpu_shares: 256}
        """
    )

    def counts() -> dict[str, int]:
        rows = site.ask("stats", stack="shares", count=1).lines[0]["rows"]
        return {row["service"]: row["cpu"] for row in rows}

    def divided() -> bool:
        before = counts()
        time.sleep(0.5)
        after = counts()
        much, little = (after[name] - before[name] for name in ("much", "little"))
        return much > 3 * little

    until(divided, "a division of 8 to 1")
    site.down("shares")


def test_cpuset_no_other_core_is_used(here: Site) -> None:
    assert here.execute("l", "small", "grep", "Cpus_allowed_list", "/proc/self/status").split()[1] == "0"
    assert os.sched_getaffinity(here.row("l", "small")["pid"]) == {0}


def test_pids_a_fork_bomb_is_contained_and_gone_at_once(site: Site) -> None:
    site.up(BOMB)

    def tasks() -> int:
        return int(site.ask("stats", stack="l2", names=["bomb"], count=1).lines[0]["rows"][0]["pids"])

    until(lambda: tasks() >= 40, "the bomb to go off")
    assert tasks() <= 48
    began = time.monotonic()
    site.execute("l2", "sibling", "true")
    assert time.monotonic() - began < 2
    began = time.monotonic()
    site.ask("kill", stack="l2", services=["bomb"], signal="SIGKILL")
    site.becomes("l2", "bomb", state="exited")
    group, hier = f"{site.places.cgroup}/l2/{site.row('l2', 'bomb')['id']}", site.hierarchies
    until(lambda: not cgroups.populated(hier, group), "the end of the last")
    assert time.monotonic() - began <= 2
    site.down("l2")


def test_memory_filesystems_end_at_their_size(here: Site) -> None:
    for place, room in (("/dev/shm", MIB), ("/scratch", MIB // 2)):
        said = here.execute(
            "l", "small", "dd", "if=/dev/zero", f"of={place}/full", "bs=64k", "count=32", exit_code=1
        )
        assert "No space left on device" in said
        assert here.execute("l", "small", "stat", "-c", "%s", f"{place}/full").strip() == str(room)


def test_swappiness_is_the_group_s_where_the_kernel_has_one(here: Site) -> None:
    hier = here.hierarchies
    group = f"{here.places.cgroup}/l/{here.row('l', 'small')['id']}"
    log = here.places.supervisor_log.read_text()
    missing = "l-small-1: this kernel has no memory.swappiness: swappiness is the machine's\n"
    if "memory" in hier.v1:
        assert Path(hier.v1["memory"], group, "memory.swappiness").read_text() == "10\n"
        assert missing not in log
    else:
        assert missing in log


@pytest.mark.parametrize("limit", ["nofile", "nproc"])
def test_ulimits_that_cannot_be_raised_are_refused_by_name(site: Site, limit: str) -> None:
    """fs.nr_open is above all for open files; for the rest a privilege decides, which this test gives up."""
    site.up("name: r\nservices: {a: {x-rootfs: {path: $BOX}, command: cat /proc/self/limits}}")
    words = {"nofile": "Max open files", "nproc": "Max processes"}[limit]
    most = until(
        lambda: next(
            (
                line.removeprefix(words.encode()).split()[1].decode()
                for line in site.output("r", "a").splitlines()
                if line.startswith(words.encode())
            ),
            None,
        ),
        "the limits of a container",
    )
    if limit == "nproc" and (most == "unlimited" or can_raise()):
        answer = site.up(stack_with_ulimit("nproc", 4_000_000))
        assert answer.error == ""
    else:
        answer = site.up(stack_with_ulimit(limit, 2_000_000_000), exit_code=125)
        assert f"ulimits.{limit}: can't be 2000000000:2000000000: operation not permitted" in answer.error
        assert f"the hard limit here is {most}" in answer.error
        assert site.row("r", "a")["state"] == "exited"
    site.down("r")


def can_raise() -> bool:
    """CAP_SYS_RESOURCE (24) is in the bounding set."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if "CapBnd" in line)
    return bool(int(line.split()[1], 16) >> 24 & 1)


def stack_with_ulimit(name: str, value: int) -> str:
    return f"""
        name: r
        services: {{a: {{x-rootfs: {{path: $BOX}}, command: "true", ulimits: {{{name}: {value}}}}}}}
        """


def disk_of(path: Path) -> str:
    """The whole disk that a file is on, as below /dev; "" when it is on none."""
    number = os.stat(path).st_dev
    found = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not found.exists():
        return ""
    device = found.resolve()
    return (device.parent if (device / "partition").exists() else device).name


def test_blkio_writes_are_throttled(site: Site) -> None:
    """768 KiB past the page cache at 1 MiB a second."""
    disk = disk_of(site.dir)
    text = """
        name: b
        services:
          a:
            x-rootfs: host
            command: sleep 1000
            stop_grace_period: 0s
            volumes: ["$DIR:/disk"]
            blkio_config: {device_write_bps: [{path: $DISK, rate: 1mb}]}
        """
    if not disk:
        answer = site.up(text.replace("$DISK", "/dev/null"), exit_code=1)
        assert "service a: blkio_config: /dev/null is not a block device" in answer.error
        site.down("b")
        return
    site.up(text.replace("$DISK", f"/dev/{disk}"))
    began = time.monotonic()
    site.execute(
        "b", "a", "dd", "if=/dev/zero", "of=/disk/data", "bs=256k", "count=3", "oflag=direct", "status=none"
    )
    assert 0.5 < time.monotonic() - began < 5
    used = site.ask("stats", stack="b", count=1).lines[0]["rows"][0]
    assert used["written"] >= 3 << 18
    (site.dir / "data").unlink()
    site.down("b")


def test_blkio_weights_need_a_scheduler_that_has_them(site: Site) -> None:
    text = """
        name: w
        services: {a: {x-rootfs: {path: $BOX}, command: sleep 9, blkio_config: {weight: 300}}}
        """
    hier = site.hierarchies
    base = hier.unified if "io" in hier.v2 else hier.v1["blkio"]
    probe = Path(str(base)) / f"pystack-probe{os.getpid()}"
    probe.mkdir()
    files = {path.name for path in probe.iterdir()}
    probe.rmdir()
    if files & {"io.weight", "io.bfq.weight", "blkio.weight", "blkio.bfq.weight"}:
        site.up(text)
        group = Path(str(base)) / site.places.cgroup / "w" / site.row("w", "a")["id"]
        written = {path.name: path.read_text().split()[-1] for path in group.glob("*.weight")}
        assert "300" in written.values() or "2930" in written.values()
    else:
        answer = site.up(text, exit_code=1)
        assert "this kernel has no" in answer.error
        assert "weight" in answer.error
    site.down("w")


def test_a_child_that_is_out_of_memory_is_told_of_while_the_container_runs_on(site: Site) -> None:
    """Also when the limit came later, and the supervisor is another one by now."""
    eat = "{ dd if=/dev/zero of=/dev/null bs=200M count=1; echo $$?"
    text = f"""
        name: o
        services:
          a: &a
            x-rootfs: {{path: $BOX}}
            command: ["sh", "-c", "while :; do [ -e /go ] && {eat}; rm -f /go; }}; sleep 0.05; done"]
            mem_limit: 16m
            memswap_limit: 16m
            stop_grace_period: 0s
          b: {{<<: *a, mem_limit: 0, memswap_limit: 0}}
        """
    site.up(text)
    site.ask("update", stack="o", names=["b"], changes={"memory": 16 * MIB, "memory_swap": 16 * MIB})
    for service in ("a", "b"):
        assert site.row("o", service)["oom_killed"] is False
        site.execute("o", service, "touch", "/go")
        row = site.becomes("o", service, oom_killed=True)
        assert row["state"] == "running"
        site.prints("o", service, b"137")

    def told() -> list[str]:
        return sorted(line["target"] for line in site.ask("events", stack="o").lines if line["verb"] == "oom")

    until(lambda: told() == ["container:o-a-1", "container:o-b-1"], "both events", lambda: str(told()))
    site.ask("restart", stack="o", services=["a"])
    assert site.row("o", "a")["oom_killed"] is False
    site.down("o")


def test_devices_that_a_rule_allows_can_be_opened(site: Site) -> None:
    """A node of any device may be made; opening is what is limited. (This one may have no driver here.)"""
    site.up(
        """
        name: d
        services:
          a: &a {x-rootfs: {path: $BOX}, command: sleep 1000, stop_grace_period: 0s}
          b: {<<: *a, device_cgroup_rules: ["c 10:200 r"]}
        """
    )
    said = {}
    for service in ("a", "b"):
        site.execute("d", service, "mknod", "/tun", "c", "10", "200")
        for way in ("if", "of"):
            dd = ("dd", "if=/dev/zero", "of=/dev/null", f"{way}=/tun", "count=0")
            said[service, way] = site.execute("d", service, *dd, exit_code=None)
    refused = {key for key, text in said.items() if "Operation not permitted" in text}
    assert refused == {("a", "if"), ("a", "of"), ("b", "of")}, said
    site.down("d")
    wrong = """
        name: d
        services: {a: {x-rootfs: {path: $BOX}, command: "true", device_cgroup_rules: ["d 1:3 rwm"]}}
        """
    said = site.up(wrong, exit_code=None).error
    assert "service a: device_cgroup_rules: 'd 1:3 rwm' is not of the form 'c 1:3 rwm'" in said
    site.down("d")
