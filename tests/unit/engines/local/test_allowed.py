"""The limits in a bundle say what our own control groups are given: one truth in two forms."""

from __future__ import annotations

import pytest

from orchestrator.engines.local import allowed
from orchestrator.kernel import limits, resources
from orchestrator.kernel.devices import DEFAULT, EVERYTHING, DeviceRule
from orchestrator.kernel.limits import Hierarchies, IoLimit, Limits
from orchestrator.kernel.reading import Document
from tests.kit import specification

CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
V1 = Hierarchies(
    mode="v1", v1={name: f"/cg/{name}" for name in (*CONTROLLERS, "blkio")}, unified=None, v2=frozenset()
)
V2 = Hierarchies(mode="v2", v1={}, unified="/cg", v2=frozenset({*CONTROLLERS, "io"}))
EVERY = (
    Limits(memory=64 << 20, pids=10, cpus=0.5, cpu_shares=512),
    Limits(memory=64 << 20, memory_swap=96 << 20, memory_reservation=32 << 20),
    Limits(memory=64 << 20, memory_swap=-1),
    Limits(cpuset="0-1", cpuset_mems="0", cpus=2, cpu_period=50_000),
    Limits(pids=-1),
    Limits(
        io_weight=300, io=(IoLimit(major=8, minor=0, read_bps=1, write_bps=2, read_iops=3, write_iops=4),)
    ),
)


def files(settings: tuple[limits.Setting, ...]) -> set[tuple[str, str, str]]:
    return {(setting.controller, setting.file, setting.value) for setting in settings}


@pytest.mark.parametrize("wanted", EVERY, ids=range(len(EVERY)))
@pytest.mark.parametrize("machine", [V1, V2], ids=["v1", "v2"])
def test_read_back_they_are_the_same_control_files(machine: Hierarchies, wanted: Limits) -> None:
    document = allowed.resources(wanted)
    assert files(resources.settings(machine, Document(document))) == files(limits.settings(machine, wanted))


@pytest.mark.parametrize("wanted", EVERY, ids=range(len(EVERY)))
def test_the_document_is_as_the_specification_has_it(wanted: Limits) -> None:
    config = {"ociVersion": "1.0.2", "root": {"path": "x"}, "linux": {"resources": allowed.resources(wanted)}}
    assert specification.wrong(config) == []


def test_devices_are_the_default_ones_and_those_asked_for() -> None:
    more = DeviceRule(kind="b", major=8, minor=1, access="r")
    rules = resources.devices(Document(allowed.resources(Limits(devices=(more,)))))
    assert rules[: len(DEFAULT) + 1] == (*DEFAULT, more)
    assert allowed.resources(Limits(all_devices=True))["devices"] == [{"allow": True, "access": "rwm"}]
    assert resources.devices(Document(allowed.resources(Limits(all_devices=True))))[0] == EVERYTHING


def test_swap_is_left_alone_where_the_kernel_does_not_count_it() -> None:
    """Other runtimes fail on a control file that is not there."""
    assert allowed.resources(Limits(memory=1 << 20), counts_swap=False)["memory"] == {"limit": 1 << 20}
    asked = allowed.resources(Limits(memory=1 << 20, memory_swap=3 << 20), counts_swap=False)
    assert asked["memory"]["swap"] == 3 << 20
