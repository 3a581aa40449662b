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
import os
import re
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
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
    table = _Table.read()
    neighbours = _neighbours(table) if root is None else _Neighbours()
    mounts = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return Look(
        things={
            "process": dict(_processes(root, neighbours, table)),
            "mount": dict(_mounts(root, neighbours, mounts)),
            "interface": dict(_interfaces(root, neighbours)),
            "network namespace": {} if root else dict(_network_namespaces(neighbours, table, mounts)),
            "control group": dict(_control_groups(root, neighbours, mounts)),
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


def _processes(root: Root | None, neighbours: _Neighbours, table: _Table) -> Iterator[tuple[str, str]]:
    own_namespace = os.stat("/proc/self/ns/pid").st_ino
    for pid, process in table.rows.items():
        if pid in neighbours.processes or pid in table.family:
            continue
        with contextlib.suppress(OSError):
            if root is not None:
                ours = f"{root.run}" in process.command or _bears(process.groups, root)
            else:
                ours = (
                    process.name.startswith("pystack")
                    or "pystack" in process.groups
                    or _is_server(process.command)
                    or os.stat(f"/proc/{pid}/ns/pid").st_ino != own_namespace
                )
            if ours:
                if process.state == "Z" and process.parent == 1:
                    continue  # its end is the machine's init's to collect, which may take its time
                if process.state == "Z" and root is not None and process.parent == os.getpid():
                    continue  # a supervisor that we started as its client and killed
                place = f"(state {process.state}, parent {process.parent})"
                yield (
                    f"{pid}@{process.since}",
                    f"{pid} {process.name!r} {place} {process.command[:160].strip()}",
                )


def _is_server(command: str) -> bool:
    return "orchestrator.daemon" in command or "kernel/keeper.py" in command


def _mounts(
    root: Root | None, neighbours: _Neighbours, mounts: Sequence[Sequence[str]]
) -> Iterator[tuple[str, str]]:
    for fields in mounts:
        kind = fields[fields.index("-") + 1]
        below = f"{root.path}/" in f"{fields[4]}/" if root else not neighbours.owns_path(fields[4])
        if below:
            yield f"{fields[0]} {fields[4]}", f"{fields[4]} ({kind})"


def _interfaces(root: Root | None, neighbours: _Neighbours) -> Iterator[tuple[str, str]]:
    for index, name in socket.if_nameindex():
        if name.startswith(f"ps{root.tag}") if root else not neighbours.own_mark(name):
            yield f"{index} {name}", name


def _network_namespaces(
    neighbours: _Neighbours, table: _Table, mounts: Sequence[Sequence[str]]
) -> Iterator[tuple[str, str]]:
    """Whoever holds one: a process in it, an open descriptor, a bind mount."""
    for pid, process in table.rows.items():
        if pid in neighbours.processes:
            continue
        with contextlib.suppress(OSError):
            seen = os.readlink(f"/proc/{pid}/ns/net")
            yield seen, f"{seen} of process {pid} {process.name}"
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/{pid}/fd/{number}")
                    if target.startswith("net:["):
                        yield target, f"{target} held by descriptor {number} of process {pid} {process.name}"
    for fields in mounts:
        if fields[3].startswith("net:["):
            yield fields[3], f"{fields[3]} mounted at {fields[4]}"


def mount_points() -> list[str]:
    """Where something is mounted on the host, but for the words by which ends of processes are known
    (kernel.pins): they come and go with runs."""
    rows = (line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return sorted(row[4] for row in rows if row[row.index("-") + 1] != "pidfs")


def _control_groups(
    root: Root | None, neighbours: _Neighbours, mounts: Sequence[Sequence[str]]
) -> Iterator[tuple[str, str]]:
    for fields in mounts:
        if fields[fields.index("-") + 1] in {"cgroup", "cgroup2"}:
            for folder, names, _ in os.walk(fields[4]):
                names[:] = [name for name in names if not _APART.fullmatch(name)]
                for name in names:
                    path = f"{folder}/{name}"
                    if _bears(path, root) if root else "pystack" in path and not neighbours.own_mark(path):
                        yield path, path


def _tables(root: Root | None, neighbours: _Neighbours) -> Iterator[tuple[str, str]]:
    if os.geteuid() != 0:
        return
    for name in _all_tables():
        if _bears(name, root) if root else not neighbours.own_mark(name):
            yield name, name


def _all_tables() -> Iterator[str]:
    """As `nft list tables` says them, without its 8 ms (linux/netfilter/nf_tables.h, NFT_MSG_GETTABLE)."""
    ask, dump, done, failed = 10 << 8 | 1, 0x301, 3, 2
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netfilter:
        netfilter.send(struct.pack("=IHHIIBBH", 20, ask, dump, 1, 0, 0, 0, 0))
        while True:
            answer = netfilter.recv(1 << 16)
            while answer:
                size, kind = struct.unpack_from("=IH", answer)
                if kind == failed and (number := -struct.unpack_from("=i", answer, 16)[0]):
                    raise OSError(number, os.strerror(number), "the tables of nftables")
                if kind in (done, failed):
                    return
                words, at = {}, 20
                while at < size:
                    length, word = struct.unpack_from("=HH", answer, at)
                    words[word & 0x3FFF] = answer[at + 4 : at + length]
                    at += length + 3 & ~3
                family = answer[16]
                yield f"{_FAMILIES.get(family, family)} {words[1].rstrip(bytes(1)).decode()}"
                answer = answer[size + 3 & ~3 :]


_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_APART = re.compile(r"apart-\d+")
"""A control group that stands for a machine of its own (tests/apart)."""


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


def _neighbours(table: _Table) -> _Neighbours:
    served = {pid: found[1] for pid, row in table.rows.items() if (found := _SERVER.search(row.command))}
    runs = {run for run in served.values() if not _is_mine(run)}
    tags = [f"pystack-{_tag(run)}" for run in runs]
    strangers = {
        pid for pid, row in table.rows.items() if _SESSION.search(row.command) and pid not in table.family
    }
    strangers |= {pid for pid, run in served.items() if run in runs}
    strangers |= {pid for pid, row in table.rows.items() if any(tag in row.groups for tag in tags)}
    own = {pid for pid, run in served.items() if run not in runs}
    return _Neighbours(
        processes=frozenset(pid for pid in table.rows if strangers.intersection(table.line(pid))) - own,
        runs=frozenset(runs),
    )


def _is_mine(run: str) -> bool:
    return BASE is None or Path(run).is_relative_to(BASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A process, as /proc tells it."""

    name: str
    state: str
    parent: int
    since: str
    command: str
    groups: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """All processes at one moment but the kernel's own threads: each file is read once a look."""

    rows: dict[int, _Row]
    family: frozenset[int]
    """We ourselves, and those we descend from, whatever their command lines say."""

    @classmethod
    def read(cls) -> _Table:
        rows: dict[int, _Row] = {}
        for pid in os.listdir("/proc"):
            if pid.isdigit():
                with contextlib.suppress(OSError):
                    stat = _bytes(f"/proc/{pid}/stat").decode(errors="replace")
                    fields = stat[stat.rindex(")") + 2 :].split()
                    if int(fields[6]) & _KERNEL_THREAD:
                        continue
                    rows[int(pid)] = _Row(
                        name=stat[stat.index("(") + 1 : stat.rindex(")")],
                        state=fields[0],
                        parent=int(fields[1]),
                        since=fields[19],
                        command=_bytes(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace"),
                        groups=_bytes(f"/proc/{pid}/cgroup").decode(errors="replace"),
                    )
        return cls(rows=rows, family=frozenset(_line(os.getpid(), rows)))

    def line(self, pid: int) -> Iterator[int]:
        return _line(pid, self.rows)


def _line(pid: int, rows: Mapping[int, _Row]) -> Iterator[int]:
    """A process and those it descends from, but the first of all."""
    while pid > 1:
        yield pid
        pid = rows[pid].parent if pid in rows else 0


_KERNEL_THREAD = 0x00200000  # PF_KTHREAD of linux/sched.h, in field 9 of proc_pid_stat(5)


def _bytes(path: str) -> bytes:
    """The whole file; those of /proc give all of it that fits."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


# --- small parts ------------------------------------------------------------------------------------------


def _bears(text: str, root: Root) -> bool:
    """Our names say pystack-TAG; interface names and the like have a form of their own."""
    return re.search(rf"pystack[-\w]*{re.escape(root.tag)}", text) is not None


def _tag(run: str) -> str:
    """As kernel/interfaces makes it of a run directory; a contract, so said again here."""
    return base64.b32encode(hashlib.sha256(os.fsencode(run)).digest()).decode().lower()[:4]
