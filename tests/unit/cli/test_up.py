"""The options of `up`: numbers of replicas, and what contradicts what."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.cli.arrange import arrange, demand_ports
from orchestrator.cli.up import check, scales
from orchestrator.model.errors import ExitCode, Place, UserError
from orchestrator.model.stack import HostRoot, Port, Service, Stack

STACK = Stack(
    name="shop",
    services={
        "web": Service(name="web", root=HostRoot()),
        "db": Service(name="db", root=HostRoot(), container_name="the-db"),
    },
)


def test_scale_sets_the_number_of_one_service_only() -> None:
    arranged = arrange(STACK, scales(("web=3",)))

    assert {name: service.replicas for name, service in arranged.services.items()} == {"web": 3, "db": 1}
    assert arrange(STACK, {}) is STACK
    assert arrange(STACK, {"db": 0}).services["db"].replicas == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("wbe=1",), "no such service: wbe"),
        (("db=2",), "container_name"),
        (("web",), "SERVICE=N"),
        (("web=-1",), "SERVICE=N"),
        (("=2",), "SERVICE=N"),
    ],
)
def test_a_scale_that_cannot_be_is_told(given: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        arrange(STACK, scales(given))


@pytest.mark.parametrize(
    "wrong",
    [
        {"force_recreate": True, "no_recreate": True},
        {"abort_on_exit": True, "abort_on_failure": True},
        {"both_attach": True, "attaching": True},
        {"wait": True, "abort_on_exit": True},
        {"wait": True, "attaching": True},
        {"detach": True, "abort_on_failure": True},
        {"detach": True, "attaching": True},
    ],
)
def test_options_that_contradict_each_other_are_refused(wrong: dict[str, bool]) -> None:
    options: dict[str, Any] = dict.fromkeys(
        (
            "detach",
            "wait",
            "attaching",
            "abort_on_exit",
            "abort_on_failure",
            "both_attach",
            "force_recreate",
            "no_recreate",
        ),
        False,
    )
    check(**options)
    with pytest.raises(UserError, match="cannot be combined") as caught:
        check(**{**options, **wrong})
    assert caught.value.exit_code is ExitCode.USAGE


def _port(line: int, number: int, *, last: int = 0, ip: str = "", **fields: Any) -> Port:
    place = Place(file="stack.yml", line=line, column=9)
    return Port(target=80, published=(number, last or number), host_ip=ip, place=place, **fields)


def _publishing(replicas: int = 1, **ports: Port) -> Stack:
    services = {
        name: Service(name=name, root=HostRoot(), replicas=replicas, ports=(port,))
        for name, port in ports.items()
    }
    return Stack(name="shop", services=services)


@pytest.mark.parametrize(
    "stack",
    [
        _publishing(web=_port(3, 8080), api=_port(4, 8080, protocol="udp")),
        _publishing(web=_port(3, 8080, ip="127.0.0.1"), api=_port(4, 8080, ip="127.0.0.2")),
        _publishing(web=_port(3, 8000, last=8001), api=_port(4, 8000, last=8001)),
        _publishing(web=_port(3, 0), api=_port(4, 0)),
        _publishing(0, web=_port(3, 8080), api=_port(4, 8080)),
        _publishing(2, web=_port(3, 8000, last=8001)),
        _publishing(2, web=_port(3, 8080)),
    ],
)
def test_ports_that_get_along(stack: Stack) -> None:
    demand_ports(stack, stack.services)


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        (
            _publishing(web=_port(3, 8080), api=_port(4, 8080, ip="127.0.0.1")),
            "stack.yml:4:9: service api: port 8080/tcp is that of service web already",
        ),
        (
            _publishing(2, web=_port(3, 53, protocol="udp", mode="host")),
            "stack.yml:3:9: 2 containers of service web can't all have port 53/udp",
        ),
    ],
)
def test_two_containers_cannot_have_one_port(stack: Stack, message: str) -> None:
    """Told before anything is touched; with docker compose the first one runs when the second fails."""
    with pytest.raises(UserError) as caught:
        demand_ports(stack, stack.services)
    assert (caught.value.message, caught.value.exit_code) == (message, ExitCode.CONFLICT)


def test_services_that_are_not_asked_for_cannot_be_in_the_way() -> None:
    demand_ports(_publishing(web=_port(3, 8080), api=_port(4, 8080)), ["api"])
