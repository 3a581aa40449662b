"""Faults of the machine and of its users that have no better place: docs/faults.md says which row is where."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.patience import patient
from tests.kit.programs import REPOSITORY
from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel

TRIES = int(os.environ.get("PYSTACK_TRIES", "5"))
"""Of two commands at once (tests/nightly: 50)."""
ONE = "name: one\nservices: {a: {x-rootfs: {path: $BOX}, command: sleep 999}}"


@pytest.fixture
def fresh(state_root: Path) -> Iterator[Site]:
    with Site(state_root) as site:
        yield site


def servers(site: Site) -> tuple[int, int]:
    result = until(lambda: (r := site.ask("ping").result)["keeper_pid"] and r, "a keeper")
    return result["pid"], result["keeper_pid"]


# --- row 4: the reader of output is killed ----------------------------------------

STEADY = """
import os, sys, time
number, worst, began = 0, 0.0, time.monotonic()
while number < 30000:
    lines = b"".join(b"%06d %s\\n" % (number + n, b"." * 60) for n in range(100))
    number += 100
    before = time.monotonic()
    while lines:
        lines = lines[os.write(1, lines):]
    worst = max(worst, time.monotonic() - before)
    time.sleep(max(0, began + number / 10000 - time.monotonic()))
open("/out/worst", "w").write(str(worst))
"""


def test_ten_thousand_lines_a_second_go_on_while_supervisors_are_killed(fresh: Site) -> None:
    """Nothing is lost, nothing comes twice or out of turn, and the program never waits for a second. The keeper,
    which holds the other end, and both at once are killed as well."""
    (fresh.dir / "steady.py").write_text(STEADY)
    fresh.up(
        """
        name: one
        services:
          a:
            x-rootfs: host
            command: [python3, -S, /out/steady.py]
            volumes: ["$DIR:/out"]
            logging: {options: {max-size: 8m}}
        """
    )
    lots = random.Random(4)
    slowest = 0.0
    for victims in (slice(0, 1), slice(1, 2), slice(0, 2)):
        time.sleep(patient(lots.uniform(0.2, 0.6)))
        fresh.kill(*servers(fresh)[victims])
        killed = time.monotonic()
        fresh.ask("ping")
        slowest = max(slowest, time.monotonic() - killed)
    fresh.becomes("one", "a", state="exited", exit_code=0)
    lines = fresh.output("one", "a").splitlines()
    assert [int(line[:6]) for line in lines] == list(range(30000))
    worst = float((fresh.dir / "worst").read_text())
    print(f"the longest write took {worst:.2f} s, the next supervisor was there after {slowest:.2f} s")
    assert worst < max(patient(1.0), slowest)  # it waits for nothing else, however busy the machine is
    fresh.down("one")


# --- row 9: twenty that do not want to end ----------------------------------------


def test_twenty_that_ignore_the_signal_end_together_after_one_grace(fresh: Site) -> None:
    fresh.up(ONE.replace("sleep 999", "sleep 999, scale: 20, stop_grace_period: 1s"))
    began = time.monotonic()
    fresh.ask("stop", stack="one")
    took = time.monotonic() - began
    print(f"20 stopped in {took:.2f} s")
    assert 1.0 <= took < patient(3.0)
    assert {row["exit_code"] for row in fresh.ps("one")} == {137}
    fresh.down("one")


# --- row 12: two commands at once ----------------------------------------


def test_up_and_up_and_down_at_once_end_as_one_after_the_other(fresh: Site) -> None:
    """Of two different wishes one is the last, and the stack is as that one says, or there is none."""
    fresh.up(ONE.replace("one", "calm"))
    text = """
        name: one
        services:
          a: {x-rootfs: {path: $BOX}, command: sleep 999, environment: {V: VALUE}, volumes: ["data:/data"]}
          b: {x-rootfs: {path: $BOX}, command: sleep 999, depends_on: [a]}
        volumes: {data: {}}
    """
    lots = random.Random(12)
    for _ in range(TRIES):
        orders = [
            lambda: fresh.begin_up(text.replace("VALUE", "left"), timeout=0),
            lambda: fresh.begin_up(text.replace("VALUE", "right"), timeout=0),
            lambda: fresh.begin("down", stack="one", timeout=0),
        ]
        chosen = lots.sample(orders, 2)
        talks = []
        for begin in chosen:
            talks.append(begin())
            time.sleep(lots.choice((0, 0, 0.01, 0.05)))
        for talk in talks:
            answer = talk.wait()
            assert "EEXIST" not in answer.error
            assert "exists" not in answer.error, answer.error
            assert "Traceback" not in answer.error
        rows = fresh.ps("one")
        assert sorted(row["state"] for row in rows) in ([], ["running", "running"]), rows
        if rows:
            assert fresh.execute("one", "a", "sh", "-c", "echo $V").strip() in ("left", "right")
            fresh.down("one", remove_volumes=True)
        assert not (fresh.places.stack("one")).exists()
    assert "Traceback" not in fresh.places.supervisor_log.read_text()
    fresh.down("calm")


# --- row 13: records of another machine or boot ----------------------------------------


def test_records_of_another_boot_name_no_process_of_this_one(fresh: Site) -> None:
    """Pids and even start times that are somebody else's here: nobody is signalled, nothing counts as running."""
    fresh.up(ONE)
    [bundle] = fresh.places.bundles.glob("*")
    container = fresh.row("one", "a")["pid"]
    fresh.kill(*servers(fresh))
    fresh.kill(container)
    here = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        born = Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()[19]
        record = json.loads((bundle / "pid.json").read_bytes())
        record |= {"pid": stranger.pid, "start_time": int(born)}
        (bundle / "pid.json").write_text(json.dumps(record))
        for path in (*fresh.places.run.rglob("*.json"), *fresh.places.data.rglob("*.json")):
            path.write_text(path.read_text().replace(here, "of-another-machine"))
        row = fresh.row("one", "a")
        assert (row["state"], row["exit_code"]) == ("exited", None)
        fresh.up(ONE)
        assert fresh.row("one", "a")["pid"] not in (stranger.pid, container)
        fresh.down("one")
        assert stranger.poll() is None
        stranger.kill()


