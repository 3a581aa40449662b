"""How a process is scheduled, where its memory comes from, what it takes the kernel for: OCI's rarer wishes.

`read` understands them before the fork, `steer` does from outside what needs the rights of the host, `adopt`
does in the process itself what nobody else can. Sources: the runtime specification, config and config-linux;
sched_setattr(2), ioprio_set(2), personality(2), set_mempolicy(2).
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from orchestrator.kernel import rare
from orchestrator.kernel.reading import Document, RefusedError
from orchestrator.kernel.security import machine_lsms

# include/uapi/linux/sched.h
_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
_SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
# include/uapi/linux/ioprio.h
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
# include/uapi/linux/personality.h
_DOMAINS = {"LINUX": 0x0, "LINUX32": 0x8}
# include/uapi/linux/mempolicy.h
MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS = {
    "MPOL_F_STATIC_NODES": 1 << 15,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_NUMA_BALANCING": 1 << 13,
}
_NODES = 1024


class Manner(NamedTuple):
    """What was asked; None is nothing."""

    scheduler: bytes | None = None  # struct sched_attr
    io: int | None = None
    personality: int | None = None
    memory: tuple[int, bytes] | None = None  # mode with flags, bit mask of nodes
    first_cpus: frozenset[int] | None = None  # before the control group is joined
    cpus: frozenset[int] | None = None  # after
    label: tuple[str, str] | None = None  # file below /proc/self/attr, what to write there

    def steers(self) -> bool:
        """Whether anything has to be done from outside."""
        return self.scheduler is not None or self.io is not None or self.cpus is not None


def read(process: Document, linux: Document) -> Manner:
    """The wishes of `process`, and those in `linux`. Raises RefusedError."""
    personality = linux.table("personality")
    personality.only("domain")
    for key in ("mountLabel", "intelRdt"):
        if linux.raw.get(key):
            lacks = {"mountLabel": "SELinux", "intelRdt": "support for resource control (resctrl)"}[key]
            raise RefusedError(f"linux.{key}: pystack has no {lacks}")
    affinity = process.table("execCPUAffinity")
    affinity.only("initial", "final")
    return Manner(
        scheduler=_scheduler(process.table("scheduler")) if "scheduler" in process else None,
        io=_io(process.table("ioPriority")) if "ioPriority" in process else None,
        personality=_choice(personality, "domain", _DOMAINS) if "personality" in linux else None,
        memory=_memory(linux.table("memoryPolicy")) if "memoryPolicy" in linux else None,
        first_cpus=numbers(affinity.text("initial"), affinity.place) if "initial" in affinity else None,
        cpus=numbers(affinity.text("final"), affinity.place) if "final" in affinity else None,
        label=_label(process),
    )


def _choice(table: Document, key: str, known: dict[str, int]) -> int:
    word = table.text(key)
    if word not in known:
        raise RefusedError(f"{table.place}.{key}: {word!r} is none of {', '.join(known)}")
    return known[word]


def _flags(table: Document, known: dict[str, int]) -> int:
    bits = 0
    for word in table.texts("flags"):
        if word not in known:
            raise RefusedError(f"{table.place}.flags: {word!r} is none of {', '.join(known)}")
        bits |= known[word]
    return bits


def _scheduler(wanted: Document) -> bytes:
    wanted.only("policy", "nice", "priority", "flags", "runtime", "deadline", "period")
    policy, flags = _choice(wanted, "policy", _POLICIES), _flags(wanted, _SCHEDULER_FLAGS)
    nice, priority = wanted.number("nice"), wanted.number("priority")
    if not -20 <= nice <= 19:
        raise RefusedError(f"{wanted.place}.nice: {nice} is not between -20 and 19")
    if priority and policy not in (1, 2):
        raise RefusedError(f"{wanted.place}.priority: only SCHED_FIFO and SCHED_RR have one")
    if priority < 0 or priority > 99:
        raise RefusedError(f"{wanted.place}.priority: {priority} is not between 1 and 99")
    times = [wanted.number(key) for key in ("runtime", "deadline", "period")]
    if any(times) and policy != 6:
        raise RefusedError(f"{wanted.place}: only SCHED_DEADLINE has a runtime, a deadline and a period")
    return struct.pack("IIQiIQQQ", 48, policy, flags, nice, priority, *times)


def _io(wanted: Document) -> int:
    wanted.only("class", "priority")
    kind, priority = _choice(wanted, "class", _IO_CLASSES), wanted.number("priority")
    if not 0 <= priority <= 7:
        raise RefusedError(f"{wanted.place}.priority: {priority} is not between 0 and 7")
    return kind << 13 | priority


def _memory(wanted: Document) -> tuple[int, bytes]:
    wanted.only("mode", "nodes", "flags")
    mode = _choice(wanted, "mode", MEMORY_MODES) | _flags(wanted, MEMORY_FLAGS)
    bits = sum(1 << node for node in numbers(wanted.text("nodes"), wanted.place))
    return mode, bits.to_bytes(_NODES // 8, "little")


def numbers(text: str, place: str) -> frozenset[int]:
    """A list such as 0-3,7. Raises RefusedError."""
    found: set[int] = set()
    for part in text.replace(" ", "").split(",") if text.strip() else ():
        first, dash, last = part.partition("-")
        digits = first.isascii() and first.isdigit() and (not dash or (last.isascii() and last.isdigit()))
        if not digits or len(part) > 9 or int(last or first) >= _NODES or int(last or first) < int(first):
            raise RefusedError(f"{place}: {text!r} is not a list such as 0-3,7")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _label(process: Document) -> tuple[str, str] | None:
    """What AppArmor or SELinux shall make of the program; an error where this machine has neither."""
    profile, label = process.text("apparmorProfile"), process.text("selinuxLabel")
    modules = machine_lsms() if profile or label else frozenset()
    if profile and profile != "unconfined" and "apparmor" not in modules:
        raise RefusedError(f"process.apparmorProfile: {profile}: this machine has no AppArmor")
    if label and "selinux" not in modules:
        raise RefusedError(f"process.selinuxLabel: {label}: this machine has no SELinux")
    if label:
        return "exec", label
    return ("apparmor/exec", f"exec {profile}") if profile and "apparmor" in modules else None


def steer(pid: int, manner: Manner) -> None:
    """Scheduler, io priority and processors of another process. Raises OSError naming what was refused."""
    if manner.cpus is not None:
        _named("process.execCPUAffinity", os.sched_setaffinity, pid, manner.cpus)
    if manner.scheduler is not None:
        _named("process.scheduler", rare.sched_setattr, pid, manner.scheduler)
    if manner.io is not None:
        _named("process.ioPriority", rare.ioprio_set, pid, manner.io)


def adopt(manner: Manner) -> None:
    """Personality and memory policy of this process. Raises OSError naming what was refused."""
    if manner.personality is not None:
        _named("linux.personality", rare.personality, manner.personality)
    if manner.memory is not None:
        _named("linux.memoryPolicy", rare.set_mempolicy, *manner.memory)


def begin(manner: Manner) -> None:
    """On which processors to be while the control groups are joined."""
    if manner.first_cpus is not None:
        _named("process.execCPUAffinity", os.sched_setaffinity, 0, manner.first_cpus)


def _named(what: str, call: object, *arguments: object) -> None:
    assert callable(call)
    try:
        call(*arguments)
    except OSError as error:
        raise OSError(error.errno, f"{what}: {error.strerror}") from None


def open_label(proc: int, manner: Manner) -> int:
    """The file that takes the label, of a trusted /proc; -1 for none."""
    if manner.label is None:
        return -1
    return os.open(f"self/attr/{manner.label[0]}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)


def put_label(fd: int, manner: Manner) -> None:
    """For the next execve, so as the last thing. Raises OSError naming what the kernel doesn't know."""
    if manner.label is not None:
        file, text = manner.label
        key = "apparmorProfile" if file.startswith("apparmor") else "selinuxLabel"
        _named(f"process.{key}: {text.removeprefix('exec ')}", os.write, fd, text.encode())
        os.close(fd)
