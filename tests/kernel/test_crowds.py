"""Many at once, and one that floods: what it costs us, and that its neighbours don't notice.

PYSTACK_LONG=1 (tests/nightly) takes the full numbers of docs/faults.md; the suite takes a short form of each.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import time
from pathlib import Path

import pytest

from orchestrator.kernel import interfaces
from tests.kit.patience import patient
from tests.kit.site import Site, until

LONG = bool(os.environ.get("PYSTACK_LONG"))
pytestmark = [pytest.mark.kernel, pytest.mark.timeout(900 if LONG else 120)]

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crowds")


def processor(pid: int) -> float:
    """Seconds of processor time that a process has had (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int) -> int:
    """Bytes that are no file's and present, whether a fork shares them just now or not (proc_pid_status(5))."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) * 1024


def descriptors(pid: int) -> int:
    """The least of some looks: what is under way just now has some that it will close."""
    found = []
    for _ in range(20):
        found.append(len(os.listdir(f"/proc/{pid}/fd")))
        time.sleep(0.02)
    return min(found)


def servers(site: Site) -> tuple[int, int]:
    result = site.ask("ping").result
    return result["pid"], result["keeper_pid"]


# --- row 24: fifty that end at once ----------------------------------------


def test_fifty_that_flap_cost_little_and_nothing_grows(site: Site) -> None:
    count = 50 if LONG else 20
    text = "\n".join(
        f"  s{number}: {{x-rootfs: {{path: $BOX}}, network_mode: none, command: 'false', restart: always}}"
        for number in range(count)
    )
    talk = site.begin_up(f"name: c1\nservices:\n{text}\n")
    first = time.monotonic()
    until(lambda: min((row["restarts"] for row in site.ps("c1")), default=0) >= 3, "the third restart of all")
    pids = servers(site)
    before = [(processor(pid), memory(pid), descriptors(pid)) for pid in pids]
    began = time.monotonic()
    time.sleep(600 if LONG else 1.5)
    lasted = time.monotonic() - began
    after = [(processor(pid), memory(pid), descriptors(pid)) for pid in pids]
    restarts = [row["restarts"] for row in site.ps("c1")]
    talk.leave()
    for name, was, now in zip(("supervisor", "keeper"), before, after, strict=True):
        share, grown, more = (now[0] - was[0]) / lasted, now[1] - was[1], now[2] - was[2]
        print(f"{name}: {share:.1%} of a core, {grown / 1024:+.0f} KiB, {more:+d} descriptors")
        assert grown < 2 << 20
        assert more <= 5
        assert name == "supervisor" or share < 0.20
    age = time.monotonic() - first
    print(f"restarts: {min(restarts)} to {max(restarts)} in {age:.0f} s")
    assert len(restarts) == count
    pauses = [0.1 * 2**turn for turn in range(9)]  # and then once a minute: ten in the first
    most = sum(sum(pauses[: turn + 1]) <= age for turn in range(9)) + max(0, age - sum(pauses)) // 60
    assert max(restarts) <= most <= 9 + age / 60
    site.down("c1")


# --- row 27: two hundred services ----------------------------------------


def complaints() -> list[str]:
    """What the kernel has found wrong with itself."""
    said = subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout
    return [line for line in said.splitlines() if re.search(r"WARNING: |BUG: |Call Trace", line)]


def test_many_services_come_and_go_in_bounded_time(site: Site) -> None:
    count = 200 if LONG else 40
    text = "\n".join(
        f"  s{number}: {{x-rootfs: {{path: $BOX}}, command: sleep 999, stop_grace_period: 1s}}"
        for number in range(count)
    )
    before = complaints()
    began = time.monotonic()
    site.up(f"name: c2\nservices:\n{text}\n")
    up = time.monotonic() - began
    assert {row["state"] for row in site.ps("c2")} == {"running"}
    began = time.monotonic()
    site.ask("down", stack="c2")
    down = time.monotonic() - began
    print(f"{count} services: up {up:.2f} s, down {down:.2f} s")
    assert up < patient(count * 0.015 + 3)
    assert down < patient(5 + 1)
    assert complaints() == before


# --- a network of several bridges ----------------------------------------


@pytest.mark.skipif(not LONG, reason="it takes minutes; test_large_networks.py has what is new of it")
def test_a_network_of_more_containers_than_a_bridge_has_ports(site: Site) -> None:
    count, name = 1100, "c6_default"
    before = complaints()
    began = time.monotonic()
    talk = site.begin_up(
        f"""
        name: c6
        services:
          web: {{x-rootfs: {{path: $BOX}}, command: httpd -f -p 80 -h /etc, scale: {count}, stop_grace_period: 0s}}
        """
    )
    assert talk.wait(600).exit_code == 0
    up = time.monotonic() - began
    rows = {row["slot"]: row for row in site.ps("c6")}
    assert {row["state"] for row in rows.values()} == {"running"}
    assert len(rows) == count
    shown = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    ports = [
        shown.count(f"master {interfaces.bridge(site.places.tag, name, number)} ") for number in range(4)
    ]
    # The range's first address is nobody's, the next the gateway's; the first bridge has both joints.
    assert ports == [510 + 2, 512 + 1, count - 510 - 512 + 1, 0]
    for slot, other in ((1, count), (count, 1), (count // 2, count)):
        url = f"http://c6-web-{other}/passwd"
        assert "root:" in site.execute("c6", "web", "wget", "-q", "-O-", url, index=slot)
    began = time.monotonic()
    site.begin("down", stack="c6", timeout=0).wait(600)
    down = time.monotonic() - began
    print(f"{count} containers of one network, ports {ports}: up {up:.1f} s, down {down:.1f} s")
    left = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    assert not [number for number in range(4) if interfaces.bridge(site.places.tag, name, number) in left]
    assert up < patient(count * 0.03 + 10)
    assert down < patient(60)
    assert complaints() == before


# --- row 6: more output than is to be kept ----------------------------------------

PRINTER = """
import os, time
line = b"x" * 49 + b"\\n"
def print_for(seconds, fd):
    began, lines = time.monotonic(), 0
    while (now := time.monotonic() - began) < seconds:
        while lines < now * 100000:
            data = line * 1000
            while data:
                data = data[os.write(fd, data):]
            lines += 1000
        time.sleep(0.002)
    return lines / seconds
