"""What an ordinary user's services ask for in vain."""

from __future__ import annotations

import pytest

from orchestrator.engines.local.refusals import Rights, refusals
from orchestrator.kernel.limits import Hierarchies
from orchestrator.model.stack import HostRoot, OfHost, Port, Resources, Service

NONE = Hierarchies(mode="none", v1={}, unified=None, v2=frozenset(), delegated=True)
SOME = Hierarchies(mode="v2", v1={}, unified="/g", v2=frozenset({"memory", "pids"}), delegated=True)


def said(service: Service, hierarchies: Hierarchies = NONE, first_port: int = 1024) -> list[str]:
    return refusals([service], Rights(hierarchies=hierarchies, first_port=first_port, score=100))


def test_a_plain_service_is_refused_nothing() -> None:
    assert said(Service(name="a", root=HostRoot(), ports=(Port(target=80, published=(8080, 8080)),))) == []
    assert said(Service(name="a", root=HostRoot(), ports=(Port(target=80),), oom_score_adj=100)) == []


def test_each_limit_without_its_controller_is_named() -> None:
    service = Service(name="a", root=HostRoot(), resources=Resources(memory=1 << 26, cpus=1.0, pids=9))
    assert [line.partition(": ")[2].partition(":")[0] for line in said(service)] == [
        "memory limit",
        "cpu limit",
        "pids limit",
    ]
    assert said(service, SOME) == [
        "service a: cpu limit: no cgroup with the cpu controller is delegated to this user"
    ]


@pytest.mark.parametrize(("published", "first_port", "refused"), [
    ((80, 80), 1024, True),
    ((80, 80), 80, False),
    ((80, 2000), 1024, False),
    ((1023, 1023), 1024, True),
    ((1024, 1024), 1024, False),
])  # fmt: skip
def test_ports_from_the_machines_first_on(published: tuple[int, int], first_port: int, refused: bool) -> None:
    """Of a range the planner may pick one that can be had."""
    service = Service(name="a", root=HostRoot(), ports=(Port(target=80, published=published),))
    assert bool(said(service, first_port=first_port)) is refused


def test_the_hosts_namespaces_are_not_shared() -> None:
    service = Service(name="a", root=HostRoot(), network_mode=OfHost(), pid=OfHost(), ipc=OfHost())
    assert [line.split(": ")[1] for line in said(service)] == ["network_mode", "pid", "ipc"]


def test_a_lower_score_than_ones_own_is_named() -> None:
    assert "which is 100" in said(Service(name="a", root=HostRoot(), oom_score_adj=50))[0]
