"""The machine is restarted: what `restart:` says comes back, in order, and nothing else does.

A restart is what it leaves: the data, and nothing of the run directory, the kernel's objects and processes. The
records are made to speak of another boot.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.kernel import interfaces, pins
from tests.kit.patience import patient
from tests.kit.site import Site

pytestmark = pytest.mark.kernel

_COMMON = "x-rootfs: {path: $BOX}, command: sleep 1000, stop_grace_period: 0s"
STACK = f"""
name: one
services:
  always: {{{_COMMON}, restart: always, healthcheck: {{test: [CMD, "true"], interval: 200ms}}}}
  stopped: {{{_COMMON}, restart: always}}
  unless: {{{_COMMON}, restart: unless-stopped}}
  never: {{{_COMMON}}}
  failing: {{{_COMMON}, restart: on-failure}}
  job: {{x-rootfs: {{path: $BOX}}, command: "true", restart: on-failure}}
  gated:
    {{{_COMMON}, restart: unless-stopped,
     depends_on: {{always: {{condition: service_healthy}}, job: {{condition: service_completed_successfully}}}}}}
"""


EARLIER = "an-earlier-boot"


@pytest.fixture
def fresh(state_root: Path) -> Iterator[Site]:
    with Site(state_root) as site:
        yield site


def send_away(site: Site) -> None:
    """The supervisor alone, and in order."""
    pidfd = os.pidfd_open(site.supervisor)
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    assert select.select([pidfd], [], [], patient(10))[0], "it stays"
    os.close(pidfd)


def restart_the_machine(site: Site, *, in_order: bool = False) -> None:
    """Power is cut, and comes back: processes, interfaces, rules and the run directory are gone. Or the
    supervisor was told to go before that, as everybody is at a shutdown."""
    pids = [row["pid"] for name in site.ask("ls").result for row in site.ps(name["name"]) if row["pid"]]
    if in_order:
        send_away(site)
    site.kill(*(int(row.split()[0]) for row in site.processes() if "daemon" in row or "keeper" in row), *pids)
    prefix = interfaces.prefix(site.places.tag)
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    for name in sorted(set(re.findall(rf"\b({re.escape(prefix)}\w+)", links))):
        subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)
    subprocess.run(
        ["nft", "delete", "table", "ip", f"pystack-{site.places.tag}"], capture_output=True, check=False
    )
    for bundle in site.places.bundles.iterdir():
        pins.unpin(str(bundle))
    shutil.rmtree(site.places.run)
    ordered = [site.places.shutdown] if in_order else []
    for path in (*site.places.data.glob("stacks/*/containers/*/run.json"), site.places.boot, *ordered):
        text = path.read_text()
        changed = text.replace(Path("/proc/sys/kernel/random/boot_id").read_text().strip(), EARLIER)
        assert EARLIER in changed, "a record names its boot"
        path.write_text(changed)


def test_what_restart_says_comes_back_in_order_and_nothing_else(fresh: Site) -> None:
    fresh.up(STACK)
    fresh.becomes("one", "gated", state="running")
    fresh.ask("stop", stack="one", services=["stopped", "unless"], timeout=0)
    before = {row["service"]: row for row in fresh.ps("one")}
    restart_the_machine(fresh)
    answer = fresh.ask("resume", stacks=[], timeout=30)
    assert answer.result["left"] == []
    rows = {row["service"]: row for row in answer.result["containers"]}
    assert {name: row["state"] for name, row in rows.items()} == {
        "always": "running",
        "stopped": "running",
        "unless": "exited",
        "never": "exited",
        "failing": "running",
        "job": "exited",
        "gated": "running",
    }
    assert (rows["job"]["exit_code"], rows["never"]["exit_code"]) == (0, None)
    for name, row in rows.items():
        assert (row["id"], row["addresses"]) == (before[name]["id"], before[name]["addresses"]), name
    story = [
        f"{event['verb']} {event['service']}"
        for event in fresh.ask("events", stack="one", history=True, follow=False).lines
        if event.get("service")
    ]
    assert story.index("healthy always") < story.index("start gated")
    assert "start never" not in story
    # Names and addresses work as before.
    assert (
        fresh.execute("one", "gated", "ping", "-c", "1", "-W", "2", "always").count("1 packets received") == 1
    )
    fresh.down("one", timeout=0)


@pytest.mark.parametrize("in_order", [True, False], ids=["shutdown", "power cut"])
def test_a_layer_that_was_never_synced_is_given_up_and_volumes_are_kept(fresh: Site, in_order: bool) -> None:
    """Its overlay was volatile: after a power cut nobody knows what of it is on the disk."""
    text = f"""
        name: one
        services: {{a: {{{_COMMON}, restart: always, volumes: ["data:/data"]}}}}
        volumes: {{data: {{}}}}
    """
    fresh.up(text)
    fresh.execute("one", "a", "sh", "-c", "echo kept | tee /data/f > /layer")
    before = fresh.row("one", "a")
    for _ in range(2):  # a supervisor that was only away is no shutdown
        send_away(fresh)
    assert fresh.execute("one", "a", "cat", "/layer") == "kept\n"
    assert not fresh.places.shutdown.exists()
    restart_the_machine(fresh, in_order=in_order)
    fresh.ask("resume", stacks=[], timeout=30)
    after = fresh.row("one", "a")
    assert (after["id"], after["addresses"]) == (before["id"], before["addresses"])
    assert fresh.execute("one", "a", "cat", "/data/f") == "kept\n"
    assert ("kept" in fresh.execute("one", "a", "sh", "-c", "cat /layer; :")) is in_order
    assert ("is given up" in fresh.places.supervisor_log.read_text()) is not in_order
    fresh.down("one", timeout=0, remove_volumes=True)


def test_a_second_restart_and_a_supervisor_killed_in_between_change_nothing(fresh: Site) -> None:
    fresh.up(STACK)
    fresh.becomes("one", "gated", state="running")
    fresh.up(STACK)  # carried out by what runs already: no order to start after the restart
    for _ in range(2):
        restart_the_machine(fresh)
        fresh.ask("ping")
        fresh.kill(fresh.supervisor)
    fresh.ask("resume", stacks=["one"], timeout=30)
    states = {row["service"]: row["state"] for row in fresh.ps("one")}
    assert [name for name, state in sorted(states.items()) if state == "exited"] == ["job", "never"]
    assert fresh.ask("resume", stacks=["nobody"], timeout=1, exit_code=1).error == "no such stack: nobody"
    fresh.down("one", timeout=0)


def test_a_network_whose_range_was_taken_meanwhile_is_made_anew(fresh: Site) -> None:
    """The containers are built again, for their addresses are gone; others' interfaces are left alone."""
    fresh.up(f"name: one\nservices: {{a: {{{_COMMON}, restart: always}}}}")
    before = fresh.row("one", "a")
    address = next(iter(before["addresses"].values()))
    restart_the_machine(fresh)
    subprocess.run(["ip", "link", "add", "theirs0", "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "addr", "add", f"{address}/24", "dev", "theirs0"], check=True)
        subprocess.run(["ip", "link", "set", "theirs0", "up"], check=True)
        fresh.ask("resume", stacks=[], timeout=30)
        after = fresh.row("one", "a")
        assert after["state"] == "running"
        assert after["id"] != before["id"]
        assert next(iter(after["addresses"].values())).rpartition(".")[0] != address.rpartition(".")[0]
        fresh.down("one", timeout=0)
    finally:
        subprocess.run(["ip", "link", "delete", "theirs0"], check=True)
