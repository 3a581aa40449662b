"""SIGKILL at any moment, full disks and damaged records: containers run on, and the next look converges."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.kernel import interfaces
from tests.kit.keeper import REMEMBERS_EXITS
from tests.kit.patience import patient
from tests.kit.site import Site, Talk, alive, until

pytestmark = pytest.mark.kernel

TEN = """
    name: ten
    services:
      s:
        x-rootfs: {path: $BOX}
        command: sleep 1000
        scale: 10
        environment: {V: VALUE}
        volumes: ["data:/data", "/scratch"]
    volumes: {data: {}}
"""
ONE = "name: one\nservices: {a: {x-rootfs: {path: $BOX}, command: sleep 999}}"


@pytest.fixture
def fresh(state_root: Path) -> Iterator[Site]:
    with Site(state_root) as site:
        yield site


def servers(site: Site) -> tuple[int, int]:
    """The supervisor and its keeper, once it has one."""
    result = until(lambda: (r := site.ask("ping").result)["keeper_pid"] and r, "a keeper")
    return result["pid"], result["keeper_pid"]


def gone_or_done(talk: Talk) -> None:
    """The supervisor may have died before it answered: that is the point."""
    with contextlib.suppress(AssertionError):
        talk.wait(30)


def check_ten(site: Site) -> dict[int, int]:
    """Ten containers with one process each; slot -> pid."""
    rows = site.ps("ten")
    assert [row["slot"] for row in rows] == list(range(1, 11))
    assert {row["state"] for row in rows} == {"running"}
    pids = {row["slot"]: row["pid"] for row in rows}
    inside = [row for row in site.processes() if "sleep 1000" in row]
    assert sorted(int(row.split()[0]) for row in inside) == sorted(pids.values())
    return pids


@pytest.mark.skipif(not os.environ.get("PYSTACK_LONG"), reason="by night: test_kills.py has it by day")
@pytest.mark.parametrize("victims", ["supervisor", "keeper", "both"])
def test_a_kill_in_the_middle_of_anything_is_made_good_by_the_next_up(fresh: Site, victims: str) -> None:
    """Up, recreate, restart and down, each hit at a moment drawn by lot; then everything is there once."""
    lots = random.Random(f"20 {victims}")
    fresh.up(ONE)
    bystander = fresh.row("one", "a")["pid"]
    orders = ("up", "recreate", "restart", "down", "up", "scale")
    for number, order in enumerate(orders):
        text = TEN.replace("VALUE", f"{number}" if order == "recreate" else "same")
        if order not in ("up", "down"):
            fresh.up(TEN.replace("VALUE", "same"), timeout=0)
        pids = servers(fresh)
        talk = {
            "up": lambda text=text: fresh.begin_up(text, timeout=0),
            "recreate": lambda text=text: fresh.begin_up(text, timeout=0),
            "restart": lambda: fresh.begin("restart", stack="ten", services=[], timeout=0),
            "down": lambda: fresh.begin("down", stack="ten", timeout=0),
            "scale": lambda: fresh.begin_up(TEN.replace("scale: 10", "scale: 3"), timeout=0),
        }[order]()
        time.sleep(patient(lots.uniform(0.0, 0.25)))
        fresh.kill(*{"supervisor": pids[:1], "keeper": pids[1:], "both": pids}[victims])
        gone_or_done(talk)
        if order == "down":
            fresh.down("ten")
            assert fresh.ps("ten") == []
        fresh.up(text, timeout=0)
        before = check_ten(fresh)
        fresh.up(text, timeout=0)
        assert check_ten(fresh) == before, "a second up touched what was right"
        assert fresh.row("one", "a")["pid"] == bystander
    fresh.down("ten", remove_volumes=True)
    fresh.down("one")


@pytest.mark.parametrize("victims", ["supervisor", "keeper", "both"])
def test_containers_run_on_and_their_exit_codes_are_not_lost(fresh: Site, victims: str) -> None:
    """They end after the kill; both at once may cost the code only on kernels before 6.15."""
    fresh.up(
        """
        name: one
        services:
          later: {x-rootfs: {path: $BOX}, command: ["sh", "-c", "trap 'exit 42' TERM; while :; do sleep 0.02; done"]}
          stays: {x-rootfs: {path: $BOX}, command: sleep 1000}
          again: {x-rootfs: {path: $BOX}, command: sleep 1000, restart: always}
        """
    )
    pids = {row["service"]: row["pid"] for row in fresh.ps("one")}
    time.sleep(0.1)
    hit = servers(fresh)
    fresh.kill(*{"supervisor": hit[:1], "keeper": hit[1:], "both": hit}[victims])
    os.kill(pids["later"], signal.SIGTERM)
    os.kill(pids["again"], signal.SIGKILL)
    if victims == "both":
        # Nobody of ours is there to see it, and the next command starts a supervisor.
        until(lambda: not alive(pids["later"]) and not alive(pids["again"]), "their ends")
    code = fresh.becomes("one", "later", state="exited")["exit_code"]
    assert code == 42 or (victims == "both" and not REMEMBERS_EXITS)
    assert fresh.row("one", "stays")["pid"] == pids["stays"]
    until(lambda: fresh.row("one", "again")["pid"] not in (0, pids["again"]), "a restart by policy")
    assert fresh.execute("one", "stays", "echo", "in") == "in\n"
    fresh.down("one")


def test_an_exit_that_nobody_was_there_to_see_is_told_from_the_record(fresh: Site) -> None:
    """The supervisor is held while the container ends, and killed before it could hear of it."""
    fresh.up("name: one\nservices: {a: {x-rootfs: {path: $BOX}, command: sh -c 'sleep 0.4; exit 9'}}")
    pid = fresh.supervisor
    os.kill(pid, signal.SIGSTOP)
    container = fresh.places.bundles
    until(lambda: list(container.glob("*/exit.json")), "an exit record")
    fresh.kill(pid)
    assert fresh.becomes("one", "a", state="exited")["exit_code"] == 9
    fresh.down("one")


def test_an_end_that_nobody_saw_is_followed_by_what_the_policy_says(fresh: Site) -> None:
    """Both of ours are dead, and then the programs die: the kernel knows how (Linux 6.15), or nobody does."""
    fresh.up(
        """
        name: one
        services:
          again: {x-rootfs: {path: $BOX}, command: sleep 1000, restart: always}
          failing: {x-rootfs: {path: $BOX}, command: sleep 1000, restart: on-failure}
          once: {x-rootfs: {path: $BOX}, command: sleep 1000}
          after: {x-rootfs: {path: $BOX}, command: sleep 1000, restart: unless-stopped, depends_on: [again]}
        """
    )
    pids = {row["service"]: row["pid"] for row in fresh.ps("one")}
    fresh.kill(*servers(fresh))
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in pids.values()), "their end")
    for name in ("again", "failing", "after"):
        assert fresh.becomes("one", name, state="running")["pid"] != pids[name]
    once = fresh.row("one", "once")
    assert (once["state"], once["exit_code"]) == ("exited", 137 if REMEMBERS_EXITS else None)
    fresh.down("one", timeout=0)


def test_a_bridge_that_was_deleted_is_made_again_and_nobody_restarts(fresh: Site) -> None:
    fresh.up(
        """
        name: one
        services:
          a: {x-rootfs: {path: $BOX}, command: sleep 1000}
          b: {x-rootfs: {path: $BOX}, command: sleep 1000}
        """
    )
    before = {row["service"]: row["pid"] for row in fresh.ps("one")}
    subprocess.run(["ip", "link", "delete", interfaces.bridge(fresh.places.tag, "one_default")], check=True)
    fresh.kill(fresh.supervisor)
    assert {row["service"]: row["pid"] for row in fresh.ps("one")} == before
    until(
        lambda: "1 packets received" in fresh.execute("one", "a", "ping", "-c", "1", "-W", "1", "b"),
        "an answer",
    )
    assert {row["service"]: row["pid"] for row in fresh.ps("one")} == before
    fresh.down("one", timeout=0)


def test_further_bridges_outlive_us_are_made_again_and_those_of_nobody_go(fresh: Site) -> None:
    """A network of several bridges: killed, the supervisor finds them, and what went while nobody looked."""
    fresh.up(
        """
        name: one
        services:
          a: {x-rootfs: {path: $BOX}, command: sleep 1000, networks: {wide: {ipv4_address: 10.98.0.5}}}
          b: {x-rootfs: {path: $BOX}, command: sleep 1000, networks: {wide: {ipv4_address: 10.98.8.5}}}
        networks: {wide: {ipam: {config: [{subnet: 10.98.0.0/16}]}}}
        """
    )
    pids = {row["service"]: row["pid"] for row in fresh.ps("one")}
    further = interfaces.bridge(fresh.places.tag, "one_wide", 4)
    joint = interfaces.trunk(fresh.places.tag, "gone", 1)
    stranger = f"{interfaces.segments(fresh.places.tag)}x"
    for victims, commands in (
        (1, (f"add {stranger} type bridge", f"add {joint[0]} type veth peer name {joint[1]}")),
        (2, (f"delete {further}",)),
    ):
        for command in commands:
            subprocess.run(["ip", "link", *command.split()], check=True)
        fresh.kill(*servers(fresh)[:victims])
        until(
            lambda: "1 packets received" in fresh.execute("one", "a", "ping", "-c", "1", "-W", "1", "b"),
            "an answer",
        )
        assert {row["service"]: row["pid"] for row in fresh.ps("one")} == pids
    shown = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    assert further in shown
    assert joint[0] not in shown
    assert f"{stranger}:" not in shown
    fresh.down("one", timeout=0)


def test_names_ports_terminals_and_execs_work_after_both_were_replaced(fresh: Site) -> None:
    fresh.up(
        """
        name: one
        services:
          web: {x-rootfs: {path: $BOX}, command: sh -c "hostname > /index.html; exec httpd -f -p 80 -h /"}
          ask: {x-rootfs: {path: $BOX}, command: sleep 1000}
          term: {x-rootfs: {path: $BOX}, tty: true, command: sh -c "while :; do sleep 0.05; echo tick; done"}
        """
    )
    pids = {row["service"]: row["pid"] for row in fresh.ps("one")}
    for victims in (("supervisor",), ("keeper",), ("supervisor",), ("supervisor", "keeper")):
        hit = dict(zip(("supervisor", "keeper"), servers(fresh), strict=True))
        fresh.kill(*(hit[name] for name in victims))
        wanted = fresh.row("one", "web")["id"][:12]
        page = until(
            lambda: fresh.execute(
                "one", "ask", "timeout", "2", "wget", "-q", "-O-", "http://web/", exit_code=None
            ),
            "an answer by name",
        )
        assert page.strip() == wanted
        if victims == ("supervisor", "keeper"):
            break  # the terminal was held by these two alone: its program has been hung up
        seen = fresh.output("one", "term").count(b"tick")
        until(lambda seen=seen: fresh.output("one", "term").count(b"tick") > seen, "more from the terminal")
        assert {row["service"]: row["pid"] for row in fresh.ps("one")} == pids
    fresh.down("one")


def test_a_dead_supervisor_comes_back_by_itself_and_restarts_what_ended(fresh: Site) -> None:
    fresh.up("name: one\nservices: {a: {x-rootfs: {path: $BOX}, command: sleep 1000, restart: always}}")
    pid, container = fresh.supervisor, fresh.row("one", "a")["pid"]
    os.kill(container, signal.SIGKILL)
    fresh.kill(pid)

    def restarted() -> bool:
        return any("sleep 1000" in row and int(row.split()[0]) != container for row in fresh.processes())

    until(restarted, "a new run without any command")
    fresh.down("one")


# --- records ----------------------------------------

DAMAGES = (
    b"",
    b"\x00\xff\xfe",
    b'{"format": 1, "value": {"is": "Nothing"}}',
    b"[" * 5000,
)


@pytest.mark.parametrize(
    "name", ["run.json", "pid.json", "container.json", "desired.json", "network", "volume.json"]
)
def test_a_damaged_record_is_rebuilt_or_named_and_never_kills_the_supervisor(fresh: Site, name: str) -> None:
    text = """
        name: one
        services: {a: {x-rootfs: {path: $BOX}, command: sleep 1000, volumes: ["data:/data"]}}
        volumes: {data: {}}
    """
    fresh.up(text)
    fresh.execute("one", "a", "sh", "-c", "echo kept > /data/f")
    for damage in DAMAGES:
        [record] = {
            "run.json": lambda: fresh.places.bundles.glob("*/run.json"),
            "pid.json": lambda: fresh.places.bundles.glob("*/pid.json"),
            "container.json": lambda: fresh.places.stacks.glob("one/containers/*/container.json"),
            "desired.json": lambda: [fresh.places.desired("one")],
            "network": lambda: fresh.places.networks.glob("*.json"),
            "volume.json": lambda: fresh.places.volumes.glob("*/volume.json"),
        }[name]()
        os.kill(fresh.supervisor, signal.SIGSTOP)
        hit = [int(row.split()[0]) for row in fresh.processes() if "orchestrator.daemon" in row]
        record.write_bytes(damage)
        fresh.kill(*hit)
        assert fresh.ask("ps", stack="one").result is not None
        fresh.up(text, timeout=0)
        assert fresh.execute("one", "a", "cat", "/data/f") == "kept\n"
        assert len([row for row in fresh.processes() if "sleep 1000" in row]) == 1
    fresh.down("one", remove_volumes=True)
    assert not any(fresh.places.stacks.glob("*"))
    assert not any(fresh.places.volumes.glob("*"))


def test_a_stack_whose_record_is_lost_is_listed_and_can_be_taken_down(fresh: Site) -> None:
    fresh.up(ONE)
    pid = fresh.supervisor
    os.kill(pid, signal.SIGSTOP)
    fresh.places.desired("one").write_bytes(b"")
    fresh.kill(pid)
    assert [row["name"] for row in fresh.ask("ls").result] == ["one"]
    assert fresh.row("one", "a")["state"] == "running"
    fresh.down("one")
    assert not fresh.places.run.exists()


def test_records_of_a_newer_version_are_left_alone_and_named(fresh: Site) -> None:
    fresh.up(ONE)
    pid = fresh.supervisor
    [record] = fresh.places.stacks.glob("one/containers/*/container.json")
    document = json.loads(record.read_bytes())
    os.kill(pid, signal.SIGSTOP)
    record.write_text(json.dumps({**document, "format": 99}))
    fresh.kill(pid)
    fresh.ask("ping")
    assert record.exists()
    assert "was written by a newer pystack" in fresh.places.supervisor_log.read_text()
    fresh.kill(fresh.supervisor)
    record.write_text(json.dumps(document))
    fresh.down("one")


def test_a_pid_that_belongs_to_somebody_else_now_is_never_touched(fresh: Site) -> None:
    fresh.up(ONE)
    [record] = fresh.places.bundles.glob("*/pid.json")
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        hit = servers(fresh)
        container = fresh.row("one", "a")["pid"]
        fresh.kill(*hit)
        born = json.loads(record.read_bytes())
        record.write_text(json.dumps({**born, "pid": stranger.pid}))
        fresh.kill(container)
        assert fresh.row("one", "a")["state"] == "exited"
        fresh.up(ONE)
        fresh.down("one")
        assert stranger.poll() is None
        stranger.kill()


# --- a full disk ----------------------------------------


@pytest.fixture
def small(state_root: Path) -> Iterator[Site]:
    """A site whose data stands on a file system of 4 MiB, and whose run directory on another of 2."""
    mounted = []
    site = Site(state_root)
    try:
        for place, size in ((site.places.data, "4m"), (site.places.run, "2m")):
            place.mkdir(parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
            mounted.append(place)
        with site:
            yield site
    finally:
        for place in mounted:
            subprocess.run(["umount", "-l", place], check=True)


def fill(directory: Path) -> None:
    with contextlib.suppress(OSError), open(directory / "ballast", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with contextlib.suppress(OSError), open(directory / "ballast2", "wb", buffering=0) as file:
        while True:
            file.write(b"x")


def free(directory: Path) -> None:
    for name in ("ballast", "ballast2"):
        (directory / name).unlink(missing_ok=True)


def test_a_full_disk_is_named_loses_only_output_and_stops_no_down(small: Site) -> None:
    text = """
        name: one
        services:
          a: {x-rootfs: {path: $BOX}, command: sh -c "while :; do echo tick; sleep 0.02; done"}
          b: {x-rootfs: {path: $BOX}, command: sleep 1000, profiles: [more]}
    """
    small.up(text)
    pid = small.supervisor
    small.prints("one", "a", b"tick\n")
    for directory in (small.places.data, small.places.run):
        fill(directory)
        answer = small.up(
            "name: two\nservices: {c: {x-rootfs: {path: $BOX}, command: sleep 1000}}", exit_code=None
        )
        if directory == small.places.data:
            assert answer.exit_code == 1
            assert "no space left" in answer.error.lower()
        assert small.row("one", "a")["state"] == "running"
        small.ask("kill", stack="one", signal="SIGKILL")
        small.becomes("one", "a", state="exited", exit_code=137)
        free(directory)
        small.up(text)
        small.down("two")
    before = small.output("one", "a").count(b"tick")
    until(lambda: small.output("one", "a").count(b"tick") > before, "output goes on")
    for record in itertools.chain(small.records(small.row("one", "a")["id"])):
        assert record.text in (b"tick", b"")
    fill(small.places.data)
    fill(small.places.run)
    small.down("one")
    until(lambda: not alive(pid), "the supervisor goes")
    free(small.places.run)


def test_exec_right_after_the_keeper_s_death_waits_for_the_next_one(fresh: Site) -> None:
    fresh.up("name: x1\nservices: {a: {x-rootfs: {path: $BOX}, command: sleep 1000}}\n")
    for number in range(10):
        keeper = fresh.keeper
        fresh.kill(keeper)
        assert fresh.execute("x1", "a", "echo", str(number)) == f"{number}\n"
        assert fresh.keeper != keeper
    fresh.down("x1")
