"""Programs that fork and leave orphans without measure: what they cost themselves, us and their neighbours.

PYSTACK_LONG=1 (tests/nightly) takes the full numbers of docs/faults.md; the suite takes a short form of each.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import pytest

from tests.kit.patience import patient
from tests.kit.site import Site, until

LONG = bool(os.environ.get("PYSTACK_LONG"))
pytestmark = [pytest.mark.kernel, pytest.mark.timeout(600 if LONG else 120)]


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("w")


# --- row 7: a fork bomb ----------------------------------------

BOMB = """
    name: s7
    services:
      bomb:
        x-rootfs: host
        command: [python3, -Sc, "import os\\nwhile True:\\n  try: os.fork()\\n  except OSError: pass"]
        pids_limit: 64
        cpus: 0.3
      neighbour: {x-rootfs: {path: $BOX}, command: sleep 1000, stop_grace_period: 0s}
"""
ROUNDS = 15 if LONG else 4


def runnable() -> int:
    """Tasks that want a processor (proc_loadavg(5)): the least of some looks, as others work here as well."""
    found = []
    for _ in range(20):
        found.append(int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]))
        time.sleep(0.01)
    return min(found)


def test_a_fork_bomb_delays_no_neighbour_and_is_gone_with_its_stack(site: Site) -> None:
    """A neighbour answers in less than twice its usual time; quiet and loud take turns, by `pause`."""
    before = runnable()
    site.up(BOMB)
    bomb = {"stack": "s7", "services": ["bomb"]}
    times: dict[str, list[float]] = {"pause": [], "unpause": []}
    for number in range(ROUNDS * 2):
        verb = ("pause", "unpause")[number % 2]
        site.ask(verb, **bomb)
        time.sleep(0.1)
        for _ in range(4):
            began = time.monotonic()
            site.execute("s7", "neighbour", "true")
            times[verb].append(time.monotonic() - began)
    quiet, loud = (statistics.median(times[verb]) for verb in ("pause", "unpause"))
    print(f"the neighbour is entered in {quiet * 1000:.1f} ms quiet, {loud * 1000:.1f} ms beside the bomb")
    assert loud < 2 * quiet
    began = time.monotonic()
    site.ask("kill", signal="SIGKILL", **bomb)
    site.becomes("s7", "bomb", state="exited", exit_code=137)
    assert time.monotonic() - began < patient(2)
    site.ask("start", **bomb)
    began = time.monotonic()
    site.down("s7")
    until(lambda: not [row for row in site.processes() if "os.fork" in row], "the end of the last")
    until(lambda: runnable() <= before + 1, "the load of before", seconds=5)
    print(f"the load of before {time.monotonic() - began:.2f} s after `down` was said")
    assert time.monotonic() - began < patient(5)


# --- row 10: orphans ----------------------------------------

ORPHANS = """
    name: s10
    services:
      buried: &one
        x-rootfs: {path: $BOX}
        command: ["sh", "-c", "STORM & exec sleep 1000"]
        init: true
        pids_limit: 100
        stop_grace_period: 0s
      piled: {<<: *one, init: false}
      neighbour: {x-rootfs: {path: $BOX}, command: sleep 1000, stop_grace_period: 0s}
"""
STORM = "while :; do i=0; while [ $$i -lt 17 ]; do (true & ); i=$$((i+1)); done; sleep 0.1; done"
"""A hundred and seventy a second are ten thousand a minute. Whoever starts one ends, which makes it an orphan."""


def zombies(pid: int) -> list[int]:
    """Children of a process that nobody has buried."""
    found = []
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state == "Z":
            found.append(child)
    return found


def test_ten_thousand_orphans_a_minute_are_buried_by_init_and_hurt_nobody_without(site: Site) -> None:
    """Without `init: true` a program that buries nobody has as many zombies as `pids_limit` allows: they are
    its own, and go with it."""
    site.up(ORPHANS.replace("STORM", STORM))
    buried, piled = (site.row("s10", name)["pid"] for name in ("buried", "piled"))
    until(lambda: len(zombies(piled)) > 80, "the zombies", lambda: str(len(zombies(piled))))
    looks = []
    for _ in range(600 if LONG else 15):
        looks.append(len(zombies(buried)))
        time.sleep(0.1)
    left = zombies(piled)
    print(
        f"with init at most {max(looks)} zombies, {statistics.mean(looks):.2f} on the average; without {len(left)}"
    )
    assert statistics.mean(looks) < 5
    assert sorted(looks)[int(len(looks) * 0.9)] < 5
    assert len(left) <= 100
    assert site.execute("s10", "neighbour", "echo", "in") == "in\n"
    assert "fork" in site.execute("s10", "piled", "true", exit_code=None) or left
    site.down("s10")
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), "that they are gone")
