"""Where the figures of `stats` are read, on trees of plain files that look like v1 and v2."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.kernel.limits import Hierarchies
from orchestrator.kernel.usage import Leader, Usage, usage

GROUP = "pystack-t/shop/db.1"


def tree(root: Path, files: dict[str, str]) -> str:
    group = root / GROUP
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text("")
    for name, text in files.items():
        (group / name).write_text(text)
    return str(root)


def test_on_v2_every_figure_is_the_controller_s(tmp_path: Path) -> None:
    unified = tree(
        tmp_path,
        {
            "cpu.stat": "usage_usec 2500000\nuser_usec 1\nsystem_usec 2\n",
            "memory.current": "9000\n",
            "memory.stat": "anon 1\nfile 5000\ninactive_anon 7\ninactive_file 4000\nactive_file 1000\n",
            "memory.max": "100000\n",
            "pids.current": "12\n",
            "pids.max": "max\n",
            "io.stat": "8:0 rbytes=100 wbytes=30 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=1 wios=1\n",
        },
    )
    hier = Hierarchies(mode="v2", v1={}, unified=unified, v2=frozenset({"memory", "pids", "io"}))
    assert usage(hier, GROUP) == Usage(
        cpu=2_500_000_000,
        memory=5000,
        memory_limit=100000,
        counted="controller",
        pids=12,
        pids_limit=None,
        read=101,
        written=32,
    )


def test_on_v1_every_controller_has_a_tree_of_its_own(tmp_path: Path) -> None:
    memory = tree(
        tmp_path / "memory",
        {
            "memory.usage_in_bytes": "9000\n",
            "memory.limit_in_bytes": "9223372036854771712\n",
            "memory.stat": "cache 1\ninactive_file 1\ntotal_inactive_file 4000\n",
        },
    )
    blkio = tree(
        tmp_path / "blkio",
        {
            "blkio.throttle.io_service_bytes_recursive": "254:0 Read 100\n254:0 Write 30\n254:0 Sync 30\n"
            "254:0 Total 130\nTotal 130\n"
        },
    )
    hier = Hierarchies(
        mode="hybrid",
        v1={
            "memory": memory,
            "blkio": blkio,
            "cpuacct": tree(tmp_path / "cpuacct", {"cpuacct.usage": "77\n"}),
            "pids": tree(tmp_path / "pids", {"pids.current": "3\n", "pids.max": "9\n"}),
            "freezer": tree(tmp_path / "freezer", {}),
        },
        unified=None,
        v2=frozenset(),
    )
    found = usage(hier, GROUP)
    assert (found.cpu, found.memory, found.memory_limit) == (77, 5000, None)
    assert (found.pids, found.pids_limit, found.read, found.written) == (3, 9, 100, 30)


def test_without_a_controller_the_processes_are_asked(tmp_path: Path) -> None:
    """This test's own process stands for a container of one."""
    unified = tree(tmp_path, {"cpu.stat": "usage_usec 1\n", "cgroup.procs": f"{os.getpid()}\n"})
    hier = Hierarchies(mode="hybrid", v1={}, unified=unified, v2=frozenset())
    found = usage(hier, GROUP)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert found.counted == "processes"
    assert abs(found.memory - resident) < 16 << 20
    assert (found.memory_limit, found.pids) == (None, len(os.listdir("/proc/self/task")))


def test_the_network_of_a_process_that_is_another_one_by_now_is_not_read() -> None:
    reading, writing = os.pipe()  # no pidfd at all: the kernel refuses it as it does that of a dead process
    try:
        hier = Hierarchies(mode="hybrid", v1={}, unified="/nowhere", v2=frozenset())
        found = usage(hier, GROUP, Leader(os.getpid(), reading))
        assert found == Usage()
    finally:
        os.close(reading)
        os.close(writing)
