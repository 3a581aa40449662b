"""Control groups on a tree of plain files that looks like a v2 machine.

Proven here: which directories and files are read and written there, with which values and in which order.
Not proven here: that a kernel accepts them; the real hierarchies of this machine are in
tests/kernel/test_cgroups.py. Plain directories have no control files when they are made, so the
container's own group stands ready with its files, as one that a process lives in would.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.kernel import cgroups
from orchestrator.kernel.cgroups import CgroupError, Hierarchies, Limits

GROUP = "pystack-t/shop/db.1"
FILES = "memory.max memory.swap.max memory.low cpu.max cpu.weight cpuset.cpus pids.max".split()
CONTROLLERS = "cpuset cpu io memory hugetlb pids"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "cgroup fs"
    (place / GROUP).mkdir(parents=True)
    for level in (place, place / "pystack-t", place / "pystack-t/shop"):
        (level / "cgroup.controllers").write_text(CONTROLLERS + "\n")
        (level / "cgroup.subtree_control").write_text("pids" if level == place else "\n")
    for file in FILES:
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
    assert found.named == ("/sys/fs/cgroup/systemd",)
    assert found.v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "freezer": "/sys/fs/cgroup/freezer",
    }
    assert found.bases == (
        "/sys/fs/cgroup/cpu,cpuacct",
        "/sys/fs/cgroup/freezer",
        "/sys/fs/cgroup/systemd",
    )
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
    """Those that a limit asks for, and those that count what `stats` shows."""
    cgroups.create(hier, GROUP, Limits(cpuset="0", pids=7))

    def asked(level: str) -> set[str]:
        return set((root / level / "cgroup.subtree_control").read_text().split())

    assert asked("") == {"+cpuset", "+memory", "+io"}
    assert asked("pystack-t") == asked("pystack-t/shop") == {"+cpuset", "+memory", "+io", "+pids"}


def test_without_limits_controllers_only_count(hier: Hierarchies, root: Path) -> None:
    assert cgroups.create(hier, GROUP, Limits()) == (f"{root}/{GROUP}",)
    asked = (root / "pystack-t/cgroup.subtree_control").read_text().split()
    assert sorted(asked) == ["+io", "+memory", "+pids"]
    assert (root / GROUP / "memory.max").read_text() == ""


def test_what_only_counts_may_be_refused(hier: Hierarchies, root: Path) -> None:
    """In a container without a delegated cgroup, say; a limit may not."""
    control = root / "cgroup.subtree_control"
    control.unlink()
    control.symlink_to("/proc/version")  # which can be read, and not written
    assert cgroups.create(hier, GROUP, Limits()) == (f"{root}/{GROUP}",)
    with pytest.raises(CgroupError, match=r"cannot use controllers pids below .*: Input.output error"):
        cgroups.create(hier, GROUP, Limits(pids=1))


def test_a_change_writes_what_has_changed_and_lifts_what_is_no_more(hier: Hierarchies, root: Path) -> None:
    before = Limits(memory=1000, memory_reservation=500, cpus=0.5, cpuset="0", pids=7)
    after = Limits(memory=2000, memory_swap=-1, cpus=0.5, cpu_shares=1024)
    (root / "pystack-t/shop/cpuset.cpus.effective").write_text("0-3\n")
    for file in ("memory.current", "memory.stat"):
        (root / GROUP / file).write_text(
            {"memory.current": "0"}.get(file, "inactive_file 0\nactive_file 0\n")
        )
    (root / GROUP / "cpu.max").write_text("as it was")
    assert cgroups.update(hier, GROUP, before, after) == ()
    written = {name: (root / GROUP / name).read_text() for name in FILES}
    assert written == {
        "memory.max": "2000",
        "memory.swap.max": "max",
        "memory.low": "0",
        "cpu.max": "as it was",
        "cpu.weight": "100",
        "cpuset.cpus": "0-3\n",
        "pids.max": "max",
    }


def test_a_memory_limit_below_what_is_in_use_is_refused(hier: Hierarchies, root: Path) -> None:
    """The kernel would take it, and kill."""
    (root / GROUP / "memory.current").write_text("5000\n")
    (root / GROUP / "memory.stat").write_text("anon 3000\ninactive_file 1000\nactive_file 1000\n")
    with pytest.raises(CgroupError, match=r"cannot set memory\.max to 2999: less than is in use"):
        cgroups.update(hier, GROUP, Limits(), Limits(memory=2999))
    cgroups.update(hier, GROUP, Limits(), Limits(memory=3000))
    assert (root / GROUP / "memory.max").read_text() == "3000"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(cpus=0.001), "cpus: 0.001 is too little, the least is 0.01"),
        (Limits(cpus=1, cpu_period=10), "cpu period: 10 is not between"),
        (Limits(swappiness=101), "swappiness: 101 is not between 0 and 100"),
        (Limits(io_weight=9), "blkio weight: 9 is not between 10 and 1000"),
        (Limits(io_weight=500), r"this kernel has no io\.weight nor io\.bfq\.weight"),
        (Limits(cpuset_mems="x"), "cpuset mems: 'x' is not a list"),
        (Limits(memory_swap=5), "memory_swap needs a memory limit too"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_name(
    hier: Hierarchies, limits: Limits, words: str
) -> None:
    with pytest.raises(CgroupError, match=words):
        cgroups.create(hier, GROUP, limits)


def test_what_v2_has_not_is_said(hier: Hierarchies) -> None:
    warnings: list[str] = []
    cgroups.create(hier, GROUP, Limits(swappiness=5, oom_kill_disable=True), warn=warnings.append)
    assert warnings == [
        "this kernel has no memory.swappiness: swappiness is the machine's",
        "this kernel has no memory.oom_control: it is killed when it is out of memory",
    ]


def test_weights_of_block_devices_are_the_scheduler_s(hier: Hierarchies, root: Path) -> None:
    limits = Limits(io_weight=500, io=(cgroups.IoLimit(major=8, minor=0, weight=10),))
    (root / GROUP / "io.bfq.weight").write_text("")
    cgroups.create(hier, GROUP, replace(limits, io=()))
    assert (root / GROUP / "io.bfq.weight").read_text() == "500"
    (root / GROUP / "io.weight").write_text("")
    cgroups.create(hier, GROUP, replace(limits, io=()))
    assert (root / GROUP / "io.weight").read_text() == "4950"
    cgroups.create(hier, GROUP, limits)
    assert (root / GROUP / "io.weight").read_text() == "8:0 1"


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
