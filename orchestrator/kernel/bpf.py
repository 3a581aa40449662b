"""Classic BPF for seccomp: comparisons of arguments, and a search for the call's number.

struct sock_filter is opcode, distance if true, distance if false, operand (include/uapi/linux/filter.h);
the program reads struct seccomp_data (include/uapi/linux/seccomp.h). Only instructions that the kernel can
run in advance are used around the arguments, so that it remembers calls that are always allowed and skips
the program for them (kernel/seccomp.c, seccomp_is_const_allow).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

LOAD, JUMP, EQUAL, MORE, MORE_EQUAL, AND, RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x54, 0x06
NUMBER, ARCH, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
MOST: Final = 4096  # instructions, BPF_MAXINSNS
_FAR: Final = 10_000

Code = list[tuple[int, int, int, int]]
# A comparison before its jumps are known: opcode, operand, and where to go if true and if false: "ok", "no",
# or "" for the next step.
Step = tuple[int, int, str, str]
_LOAD_LOW, _OK_LABEL = -1, -2  # markers among the steps


@dataclass(frozen=True, slots=True)
class Comparison:
    """One argument of a call (0..5) compared as an unsigned 64-bit number."""

    index: int
    op: str
    value: int
    value_two: int


@dataclass(frozen=True, slots=True)
class Rule:
    """What to return for a call whose arguments all compare."""

    verdict: int
    comparisons: tuple[Comparison, ...] = ()


def _compare_equal(_: int, high: int, low: int) -> list[Step]:
    return [(EQUAL, high, "", "no"), (_LOAD_LOW, 0, "", ""), (EQUAL, low, "ok", "no")]


def _compare_different(_: int, high: int, low: int) -> list[Step]:
    return [(EQUAL, high, "", "ok"), (_LOAD_LOW, 0, "", ""), (EQUAL, low, "no", "ok")]


def _compare_more(opcode: int, high: int, low: int) -> list[Step]:
    return [
        (MORE, high, "ok", ""),
        (EQUAL, high, "", "no"),
        (_LOAD_LOW, 0, "", ""),
        (opcode, low, "ok", "no"),
    ]


def _compare_less(opcode: int, high: int, low: int) -> list[Step]:
    return [
        (MORE, high, "no", ""),
        (EQUAL, high, "", "ok"),
        (_LOAD_LOW, 0, "", ""),
        (opcode, low, "no", "ok"),
    ]


# The steps begin with the high word loaded; the marker stands for loading the low word.
OPERATORS: Final = {
    "SCMP_CMP_EQ": (_compare_equal, EQUAL),
    "SCMP_CMP_NE": (_compare_different, EQUAL),
    "SCMP_CMP_GT": (_compare_more, MORE),
    "SCMP_CMP_GE": (_compare_more, MORE_EQUAL),
    "SCMP_CMP_LT": (_compare_less, MORE_EQUAL),
    "SCMP_CMP_LE": (_compare_less, MORE),
    "SCMP_CMP_MASKED_EQ": (_compare_equal, EQUAL),
}


def _rule_code(rule: Rule) -> Code:
    """Return the verdict if every comparison holds, else fall off the end."""
    steps: list[Step] = []
    for comparison in rule.comparisons:
        low = ARGUMENTS + 8 * comparison.index  # both machines are little-endian
        build, opcode = OPERATORS[comparison.op]
        masked = comparison.op == "SCMP_CMP_MASKED_EQ"
        value = comparison.value_two if masked else comparison.value
        mask = comparison.value if masked else (1 << 64) - 1
        steps.append((LOAD, low + 4, "", ""))
        if masked:
            steps.append((AND, mask >> 32, "", ""))
        for code, operand, yes, no in build(opcode, value >> 32, value & 0xFFFFFFFF):
            if code == _LOAD_LOW:
                steps.append((LOAD, low, "", ""))
                if masked:
                    steps.append((AND, mask & 0xFFFFFFFF, "", ""))
            else:
                steps.append((code, operand, yes, no))
        steps.append((_OK_LABEL, 0, "", ""))  # where this comparison's "ok" leads
    return _resolve(steps, rule.verdict)


def _resolve(steps: list[Step], verdict: int) -> Code:
    """Turn "ok" and "no" into distances and drop the markers."""
    position: list[int] = []  # of each step in the code
    at = 0
    for step in steps:
        position.append(at)
        at += step[0] != _OK_LABEL
    end = at + 1  # after the return
    code: Code = []
    for index, (opcode, operand, yes, no) in enumerate(steps):
        if opcode == _OK_LABEL:
            continue
        follows = position[index] + 1
        marker = next(i for i in range(index, len(steps)) if steps[i][0] == _OK_LABEL)
        goal = {"ok": position[marker], "no": end, "": follows}
        code.append((opcode, goal[yes] - follows, goal[no] - follows, operand))
    return [*code, (RETURN, 0, 0, verdict)]


def _leaf(rules: Sequence[Rule]) -> Code:
    return [instruction for rule in rules for instruction in _rule_code(rule)]


def ranges(
    table: Mapping[int, Sequence[Rule]], *, between: int, beyond: int
) -> list[tuple[int, Sequence[Rule]]]:
    """(first number, its rules) in order, for every number there is.

    `between` is the verdict for numbers that have no rules, `beyond` for those above all that have.
    """
    found: list[tuple[int, Sequence[Rule]]] = []

    def add(first: int, rules: Sequence[Rule]) -> None:
        if not found or found[-1][1] != rules:
            found.append((first, rules))

    following = 0
    for number in sorted(table):
        if number > following:
            # arm keeps a handful of calls of its own far above the others (0xf0001).
            add(following, [Rule(beyond if number - following > _FAR else between)])
        add(number, table[number])
        following = number + 1
    add(following, [Rule(beyond)])
    return found


def tree(found: Sequence[tuple[int, Sequence[Rule]]]) -> Code:
    """Binary search for the range of the number in the accumulator."""
    if len(found) == 1:
        return _leaf(found[0][1])
    middle = len(found) // 2
    left, right = tree(found[:middle]), tree(found[middle:])
    first = found[middle][0]
    if len(left) <= 255:  # the distance of a conditional jump is one byte
        return [(MORE_EQUAL, len(left), 0, first), *left, *right]
    return [(MORE_EQUAL, 0, 1, first), (JUMP, 0, 0, len(left)), *left, *right]


def pack(code: Iterable[tuple[int, int, int, int]]) -> bytes:
    """The program as the kernel takes it."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
