"""Which device nodes a container may use: the policy, and its two forms in the kernel.

The v1 `devices` controller takes rules as text; on the unified hierarchy the same decision is an eBPF
program of type BPF_PROG_TYPE_CGROUP_DEVICE (kernel: Documentation/admin-guide/cgroup-v2.rst, "Device
controller"; the program sees struct bpf_cgroup_dev_ctx of include/uapi/linux/bpf.h).
"""

from __future__ import annotations

import functools
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

_BPF_CALL = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2

_KIND = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRule:
    """Allow or deny `access` (of "rwm": read, write, mknod) to a device; None is any number.

    Kind "a" is every device there is and ignores the numbers, as in the v1 controller.
    """

    allow: bool = True
    kind: Literal["a", "b", "c"] = "c"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"

    def __str__(self) -> str:
        """The line that v1's devices.allow and devices.deny take."""
        if self.kind == "a":
            return "a"
        major = "*" if self.major is None else self.major
        minor = "*" if self.minor is None else self.minor
        return f"{self.kind} {major}:{minor} {self.access}"


NOTHING = DeviceRule(allow=False, kind="a")
EVERYTHING = DeviceRule(kind="a")

DEFAULT: tuple[DeviceRule, ...] = (
    NOTHING,
    # A node that cannot be opened does no harm, and package managers unpack them.
    DeviceRule(kind="c", access="m"),
    DeviceRule(kind="b", access="m"),
    DeviceRule(major=1, minor=3),  # null
    DeviceRule(major=1, minor=5),  # zero
    DeviceRule(major=1, minor=7),  # full
    DeviceRule(major=1, minor=8),  # random
    DeviceRule(major=1, minor=9),  # urandom
    DeviceRule(major=5, minor=0),  # tty
    DeviceRule(major=5, minor=1),  # console
    DeviceRule(major=5, minor=2),  # ptmx
    DeviceRule(major=136),  # pts/*
)
"""Docker's default: no device but the harmless ones that every container has."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Rules folded into what the kernel keeps: a default and the exceptions to it."""

    allow: bool
    exceptions: tuple[DeviceRule, ...]


def fold(rules: tuple[DeviceRule, ...]) -> Verdict:
    """Apply the rules in order, as the v1 controller does (security/device_cgroup.c).

    A rule that agrees with the default takes access away from the exception with exactly its kind and
    numbers; one that disagrees adds to it. "a" starts anew.
    """
    allow = True
    exceptions: dict[tuple[str, int | None, int | None], set[str]] = {}
    for rule in rules:
        if rule.kind == "a":
            allow = rule.allow
            exceptions.clear()
            continue
        key = (rule.kind, rule.major, rule.minor)
        if rule.allow == allow:
            exceptions.get(key, set()).difference_update(rule.access)
        else:
            exceptions.setdefault(key, set()).update(rule.access)
    return Verdict(
        allow,
        tuple(
            DeviceRule(
                allow=not allow,
                kind="b" if kind == "b" else "c",
                major=major,
                minor=minor,
                access="".join(sorted(access)),
            )
            for (kind, major, minor), access in exceptions.items()
            if access
        ),
    )


# --- eBPF: struct bpf_insn is opcode, dst|src<<4, s16 offset, s32 immediate --------------------------

_LOAD_W = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_MOVE_X, _MOVE_K = 0xBF, 0xB7
_AND_K32, _SHIFT_RIGHT_K32 = 0x54, 0x74
_JUMP_NE_K, _JUMP_NE_X, _JUMP_EQ_K = 0x55, 0x5D, 0x15
_EXIT = 0x95

# Registers: r1 is the context on entry, scratch later; r2 kind, r3 access, r4 major, r5 minor.


def _op(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, dst | src << 4, off, imm)


