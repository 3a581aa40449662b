"""OCI's linux.resources -> control files of v1 and v2, and what a machine can't do refused by name."""

from __future__ import annotations

import pytest

from orchestrator.kernel import resources
from orchestrator.kernel.limits import CgroupError, Hierarchies
from orchestrator.kernel.reading import Document, RefusedError

V1_NAMES = ("cpu", "cpuset", "memory", "devices", "blkio", "pids")
V1 = Hierarchies(
    mode="hybrid", v1={name: f"/cg/{name}" for name in V1_NAMES}, unified="/cg/unified", v2=frozenset()
)
FULL = Hierarchies(
    mode="v1",
    v1={name: f"/cg/{name}" for name in (*V1_NAMES, "hugetlb", "net_cls", "net_prio", "rdma")},
    unified=None,
    v2=frozenset(),
)
V2 = Hierarchies(
    mode="v2",
    v1={},
    unified="/cg",
    v2=frozenset({"cpu", "cpuset", "memory", "io", "pids", "hugetlb", "rdma"}),
)


def files(hier: Hierarchies, **wanted: object) -> list[str]:
    return [f"{s.file}={s.value}" for s in resources.settings(hier, Document(wanted))]


def refusal(hier: Hierarchies, **wanted: object) -> str:
    with pytest.raises((CgroupError, RefusedError)) as refused:
        resources.settings(hier, Document(wanted))
    return str(refused.value)


def test_memory() -> None:
    wanted = {"limit": 64, "swap": 96, "reservation": 32}
    assert files(V1, memory={**wanted, "swappiness": 0, "disableOOMKiller": True, "kernel": 5}) == [
        "memory.limit_in_bytes=64",
        "memory.memsw.limit_in_bytes=96",
        "memory.soft_limit_in_bytes=32",
        "memory.kmem.limit_in_bytes=5",
        "memory.swappiness=0",
        "memory.oom_control=1",
    ]
    assert files(V2, memory=wanted) == ["memory.max=64", "memory.swap.max=32", "memory.low=32"]
    assert files(V2, memory={"limit": -1, "swap": -1}) == ["memory.max=max", "memory.swap.max=max"]
    assert files(V1, memory={"limit": -1}) == ["memory.limit_in_bytes=-1"]
    assert "at least 64" in refusal(V2, memory={"limit": 64, "swap": 32})
    assert refusal(V2, memory={"swappiness": 5}) == "memory.swappiness: cgroup v2 has no such thing"
    assert "disableOOMKiller" in refusal(V2, memory={"disableOOMKiller": True})


def test_cpu() -> None:
    wanted = {"shares": 1024, "quota": 20000, "period": 50000, "burst": 10000, "idle": 1}
    assert files(V1, cpu={**wanted, "cpus": "0-1", "mems": "0", "realtimeRuntime": 5}) == [
        "cpu.shares=1024",
        "cpu.cfs_period_us=50000",
        "cpu.cfs_quota_us=20000",
        "cpu.cfs_burst_us=10000",
        "cpu.rt_runtime_us=5",
        "cpu.idle=1",
        "cpuset.cpus=0-1",
        "cpuset.mems=0",
    ]
    assert files(V2, cpu=wanted) == [
        "cpu.weight=100",
        "cpu.max=20000 50000",
        "cpu.max.burst=10000",
        "cpu.idle=1",
    ]
    assert files(V2, cpu={"quota": -1}) == ["cpu.max=max 100000"]
    assert refusal(V2, cpu={"realtimePeriod": 5}) == "cpu.realtimePeriod: cgroup v2 has no such thing"
    assert "0;1" in refusal(V1, cpu={"cpus": "0;1"})


def test_block_devices() -> None:
    wanted = {
        "weight": 500,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 100}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 7}],
    }
    assert files(V1, blockIO=wanted) == [
        "blkio.weight=500",
        "blkio.weight_device=8:0 100",
        "blkio.throttle.read_bps_device=8:0 1000",
        "blkio.throttle.write_iops_device=8:16 7",
    ]
    assert files(V2, blockIO=wanted) == [
        "io.weight=4950",
        "io.weight=8:0 910",
        "io.max=8:0 rbps=1000",
        "io.max=8:16 wiops=7",
    ]
    assert files(V1, blockIO={"leafWeight": 5, "throttleReadBpsDevice": []}) == ["blkio.leaf_weight=5"]


def test_controllers_that_are_not_there_are_named() -> None:
    assert "no hugetlb cgroup controller" in refusal(V1, hugepageLimits=[{"pageSize": "2MB", "limit": 0}])
    assert "no net_cls cgroup controller" in refusal(V2, network={"classID": 5})
    assert "no net_prio cgroup" in refusal(V2, network={"priorities": [{"name": "lo", "priority": 5}]})
    assert "no rdma cgroup controller" in refusal(V1, rdma={"mlx5_1": {"hcaHandles": 3}})
    assert "no memory controller on cgroup v2" in refusal(V1, unified={"memory.high": "5"})
    assert refusal(V1, memorry={"limit": 5}) == "memorry is not supported"


def test_what_few_machines_have() -> None:
    assert files(FULL, hugepageLimits=[{"pageSize": "2MB", "limit": 0}]) == [
        "hugetlb.2MB.limit_in_bytes=0",
        "hugetlb.2MB.rsvd.limit_in_bytes=0",
    ]
    assert files(FULL, network={"classID": 5, "priorities": [{"name": "eth0", "priority": 2}]}) == [
        "net_cls.classid=5",
        "net_prio.ifpriomap=eth0 2",
    ]
    assert files(V2, rdma={"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}}) == [
        "rdma.max=mlx5_1 hca_handle=3 hca_object=4"
    ]
    assert files(V2, pids={"limit": -1}, unified={"memory.high": "1G", "cgroup.max.depth": "3"}) == [
        "pids.max=max",
        "memory.high=1G",
        "cgroup.max.depth=3",
    ]
    assert "not the name of a file" in refusal(V2, unified={"../memory.max": "5"})


def test_device_rules_keep_their_order_and_end_with_what_everybody_has() -> None:
    rules = resources.devices(
        Document(
            {
                "devices": [
                    {"allow": False, "access": "rwm"},
                    {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
                    {"allow": True, "type": "a", "major": 7},
                ]
            }
        )
    )
    shown = [f"{'allow' if rule.allow else 'deny'} {rule}" for rule in rules]
    assert shown[:4] == ["deny a", "allow c 10:229 rw", "allow b 7:* rwm", "allow c 7:* rwm"]
    assert "allow c 1:3 rwm" in shown
    assert resources.devices(Document({})) == ()
