"""`linux.resources` of OCI bundles: in its control file, and felt by the container; on v1 and on v2.

Most machines have one of the two. Where a value has no counterpart the refusal is what is tested.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.kernel import cgroups
from tests.kit.oci import Runtime, until

pytestmark = pytest.mark.kernel

MIB = 1 << 20
WAIT = ["sleep", "1000"]
PATH = f"pystack-test/limits{os.getpid()}"
HIER = cgroups.detect()


@pytest.fixture
def oci(tmp_path: Path) -> Iterator[Runtime]:
    with Runtime(tmp_path) as made:
        yield made


def files(*controllers: str) -> Path:
    """The container's group where these controllers are."""
    for controller in controllers:
        if controller in HIER.v1:
            return Path(HIER.v1[controller], PATH)
    return Path(str(HIER.unified), PATH)


def create(oci: Runtime, resources: Mapping[str, Any], args: list[str] = WAIT, **config: Any) -> None:
    oci.bundle(args, linux={"cgroupsPath": f"/{PATH}", "resources": resources}, **config)
    oci.do("create", "c")


def disk(path: Path) -> str:
    """The whole disk under a file, as MAJOR:MINOR; "" when it is on none."""
    number = os.stat(path).st_dev
    found = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not found.exists():
        return ""
    device = found.resolve()
    return ((device.parent if (device / "partition").exists() else device) / "dev").read_text().strip()


# --- each value in its file ------------------------------------------------------------------------------

VALUES: dict[str, tuple[str, dict[str, Any], dict[str, str], dict[str, str]]] = {
    # what: controller, resources, files of v1, files of v2
    "memory": (
        "memory",
        {"memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB}},
        {
            "memory.limit_in_bytes": str(64 * MIB),
            "memory.memsw.limit_in_bytes": str(96 * MIB),
            "memory.soft_limit_in_bytes": str(32 * MIB),
        },
        # v2 counts swap alone.
        {"memory.max": str(64 * MIB), "memory.swap.max": str(32 * MIB), "memory.low": str(32 * MIB)},
    ),
    "memory without bound": (
        "memory",
        {"memory": {"limit": -1, "swap": -1}},
        {"memory.limit_in_bytes": "9223372036854771712"},
        {"memory.max": "max", "memory.swap.max": "max"},
    ),
    "cpu": (
        "cpu",
        {"cpu": {"shares": 512, "quota": 30_000, "period": 60_000, "burst": 10_000}},
        {
            "cpu.shares": "512",
            "cpu.cfs_quota_us": "30000",
            "cpu.cfs_period_us": "60000",
            "cpu.cfs_burst_us": "10000",
        },
        # 2 to 262144 shares are weights of 1 to 10000, 1024 are 100: on a curve, not a line.
        {"cpu.weight": "59", "cpu.max": "30000 60000", "cpu.max.burst": "10000"},
    ),
    "cpu without bound": (
        "cpu",
        {"cpu": {"quota": -1, "period": 50_000}},
        {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "50000"},
        {"cpu.max": "max 50000"},
    ),
    "cpu for idle times": ("cpu", {"cpu": {"idle": 1}}, {"cpu.idle": "1"}, {"cpu.idle": "1"}),
    "cpuset": (
        "cpuset",
        {"cpu": {"cpus": "0", "mems": "0"}},
        {"cpuset.cpus": "0", "cpuset.mems": "0"},
        {"cpuset.cpus": "0", "cpuset.mems": "0", "cpuset.cpus.effective": "0"},
    ),
    "pids": ("pids", {"pids": {"limit": 23}}, {"pids.max": "23"}, {"pids.max": "23"}),
    "pids without bound": ("pids", {"pids": {"limit": -1}}, {"pids.max": "max"}, {"pids.max": "max"}),
    "huge pages": (
        "hugetlb",
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]},
        {"hugetlb.2MB.limit_in_bytes": str(4 * MIB)},
        {"hugetlb.2MB.max": str(4 * MIB), "hugetlb.2MB.rsvd.max": str(4 * MIB)},
    ),
}


@pytest.mark.parametrize("what", VALUES)
def test_each_value_is_in_its_control_file(oci: Runtime, what: str) -> None:
    controller, resources, v1, v2 = VALUES[what]
    if controller not in {*HIER.v1, *HIER.v2}:
        oci.bundle(WAIT, linux={"cgroupsPath": f"/{PATH}", "resources": resources})
        assert f"this machine has no {controller} cgroup controller" in oci.refused("create", "c")
        assert not files().exists()
        return
    create(oci, resources)
    for name, value in (v2 if controller in HIER.v2 else v1).items():
        assert (files(controller) / name).read_text().strip() == value, name


