"""What `update` makes of a service's limits; messages are docker's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.api.amending import amended, policy
from orchestrator.model.errors import UserError
from orchestrator.model.sections import BlockIo
from orchestrator.model.stack import Resources, RestartPolicy
from tests.kit.stacks import service

MIB = 1 << 20


def after(before: Resources, cores: int = 4, /, **asked: Any) -> Resources:
    return amended(replace(service(), resources=before), asked, cores).resources


@pytest.mark.parametrize(
    ("before", "asked", "changed"),
    [
        (Resources(), {"memory": 64 * MIB}, Resources(memory=64 * MIB)),
        (Resources(memory=64 * MIB), {"memory": 0}, Resources()),
        (Resources(memory=64 * MIB, memory_swap=-1), {"memory": 0}, Resources()),
        (
            Resources(memory=64 * MIB),
            {"memory_swap": -1, "memory_reservation": 8 * MIB},
            Resources(memory=64 * MIB, memory_swap=-1, memory_reservation=8 * MIB),
        ),
        (Resources(memory=64 * MIB, memory_swap=-1), {"memory_swap": 0}, Resources(memory=64 * MIB)),
        (Resources(cpus=0.5, cpu_period=50_000), {"cpus": 2.0}, Resources(cpus=2.0)),
        (Resources(cpus=0.5), {"cpus": 0.0}, Resources()),
        (Resources(), {"cpu_quota": 30_000}, Resources(cpus=0.3, cpu_period=100_000)),
        (Resources(cpus=0.5), {"cpu_period": 50_000}, Resources(cpus=1.0, cpu_period=50_000)),
        (Resources(cpus=0.5), {"cpu_quota": -1}, Resources()),
        (Resources(cpus=0.5), {"cpu_shares": 512}, Resources(cpus=0.5, cpu_shares=512)),
        (Resources(cpu_shares=512), {"cpu_shares": 0}, Resources()),
        (Resources(cpuset="0"), {"cpuset": "0-1,3"}, Resources(cpuset="0-1,3")),
        (Resources(cpuset="0"), {"cpuset": "", "cpuset_mems": "0"}, Resources(cpuset_mems="0")),
        (Resources(), {"pids": 9}, Resources(pids=9)),
        (Resources(pids=9), {"pids": -1}, Resources()),
        (
            Resources(blkio=BlockIo(device_read_bps=(("/dev/x", 1),))),
            {"blkio_weight": 300},
            Resources(blkio=BlockIo(weight=300, device_read_bps=(("/dev/x", 1),))),
        ),
    ],
)
def test_what_is_said_changes_and_the_rest_stays(
    before: Resources, asked: dict[str, Any], changed: Resources
) -> None:
    assert after(before, **asked) == changed


@pytest.mark.parametrize(
    ("before", "asked", "message"),
    [
        (Resources(), {"memory": 5 * MIB}, "Minimum memory limit allowed is 6MB"),
        (
            Resources(),
            {"memory_swap": 64 * MIB},
            "You should always set the Memory limit when using Memoryswap",
        ),
        (
            Resources(memory=64 * MIB),
            {"memory_swap": 63 * MIB},
            "Minimum memoryswap limit should be larger than memory limit",
        ),
        (
            Resources(memory=64 * MIB, memory_swap=96 * MIB),
            {"memory": 128 * MIB},
            "Memory limit should be smaller than already set memoryswap limit",
        ),
        (
            Resources(memory=64 * MIB),
            {"memory_reservation": 65 * MIB},
            "Minimum memory limit can not be less than memory reservation",
        ),
        (
            Resources(),
            {"cpus": 4.1},
            "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available",
        ),
        (Resources(), {"cpus": 0.001}, "range of CPUs"),
        (Resources(), {"cpus": 1.0, "cpu_quota": 5000}, "Conflicting options"),
        (Resources(), {"cpu_quota": 999}, "CPU cfs quota can not be less than 1ms"),
        (Resources(), {"cpu_period": 999, "cpu_quota": 5000}, "CPU cfs period can not be less than 1ms"),
        (Resources(), {"cpu_shares": 1}, "cpu shares must be between 2 and 262144, not 1"),
        (Resources(), {"cpuset": "0-"}, "Invalid value 0- for cpuset cpus"),
        (Resources(), {"cpuset_mems": "a"}, "Invalid value a for cpuset mems"),
        (Resources(), {"blkio_weight": 9}, "Range of blkio weight is from 10 to 1000"),
        (Resources(), {"restart": "sometimes"}, "invalid restart policy: 'sometimes'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_docker_s_words(
    before: Resources, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        after(before, **asked)
    assert caught.value.message.startswith(message)


def test_a_restart_policy_is_read_as_docker_reads_it() -> None:
    assert policy("on-failure:3") == RestartPolicy(condition="on-failure", max_attempts=3)
    assert policy("on-failure:0") == policy("on-failure")
    assert policy("unless-stopped").condition == "unless-stopped"
    for wrong in ("always:3", "on-failure:x", "on-failure:-1", ""):
        with pytest.raises(UserError, match="invalid restart policy"):
            policy(wrong)
    kept = service(restart="always")
    assert amended(kept, {"pids": 3}, 1).restart == kept.restart
    assert amended(kept, {"restart": "no"}, 1).restart.condition == "no"
