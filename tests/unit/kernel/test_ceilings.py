"""What this machine may have, as the kernel says it."""

from __future__ import annotations

from pathlib import Path

from orchestrator.kernel import ceilings


def test_this_machine_says_what_it_may_have() -> None:
    there = ceilings.look()
    assert there.processes == min(
        int(Path("/proc/sys/kernel/pid_max").read_text()),
        int(Path("/proc/sys/kernel/threads-max").read_text()),
    )
    assert 0 < there.processes_now < there.processes
    assert there.namespaces
    assert there.watches


def test_the_group_with_the_least_room_counts_wherever_it_stands(tmp_path: Path) -> None:
    inner = tmp_path / "unit" / "ours"
    inner.mkdir(parents=True)
    (inner / "pids.max").write_text("max\n")
    (tmp_path / "unit" / "pids.max").write_text("4915\n")
    (tmp_path / "unit" / "pids.current").write_text("4000\n")
    (tmp_path / "pids.max").write_text("10000\n")
    (tmp_path / "pids.current").write_text("4100\n")
    there = ceilings.look([str(inner)])
    assert (there.group, there.group_now) == (4915, 4000)


def test_a_group_that_is_not_there_yet_counts_as_those_above_it(tmp_path: Path) -> None:
    (tmp_path / "pids.max").write_text("50\n")
    assert ceilings.look([str(tmp_path / "pystack-x")]).group == 50


def test_where_the_pids_controller_counts_us(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("9:pids:/user.slice\n1:name=systemd:/x\n0::/y\n")
    assert ceilings.own_groups("/sys/fs/cgroup/pids", str(tmp_path / "cgroup")) == [
        "/sys/fs/cgroup/pids/user.slice"
    ]
    assert ceilings.own_groups(None) == []