def test_throttles_of_disks_are_in_their_files(oci: Runtime, tmp_path: Path) -> None:
    """Four values of one disk are four files on v1 and four words of one line on v2."""
    number = next(path.read_text().strip() for path in Path("/sys/block").glob("*/dev"))
    major, minor = map(int, number.split(":"))
    rates = {"ReadBps": 3 * MIB, "WriteBps": 2 * MIB, "ReadIOPS": 300, "WriteIOPS": 200}
    entries = {
        f"throttle{name}Device": [{"major": major, "minor": minor, "rate": rate}]
        for name, rate in rates.items()
    }
    create(oci, {"blockIO": entries})
    if "io" in HIER.v2:
        (line,) = (files("io") / "io.max").read_text().splitlines()
        assert line == f"{number} rbps={3 * MIB} wbps={2 * MIB} riops=300 wiops=200"
    else:
        for name, rate in zip(
            ("read_bps", "write_bps", "read_iops", "write_iops"), rates.values(), strict=True
        ):
            text = (files("blkio") / f"blkio.throttle.{name}_device").read_text()
            assert text == f"{number} {rate}\n"


def test_what_is_under_unified_goes_into_files_of_its_names(oci: Runtime) -> None:
    """Where the controller is on v2; else the file is named. `cgroup.*` there is in every v2 hierarchy."""
    create(oci, {"unified": {"cgroup.max.descendants": "5"}})
    assert (Path(str(HIER.unified), PATH) / "cgroup.max.descendants").read_text() == "5\n"
    oci.do("delete", "-f", "c")
    wanted = {"memory.high": str(48 * MIB), "pids.max": "12", "cpu.weight": "50"}
    if not {"memory", "pids", "cpu"} <= HIER.v2:
        oci.bundle(WAIT, linux={"cgroupsPath": f"/{PATH}", "resources": {"unified": wanted}})
        said = oci.refused("create", "c")
        assert "unified: memory.high: this machine has no memory controller on cgroup v2" in said
        return
    create(oci, {"unified": wanted})
    assert {name: (files() / name).read_text().strip() for name in wanted} == wanted
    oci.do("delete", "-f", "c")
    # The same by both ways: the file's own name is the last word.
    create(oci, {"pids": {"limit": 7}, "unified": {"pids.max": "9"}})
    assert (files() / "pids.max").read_text() == "9\n"


@pytest.mark.skipif(bool(HIER.v1), reason="what v2 lacks; most of it v1 has")
@pytest.mark.parametrize(
    ("resources", "told"),
    [
        ({"memory": {"kernel": 32 * MIB}}, "kernel: cgroup v2 has no such thing"),
        ({"memory": {"swappiness": 10}}, "swappiness: cgroup v2 has no such thing"),
        ({"memory": {"disableOOMKiller": True}}, "disableOOMKiller: cgroup v2 has no such thing"),
        ({"memory": {"swap": 64 * MIB}}, "swap: on cgroup v2 it needs a limit too"),
        ({"memory": {"limit": 64 * MIB, "swap": 32 * MIB}}, "memory and swap together"),
        ({"cpu": {"realtimeRuntime": 1000}}, "realtimeRuntime: cgroup v2 has no such thing"),
        ({"blockIO": {"leafWeight": 100}}, "leafWeight: cgroup v2 has no such thing"),
        ({"network": {"classID": 1}}, "this machine has no net_cls cgroup controller"),
        ({"unified": {"memory.no_such_file": "1"}}, "this kernel has no memory.no_such_file"),
        ({"unified": {"pids.max": "many"}}, "cannot set pids.max to many"),
        ({"cpu": {"cpus": "4095"}}, "cannot set cpuset.cpus to 4095"),
        ({"cpu": {"quota": 1}}, "cannot set cpu.max to 1 100000"),
    ],
)
def test_what_v2_cannot_do_is_refused_by_name(oci: Runtime, resources: dict[str, Any], told: str) -> None:
    """And nothing is left: no group, no container."""
    oci.bundle(WAIT, linux={"cgroupsPath": f"/{PATH}", "resources": resources})
    assert told in oci.refused("create", "c")
    assert oci.ids() == []
    assert not files().exists()


