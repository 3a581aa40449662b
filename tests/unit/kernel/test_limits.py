"""Limits become the right control files with the right values, on v1 and on v2."""

from __future__ import annotations

import pytest

from orchestrator.kernel.limits import CgroupError, Hierarchies, IoLimit, Limits, settings, weight

V1 = Hierarchies(
    mode="v1",
    v1={name: f"/cg/{name}" for name in ("memory", "cpu", "cpuset", "pids", "blkio", "devices", "freezer")},
    unified=None,
    v2=frozenset(),
)
V2 = Hierarchies(mode="v2", v1={}, unified="/cg", v2=frozenset({"memory", "cpu", "cpuset", "pids", "io"}))
MIB = 1 << 20


def files(hier: Hierarchies, limits: Limits) -> list[str]:
    return [f"{setting.file}={setting.value}" for setting in settings(hier, limits)]


@pytest.mark.parametrize(
    ("limits", "on_v1", "on_v2"),
    [
        (Limits(), [], []),
        (
            Limits(memory=64 * MIB),
            [f"memory.limit_in_bytes={64 * MIB}", f"memory.memsw.limit_in_bytes={128 * MIB}"],
            [f"memory.max={64 * MIB}", f"memory.swap.max={64 * MIB}"],
        ),
        (
            Limits(memory=64 * MIB, memory_swap=64 * MIB),
            [f"memory.limit_in_bytes={64 * MIB}", f"memory.memsw.limit_in_bytes={64 * MIB}"],
            [f"memory.max={64 * MIB}", "memory.swap.max=0"],
        ),
        (
            Limits(memory=64 * MIB, memory_swap=-1),
            [f"memory.limit_in_bytes={64 * MIB}", "memory.memsw.limit_in_bytes=-1"],
            [f"memory.max={64 * MIB}", "memory.swap.max=max"],
        ),
        (Limits(memory_reservation=5), ["memory.soft_limit_in_bytes=5"], ["memory.low=5"]),
        (
            Limits(cpus=1.5),
            ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=150000"],
            ["cpu.max=150000 100000"],
        ),
        (Limits(cpus=0.01), ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=1000"], ["cpu.max=1000 100000"]),
        (Limits(cpu_shares=2048), ["cpu.shares=2048"], ["cpu.weight=174"]),
        (Limits(cpuset="0-2,5"), ["cpuset.cpus=0-2,5"], ["cpuset.cpus=0-2,5"]),
        (Limits(pids=64), ["pids.max=64"], ["pids.max=64"]),
        (Limits(pids=-1), ["pids.max=max"], ["pids.max=max"]),
        (
            Limits(io=(IoLimit(major=8, minor=0, read_bps=10, write_iops=20),)),
            ["blkio.throttle.read_bps_device=8:0 10", "blkio.throttle.write_iops_device=8:0 20"],
            ["io.max=8:0 rbps=10", "io.max=8:0 wiops=20"],
        ),
    ],
)
def test_a_limit_becomes_control_files(limits: Limits, on_v1: list[str], on_v2: list[str]) -> None:
    assert files(V1, limits) == on_v1
    assert files(V2, limits) == on_v2


def test_on_a_hybrid_machine_each_limit_goes_where_its_controller_is() -> None:
    hybrid = Hierarchies(mode="hybrid", v1={"memory": "/cg/memory"}, unified="/cg/u", v2=frozenset({"pids"}))
    assert [(s.controller, s.file) for s in settings(hybrid, Limits(memory=MIB, pids=1))] == [
        ("memory", "memory.limit_in_bytes"),
        ("memory", "memory.memsw.limit_in_bytes"),
        ("pids", "pids.max"),
    ]
    assert hybrid.bases == ("/cg/u", "/cg/memory")


@pytest.mark.parametrize(
    ("shares", "expected"), [(0, 1), (2, 1), (1024, 100), (262144, 10000), (10**9, 10000)]
)
def test_shares_become_a_weight_that_keeps_the_ends_and_the_middle(shares: int, expected: int) -> None:
    assert weight(shares) == expected


def test_more_shares_never_mean_less_weight() -> None:
    weights = [weight(shares) for shares in range(2, 262145, 97)]
    assert weights == sorted(weights)
    assert all(1 <= value <= 10000 for value in weights)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(memory=64, memory_swap=32), r"memory_swap \(32\) is memory and swap together"),
        (Limits(memory_swap=32), "memory_swap needs a memory limit"),
        (Limits(cpus=0.001), "cpus: 0.001 is too little"),
        (Limits(cpuset="0-"), "cpuset cpus: '0-' is not a list"),
        (Limits(cpuset="0\n1"), "is not a list"),
    ],
)
def test_a_limit_without_sense_is_refused(limits: Limits, words: str) -> None:
    for hier in (V1, V2):
        with pytest.raises(CgroupError, match=words):
            settings(hier, limits)
