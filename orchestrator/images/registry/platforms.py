"""Which entry of an index fits a machine. Pure, but for `this_machine`.

Names are Go's (GOOS, GOARCH, GOARM ...), as the OCI image specification wants them (image-index.md).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from orchestrator.images import config as configs
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass, replace

_ALIASES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
}
_ARCHITECTURES = frozenset(
    "386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x".split()
)
_LADDERS = {"arm": ("v8", "v7", "v6", "v5"), "amd64": ("v4", "v3", "v2", "v1"), "arm64": ("v9", "v8")}
_USUAL = {"arm": "v7", "amd64": "v1", "arm64": "v8"}
"""What no variant means."""
_WORD = re.compile(r"[A-Za-z0-9._-]{1,40}")

# What each level of the x86-64 ABI asks for beyond the one below it (System V psABI, 3.1.1), as
# /proc/cpuinfo spells it; a few stand for all, which came together in every processor made.
_LEVELS = (
    ("v2", frozenset("cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3".split())),
    ("v3", frozenset("avx avx2 bmi1 bmi2 f16c fma movbe".split())),
    ("v4", frozenset("avx512f avx512bw avx512cd avx512dq avx512vl".split())),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What an image runs on. `variant` is "" for the usual one."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def parse(text: str) -> Platform:
    """`OS/ARCH[/VARIANT]`, or one of the first two alone. Raises UserError."""
    parts = text.strip().lower().split("/")
    known = parts[0] in _ARCHITECTURES or parts[0] in _ALIASES
    if len(parts) == 1:
        parts = ["linux", parts[0]] if known else [parts[0], configs.architecture()]
        if not known and parts[0] not in ("linux", "windows", "darwin", "freebsd"):
            raise _invalid(text)
    if not 2 <= len(parts) <= 3 or not all(_WORD.fullmatch(part) for part in parts):
        raise _invalid(text)
    return normal(Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else ""))


def normal(platform: Platform) -> Platform:
    """One spelling for what has several: aarch64, arm64/v8 and arm64 are the same."""
    architecture, variant = platform.architecture.lower(), platform.variant.lower()
    if architecture in _ALIASES:
        architecture, usual = _ALIASES[architecture]
        variant = variant or usual
    if variant.isdigit():
        variant = f"v{variant}"
    if variant == _USUAL.get(architecture) and architecture != "arm":
        variant = ""
    if architecture == "arm" and not variant:
        variant = _USUAL["arm"]
    return Platform(os=platform.os.lower(), architecture=architecture, variant=variant)


def acceptable(wanted: Platform) -> Iterator[Platform]:
    """What runs on `wanted`, best first: an arm v7 machine runs v6 and v5, an amd64 v3 one v2 and v1."""
    wanted = normal(wanted)
    ladder = _LADDERS.get(wanted.architecture, ())
    usual = _USUAL.get(wanted.architecture, "")
    variant = wanted.variant or usual
    if variant not in ladder:
        yield wanted
        return
    for step in ladder[ladder.index(variant) :]:
        yield normal(replace(wanted, variant=step))


def fits(present: Platform, wanted: Platform) -> bool:
    """Whether an image for `present` runs where `wanted` does."""
    return normal(present) in set(acceptable(wanted))


def best(present: Iterable[Platform | None], wanted: Platform) -> int | None:
    """The index of the entry that fits best; one that names no platform only when no other fits."""
    entries = [normal(one) if one is not None else None for one in present]
    for step in acceptable(wanted):
        if step in entries:
            return entries.index(step)
    return entries.index(None) if None in entries else None


def this_machine() -> Platform:
    """The machine we run on; for amd64 with the level of its processor."""
    architecture = configs.architecture()
    if architecture == "arm":
        release = re.match(r"armv([5-8])", os.uname().machine)
        return normal(Platform(os="linux", architecture="arm", variant=f"v{release[1]}" if release else ""))
    variant = ""
    if architecture == "amd64":
        try:
            with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
                variant = level(file.read(16 << 10))
        except OSError:
            variant = ""
    return Platform(os="linux", architecture=architecture, variant=variant)


def level(cpuinfo: str) -> str:
    """The level of the x86-64 ABI that /proc/cpuinfo stands for, "" for the first."""
    found = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = frozenset(found[1].split()) if found else frozenset()
    reached = ""
    for name, needed in _LEVELS:
        if not needed <= flags:
            break
        reached = name
    return reached


def _invalid(text: str) -> UserError:
    return UserError(
        f"{text!r:.80} is not a platform",
        exit_code=ExitCode.USAGE,
        hint="write OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, for example linux/amd64 or linux/arm/v7",
    )