# --- each limit is felt ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["limit", "unified"])
def test_memory_who_takes_more_is_killed(oci: Runtime, way: str) -> None:
    """And whoever takes less is not; both in one container, one after the other."""
    resources: dict[str, Any] = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    if way == "unified":
        if "memory" not in HIER.v2:
            pytest.skip("the memory controller is on v1")
        resources = {"unified": {"memory.max": str(16 * MIB), "memory.swap.max": "0"}}
    script = "for size in 4M 100M; do dd if=/dev/zero of=/dev/null bs=$size count=1 2>&-; echo $?; done"
    said = oci.run(["sh", "-c", script], linux={"resources": resources})
    assert (said.code, said.out.split()) == (0, ["0", "137"]), said


def test_pids_no_more_processes_than_said(oci: Runtime) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 20 & done; echo all"
    said = oci.run(["sh", "-c", script], linux={"resources": {"pids": {"limit": 5}}})
    assert said.code != 0
    assert "fork" in said.err
    assert "all" not in said.out


def used(oci: Runtime) -> float:
    """Seconds of processor time."""
    return float(json.loads(oci.do("events", "--stats", "c"))["data"]["cpu"]["usage"]["total"]) / 1e9


def test_cpu_no_more_than_the_quota_is_had_until_it_is_changed(oci: Runtime) -> None:
    create(oci, {"cpu": {"quota": 20_000, "period": 100_000}}, ["sh", "-c", "while :; do :; done"])
    oci.do("start", "c")

    def share() -> float:
        before, began = used(oci), time.monotonic()
        time.sleep(1)
        after, lasted = used(oci), time.monotonic() - began
        return (after - before) / lasted

    assert 0 < share() < 0.3  # of a core; a period of 0.1 s may begin and end within
    throttling = json.loads(oci.do("events", "--stats", "c"))["data"]["cpu"]["throttling"]
    assert throttling["throttledPeriods"] > 0
    assert throttling["throttledTime"] > 0
    oci.do("update", "--cpu-quota", "-1", "c")
    assert until(lambda: share() > 0.3)


def test_cpuset_the_program_runs_where_it_may(oci: Runtime) -> None:
    said = oci.shell(
        "grep -E '(Cpus|Mems)_allowed_list' /proc/self/status",
        linux={"resources": {"cpu": {"cpus": "0", "mems": "0"}}},
    )
    assert said.split() == ["Cpus_allowed_list:", "0", "Mems_allowed_list:", "0"]


def test_io_what_is_written_to_the_disk_is_throttled(oci: Runtime, tmp_path: Path) -> None:
    """768 KiB past the page cache at 1 MiB a second; seen in the figures, too."""
    number = disk(tmp_path)
    if not number:
        pytest.skip("the tests' files are on no disk")
    major, minor = map(int, number.split(":"))
    entry = {"major": major, "minor": minor, "rate": MIB}
    (tmp_path / "files").mkdir()
    bind = {"destination": "/files", "type": "bind", "source": str(tmp_path / "files"), "options": ["bind"]}
    write = "dd if=/dev/zero of=/files/data bs=256k count=3 oflag=direct 2>&1; sleep 1000"
    resources = {"blockIO": {"throttleWriteBpsDevice": [entry]}}
    create(oci, resources, ["sh", "-c", write], mounts=[bind])

    def written() -> int:
        rows = json.loads(oci.do("events", "--stats", "c"))["data"]["blkio"].get(
            "ioServiceBytesRecursive", []
        )
        return sum(row["value"] for row in rows if row["op"] == "Write" and row["major"] == major)

    begun = time.monotonic()
    oci.do("start", "c")
    assert until(lambda: written() >= 3 << 18)
    assert time.monotonic() - begun > 0.4  # the first piece goes at once


def device(name: str, kind: str, minor: int) -> dict[str, Any]:
    major = 10 if kind == "c" else 7
    return {"type": kind, "path": f"/dev/{name}", "major": major, "minor": minor, "fileMode": 0o666}


def refused(text: str) -> bool:
    """By the rules: that there is no driver for a node is told later, and otherwise."""
    return "Operation not permitted" in text


def test_devices_are_opened_as_the_rules_say(oci: Runtime) -> None:
    """In their order; by the list of v1 or by a program of v2."""
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "r"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "w"},
        {"allow": True, "type": "b", "major": 7, "access": "w"},
    ]
    nodes = [
        device("tun1", "c", 200),
        device("fuse1", "c", 229),
        device("other", "c", 201),
        device("loop1", "b", 90),
    ]
    oci.bundle(WAIT, linux={"devices": nodes, "resources": {"devices": rules}})
    oci.do("run", "-d", "c")
    found = {}
    for name in ("tun1", "fuse1", "other", "loop1", "null"):
        for way in ("if", "of"):
            dd = ("dd", "if=/dev/zero", "of=/dev/null", f"{way}=/dev/{name}", "count=0")
            found[name, way] = not refused(oci.ask("exec", "c", *dd).err)
    readable = {name for (name, way), allowed in found.items() if allowed and way == "if"}
    writable = {name for (name, way), allowed in found.items() if allowed and way == "of"}
    assert (readable, writable) == ({"tun1", "fuse1", "null"}, {"loop1", "null"})


