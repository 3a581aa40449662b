"""Capabilities by name and as bit masks (capabilities(7))."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from orchestrator.kernel import syscalls

# In the order of their numbers: include/uapi/linux/capability.h.
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
_NUMBERS = {name: number for number, name in enumerate(NAMES)}
ALL = (1 << len(NAMES)) - 1


class Sets(NamedTuple):
    """The five sets of a process, as bit masks."""

    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int


def mask(names: Iterable[str]) -> int:
    """The bit mask of some names (CAP_CHOWN, ...). ValueError names the first unknown one."""
    bits = 0
    for name in names:
        number = _NUMBERS.get(name)
        if number is None:
            raise ValueError(f"unknown capability {name!r}")
        bits |= 1 << number
    return bits


def wanted(capabilities: Mapping[str, Iterable[str]] | None, held: int) -> Sets:
    """The sets a process shall run with, of those asked for in OCI's `process.capabilities`.

    What this machine's own bounding set `held` lacks can't be given and is left out, as with
    `privileged: true` in a virtual machine. Nothing asked for: no capability at all. What is ambient
    must be permitted and inheritable, else the kernel refuses it (capabilities(7)).
    """
    given = capabilities or {}
    for name in given:
        if name not in Sets._fields:
            raise ValueError(f"unknown capability set {name!r}")
    asked = Sets(*(mask(given.get(name, ())) & held for name in Sets._fields))
    return asked._replace(
        effective=asked.effective & asked.permitted,
        ambient=asked.ambient & asked.permitted & asked.inheritable,
    )


def every(held: int) -> Sets:
    """The sets of a privileged process: all that this machine has; inheritable and ambient stay empty."""
    return Sets(held, held, held, 0, 0)


def held() -> int:
    """The bounding set of this process, as a mask; newer capabilities than we have names for included."""
    bits = 0
    for number in range(64):
        try:
            bits |= syscalls.prctl(syscalls.PR_CAPBSET_READ, number) << number
        except OSError:
            break
    return bits


def limit(bounding: int, held: int) -> None:
    """Drop everything else from the bounding set. Needs CAP_SETPCAP, so comes before `settle`."""
    excess = held & ~bounding
    for number in range(excess.bit_length()):
        if excess >> number & 1:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)


def settle(sets: Sets) -> None:
    """Take on the final effective, permitted, inheritable and ambient sets."""
    syscalls.capset(effective=sets.effective, permitted=sets.permitted, inheritable=sets.inheritable)
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(sets.ambient.bit_length()):
        if sets.ambient >> number & 1:
            syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)
