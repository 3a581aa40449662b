"""One container changes names while another one starts: whatever is mounted, masked or opened stays inside.

CVE-2021-30465, CVE-2024-45310, CVE-2023-0778 (mount points), CVE-2025-31133, 52565, 52881 (/dev/null,
/dev/console, /dev/pts and writes to /proc), CVE-2019-19921, CVE-2023-27561 (masks).
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.keeper import DOCKER_CAPABILITIES, Machine, Refused, Run, bind, mount

pytestmark = pytest.mark.kernel

STARTS = 500
AT_ONCE = 6
SETTINGS = ("kernel/core_pattern", "kernel/hostname", "kernel/panic", "vm/overcommit_memory")


def settings() -> list[str]:
    return [Path("/proc/sys", name).read_text() for name in SETTINGS]


def look(place: Path) -> list[tuple[str, int, int, bytes]]:
    """Names, kinds, sizes and contents below a directory of the host."""
    found = []
    for path in sorted(place.rglob("*")):
        state = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(state.st_mode) else b""
        found.append((str(path), stat.S_IFMT(state.st_mode), state.st_size, content))
    return found


def lay_traps(volume: Path, decoy: Path) -> list[str]:
    """A volume with pairs of names to be exchanged: something honest, and a link to the host."""
    (volume / "swap").mkdir(parents=True)
    dev = volume / "dev"
    (dev / "pts").mkdir(parents=True)
    os.mknod(dev / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (dev / "console").write_text("")
    (dev / "secret").mkdir()
    links = {
        "swap": decoy,
        "dev/null": "/proc/sys/kernel/core_pattern",
        "dev/console": decoy / "file",
        "dev/pts": decoy,
        "dev/secret": decoy,
    }
    for name, goal in links.items():
        (volume / f"{name}.link").symlink_to(goal)
    return [word for name in links for word in (f"/vol/{name}", f"/vol/{name}.link")]


@pytest.fixture
def decoy(machine: Machine) -> Path:
    place = machine.root / "decoy"
    (place / "in").mkdir(parents=True)
    (place / "file").write_text("the host's")
    return place


def victims(machine: Machine, volume: Path) -> Iterator[Run]:
    """Containers with everything in the volume that the attacker changes; every fourth with a terminal."""
    mounts = [
        mount("/proc", "proc", []),
        bind(volume / "dev", "/dev"),
        mount("/dev/pts", "devpts", ["newinstance", "ptmxmode=0666"]),
        bind(volume, "/vol"),
        mount("/vol/swap/in", "tmpfs", []),
        mount("/vol/swap/deep/er", "tmpfs", []),
    ]
    linux = {"maskedPaths": ["/proc/keys", "/dev/secret", "/proc/timer_list"], "readonlyPaths": ["/proc/sys"]}
    script = "cat /proc/keys /proc/timer_list; echo x > /proc/sys/kernel/core_pattern"
    for number in range(STARTS):
        yield machine.prepare(
            f"victim{number}",
            ["sh", "-c", script],
            config={"mounts": mounts},
            linux={**linux, "namespaces": [{"type": kind} for kind in ("mount", "uts", "ipc", "pid")]},
            process={"terminal": number % 4 == 3, "oomScoreAdj": 100},
        )


def test_five_hundred_starts_beside_a_container_that_exchanges_everything(
    machine: Machine, attacker: Path, decoy: Path
) -> None:
    """Directories for links to the host below two mount points, /dev/null, /dev/console, /dev/pts and a masked
    directory. Each start succeeds with its masks in place, or is refused; the host is as before."""
    volume = machine.root / "volume"
    words = lay_traps(volume, decoy)
    shutil.copy(attacker, machine.image / "bin/attacker")
    machine.start(["attacker", "swap", *words], name="attacker", mounts=[bind(volume, "/vol")]).said("ready")
    before = (look(decoy), settings(), Path("/proc/self/mountinfo").read_text())
    good = refused = 0
    waiting: list[tuple[Run, int]] = []
    coming = victims(machine, volume)
    while True:
        for run in coming:
            waiting.append((run, machine.request(run)))
            if len(waiting) >= AT_ONCE:
                break
        if not waiting:
            break
        run, tag = waiting.pop(0)
        try:
            machine.confirm(run, tag)
        except Refused:
            refused += 1
            continue
        run.wait()
        assert run.master >= 0 or run.output() == "", "a mask was missing"
        good += 1
    assert good + refused == STARTS
    assert min(good, refused) > STARTS // 20, (good, refused)
    assert (look(decoy), settings(), Path("/proc/self/mountinfo").read_text()) == before


def test_what_a_neighbour_mounts_over_proc_in_a_shared_directory_changes_none_of_our_writes(
    machine: Machine,
) -> None:
    """CVE-2025-52881: it mounts its own things over /proc/self/attr and /proc/sys all the time; sysctls and
    oom scores of those who start still arrive where they belong."""
    volume = machine.root / "volume"
    (volume / "attr").mkdir(parents=True)
    admin = {kind: [*DOCKER_CAPABILITIES, "CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    script = """
        echo ready
        while :; do
            mount --bind /vol/attr /proc/self/attr; mount --bind /vol/attr /proc/sys; mount -t tmpfs x /vol/attr
            umount /vol/attr; umount /proc/sys; umount /proc/self/attr
        done 2>/dev/null
    """
    peer = machine.start(
        ["sh", "-c", script],
        name="peer",
        mounts=[bind(volume, "/vol", "rshared")],
        process={"capabilities": admin},
        linux={"maskedPaths": [], "readonlyPaths": []},
    )
    peer.said("ready")
    before = settings()
    for number in range(30):
        said = machine.shell(
            "cat /proc/self/oom_score_adj /proc/sys/net/core/somaxconn; cat /proc/self/attr/current >/dev/null; ls /vol",
            name=f"c{number}",
            mounts=[bind(volume, "/vol", "rslave")],
            process={"oomScoreAdj": 100 + number},
            linux={"sysctl": {"net.core.somaxconn": str(500 + number)}},
        )
        assert said.split()[:2] == [str(100 + number), str(500 + number)]
    assert settings() == before