def test_rules_of_devices_change_while_it_runs_on_v1_alone(oci: Runtime) -> None:
    """On v2 a second program would come on top of the first: it is refused, and nothing changes."""
    rules = {"devices": [{"allow": False}]}
    oci.bundle(WAIT, linux={"resources": rules, "devices": [device("tun1", "c", 200)]})
    oci.do("run", "-d", "c")
    look = ("exec", "c", "dd", "if=/dev/tun1", "of=/dev/null", "count=0")
    assert refused(oci.ask(*look).err)
    change = json.dumps({"devices": [{"allow": True, "type": "c", "major": 10, "minor": 200, "access": "r"}]})
    if "devices" in HIER.v1:
        oci.do("update", "-r", "-", "c", stdin=change)
        assert not refused(oci.ask(*look).err)
    else:
        said = oci.refused("update", "-r", "-", "c", stdin=change)
        assert "devices: they cannot be changed while a container runs on cgroup v2" in said
        assert refused(oci.ask(*look).err)


# --- while it runs ---------------------------------------------------------------------------------------


def test_update_changes_what_is_named_and_leaves_the_rest(oci: Runtime) -> None:
    before = {
        "memory": {"limit": 64 * MIB, "swap": 64 * MIB},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000},
        "pids": {"limit": 20},
    }
    create(oci, before)
    oci.do("start", "c")

    def read(controller: str, *names: str) -> list[str]:
        place = files(controller)
        return [(place / name).read_text().strip() for name in names]

    oci.do("update", "--memory", "32m", "--pids-limit", "30", "--cpu-quota", "25000", "c")
    oci.do("update", "--cpuset-cpus", "0", "c")
    if "memory" in HIER.v2:
        # runc's way: swap is memory and swap together, and stays as it was said last.
        assert read("memory", "memory.max") == [str(32 * MIB)]
        assert read("cpu", "cpu.max", "cpu.weight") == ["25000 100000", "59"]
    else:
        assert read("memory", "memory.limit_in_bytes") == [str(32 * MIB)]
        assert read("cpu", "cpu.cfs_quota_us", "cpu.shares") == ["25000", "512"]
    assert read("pids", "pids.max") == ["30"]
    assert read("cpuset", "cpuset.cpus") == ["0"]
    # Less memory than is in use is refused where it is asked to be, and the limit stays.
    few = json.dumps({"memory": {"limit": 4096, "checkBeforeUpdate": True}})
    oci.refused("update", "-r", "-", "c", stdin=few)
    assert read("memory", "memory.max" if "memory" in HIER.v2 else "memory.limit_in_bytes") == [str(32 * MIB)]


def test_unified_values_change_too(oci: Runtime) -> None:
    create(oci, {"unified": {"cgroup.max.depth": "3"}})
    oci.do("start", "c")
    oci.do("update", "-r", "-", "c", stdin=json.dumps({"unified": {"cgroup.max.depth": "4"}}))
    assert (Path(str(HIER.unified), PATH) / "cgroup.max.depth").read_text() == "4\n"


def test_a_group_below_one_with_processes_is_refused_by_name_on_v2(oci: Runtime) -> None:
    """cgroup-v2.rst, "No Internal Process Constraint": for memory a controller can't be handed down there at
    all; for processes it can, but to threads alone, so nothing can be started in the group."""
    base = Path(HIER.v1.get("pids") or str(HIER.unified))
    parent = base / "pystack-test-full"
    parent.mkdir()
    sleeper = subprocess.Popen(["sleep", "1000"])
    try:
        (parent / "cgroup.procs").write_text(str(sleeper.pid))
        for resources in ({"pids": {"limit": 5}}, {"memory": {"limit": 64 * MIB}}):
            oci.bundle(WAIT, linux={"cgroupsPath": "/pystack-test-full/c", "resources": resources})
            if "pids" in HIER.v1:
                oci.do("create", "c")
                assert (parent / "c").exists()
                oci.do("delete", "-f", "c")
            else:
                assert f"below {parent}: it has processes of its own" in oci.refused("create", "c")
            assert not (parent / "c").exists()
    finally:
        sleeper.kill()
        sleeper.wait()
        parent.rmdir()