def assemble(verdict: Verdict) -> bytes:
    """The eBPF program that returns 1 where the access is allowed."""
    program = [
        _op(_LOAD_W, 2, 1, 0),
        _op(_MOVE_X, 3, 2),
        _op(_AND_K32, 2, imm=0xFFFF),
        _op(_SHIFT_RIGHT_K32, 3, imm=16),
        _op(_LOAD_W, 4, 1, 4),
        _op(_LOAD_W, 5, 1, 8),
    ]
    for rule in verdict.exceptions:
        program += _match(rule)
    program += [_op(_MOVE_K, 0, imm=int(verdict.allow)), _op(_EXIT)]
    return b"".join(program)


def _match(rule: DeviceRule) -> list[bytes]:
    """Return the rule's answer if it applies, else fall through to what comes next."""
    mask = sum(_ACCESS[letter] for letter in set(rule.access))
    # (opcode, dst, src, imm) of jumps to the end of this block; non-jumps stand as finished bytes.
    steps: list[tuple[int, int, int, int] | bytes] = [(_JUMP_NE_K, 2, 0, _KIND[rule.kind])]
    if rule.major is not None:
        steps.append((_JUMP_NE_K, 4, 0, rule.major))
    if rule.minor is not None:
        steps.append((_JUMP_NE_K, 5, 0, rule.minor))
    if mask != 7 or not rule.allow:
        steps += [_op(_MOVE_X, 1, 3), _op(_AND_K32, 1, imm=mask)]
        # To be allowed all that is asked must be in the rule; to be denied any part of it is enough.
        steps.append((_JUMP_NE_X, 1, 3, 0) if rule.allow else (_JUMP_EQ_K, 1, 0, 0))
    end = len(steps) + 2
    block = [
        step if isinstance(step, bytes) else _op(step[0], step[1], step[2], end - index - 1, step[3])
        for index, step in enumerate(steps)
    ]
    return [*block, _op(_MOVE_K, 0, imm=int(rule.allow)), _op(_EXIT)]


@functools.lru_cache(maxsize=16)
def program_of(rules: tuple[DeviceRule, ...]) -> bytes:
    """The eBPF program for the rules. Nearly all containers have the same ones."""
    return assemble(fold(rules))


def confine(group: str, program: bytes) -> None:
    """Attach the program to a new cgroup of the unified hierarchy (bpf(2)). Raises OSError where refused.

    With BPF_F_ALLOW_MULTI an access must please every program from here to the root, so what an
    ancestor forbids stays forbidden; calling it twice for one group adds a program instead of replacing.
    """
    directory = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _loading:
            loaded = _loaded.get(program)
            if loaded is None:
                loaded = _load(program)
                if len(_loaded) < _KEPT:
                    _loaded[program] = loaded
        try:
            attach = struct.pack("=IIIIII", directory, loaded, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI, 0, 0)
            _bpf()(_PROG_ATTACH, attach)
        finally:
            if program not in _loaded:
                os.close(loaded)
    finally:
        os.close(directory)


_KEPT = 16
_loaded: dict[bytes, int] = {}
"""Programs in the kernel, by descriptors that stay: checking and compiling one takes longer than all else."""
_loading = threading.Lock()


def _load(program: bytes) -> int:
    """A descriptor, on which the kernel sets close-on-exec (kernel/bpf/syscall.c)."""
    import ctypes

    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    load = struct.pack(
        "=IIQQIIQII",
        _PROG_TYPE_CGROUP_DEVICE,
        len(program) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
    )
    return _bpf()(_PROG_LOAD, load)


@functools.cache
def _bpf() -> Callable[[int, bytes], int]:
    """bpf(2). Raises OSError where its number is not known."""
    import ctypes

    call = _BPF_CALL.get(os.uname().machine)
    if call is None:
        raise OSError(38, "bpf(2) is not known on this machine type")
    libc = ctypes.CDLL(None, use_errno=True)

    def bpf(command: int, attributes: bytes) -> int:
        buffer = ctypes.create_string_buffer(attributes, len(attributes))
        result: int = libc.syscall(
            ctypes.c_long(call), ctypes.c_long(command), buffer, ctypes.c_long(len(attributes))
        )
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, f"bpf: {os.strerror(error)}")
        return result

    return bpf