# --- row 16: names and ranges that others have ----------------------------------------


@pytest.fixture
def theirs() -> Iterator[str]:
    """A bridge of somebody else's."""
    subprocess.run(["ip", "link", "add", "theirs1", "type", "bridge"], check=True)
    try:
        yield "theirs1"
    finally:
        subprocess.run(["ip", "link", "delete", "theirs1"], check=True)


def shown(name: str) -> str:
    return subprocess.run(["ip", "-4", "address", "show", name], capture_output=True, text=True).stdout


def test_a_range_that_others_have_is_avoided_or_refused_before_anything_is_made(
    fresh: Site, theirs: str
) -> None:
    fresh.up(ONE)
    address = next(iter(fresh.row("one", "a")["addresses"].values()))
    fresh.down("one")
    network = f"{address.rpartition('.')[0]}.0/24"
    subprocess.run(["ip", "address", "add", f"{address}/24", "dev", theirs], check=True)
    subprocess.run(["ip", "link", "set", theirs, "up"], check=True)
    subprocess.run(["ip", "route", "add", "172.30.199.0/24", "dev", theirs], check=True)  # as a VPN has it
    before = shown(theirs)
    fresh.up(ONE)
    got = next(iter(fresh.row("one", "a")["addresses"].values()))
    assert got.rpartition(".")[0] != address.rpartition(".")[0]
    fresh.down("one")
    for taken in (network, "172.30.199.0/25"):
        answer = fresh.up(
            f"{ONE}\nnetworks: {{default: {{ipam: {{config: [{{subnet: {taken}}}]}}}}}}", exit_code=None
        )
        assert answer.exit_code != 0
        assert taken in answer.error
        assert not answer.actions()
        assert fresh.ps("one") == []
        fresh.down("one")
    assert shown(theirs) == before


# --- row 19: the wall clock jumps ----------------------------------------

CLOCK = """
import os, time
_file = os.path.join(os.path.dirname(__file__), "offset")
_time, _ns, _gmtime, _clock = time.time, time.time_ns, time.gmtime, time.clock_gettime
def _off():
    try:
        return float(open(_file).read())
    except (OSError, ValueError):
        return 0.0
time.time = lambda: _time() + _off()
time.time_ns = lambda: _ns() + int(_off() * 1e9)
time.gmtime = lambda at=None: _gmtime(time.time() if at is None else at)
time.clock_gettime = lambda which: _clock(which) + (_off() if which == time.CLOCK_REALTIME else 0.0)
"""


