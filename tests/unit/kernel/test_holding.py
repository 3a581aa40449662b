"""Whether control files still say what was asked for, by what they mean."""

from __future__ import annotations

import pytest

from orchestrator.kernel.holding import holds, shown, wanted
from orchestrator.kernel.limits import Hierarchies, IoLimit, Limits, Setting

V2 = Hierarchies(mode="v2", v1={}, unified="/x", v2=frozenset(("memory", "cpu", "pids", "io", "cpuset")))
V1 = Hierarchies(
    mode="v1",
    v1={name: f"/{name}" for name in ("memory", "cpu", "pids", "blkio", "cpuset")},
    unified=None,
    v2=frozenset(),
)
LIMITS = Limits(
    memory=64 << 20, cpus=0.5, pids=50, cpuset="0-2,4", io=(IoLimit(major=8, minor=0, read_bps=1000),)
)


@pytest.mark.parametrize(
    ("file", "value", "text"),
    [
        ("memory.max", "67108864", "67108864"),
        ("memory.max", "67108865", "67108864"),
        ("memory.max", "max", "max"),
        ("memory.limit_in_bytes", "-1", "9223372036854771712"),
        ("cpu.max", "50000 100000", "50000 100000"),
        ("pids.max", "max", "max"),
        ("cpuset.cpus", "0-2,4", "0-2,4"),
        ("cpuset.cpus", "0,1,2", "0-2"),
        ("memory.oom_control", "1", "oom_kill_disable 1\nunder_oom 0\noom_kill 0"),
        ("io.max", "8:0 rbps=1000", "8:16 rbps=1 wbps=max\n8:0 rbps=1000 wbps=max riops=max wiops=max"),
        ("blkio.throttle.read_bps_device", "8:0 1000", "8:0 1000"),
        ("io.weight", "200", "default 200"),
        ("blkio.weight", "500", "500"),
        ("memory.swappiness", "10", "10"),
    ],
)
def test_the_same_in_the_kernels_words(file: str, value: str, text: str) -> None:
    assert holds(Setting("x", file, value), text)


@pytest.mark.parametrize(
    ("file", "value", "text", "said"),
    [
        ("memory.max", "67108864", "50331648", "50331648"),
        ("memory.max", "67108864", "max", "no limit"),
        ("memory.limit_in_bytes", "67108864", "9223372036854771712", "no limit"),
        ("cpu.max", "50000 100000", "20000 100000", "20000 100000"),
        ("pids.max", "50", "max", "max"),
        ("cpuset.cpus", "0-2", "0", "0"),
        ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0", "0"),
        ("io.max", "8:0 rbps=1000", "8:0 rbps=2000 wbps=max", "8:0 rbps=2000 wbps=max"),
        ("io.max", "8:0 rbps=1000", "", ""),
        ("blkio.throttle.read_bps_device", "8:0 1000", "8:16 1000", "8:16 1000"),
        ("io.weight", "200", "default 100", "default 100"),
    ],
)
def test_another_limit(file: str, value: str, text: str, said: str) -> None:
    setting = Setting("x", file, value)
    assert not holds(setting, text)
    assert shown(setting, text) == said


def test_a_weight_may_stand_in_the_file_of_another_scheduler() -> None:
    setting = Setting("io", "io.weight", "5051", instead=("io.bfq.weight", "500"))
    assert holds(setting, "default 5051")
    assert holds(setting, "500")
    assert not holds(setting, "100")


@pytest.mark.parametrize("hier", [V1, V2], ids=["v1", "v2"])
def test_what_nobody_limited_is_wanted_without_a_limit(hier: Hierarchies) -> None:
    files = {setting.file: setting.value for setting in wanted(hier, Limits())}
    asked = {setting.file: setting.value for setting in wanted(hier, LIMITS)}
    assert files["pids.max"] == "max"
    assert asked["pids.max"] == "50"
    assert set(files) - set(asked) == set()
    if hier is V2:
        assert (files["memory.max"], files["cpu.max"]) == ("max", "max 100000")
        assert (asked["memory.max"], asked["cpu.max"]) == (str(64 << 20), "50000 100000")
    else:
        assert (files["memory.limit_in_bytes"], files["cpu.cfs_quota_us"]) == ("-1", "-1")
