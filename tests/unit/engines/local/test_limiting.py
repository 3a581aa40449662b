"""What a service says of its limits, as limits of a control group."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.engines.local.limiting import further, limits
from orchestrator.kernel.cgroups import IoLimit
from orchestrator.kernel.devices import EVERYTHING, DeviceRule
from orchestrator.model.errors import EngineError
from orchestrator.model.observation import Container
from orchestrator.model.sections import BlockIo
from orchestrator.model.stack import Resources
from tests.kit.stacks import service


def container(**fields: Any) -> Container:
    return Container(
        id="a" * 64,
        name="s-a-1",
        stack="s",
        service="a",
        slot=1,
        definition=replace(service(**fields), name="a"),
        fingerprint="",
        generation=0,
        image_id="",
        created=0.0,
    )


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("c 1:3 mr", (DeviceRule(major=1, minor=3, access="mr"),)),
        ("b 8:* rwm", (DeviceRule(kind="b", major=8),)),
        ("a *:* rwm", (EVERYTHING,)),
        ("a 1:* r", (DeviceRule(kind="b", major=1, access="r"), DeviceRule(major=1, access="r"))),
    ],
)
def test_a_device_rule_is_read(text: str, rules: tuple[DeviceRule, ...]) -> None:
    assert further(text) == rules


@pytest.mark.parametrize("text", ["", "c 1:3", "c 1 rwm", "d 1:3 rwm", "c 1:3 x", "c 1:3 rwm\n", "c -1:3 r"])
def test_what_is_no_device_rule_is_refused(text: str) -> None:
    with pytest.raises(EngineError, match=r"device_cgroup_rules: .* is not of the form"):
        further(text, "a")


def test_what_is_said_of_one_block_device_is_one_limit() -> None:
    """The same device by two paths, too. Where there is no block device there is nothing to limit."""
    with pytest.raises(EngineError, match=r"service a: blkio_config: /dev/null is not a block device"):
        limits(container(resources=Resources(blkio=BlockIo(device_read_bps=(("/dev/null", 1),)))))
    with pytest.raises(EngineError, match=r"blkio_config: /nowhere: No such file"):
        limits(container(resources=Resources(blkio=BlockIo(weight_device=(("/nowhere", 10),)))))
    nothing = BlockIo(device_read_bps=(("/nowhere", 0),), weight=0)
    assert limits(container(resources=Resources(blkio=nothing))) == limits(container())


def test_the_limits_of_a_block_device_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.engines.local.limiting._number", lambda path, service: (8, len(path)))
    said = BlockIo(
        weight=300,
        weight_device=(("/a", 20),),
        device_read_bps=(("/a", 1), ("/bb", 2)),
        device_write_bps=(("/a", 3),),
        device_read_iops=(("/a", 4),),
        device_write_iops=(("/bb", 5),),
    )
    found = limits(container(resources=Resources(blkio=said)))
    assert found.io_weight == 300
    assert found.io == (
        IoLimit(major=8, minor=2, weight=20, read_bps=1, write_bps=3, read_iops=4),
        IoLimit(major=8, minor=3, read_bps=2, write_iops=5),
    )
