"""CVE-2019-14271, CVE-2026-41567: inside a container we run none of its code with our rights."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.keeper import Machine, Refused, until

pytestmark = pytest.mark.kernel

LOOKS = "openat openat2 open execve execveat newfstatat stat lstat statx readlink readlinkat access faccessat2".split()
OWN = {"/etc/passwd", "/etc/group", "/dev/null", "/", ""}
"""What is read by our own parsers, what is opened for the program, and what has no name but a descriptor."""


@pytest.fixture
def watched(machine: Machine) -> Iterator[Path]:
    """Every file that the keeper and its children look at, from now on."""
    log = machine.root / "strace"
    words = [
        "strace",
        "-f",
        "-qq",
        "-s",
        "256",
        "-o",
        log,
        "-e",
        "trace=%file,setns",
        "-p",
        str(machine.keeper.pid),
    ]
    tracer = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    status = Path(f"/proc/{machine.keeper.pid}/status")
    until(lambda: f"TracerPid:\t{tracer.pid}\n" in status.read_text(), "strace")
    yield log
    tracer.send_signal(signal.SIGINT)
    tracer.wait()


def looked_at(log: Path) -> tuple[int, set[str]]:
    """How many processes were inside a container before their program ran, and what they looked at there."""
    inside: dict[str, bool] = {}
    found = set()
    for pid, call in calls(log.read_text()):
        name = call.partition("(")[0]
        if name == "pivot_root" or (name == "setns" and "CLONE_NEWNS" in call):
            inside[pid] = True
        elif name.startswith("exec") and inside.get(pid):
            found |= set() if call.endswith("= 0") else {f"{name} {path}" for path in paths(call)}
            inside[pid] = not call.endswith("= 0")
        elif name in LOOKS and inside.get(pid):
            found |= set(paths(call))
    return len(inside), found


def calls(text: str) -> Iterator[tuple[str, str]]:
    """Process and call, those whole that strace tells in two pieces."""
    begun: dict[str, str] = {}
    for line in text.splitlines():
        pid, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            begun[pid] = call.removesuffix("<unfinished ...>")
        else:
            yield pid, begun.pop(pid, "") + call.partition("resumed>")[2] if call.startswith("<...") else call


def paths(call: str) -> list[str]:
    return re.findall(r'"((?:[^"\\]|\\.)*)"', call)[:1]


def plant(image: Path) -> None:
    """Everything that a careless program would load from here, each leaving a mark when it runs."""
    library = Path(os.__file__).parent
    trojan = "open('/caught', 'a').write(__name__)\n"
    for module in (
        "encodings/__init__",
        "encodings/idna",
        "encodings/utf_16",
        "linecache",
        "traceback",
        "locale",
        "pwd",
        "sitecustomize",
    ):
        place = image / str(library / f"{module}.py").lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(trojan)
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
    for path in [
        *mapped,
        "/lib/x86_64-linux-gnu/libnss_files.so.2",
        "/usr/lib/x86_64-linux-gnu/gconv/UTF-16.so",
    ]:
        place = image / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"\x7fELF trojan")
    for name in ("xz", "gzip", "zstd", "tar"):
        place = image / "usr/bin" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("#!/bin/sh\necho ran > /caught\n")
        place.chmod(0o755)
    (image / "etc/nsswitch.conf").write_text("passwd: files\n")
    (image / "etc/ld.so.preload").write_text("/lib/trojan.so\n")


def test_between_the_pivot_and_the_program_nothing_of_the_image_is_loaded(
    machine: Machine, watched: Path
) -> None:
    """Starts and execs, good ones and such as fail at each late step, with a user to be looked up by name."""
    plant(machine.image)
    run = machine.start(["/bin/sleep", "100"], launch={"user": "app"}, process={"terminal": False})
    assert machine.exec(run, ["/bin/true"], user_name="web")[0] == 0
    wrong = [
        {"launch": {"user": "nobody"}},
        {"launch": {"groups": ["nobody"]}},
        {"process": {"cwd": "/proc/self/fd/5"}},
        {"process": {"capabilities": {"bounding": ["CAP_FLY"]}}},
        {"process": {"env": ["PATH=/bin", "A=" + "x" * 140_000]}},
        {"process": {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 40}]}},
    ]
    for number, bundle in enumerate(wrong):
        with pytest.raises(Refused):
            machine.start(["/bin/true"], name=f"wrong{number}", **bundle)
    with contextlib.suppress(Refused):
        machine.exec(run, ["/bin/true"], user_name="nobody")
    for args in (["/nowhere"], ["/etc"]):
        with pytest.raises(Refused):
            machine.start(args, name=f"none{args[0][1:]}")
    assert not list(machine.root.glob("layers/*/upper/caught"))
    run.kill()
    run.wait()
    count, found = looked_at(watched)
    assert count >= 9
    mine = {path for path in found if not path.startswith("execve ")}
    assert "/etc/passwd" in mine
    assert mine <= OWN, mine - OWN
    assert {path for path in found if path.startswith("execve ")} <= {
        "execve /nowhere",
        "execve /etc",
        "execve /bin/true",
    }


def test_the_keeper_itself_imports_nothing_once_it_serves(machine: Machine, watched: Path) -> None:
    """Else a child, forked in the middle, would do so inside: all its modules are there before the first start."""
    machine.outcome(["true"])
    with contextlib.suppress(Refused):
        machine.start(["nowhere"])
    loaded = re.compile(r"\.(py|pyc|so)[\"./]")
    lines = [line for line in watched.read_text().splitlines() if loaded.search(line)]
    assert not lines, lines[:5]
