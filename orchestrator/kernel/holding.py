"""Whether control files still say what was written into them. Pure, but for `look`.

A file is compared by what it means: the kernel rounds bytes down to pages, has words for "no limit" and its
own way to write lists (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from orchestrator.kernel.controls import read
from orchestrator.kernel.limits import CPU_PERIOD, PARENT, Hierarchies, Limits, Setting, settings

_PAGE = os.sysconf("SC_PAGE_SIZE")
_UNLIMITED = 1 << 60  # v1 says "no limit" by the largest number of whole pages

_DEFAULTS = {
    2: (
        ("memory", "memory.max", "max"),
        ("memory", "memory.high", "max"),
        ("memory", "memory.swap.max", "max"),
        ("cpu", "cpu.max", f"max {CPU_PERIOD}"),
        ("cpu", "cpu.weight", "100"),
        ("pids", "pids.max", "max"),
    ),
    1: (
        ("memory", "memory.limit_in_bytes", "-1"),
        ("cpu", "cpu.cfs_quota_us", "-1"),
        ("cpu", "cpu.shares", "1024"),
        ("pids", "pids.max", "max"),
    ),
}
"""What a group says where nobody has asked for a limit."""


def wanted(hier: Hierarchies, limits: Limits) -> tuple[Setting, ...]:
    """What the control files of a group with these limits should say: those that were written, and those that
    nobody was meant to write. Raises CgroupError as `settings` does."""
    asked = tuple(setting for setting in settings(hier, limits) if setting.value != PARENT)
    named = {setting.file for setting in asked}
    silent = (
        Setting(controller, file, value)
        for version, rows in _DEFAULTS.items()
        for controller, file, value in rows
        if file not in named and (controller in hier.v2) == (version == 2)
    )
    return (*asked, *silent)


def directory(hier: Hierarchies, path: str, controller: str) -> str:
    """Where the group's files of a controller are."""
    return f"{hier.unified}/{path}" if controller in hier.v2 else f"{hier.v1.get(controller)}/{path}"


def look(hier: Hierarchies, path: str, asked: tuple[Setting, ...]) -> Mapping[Setting, str]:
    """What the files say now. Files that are not there are left out: on v1 a group may have no part in a
    controller, and then there is nothing to change."""
    found: dict[Setting, str] = {}
    for setting in asked:
        home = directory(hier, path, setting.controller)
        for file in (setting.file, *(setting.instead[:1] if setting.instead else ())):
            try:
                found[setting] = read(home, file).strip()
            except OSError:
                continue
            break
    return found


def holds(setting: Setting, text: str) -> bool:
    """Whether a file with this text says what `setting` asks for."""
    value = setting.value
    if setting.file.startswith("cpuset."):
        return _cores(value) == _cores(text)
    if setting.file == "memory.oom_control":
        return f"oom_kill_disable {value}" in text
    if setting.file.startswith(("io.", "blkio.")):
        return _device_line(setting, text)
    if setting.file.startswith("memory.") and setting.file != "memory.swappiness":
        return _bytes(value) == _bytes(text)
    return value.split() == text.split()


def shown(setting: Setting, text: str) -> str:
    """A file's text as a table shows it: of many lines, the one that it is about."""
    if setting.file == "memory.oom_control":
        return next((line.split()[-1] for line in text.splitlines() if "oom_kill_disable" in line), "0")
    if setting.file.startswith("memory.") and _bytes(text) >= _UNLIMITED:
        return setting.value if _bytes(setting.value) >= _UNLIMITED else "no limit"
    if setting.file.startswith(("io.", "blkio.")):
        device = setting.value.split(" ")[0] if ":" in setting.value else "default"
        return next((line for line in text.splitlines() if line.startswith(device)), text.partition("\n")[0])
    return text


def _bytes(text: str) -> int:
    word = text.split(maxsplit=1)[0] if text else "0"
    if word in ("max", "-1"):
        return _UNLIMITED
    if not word.isdigit():
        return -1
    return min(int(word) // _PAGE * _PAGE, _UNLIMITED)


def _cores(text: str) -> frozenset[int]:
    return frozenset(_each(text))


def _each(text: str) -> Iterator[int]:
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            yield from range(int(first), int(last or first) + 1)


def _device_line(setting: Setting, text: str) -> bool:
    """`8:0 rbps=1000 wbps=max`, `8:0 1000`, `default 100` and `100`."""
    values = [setting.value, *(setting.instead[1:] if setting.instead else ())]
    for value in values:
        device, _, figure = value.rpartition(" ")
        for line in text.splitlines():
            words = line.split()
            if device and words[:1] == [device] and figure in words[1:]:
                return True
            if not device and (words == [figure] or words == ["default", figure]):
                return True
    return False
