"""What is left on the machine after a test: compare two looks, and say precisely what is new.

It looks with the system's own eyes (/proc, /sys, nft), not through our code. Two widths:

    whole machine        everything new that could be a container's: for kernel tests
    one state root       only what bears the root's path or tag: for tests of whole stacks

Neighbours don't count: other test sessions that run on the machine, and living state roots outside of this
session's folder (`BASE`).

Judged: processes, mounts, network interfaces, network namespaces, control groups of every hierarchy, nftables
tables, files in the run directory.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.patience import patient

BASE: Path | None = None
"""Where this session's tests keep their files; None: whatever is new counts."""
SETTLE = 3.0
"""Seconds in which the kernel may still be taking things away: namespaces go in a worker of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A state root as `pystack --root` has it, with the marks that its things bear in the kernel."""

    path: Path

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def tag(self) -> str:
        return _tag(str(self.run))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Everything there is at one moment: kind -> {what identifies it: a sentence that describes it}."""

    things: dict[str, dict[str, str]] = field(default_factory=dict)

    def left_since(self, before: Look) -> dict[tuple[str, str], str]:
        """What is here now and was not before: (kind, what identifies it) -> a sentence."""
        return {
            (kind, key): f"{kind}: {text}"
            for kind, rows in self.things.items()
            for key, text in rows.items()
            if key not in before.things.get(kind, {})
        }


def look(root: Root | None = None) -> Look:
    """See what is there: of one state root, or of the whole machine."""
    neighbours = _neighbours() if root is None else _Neighbours()
    return Look(
        things={
            "process": dict(_processes(root, neighbours)),
            "mount": dict(_mounts(root, neighbours)),
            "interface": dict(_interfaces(root, neighbours)),
            "network namespace": {} if root else dict(_network_namespaces(neighbours)),
            "control group": dict(_control_groups(root, neighbours)),
            "nftables table": dict(_tables(root, neighbours)),
            "file": dict(_files(root)) if root else {},
        }
    )


def left(before: Look, root: Root | None = None, settle: float = SETTLE) -> list[str]:
    """What is still left once the kernel has had `settle` seconds; empty when all is gone.

    Only what was there all the time counts: what comes and goes meanwhile is somebody else's.
    """
    deadline = time.monotonic() + patient(settle)
    remains = look(root).left_since(before)
    while remains and time.monotonic() < deadline:
        time.sleep(0.05)
        now = look(root).left_since(before)
        remains = {key: now[key] for key in remains if key in now}
    return list(remains.values())


@contextlib.contextmanager
def nothing_left(root: Root | None = None, settle: float = SETTLE) -> Iterator[None]:
    """Fails when the block leaves anything behind."""
    before = look(root)
    yield
    remains = left(before, root, settle)
    assert not remains, "left behind:\n  " + "\n  ".join(remains)


def sweep(root: Root) -> None:
    """Take away by force what bears the marks of a state root: for a test that has failed half-way."""
    for _ in range(3):
        for key in look(root).things["process"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(key.partition("@")[0]), signal.SIGKILL)
        time.sleep(0.1)
    things = look(root).things
    for path in sorted(things["mount"].values(), key=len, reverse=True):
        subprocess.run(["umount", "--lazy", path.rpartition(" (")[0]], capture_output=True, check=False)
    for path in sorted(things["control group"], key=len, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(path)
    for name in things["interface"].values():
        subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)
    for name in things["nftables table"]:
        subprocess.run(["nft", "delete", "table", *name.split()], capture_output=True, check=False)


# --- the kinds --------------------------------------------------------------------------------------------


def _processes(root: Root | None, neighbours: _Neighbours) -> Iterator[tuple[str, str]]:
    own_namespace = os.stat("/proc/self/ns/pid").st_ino
    for pid in _pids() - neighbours.processes:
        with contextlib.suppress(OSError):
            process = Path(f"/proc/{pid}")
            stat = (process / "stat").read_text()
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            groups = (process / "cgroup").read_text()
            name, fields = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
            if root is not None:
                ours = f"{root.run}" in command or _bears(groups, root)
            else:
                foreign = os.stat(process / "ns/pid").st_ino != own_namespace
                ours = foreign or name.startswith("pystack") or "pystack" in groups or _is_server(command)
            if ours and not _within_own_family(pid):
                state, parent = fields[0], fields[1]
                if state == "Z" and parent == "1":
                    continue  # its end is the machine's init's to collect, which may take its time
                if state == "Z" and root is not None and parent == str(os.getpid()):
                    continue  # a supervisor that we started as its client and killed
                yield (
                    f"{pid}@{fields[19]}",
                    f"{pid} {name!r} (state {state}, parent {parent}) {command[:160]}",
                )


def _is_server(command: str) -> bool:
    return "orchestrator.daemon" in command or "kernel/keeper.py" in command


def _within_own_family(pid: int) -> bool:
    """We ourselves, and those we descend from, whatever their command lines say."""
    current = os.getpid()
    while current > 1:
        if current == pid:
            return True
        stat = Path(f"/proc/{current}/stat").read_text()
        current = int(stat[stat.rindex(")") + 2 :].split()[1])
    return False


def _mounts(root: Root | None, neighbours: _Neighbours) -> Iterator[tuple[str, str]]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        kind = fields[fields.index("-") + 1]
        below = f"{root.path}/" in f"{fields[4]}/" if root else not neighbours.owns_path(fields[4])
        if below:
            yield f"{fields[0]} {fields[4]}", f"{fields[4]} ({kind})"


def _interfaces(root: Root | None, neighbours: _Neighbours) -> Iterator[tuple[str, str]]:
    for index, name in socket.if_nameindex():
        if name.startswith(f"ps{root.tag}") if root else not neighbours.own_mark(name):
            yield f"{index} {name}", name


def _network_namespaces(neighbours: _Neighbours) -> Iterator[tuple[str, str]]:
    """Whoever holds one: a process in it, an open descriptor, a bind mount."""
    for pid in _pids() - neighbours.processes:
        with contextlib.suppress(OSError):
            seen = os.readlink(f"/proc/{pid}/ns/net")
            yield seen, f"{seen} of process {pid} {_name(pid)}"
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/{pid}/fd/{number}")
                    if target.startswith("net:["):
                        yield target, f"{target} held by descriptor {number} of process {pid} {_name(pid)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[3].startswith("net:["):
            yield fields[3], f"{fields[3]} mounted at {fields[4]}"


def mount_points() -> list[str]:
    """Where something is mounted on the host, but for the words by which ends of processes are known
    (kernel.pins): they come and go with runs."""
    rows = (line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return sorted(row[4] for row in rows if row[row.index("-") + 1] != "pidfs")


def _control_groups(root: Root | None, neighbours: _Neighbours) -> Iterator[tuple[str, str]]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[fields.index("-") + 1] in {"cgroup", "cgroup2"}:
            for folder, names, _ in os.walk(fields[4]):
                for name in names:
                    path = f"{folder}/{name}"
                    if _bears(path, root) if root else "pystack" in path and not neighbours.own_mark(path):
                        yield path, path


def _tables(root: Root | None, neighbours: _Neighbours) -> Iterator[tuple[str, str]]:
    if shutil.which("nft") is None or os.geteuid() != 0:
        return
    done = subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, text=True, check=True)
    for row in json.loads(done.stdout)["nftables"]:
        if "table" in row:
            name = f"{row['table']['family']} {row['table']['name']}"
            if _bears(name, root) if root else not neighbours.own_mark(name):
                yield name, name


def _files(root: Root) -> Iterator[tuple[str, str]]:
    for folder, folders, files in os.walk(root.run):
        for name in (*folders, *files):
            yield f"{folder}/{name}", f"{folder}/{name}"


# --- neighbours -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Neighbours:
    """Whose things are none of ours, though they come and go while we test."""

    processes: frozenset[int] = frozenset()
    runs: frozenset[str] = frozenset()
    """Run directories of living state roots."""

    def owns_path(self, path: str) -> bool:
        return any(path.startswith(f"{os.path.dirname(run)}/") for run in self.runs)

    def own_mark(self, text: str) -> bool:
        return any(re.search(rf"pystack-{_tag(run)}\b|^ps{_tag(run)}", text) for run in self.runs)


_SESSION = re.compile(r"(?:-m |/|^)pytest(?: |$)")
_SERVER = re.compile(r"(?:orchestrator\.daemon --run |kernel/keeper\.py )(\S+)")


def _neighbours() -> _Neighbours:
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    groups: dict[int, str] = {}
    for pid in _pids():
        with contextlib.suppress(OSError):
            process = Path(f"/proc/{pid}")
            stat = (process / "stat").read_text()
            commands[pid] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            groups[pid] = (process / "cgroup").read_text()
            parents[pid] = int(stat[stat.rindex(")") + 2 :].split()[1])
    served = {pid: found[1] for pid, text in commands.items() if (found := _SERVER.search(text))}
    runs = {run for run in served.values() if not _is_mine(run)}
    tags = [f"pystack-{_tag(run)}" for run in runs]
    strangers = {
        pid for pid, text in commands.items() if _SESSION.search(text) and not _within_own_family(pid)
    }
    strangers |= {pid for pid, run in served.items() if run in runs}
    strangers |= {pid for pid, text in groups.items() if any(tag in text for tag in tags)}
    own = {pid for pid, run in served.items() if run not in runs}
    return _Neighbours(
        processes=frozenset(pid for pid in parents if _descends(pid, strangers, parents)) - own,
        runs=frozenset(runs),
    )


def _is_mine(run: str) -> bool:
    return BASE is None or Path(run).is_relative_to(BASE)


def _descends(pid: int, ancestors: set[int], parents: dict[int, int]) -> bool:
    while pid > 1:
        if pid in ancestors:
            return True
        pid = parents.get(pid, 0)
    return False


# --- small parts ------------------------------------------------------------------------------------------


def _bears(text: str, root: Root) -> bool:
    """Our names say pystack-TAG; interface names and the like have a form of their own."""
    return re.search(rf"pystack[-\w]*{re.escape(root.tag)}", text) is not None


def _tag(run: str) -> str:
    """As kernel/interfaces makes it of a run directory; a contract, so said again here."""
    return base64.b32encode(hashlib.sha256(os.fsencode(run)).digest()).decode().lower()[:4]


def _pids() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()