open("/out/rate.new", "w").write(str(print_for(SECONDS, 1)))
os.rename("/out/rate.new", "/out/rate")
time.sleep(1000)
"""


def test_a_hundred_thousand_lines_a_second_stay_within_their_files(site: Site) -> None:
    """The pump keeps up, the program prints as fast as it wants to, and the disk holds three megabytes."""
    seconds = 60 if LONG else 2
    (site.dir / "printer.py").write_text(PRINTER.replace("SECONDS", str(seconds)))
    site.up(
        """
        name: c3
        services:
          a:
            x-rootfs: host
            command: [python3, -S, /out/printer.py]
            volumes: ["$DIR:/out"]
            logging: {options: {max-size: 1m, max-file: "3"}}
            stop_grace_period: 0s
        """
    )
    pid = site.supervisor
    before = processor(pid)
    home = next(site.places.stacks.glob("c3/containers/*"))
    most = 0

    def over() -> bool:
        nonlocal most
        with contextlib.suppress(FileNotFoundError):  # just being turned over
            most = max(most, sum(path.stat().st_size for path in home.glob("container.log*")))
        return (site.dir / "rate").exists()

    until(over, "the end of it", seconds=seconds + 20)
    share = (processor(pid) - before) / seconds
    rate = float((site.dir / "rate").read_text())
    print(f"{rate:.0f} lines/s, the supervisor took {share:.1%} of a core, {most / 1024:.0f} KiB on disk")
    assert most <= 4 << 20
    assert rate >= 90_000
    assert share <= 0.25 * max(1.0, patient(1))
    site.down("c3")


# --- row 28: a flood of questions for names ----------------------------------------

ASKING = """
import socket, struct, sys, time
def question(name, number):
    labels = b"".join(bytes([len(part)]) + part for part in name.split(b".")) + b"\\0"
    return struct.pack("!6H", number & 65535, 256, 1, 0, 0, 0) + labels + struct.pack("!2H", 1, 1)
"""
FLOOD = (
    ASKING
    + """
slow = [socket.create_connection(("127.0.0.11", 53)) for _ in range(30)]
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.connect(("127.0.0.11", 53))
out.setblocking(False)
began, sent, number = time.monotonic(), 0, 0
while True:
    number += 1
    try:
        out.send(question(b"no%d" % (number % 1000) if number % 2 else b"calm", number))
        sent += 1
    except OSError:
        pass
    if number % 64 == 0:
        try:
            while out.recv(512):
                pass
        except OSError:
            pass
        if number % 65536 == 0:
            print(sent / (time.monotonic() - began), flush=True)
