"""The control groups of OCI containers on this machine's hierarchies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.kernel import cgroups, groups
from orchestrator.kernel.limits import CgroupError, Hierarchies
from orchestrator.kernel.reading import Document

pytestmark = pytest.mark.kernel
PARENT = f"pystack-test-oci-{os.getpid()}"


@pytest.fixture
def hier() -> Iterator[Hierarchies]:
    found = cgroups.detect()
    yield found
    for base in found.bases:
        for place in sorted(Path(base).glob(f"{PARENT}/**/"), reverse=True):
            place.rmdir()
        assert not Path(base, PARENT).exists()


def test_a_group_in_every_hierarchy_with_its_limits(hier: Hierarchies) -> None:
    wanted = {"pids": {"limit": 7}, "memory": {"limit": 64 << 20}, "cpu": {"shares": 512, "cpus": "0"}}
    made = groups.create(hier, f"{PARENT}/one", Document(wanted))
    assert list(made) == [f"{base}/{PARENT}/one" for base in hier.bases]
    assert all(os.path.isdir(directory) for directory in made)
    pids = next(Path(directory, "pids.max") for directory in made if Path(directory, "pids.max").exists())
    assert pids.read_text() == "7\n"
    groups.update(hier, f"{PARENT}/one", Document({"pids": {"limit": 9}}))
    assert pids.read_text() == "9\n"
    # As it is there already it is used again.
    assert groups.create(hier, f"{PARENT}/one", Document({})) == made


def test_devices_are_allowed_as_said(hier: Hierarchies) -> None:
    if "devices" not in hier.v1:
        pytest.skip("needs the devices controller of v1")
    rules = [{"allow": False}, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}]
    groups.create(hier, f"{PARENT}/dev", Document({"devices": rules}))
    allowed = Path(hier.v1["devices"], PARENT, "dev", "devices.list").read_text()
    assert "c 10:229 rw\n" in allowed
    assert "a *:*" not in allowed
    with pytest.raises(CgroupError, match="the parent group may not use it"):
        groups.create(hier, f"{PARENT}/dev/below", Document({"devices": [{"allow": True, "type": "b"}]}))
    assert not Path(hier.v1["devices"], PARENT, "dev", "below").exists()


def test_a_refused_limit_leaves_nothing(hier: Hierarchies) -> None:
    with pytest.raises(CgroupError, match=r"cannot set cpuset\.cpus to 4095"):
        groups.create(hier, f"{PARENT}/none", Document({"cpu": {"cpus": "4095"}}))
    assert not any(os.path.exists(f"{base}/{PARENT}") for base in hier.bases)


def test_real_time_is_lent_by_the_groups_above(hier: Hierarchies) -> None:
    if not os.path.exists(f"{hier.v1.get('cpu')}/cpu.rt_runtime_us"):
        pytest.skip("needs real time groups on v1")
    wanted = {"cpu": {"realtimePeriod": 1_000_000, "realtimeRuntime": 1000}}
    groups.create(hier, f"{PARENT}/rt", Document(wanted))
    assert Path(hier.v1["cpu"], PARENT, "rt", "cpu.rt_runtime_us").read_text() == "1000\n"


def test_what_the_machine_lacks_is_named(hier: Hierarchies) -> None:
    for wanted, words in (
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}, "hugetlb"),
        ({"network": {"classID": 5}}, "net_cls"),
        ({"rdma": {"mlx": {"hcaHandles": 1}}}, "rdma"),
        ({"blockIO": {"leafWeight": 100}}, "blkio.leaf_weight"),
    ):
        controller = words.partition(".")[0]
        if controller == words and (controller in hier.v1 or controller in hier.v2):
            continue
        if controller == "blkio" and "blkio" not in hier.v1:
            continue
        with pytest.raises(CgroupError, match=words):
            groups.create(hier, f"{PARENT}/lacks", Document(wanted))
