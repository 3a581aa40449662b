"""Host ports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model.action import CreateContainer, StartContainer
from orchestrator.model.observation import HeldPort, Observation, PublishedPort
from orchestrator.model.plan import Plan
from orchestrator.model.stack import OfHost
from orchestrator.planner.plan import plan
from tests.kit.stacks import converge, nothing, service, stack, up, wanting

NOW = 1000.0


def host_ports(world: Observation) -> dict[str, list[int]]:
    return {c.name: [p.host_port for p in c.ports] for c in world.containers}


def refusals(decided: Plan) -> dict[str, tuple[str, int]]:
    return {w.target: (w.because, w.exit_code) for w in decided.waits if w.failed}


def taken(number: int, ip: str = "", protocol: str = "tcp") -> PublishedPort:
    return PublishedPort(host_ip=ip, host_port=number, target=0, protocol=protocol)  # type: ignore[arg-type]


def test_a_fixed_port_is_taken_as_it_is() -> None:
    world = converge(up(stack(web=service(ports=("8080:80", "127.0.0.1:53:53/udp")))), nothing())
    (web,) = world.containers
    assert web.ports == (
        PublishedPort(host_ip="", host_port=8080, target=80),
        PublishedPort(host_ip="127.0.0.1", host_port=53, target=53, protocol="udp"),
    )


def test_the_first_free_port_of_a_range_is_taken() -> None:
    wish = stack(web=service(ports=("8000-8003:80",), replicas=3))
    world = converge(up(wish), nothing(ports_taken=(taken(8001),)))
    assert host_ports(world) == {"shop-web-1": [8000], "shop-web-2": [8002], "shop-web-3": [8003]}


def test_a_used_up_range_is_refused() -> None:
    wish = stack(web=service(ports=("8000-8001:80",), replicas=3))
    decided = plan(up(wish), converge(up(wish), nothing()), NOW)
    assert refusals(decided) == {"container:shop-web-3": ("no port of 8000-8001/tcp is free", 7)}


def test_any_free_port_is_one_of_the_ephemeral_range_and_the_same_each_time() -> None:
    wish = stack(web=service(ports=(":80", ":81"), replicas=2))
    first = converge(up(wish), nothing())
    numbers = [number for found in host_ports(first).values() for number in found]
    assert len(set(numbers)) == 4
    assert all(32768 <= number <= 60999 for number in numbers)
    again = converge(up(wish, generation=1), first)
    assert host_ports(again) == host_ports(first)
    assert {c.id for c in again.containers}.isdisjoint(c.id for c in first.containers)


def test_any_free_port_is_not_one_in_use() -> None:
    wish = stack(web=service(ports=(":80",)))
    (number,) = host_ports(converge(up(wish), nothing()))["shop-web-1"]
    (other,) = host_ports(converge(up(wish), nothing(ports_taken=(taken(number),))))["shop-web-1"]
    assert other != number


@pytest.mark.parametrize(
    ("wish", "held", "clash"),
    [
        ("8080:80", taken(8080), True),
        ("8080:80", taken(8080, "127.0.0.1"), True),
        ("127.0.0.1:8080:80", taken(8080), True),
        ("127.0.0.1:8080:80", taken(8080, "0.0.0.0"), True),
        ("127.0.0.1:8080:80", taken(8080, "127.0.0.1"), True),
        ("127.0.0.1:8080:80", taken(8080, "127.0.0.2"), False),
        ("0.0.0.0:8080:80", taken(8080, "::"), False),
        ("8080:80", taken(8081), False),
        ("8080:80/udp", taken(8080), False),
    ],
)
def test_what_clashes(wish: str, held: PublishedPort, clash: bool) -> None:
    desired = up(stack(web=service(ports=(wish,))))
    world = converge(desired, nothing(ports_taken=(held,)))
    assert (world.containers == ()) is clash


def test_a_port_in_use_is_refused_by_name_of_its_holder() -> None:
    desired = up(stack(a=service(ports=("8080:80",)), b=service(ports=("8080:80", "9:9"))))
    decided = plan(desired, converge(desired, nothing()), NOW)
    because = "port 8080/tcp is in use by container shop-a-1"
    assert refusals(decided) == {"container:shop-b-1": (because, 7)}
    strange = plan(desired, converge(desired, nothing(ports_taken=(taken(9),))), NOW)
    assert refusals(strange)["container:shop-b-1"] == (because, 7)


def test_a_port_of_another_stack_names_that_stack_and_its_container() -> None:
    """Also when the very same port is in our own stopped container, and whatever its address."""
    wish = stack(web=service(ports=("8080:80",)))
    theirs = PublishedPort(host_ip="", host_port=8080, target=80)
    held = HeldPort(port=theirs, stack="blog", container="blog-front-1")
    stopped = converge(wanting(up(wish), "web", wanted="stopped"), converge(up(wish), nothing()))
    taken_by = {"ports_taken": (theirs,), "ports_held": (held,)}
    for world in (converge(up(wish), nothing(**taken_by)), replace(stopped, **taken_by)):  # type: ignore[arg-type]
        (wait,) = plan(up(wish, turn=2), world, NOW).waits
        assert wait.because == "port 8080/tcp is in use by container blog-front-1 of stack blog"
        assert (wait.failed, wait.exit_code) == (True, 7)
        assert "`pystack -p blog stop` frees it" in wait.hint


def test_a_port_whose_holder_is_about_to_go_is_waited_for() -> None:
    before = up(stack(old=service(ports=("8080:80",)), new=service()))
    world = converge(before, nothing())
    after = wanting(
        up(stack(old=service(ports=("8080:80",)), new=service(ports=("8080:80",)))), "old", wanted="absent"
    )
    waits = {w.target: w for w in plan(after, world, NOW).waits}
    assert not any(w.failed for w in waits.values())
    assert host_ports(converge(after, world)) == {"shop-new-1": [8080]}


def test_a_port_that_is_being_given_is_taken() -> None:
    desired = up(
        stack(
            a=service(networks=(), ports=("8000-8001:80",)), b=service(networks=(), ports=("8000-8001:80",))
        )
    )
    first, _ = plan(desired, nothing(), NOW).actions
    (second,) = plan(desired, nothing(), NOW, {first.target: first}).actions
    assert isinstance(second, CreateContainer)
    assert [p.host_port for p in second.ports] == [8001]


def test_a_stopped_container_whose_port_was_taken_meanwhile_is_not_started() -> None:
    wish = stack(web=service(ports=("8080:80",)))
    stopped = converge(wanting(up(wish), "web", wanted="stopped"), converge(up(wish), nothing()))
    assert stopped.ports_taken == ()
    theirs = nothing(ports_taken=(taken(8080),)).ports_taken

    decided = plan(up(wish, turn=2), replace(stopped, ports_taken=theirs), NOW)
    assert refusals(decided) == {"container:shop-web-1": ("port 8080/tcp is in use by another program", 7)}
    (start,) = plan(up(wish, turn=2), stopped, NOW).actions
    assert isinstance(start, StartContainer)


def waits(decided: Plan) -> dict[str, tuple[str, bool, str]]:
    return {one.target: (one.because, one.failed, one.hint) for one in decided.waits}


def test_a_service_on_the_network_of_the_machine_publishes_nothing() -> None:
    desired = up(stack(web=service(ports=("8080:80",), network_mode=OfHost())))
    assert host_ports(converge(desired, nothing())) == {"shop-web-1": []}


def test_of_two_that_want_a_port_at_the_same_time_one_has_it() -> None:
    wish = stack(a=service(networks=(), ports=("8080:80",)), b=service(networks=(), ports=("8080:80",)))
    refused = {"container:shop-b-1": ("port 8080/tcp is in use by container shop-a-1", True, "")}
    both = plan(up(wish), nothing(), NOW)
    (first,) = both.actions
    assert waits(both) == refused
    under_way = plan(up(wish), nothing(), NOW, {first.target: first})
    assert waits(under_way)["container:shop-b-1"] == refused["container:shop-b-1"]


def test_a_port_of_one_that_is_replaced_is_about_to_be_free() -> None:
    before = up(stack(a=service(ports=("8080:80",))))
    after = up(stack(a=service(ports=("9090:80",)), b=service(ports=("8080:80",))))
    decided = plan(after, converge(before, nothing()), NOW)
    said = "port 8080/tcp is free when container shop-a-1 has gone"
    assert waits(decided)["container:shop-b-1"] == (said, False, "")


def test_a_random_port_that_another_of_the_service_has_is_followed_by_the_next() -> None:
    """Only a fixed port may be shared."""
    desired = up(stack(web=service(networks=(), ports=(":80",), replicas=2)))
    world = converge(desired, nothing())
    first, second = world.containers
    (port,) = first.ports
    alone = replace(world, containers=(replace(second, ports=(port,)),))
    (made,) = [one for one in plan(desired, alone, NOW).actions if isinstance(one, CreateContainer)]
    assert [one.host_port for one in made.ports] == [port.host_port + 1]


def test_one_of_a_range_is_not_shared_when_it_starts_again() -> None:
    desired = up(stack(web=service(networks=(), ports=("8000-8001:80",), replicas=2)))
    first, second = converge(desired, nothing()).containers
    assert first.run is not None
    ended = replace(first, ports=second.ports, run=replace(first.run, finished=NOW, exit_code=0))
    decided = plan(
        up(stack(web=service(networks=(), ports=("8000-8001:80",), replicas=2)), turn=2),
        replace(converge(desired, nothing()), containers=(ended, second)),
        NOW,
    )
    assert waits(decided)["container:shop-web-1"][0] == "port 8001/tcp is in use by container shop-web-2"
