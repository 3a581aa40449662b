"""The pure parts of the commands."""

from __future__ import annotations

import pytest

from orchestrator.oci import descriptors, events, execute, features, figures, processes, update, validate
from orchestrator.oci.complaint import Complaint


def test_update_takes_flags_and_bytes_with_units() -> None:
    options = {
        "memory": "64m",
        "memory-swap": "-1",
        "cpu-quota": 50000,
        "cpuset-cpus": "0-1",
        "pids-limit": 9,
    }
    wanted = update.from_options(options)  # type: ignore[arg-type]
    assert wanted == {
        "memory": {"limit": 64 << 20, "swap": -1},
        "cpu": {"quota": 50000, "cpus": "0-1"},
        "pids": {"limit": 9},
    }
    assert validate.resources(wanted) == (wanted, [])
    with pytest.raises(Complaint, match="--memory: 'lots'"):
        update.from_options({"memory": "lots"})


def test_an_update_is_joined_to_what_was_there() -> None:
    before = {"memory": {"limit": 1, "swap": 2}, "devices": [1]}
    assert update.merged(before, {"memory": {"limit": 3}, "pids": {"limit": 4}}) == {
        "memory": {"limit": 3, "swap": 2},
        "devices": [1],
        "pids": {"limit": 4},
    }


def test_ps_keeps_the_heading_and_our_rows() -> None:
    table = "UID   PID CMD\nroot    1 init\nroot   22 sleep 1\nroot    2 kthreadd\n"
    assert processes.select(table, [22, 1]) == ["UID   PID CMD", "root    1 init", "root   22 sleep 1"]
    with pytest.raises(Complaint, match="PID field"):
        processes.select("CMD\ninit\n", [1])


@pytest.mark.parametrize(
    ("text", "value"), [("5s", 5), ("500ms", 0.5), ("1m30s", 90), ("1.5s", 1.5), ("1h", 3600)]
)
def test_durations(text: str, value: float) -> None:
    assert events.seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "0s", "5x"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(Complaint):
        events.seconds(text)


def test_users_of_exec_are_numbers_in_range() -> None:
    process: dict[str, object] = {"user": {"uid": 5, "gid": 6, "additionalGids": [7]}}
    execute._set_user(process, "1000", ["8"])
    assert process["user"] == {"uid": 1000, "gid": 6, "additionalGids": [7, 8]}
    execute._set_user(process, "0:0", [])
    assert process["user"] == {"uid": 0, "gid": 0, "additionalGids": [7, 8]}
    for text in ("root", "-1", "4294967295", "0x0", "1:", ":1", "1e3", " 0", "99999999999999999999"):
        with pytest.raises(Complaint, match="is not an id"):
            execute._set_user(process, text, [])


def test_figures_of_v2_have_the_shape_of_v1(tmp_path_factory: pytest.TempPathFactory) -> None:
    group = tmp_path_factory.mktemp("group")
    for name, text in {
        "cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 4\nnr_throttled 1\nthrottled_usec 7\n",
        "memory.current": "4096\n",
        "memory.max": "max\n",
        "memory.swap.max": "0\n",
        "memory.swap.current": "0\n",
        "memory.stat": "anon 1\nfile 2\nkernel 3\n",
        "memory.events": "low 0\noom 1\noom_kill 2\n",
        "pids.current": "3\n",
        "pids.max": "10\n",
        "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
        "cpuset.cpus.effective": "0-2,4\n",
    }.items():
        (group / name).write_text(text)
    from tests.unit.oci.test_record import example

    record = example(groups=(str(group),))
    found = figures.read(record)
    assert found["cpu"] == {
        "usage": {"total": 5000, "kernel": 2000, "user": 3000},
        "throttling": {"periods": 4, "throttledPeriods": 1, "throttledTime": 7000},
    }
    assert found["pids"] == {"current": 3, "limit": 10}
    assert found["cpuset"] == {"cpus": [0, 1, 2, 4], "mems": []}
    memory = found["memory"]
    assert isinstance(memory, dict)
    assert memory["usage"]["limit"] == 2**64 - 1
    assert memory["cache"] == 2
    blkio = found["blkio"]
    assert isinstance(blkio, dict)
    assert blkio["ioServiceBytesRecursive"] == [
        {"major": 8, "minor": 0, "op": "Read", "value": 1},
        {"major": 8, "minor": 0, "op": "Write", "value": 2},
    ]
    assert figures.oom_kills(record) == 2


def test_preserved_descriptors_are_checked() -> None:
    assert descriptors.preserved(0, {}) == (0, ())
    with pytest.raises(Complaint, match="not between"):
        descriptors.preserved(-1, {})
    with pytest.raises(Complaint, match="preserved-fd"):
        descriptors.preserved(4000, {})


def test_features_name_what_the_grammar_knows() -> None:
    found = features.document("x86_64")
    linux = found["linux"]
    assert isinstance(linux, dict)
    assert linux["seccomp"]["archs"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert {"rro", "rnosuid", "rbind", "tmpcopyup", "rslave"} <= set(found["mountOptions"])  # type: ignore[call-overload]
