"""Device rules fold and assemble to the decisions of the v1 controller.

The eBPF programs are run by a small interpreter here, and by the kernel in tests/kernel/test_cgroups.py.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.kernel.devices import DEFAULT, EVERYTHING, NOTHING, DeviceRule, assemble, fold

BITS = {"m": 1, "r": 2, "w": 4}


def permits(  # one case an instruction
    program: bytes, kind: str, major: int, minor: int, access: str
) -> bool:
    """What the kernel would answer (the subset of eBPF that device programs use)."""
    context = (sum(BITS[a] for a in access) << 16 | {"b": 1, "c": 2}[kind], major, minor)
    code = [struct.unpack_from("<BBhi", program, at) for at in range(0, len(program), 8)]
    r = [0] * 10
    at = 0
    while True:
        op, registers, offset, immediate = code[at]
        dst, src = registers & 15, registers >> 4
        at += 1
        match op:
            case 0x61:
                assert src == 1
                r[dst] = context[offset // 4]
            case 0xBF:
                r[dst] = r[src]
            case 0xB7:
                r[dst] = immediate
            case 0x54:
                r[dst] &= immediate
            case 0x74:
                r[dst] >>= immediate
            case 0x55:
                at += offset if r[dst] != immediate else 0
            case 0x5D:
                at += offset if r[dst] != r[src] else 0
            case 0x15:
                at += offset if r[dst] == immediate else 0
            case 0x95:
                return bool(r[0])
            case _:
                raise AssertionError(f"unknown instruction {op:#x}")


def test_a_rule_reads_like_the_v1_file() -> None:
    assert str(DeviceRule(major=136)) == "c 136:* rwm"
    assert str(DeviceRule(kind="b", major=8, minor=1, access="r")) == "b 8:1 r"
    assert str(EVERYTHING) == str(NOTHING) == "a"


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "allowed"),
    [
        ("c", 1, 3, "rw", True),
        ("c", 1, 9, "r", True),
        ("c", 1, 1, "r", False),  # /dev/mem
        ("c", 5, 0, "rw", True),
        ("c", 5, 1, "rw", True),
        ("c", 136, 77, "rw", True),
        ("b", 254, 0, "r", False),  # a disk
        ("b", 254, 0, "m", True),  # its node may be made, not opened
        ("b", 254, 0, "mr", False),
        ("c", 10, 229, "rw", False),  # fuse
    ],
)
def test_the_default_rules(kind: str, major: int, minor: int, access: str, allowed: bool) -> None:
    assert permits(assemble(fold(DEFAULT)), kind, major, minor, access) is allowed


def test_a_later_rule_adds_to_the_default_ones_and_another_takes_away() -> None:
    fuse = DeviceRule(major=10, minor=229, access="rw")
    assert permits(assemble(fold((*DEFAULT, fuse))), "c", 10, 229, "rw")
    silent = DeviceRule(allow=False, major=1, minor=3, access="w")
    program = assemble(fold((*DEFAULT, silent)))
    assert permits(program, "c", 1, 3, "r")
    assert not permits(program, "c", 1, 3, "w")


def test_after_everything_a_denial_is_an_exception() -> None:
    program = assemble(fold((EVERYTHING, DeviceRule(allow=False, major=1, minor=1, access="w"))))
    assert permits(program, "c", 1, 1, "r")
    assert not permits(program, "c", 1, 1, "rw")
    assert permits(program, "b", 8, 0, "rwm")


ACCESS = st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"])
NUMBER = st.none() | st.integers(0, 2)
RULE = st.builds(
    DeviceRule,
    allow=st.booleans(),
    kind=st.sampled_from(["a", "b", "c", "c"]),
    major=NUMBER,
    minor=NUMBER,
    access=ACCESS,
)


@settings(max_examples=300, deadline=None)
@given(
    rules=st.lists(RULE, max_size=8),
    kind=st.sampled_from(["b", "c"]),
    major=st.integers(0, 2),
    minor=st.integers(0, 2),
    access=ACCESS,
)
def test_the_program_decides_as_the_folded_rules_say(
    rules: list[DeviceRule], kind: str, major: int, minor: int, access: str
) -> None:
    verdict = fold(tuple(rules))
    same = [
        rule
        for rule in verdict.exceptions
        if rule.kind == kind and rule.major in (None, major) and rule.minor in (None, minor)
    ]
    if verdict.allow:
        expected = not any(set(access) & set(rule.access) for rule in same)
    else:
        expected = any(set(access) <= set(rule.access) for rule in same)
    assert permits(assemble(verdict), kind, major, minor, access) is expected