def test_jumps_of_the_wall_clock_move_no_timer_and_no_line(
    fresh: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour on and two hours back, as the supervisor sees it: probes and back-off keep their times."""
    shim = fresh.dir / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(CLOCK)
    monkeypatch.setenv("PYTHONPATH", str(shim))
    asked = time.monotonic()
    fresh.begin_up(
        """
        name: one
        services:
          beat:
            x-rootfs: {path: $BOX}
            command: ["sh", "-c", "i=0; while :; do i=$$((i+1)); echo $$i; sleep 0.02; done"]
            healthcheck: {test: "echo x >> /beats", interval: 0.2s, timeout: 2s}
          crash: {x-rootfs: {path: $BOX}, command: sh -c 'exit 3', restart: always}
        """
    )
    fresh.becomes("one", "beat", state="running")
    began = time.monotonic()
    for offset in ("3600", "-3600", "0"):
        (shim / "offset").write_text(offset)
        time.sleep(patient(0.8))
    lasted = time.monotonic() - began
    beats = fresh.execute("one", "beat", "cat", "/beats").count("x")
    assert lasted / patient(0.2) * 0.4 < beats < lasted / 0.2 + 4, beats
    restarts = fresh.row("one", "crash")["restarts"]
    age = time.monotonic() - asked
    most = sum(0.1 * (2**turn - 1) <= age for turn in range(1, 10))  # after 0.1, 0.3, 0.7, 1.5 and 3.1 s
    assert 2 <= restarts <= most, restarts
    numbers = [int(line) for line in fresh.output("one", "beat").split()]
    assert numbers == list(range(1, len(numbers) + 1))
    times = [record.time for record in fresh.records(fresh.row("one", "beat")["id"])]
    assert times != sorted(times), "the shim had no effect"
    fresh.down("one")


def test_the_clock_of_timers_is_the_one_that_counts_suspension_and_never_jumps() -> None:
    """In a time namespace whose machine has slept for an hour more: as after a suspend, which no test can have.
    What the planner makes of an hour that was slept through: tests/unit/planner/test_suspend.py."""
    ask = "import time; from orchestrator.engines.local import clock; print(clock.now() - time.monotonic())"
    python = [sys.executable, "-c", ask]

    def told(*before: str) -> float:
        return float(
            subprocess.run([*before, *python], cwd=REPOSITORY, capture_output=True, check=True).stdout
        )

    slept = told("unshare", "--time", "--boottime", "3600", "--") - told()
    assert abs(slept - 3600) < 1


# --- row 20: much to say to a program ----------------------------------------


def test_the_largest_environment_arrives_and_a_larger_one_is_refused_by_name(fresh: Site) -> None:
    """One value may have 128 KiB (MAX_ARG_STRLEN in execve(2)), all together as much as the stack allows."""
    most = (128 << 10) - 1 - len("BIG=")
    text = """
        name: one
        services:
          a:
            x-rootfs: {path: $BOX}
            command: COMMAND
            environment: {BIG: VALUE}
    """
    command = json.dumps(
        ["sh", "-c", 'printf %s "$$BIG" | md5sum; echo $$# $${5000}', "_", *["x" * 9] * 5000]
    )
    fresh.up(text.replace("VALUE", "y" * most).replace("COMMAND", command))
    fresh.becomes("one", "a", state="exited", exit_code=0)
    until(lambda: fresh.output("one", "a").count(b"\n") == 2, "its output")
    wanted = hashlib.md5(b"y" * most, usedforsecurity=False).hexdigest().encode()
    assert fresh.output("one", "a") == wanted + b"  -\n5000 " + b"x" * 9 + b"\n"
    answer = fresh.up(
        text.replace("VALUE", "y" * (most + 1)).replace("COMMAND", "'true'"), exit_code=None, timeout=0
    )
    assert answer.exit_code != 0
    assert "BIG" in answer.error
    assert "yyy" not in answer.error
    fresh.down("one")


def test_an_environment_of_megabytes_is_refused_in_one_sentence(fresh: Site) -> None:
    """By the kernel above a quarter of the stack's limit (execve(2)); what we can't even ask it is refused by us
    (tests/unit/engines/local/test_bundle.py)."""
    many = ", ".join(f"V{number}: {'z' * 100_000}" for number in range(25))
    answer = fresh.up(
        f"""
        name: one
        services: {{a: {{x-rootfs: {{path: $BOX}}, command: "true", environment: {{{many}, W: {"z" * 100_010}}}}}}}
        """,
        exit_code=126,
    )
    assert "argument list too long" in answer.error
    assert re.search(r"W, 1000\d\d bytes", answer.error), answer.error
    assert "zzz" not in answer.error
    assert len(answer.error) < 300
    fresh.down("one")


LONGEST = 4096 - 1
"""Bytes of a path: PATH_MAX counts the NUL at its end (limits.h(0p))."""


def path_of(length: int, begin: str = "") -> str:
    """A path of so many bytes, of names of at most 200."""
    while len(begin) < length:
        step = min(200, length - len(begin) - 1)
        begin += "/" + "p" * (step - (length - len(begin) - 1 - step == 1))
    return begin


def make_directories(path: str) -> None:
    """os.makedirs() for a path that is too long for one call."""
    at = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    for name in path.split("/")[1:]:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def test_paths_of_the_longest_length_work_and_longer_ones_are_refused_by_name(fresh: Site) -> None:
    """As working directory, source and target of a bind, tmpfs, and in a value; the program is told them whole."""
    source = path_of(LONGEST, str(fresh.dir))
    make_directories(source)
    text = """
        name: one
        services:
          a:
            x-rootfs: {path: $BOX}
            command: sh -c 'pwd | wc -c; printf %s "$$P" | wc -c; touch /small/f; echo 1 > /x/f; sleep 999'
            working_dir: WORK
            environment: {P: WORK}
            tmpfs: ["WORK"]
            volumes: [{type: bind, source: SOURCE, target: /x}, "$DIR:TARGET", "$DIR:/small"]
    """
    inside = path_of(LONGEST)
    target = inside[:-1] + "t"
    fresh.up(text.replace("WORK", inside).replace("SOURCE", source).replace("TARGET", target))
    until(lambda: fresh.output("one", "a") == b"4096\n4095\n", "its output")
    until((fresh.dir / "f").exists, "what it writes through the bind")
    fresh.down("one")
    for wrong in ("working_dir: PATH", "tmpfs: [PATH]", 'volumes: ["$DIR:PATH"]', "volumes: ['data:PATH']"):
        answer = fresh.up(
            f"""
            name: one
            services: {{a: {{x-rootfs: {{path: $BOX}}, command: "true", {wrong.replace("PATH", inside + "p")}}}}}
            volumes: {{data: {{}}}}
            """,
            exit_code=None,
            timeout=0,
        )
        assert answer.exit_code == 125, (wrong, answer.error)
        assert "one-a-1" in answer.error
        assert "/ppp" in answer.error
        assert "too long" in answer.error, answer.error
        fresh.down("one", remove_volumes=True)
    shutil.rmtree(fresh.dir / source.removeprefix(str(fresh.dir)).split("/")[1])


# --- row 23: records that cannot be read ----------------------------------------


def test_a_record_that_is_something_else_is_rebuilt_and_volumes_keep_their_data(fresh: Site) -> None:
    text = """
        name: one
        services: {a: {x-rootfs: {path: $BOX}, command: sleep 999, volumes: ["data:/data"]}}
        volumes: {data: {}}
    """
    fresh.up(text)
    fresh.execute("one", "a", "sh", "-c", "echo kept > /data/f")
    for how, pattern in {
        "a directory": "run/containers/*/run.json",
        "a link": "data/stacks/one/desired.json",
        "not to be read": "data/volumes/*/volume.json",
    }.items():
        hit = servers(fresh)
        [record] = fresh.root.glob(pattern)
        fresh.kill(*hit)
        if how == "not to be read":
            record.chmod(0)  # which root is not kept from
        else:
            record.unlink()
            if how == "a directory":
                record.mkdir()
            else:
                record.symlink_to("/etc/passwd")
        assert fresh.ask("ps", stack="one").result is not None
        if how == "a directory" and record.is_dir():
            record.rmdir()
        fresh.up(text, timeout=0)
        assert fresh.execute("one", "a", "cat", "/data/f") == "kept\n"
    assert "Traceback" not in fresh.places.supervisor_log.read_text()
    assert "root:" in Path("/etc/passwd").read_text()
    fresh.down("one", remove_volumes=True)


# --- row 25: a file that is replaced ----------------------------------------


def test_a_bound_file_that_is_replaced_is_seen_at_the_next_start(fresh: Site) -> None:
    """As with Docker: a bind is of the file and not of its name."""
    (fresh.dir / "file").write_text("old\n")
    fresh.up(ONE.replace("sleep 999", 'sleep 999, volumes: ["$DIR/file:/file:ro"]'))
    (fresh.dir / "new").write_text("new\n")
    (fresh.dir / "new").replace(fresh.dir / "file")
    assert fresh.execute("one", "a", "cat", "/file") == "old\n"
    assert "Read-only" in fresh.execute("one", "a", "sh", "-c", "echo x > /file", exit_code=None)
    fresh.ask("restart", stack="one", timeout=0)
    assert fresh.execute("one", "a", "cat", "/file") == "new\n"
    fresh.down("one")


# --- row 26: health checks and commands while it stops ----------------------------------------


def test_a_check_that_floods_or_hangs_and_a_command_that_will_not_end_delay_no_stop(fresh: Site) -> None:
    fresh.begin_up(
        """
        name: one
        services:
          flood:
            x-rootfs: {path: $BOX}
            command: sh -c "trap exit TERM; while :; do sleep 0.05; done"
            healthcheck: {test: "head -c 1000000000 /dev/zero | tr '\\\\0' x; false", interval: 0.1s, timeout: 1s, retries: 1}
          hangs:
            x-rootfs: {path: $BOX}
            command: sh -c "trap exit TERM; while :; do sleep 0.05; done"
            healthcheck: {test: "trap '' TERM HUP; sleep 987", interval: 0.1s, timeout: 30s}
        """
    )
    row = fresh.becomes("one", "flood", health="unhealthy")
    home = fresh.places.bundles / row["id"] / "run.json"
    assert len(home.read_bytes()) < 5 * 4096 + 4096, "of each of five probes 4 KiB are kept"
    stuck = fresh.begin(
        "exec", stack="one", service="hangs", command=["sh", "-c", "trap '' TERM HUP; sleep 986"], detach=True
    )
    stuck.wait()
    until(lambda: "sleep 98" in fresh.execute("one", "hangs", "ps"), "the probe and the command")
    began = time.monotonic()
    fresh.ask("stop", stack="one")
    took = time.monotonic() - began
    print(f"stopped in {took:.2f} s")
    assert took < patient(1.0)
    until(lambda: not [row for row in fresh.processes() if "sleep 98" in row], "the end of all")
    fresh.down("one")


# --- the command itself is killed ----------------------------------------


def test_a_command_that_is_killed_leaves_the_rest_to_the_supervisor(fresh: Site) -> None:
    """`up` as a process, hit sooner or later until it is through: all comes up, or nothing was begun."""
    fresh.up(ONE.replace("one", "calm"))
    (fresh.dir / "stack.yml").write_text(
        f"""
name: one
services:
  a: {{x-rootfs: {{path: {fresh.box}}}, command: sleep 999, healthcheck: {{test: "true", interval: 0.1s}}}}
  b: {{x-rootfs: {{path: {fresh.box}}}, command: sleep 999, depends_on: {{a: {{condition: service_healthy}}}}}}
"""
    )
    command = [sys.executable, "-m", "orchestrator", "--root", str(fresh.root)]
    command += ["-f", str(fresh.dir / "stack.yml"), "up", "--detach"]
    supervisor, begun, delay, through = fresh.supervisor, 0, 0.1, False
    while not through:
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=quiet, stderr=quiet) as process:
            time.sleep(delay)
            through = process.poll() == 0
            process.kill()
        delay += 0.15
        if "one" in [row["name"] for row in fresh.ask("ls").result]:
            begun += 1
            fresh.becomes("one", "b", state="running")
            fresh.down("one")
        assert fresh.ps("one") == []
    print(f"hit up to {delay:.2f} s after its start; {begun} had begun something")
    assert begun > 0
    assert fresh.supervisor == supervisor
    fresh.down("calm")
