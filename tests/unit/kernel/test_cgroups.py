"""Control groups on a tree of plain files that looks like a v2 machine.

Proven here: which directories and files are read and written there, with which values and in which order.
Not proven here: that a kernel accepts them; the real hierarchies of this machine are in
tests/kernel/test_cgroups.py. Plain directories have no control files when they are made, so the
container's own group stands ready with its files, as one that a process lives in would.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.kernel import cgroups
from orchestrator.kernel.cgroups import CgroupError, Hierarchies, Limits

GROUP = "pystack-t/shop/db.1"
CONTROLLERS = "cpuset cpu io memory hugetlb pids"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "cgroup fs"
    (place / GROUP).mkdir(parents=True)
    for level in (place, place / "pystack-t", place / "pystack-t/shop"):
        (level / "cgroup.controllers").write_text(CONTROLLERS + "\n")
        (level / "cgroup.subtree_control").write_text("pids" if level == place else "\n")
    for file in (
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "cpu.max",
        "cpu.weight",
        "cpuset.cpus",
        "pids.max",
    ):
        (place / GROUP / file).write_text("")
    (place / GROUP / "cgroup.procs").write_text("11\n12\n0\n")
    return place


@pytest.fixture
def hier(root: Path) -> Hierarchies:
    return Hierarchies(mode="v2", v1={}, unified=str(root), v2=frozenset(CONTROLLERS.split()))


# --- finding -----------------------------------------------------------------------------------------


def test_a_v2_machine_is_recognised(root: Path, tmp_path: Path) -> None:
    place = str(root).replace(" ", "\\040")
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        f"35 24 0:30 / {place} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
    )
    found = cgroups.detect(str(mounts))
    assert found == Hierarchies(mode="v2", v1={}, unified=str(root), v2=frozenset(CONTROLLERS.split()))
    assert found.bases == (str(root),)


def test_a_v1_machine_is_recognised(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs ro,mode=755\n"
        "32 31 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
        "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "34 31 0:31 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"
    )
    found = cgroups.detect(str(mounts))
    assert found.mode == "v1"
    assert found.v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "freezer": "/sys/fs/cgroup/freezer",
    }
    assert sorted(found.bases) == ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/freezer"]
    assert cgroups.home(found, GROUP) == f"/sys/fs/cgroup/freezer/{GROUP}"


def test_a_machine_without_control_groups_is_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 27 0:21 / /proc rw,relatime - proc proc rw\n")
    with pytest.raises(CgroupError, match="no control groups are mounted"):
        cgroups.detect(str(mounts))


# --- v2 ----------------------------------------------------------------------------------------------


def test_limits_are_written_and_one_directory_is_joined(hier: Hierarchies, root: Path) -> None:
    limits = Limits(memory=1000, cpus=0.5, cpu_shares=1024, cpuset="0-1", pids=7, memory_reservation=500)
    assert cgroups.create(hier, GROUP, limits) == (f"{root}/{GROUP}",)
    written = {
        path.name: path.read_text() for path in (root / GROUP).iterdir() if path.name != "cgroup.procs"
    }
    assert written == {
        "memory.max": "1000",
        "memory.swap.max": "1000",
        "memory.low": "500",
        "cpu.max": "50000 100000",
        "cpu.weight": "100",
        "cpuset.cpus": "0-1",
        "pids.max": "7",
    }


def test_controllers_are_handed_down_where_they_are_not_yet(hier: Hierarchies, root: Path) -> None:
    cgroups.create(hier, GROUP, Limits(memory=1000, pids=7))

    def asked(level: str) -> set[str]:
        return set((root / level / "cgroup.subtree_control").read_text().split())

    assert asked("") == {"+memory"}
    assert asked("pystack-t") == asked("pystack-t/shop") == {"+memory", "+pids"}


def test_without_limits_no_controller_is_touched(hier: Hierarchies, root: Path) -> None:
    assert cgroups.create(hier, GROUP, Limits()) == (f"{root}/{GROUP}",)
    assert (root / "pystack-t/cgroup.subtree_control").read_text() == "\n"
    assert (root / GROUP / "memory.max").read_text() == ""


def test_a_kernel_without_swap_accounting_is_told_about(hier: Hierarchies, root: Path) -> None:
    (root / GROUP / "memory.swap.max").unlink()
    warnings: list[str] = []
    cgroups.create(hier, GROUP, Limits(memory=1000), warn=warnings.append)
    assert warnings == ["this kernel has no memory.swap.max: swap is not limited"]
    assert (root / GROUP / "memory.max").read_text() == "1000"


def test_a_kernel_without_the_file_of_a_limit_is_refused(hier: Hierarchies, root: Path) -> None:
    (root / GROUP / "cpu.max").unlink()
    with pytest.raises(CgroupError, match=r"this kernel has no cpu\.max"):
        cgroups.create(hier, GROUP, Limits(cpus=1))


def test_an_oom_kill_is_read_from_the_events(hier: Hierarchies, root: Path) -> None:
    events = root / GROUP / "memory.events"
    events.write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 0\noom_group_kill 0\n")
    assert not cgroups.oom_killed(hier, GROUP)
    events.write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert cgroups.oom_killed(hier, GROUP)


def test_use_is_read(hier: Hierarchies, root: Path) -> None:
    (root / GROUP / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\nsystem_usec 2\n")
    (root / GROUP / "memory.current").write_text("4096\n")
    assert cgroups.usage(hier, GROUP) == cgroups.Usage(cpu_seconds=2.5, memory=4096, pids=2)


def test_whether_it_is_populated_is_read_from_the_events(hier: Hierarchies, root: Path) -> None:
    events = root / GROUP / "cgroup.events"
    events.write_text("populated 1\nfrozen 0\n")
    assert cgroups.populated(hier, GROUP)
    events.write_text("populated 0\nfrozen 0\n")
    assert not cgroups.populated(hier, GROUP)
    assert not cgroups.populated(hier, "pystack-t/shop/gone")


def test_kill_and_freeze_are_one_write_each(hier: Hierarchies, root: Path) -> None:
    for file in ("cgroup.kill", "cgroup.freeze"):
        (root / GROUP / file).write_text("")
    cgroups.kill(hier, GROUP)
    cgroups.freeze(hier, GROUP, frozen=True)
    assert (root / GROUP / "cgroup.kill").read_text() == "1"
    assert (root / GROUP / "cgroup.freeze").read_text() == "1"