"""
)
LOOKUPS = (
    ASKING
    + """
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.settimeout(2)
times = []
for number in range(int(sys.argv[1])):
    began = time.monotonic()
    out.sendto(question(b"calm", number), ("127.0.0.11", 53))
    out.recv(512)
    times.append(time.monotonic() - began)
    time.sleep(0.005)
times.sort()
print(times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000)
"""
)


def test_a_flood_of_questions_for_names_delays_nobody_else_s(site: Site) -> None:
    (site.dir / "flood.py").write_text(FLOOD)
    (site.dir / "lookups.py").write_text(LOOKUPS)
    site.up(
        """
        name: c4
        services:
          calm: {x-rootfs: host, command: sleep 999, volumes: ["$DIR:/out:ro"], stop_grace_period: 0s}
          flood:
            x-rootfs: host
            command: sh -c "sleep 0.2; exec python3 -S /out/flood.py"
            volumes: ["$DIR:/out:ro"]
            cpus: 0.5
            stop_grace_period: 0s
        """
    )
    pid = site.supervisor
    was = memory(pid)
    time.sleep(patient(1))
    count = 5000 if LONG else 300
    said = site.execute("c4", "calm", "python3", "-S", "/out/lookups.py", str(count))
    median, late = map(float, said.split())
    grown = memory(pid) - was
    print(f"lookups beside the flood: median {median:.1f} ms, p99 {late:.1f} ms; {grown / 1024:+.0f} KiB")
    print(f"the flood had {site.output('c4', 'flood').split()[-1:]} questions/s")
    assert late < patient(50)
    assert grown < 8 << 20
    site.down("c4")


# --- one stack's flood is not another's delay ----------------------------------------

CHAIN = """
    name: chain
    services:
      a: &one
        x-rootfs: {path: $BOX}
        command: sleep 999
        stop_grace_period: 0s
        healthcheck: {test: [CMD, "true"], interval: 50ms, timeout: 5s}
      b: {<<: *one, depends_on: {a: {condition: service_healthy}}}
      c: {<<: *one, depends_on: {b: {condition: service_healthy}}}
      d: {<<: *one, depends_on: {c: {condition: service_healthy}}}
"""
GATES = 3
QUIET_SECONDS = 0.4
"""What the chain takes when nothing else runs on two cores."""
NOISES = {
    "output": """
          n: {x-rootfs: {path: $BOX}, command: sh -c "yes flood", cpus: 0.3, stop_grace_period: 0s}
    """,
    "flapping": "\n".join(
        f"          n{number}: {{x-rootfs: {{path: $BOX}}, command: 'false', restart: always}}"
        for number in range(20)
    ),
    "names": """
          n:
            x-rootfs: host
            command: sh -c "sleep 0.2; exec python3 -S /out/flood.py"
            volumes: ["$DIR:/out:ro"]
            cpus: 0.3
            stop_grace_period: 0s
    """,
    "health checks": """
          n:
            x-rootfs: {path: $BOX}
            command: sleep 999
            cpus: 0.3
            stop_grace_period: 0s
            healthcheck: {test: "head -c 1000000000 /dev/zero", interval: 50ms, timeout: 1s}
    """,
}


def chain(site: Site, times: int) -> float:
    """How long a chain of gates takes, in seconds: the median of some."""
    found = []
    for _ in range(times):
        began = time.monotonic()
        site.up(CHAIN)
        found.append(time.monotonic() - began)
        site.down("chain")
    return statistics.median(found)


@pytest.mark.parametrize("noise", NOISES if LONG else ("output", "names"))
def test_a_stack_that_makes_noise_delays_no_gate_of_another_by_a_tenth_of_a_second(
    site: Site, noise: str
) -> None:
    (site.dir / "flood.py").write_text(FLOOD)
    times = 9 if LONG else 3
    quiet = chain(site, times)
    talk = site.begin_up(f"name: noise\nservices:\n{NOISES[noise]}")
    time.sleep(patient(0.6))
    loud = chain(site, times)
    talk.leave()
    site.down("noise")
    print(
        f"{noise}: {quiet:.3f} s quiet, {loud:.3f} s beside it, {(loud - quiet) / GATES * 1000:+.0f} ms a gate"
    )
    busy = max(1.0, quiet / QUIET_SECONDS)  # others' work on this machine makes everything slower
    assert loud - quiet < patient(0.1) * GATES * busy
