"""What lies at the edges of rules: cases that small faults in the planner had been shown to slip through."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model import effects
from orchestrator.model.action import (
    CreateContainer,
    ProbeContainer,
    RemoveNetwork,
    SignalContainer,
    StartContainer,
)
from orchestrator.model.desired import Desired, Intent
from orchestrator.model.observation import (
    Container,
    Health,
    HealthStatus,
    Observation,
    ProbeResult,
    PublishedPort,
    Run,
    Stopping,
)
from orchestrator.model.plan import Plan
from orchestrator.model.stack import OfService, RestartPolicy
from orchestrator.planner.gates import where_to_look
from orchestrator.planner.networks import free_subnet, overlap
from orchestrator.planner.plan import plan
from orchestrator.planner.rehearse import rehearse
from orchestrator.planner.restarts import replaced_at, sequel
from tests.kit.stacks import check, converge, network, nothing, service, stack, up, wanting

NOW = 1000.0


def waits(decided: Plan) -> dict[str, tuple[str, bool]]:
    return {w.target.partition(":")[2]: (w.because, w.failed) for w in decided.waits}


def called(world: Observation, name: str) -> Container:
    return next(one for one in world.containers if one.name == name)


def without(world: Observation, *names: str) -> Observation:
    return replace(world, containers=tuple(one for one in world.containers if one.name not in names))


# --- who shares a namespace ------------------------------------------------------------------------------


def pair() -> Desired:
    return up(stack("shop", db=service(), web=service(network_mode=OfService(service="db"))))


def test_who_shares_a_namespace_is_made_after_its_owner_has_been_replaced() -> None:
    world = without(converge(pair(), nothing()), "shop-web-1")
    decided = plan(wanting(pair(), "db", generation=1), world, NOW)
    assert waits(decided)["shop-web-1"] == ("db, whose network it shares, is not there", False)
    assert not any(isinstance(one, CreateContainer) for one in decided.actions)


def test_who_shares_a_namespace_of_what_goes_for_good_is_refused() -> None:
    world = without(converge(pair(), nothing()), "shop-web-1")
    decided = plan(wanting(pair(), "db", wanted="absent"), world, NOW)
    assert waits(decided)["shop-web-1"] == ("db, whose network it shares, is not there", True)


def test_who_shares_the_namespace_of_what_was_stopped_does_not_wait_for_it() -> None:
    world = converge(wanting(pair(), "db", wanted="stopped"), converge(pair(), nothing()))
    ended = effects.expect_exit(world, called(world, "shop-web-1").id, NOW, 1)
    decided = plan(wanting(wanting(pair(), "db", wanted="stopped"), "web", turn=2), ended, NOW)
    assert waits(decided)["shop-web-1"] == ("db, whose network it shares, does not run", True)


# --- gates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", ["started", "healthy", "completed"])
def test_a_dependency_that_is_to_start_again_opens_no_gate_whatever_is_asked_of_it(condition: str) -> None:
    desired = up(stack("shop", db=service(healthcheck=check()), web=service(after={"db": condition})))
    made = converge(wanting(desired, "web", wanted="created"), nothing())
    ended = effects.expect_exit(made, called(made, "shop-db-1").id, NOW - 1, 0)
    decided = plan(wanting(desired, "db", turn=2), ended, NOW)
    assert waits(decided)["shop-web-1"] == ("db is not started yet", False)


def test_the_hint_for_a_one_off_names_its_service() -> None:
    desired = up(stack("shop", web=service()))
    (web,) = converge(desired, nothing()).containers
    assert where_to_look(web) == "`pystack logs web` shows what it wrote"
    oneoff = replace(web, definition=replace(web.definition, name="web-run-ab12", oneoff=True))
    assert where_to_look(oneoff) == "`pystack logs web` shows what it wrote"
    assert where_to_look(replace(web, run=None)) == ""


# --- networks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intent", "remade"),
    [
        ({"wanted": "running"}, True),
        ({"wanted": "created"}, True),
        ({"wanted": "absent"}, True),
        ({"wanted": "stopped"}, False),
        ({"wanted": "running", "keep_stale": True}, False),
        ({"wanted": "created", "keep_stale": True}, False),
        ({"wanted": "absent", "keep_stale": True}, True),
        (None, False),
    ],
)
def test_a_network_is_made_anew_only_if_all_on_it_may_be_replaced(
    intent: dict[str, object] | None, remade: bool
) -> None:
    """`other` is on it too, and is wanted like that, or by nobody."""
    before = stack("shop", web=service(), other=service())
    after = stack("shop", web=service(), other=service(), networks={"default": network(internal=True)})
    world = converge(up(before), nothing())
    desired = up(after, "web") if intent is None else wanting(up(after), "other", **intent)
    seen = False
    for moment in range(30):
        decided = plan(desired, world, NOW + moment)
        seen = seen or any(isinstance(one, RemoveNetwork) for one in decided.actions)
        warned = any("left as it was" in sentence for sentence in decided.warnings)
        for action in decided.actions:
            world = effects.expect(world, action, NOW + moment)
            if isinstance(action, SignalContainer):
                world = effects.expect_exit(world, action.id, NOW + moment, 143)
        if warned or seen:
            break
    assert (seen, warned) == (remade, not remade)


def test_an_orphan_on_a_changed_network_is_no_reason_to_cut_it_off() -> None:
    world = converge(up(stack("shop", web=service(), old=service())), nothing())
    after = up(stack("shop", web=service(), networks={"default": network(internal=True)}))
    assert any("shop-old-1 uses it" in sentence for sentence in plan(after, world, NOW).warnings)


def test_ranges_of_the_two_families_do_not_meet() -> None:
    assert not overlap("fd00::/64", "10.0.0.0/8")
    assert not overlap("10.0.0.0/8", "fd00::/64")
    assert not overlap("fd00::/64", "fd00::/64")
    assert overlap("10.0.0.0/8", "10.9.0.0/16")
    assert not overlap("0.0.0.0/0", "10.9.0.0/16")
    assert free_subnet(["fd00::/64", "0.0.0.0/0"]) == "172.28.0.0/20"


# --- ports -----------------------------------------------------------------------------------------------


def test_two_ranges_of_one_service_that_overlap_get_two_numbers() -> None:
    desired = up(stack("shop", web=service(ports=("8000-8001:80", "8000-8001:81"))))
    (web,) = converge(desired, nothing()).containers
    assert [port.host_port for port in web.ports] == [8000, 8001]


def test_a_port_that_is_about_to_be_free_is_waited_for() -> None:
    world = converge(up(stack("shop", old=service(ports=("8080:80",)))), nothing())
    then = replace(up(stack("shop", web=service(ports=("8080:80",)))), remove_orphans=True)
    because, failed = waits(plan(then, world, NOW))["shop-web-1"]
    assert (because, failed) == ("port 8080/tcp is free when container shop-old-1 has gone", False)


@pytest.mark.parametrize(("protocol", "option"), [("tcp", "-lntp"), ("udp", "-lnup")])
def test_how_to_find_out_which_program_has_a_port(protocol: str, option: str) -> None:
    desired = up(stack("shop", web=service(ports=(f"53:53/{protocol}",))))
    port = PublishedPort(host_ip="", host_port=53, target=53, protocol=protocol)  # type: ignore[arg-type]
    wait = next(w for w in plan(desired, made(desired, port), NOW).waits if w.failed)
    assert wait.because == f"port 53/{protocol} is in use by another program"
    assert wait.hint == f"`ss {option} 'sport = :53'` shows which; or publish another port"


def made(desired: Desired, port: PublishedPort) -> Observation:
    """The network is there, and somebody has the port."""
    return converge(desired, nothing(ports_taken=(port,)))


@pytest.mark.parametrize(
    ("wish", "held", "clash"),
    [
        ("[::1]", "::", True),
        ("[::1]", "0.0.0.0", False),
        ("127.0.0.1", "::", False),
        ("[::1]", "::1", True),
        ("[::1]", "::2", False),
    ],
)
def test_which_addresses_meet(wish: str, held: str, clash: bool) -> None:
    whole = service(ports=("8080:80",))
    wanted = replace(whole, ports=(replace(whole.ports[0], host_ip=wish.strip("[]")),))
    desired = up(stack("shop", web=wanted))
    port = PublishedPort(host_ip=held, host_port=8080, target=1)
    assert (made(desired, port).containers == ()) is clash


# --- ends ------------------------------------------------------------------------------------------------


def ended(**fields: object) -> Run:
    return Run(turn=1, started=NOW - 50, **{"finished": NOW, "exit_code": 1, **fields})  # type: ignore[arg-type]


def test_why_it_starts_again_is_said() -> None:
    policy = RestartPolicy(condition="always")
    orders = {
        "asked to start": Intent(turn=2),
        "asked to restart": Intent(turn=2, restart_turn=2),
        "the machine was restarted": Intent(turn=1, restart_turn=1),
    }
    for because, intent in orders.items():
        assert sequel(ended(before_boot=True), policy, intent, NOW).because == because


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "later"),
        ({"before_boot": True}, "start"),
        ({"stopping": None}, "later"),
        ({"health": Health(status=HealthStatus.HEALTHY)}, "start"),
        ({"health": None}, "start"),
    ],
)
def test_only_an_unhealthy_run_that_we_stopped_counts_as_a_failure(
    fields: dict[str, object], kind: str
) -> None:
    ill = Health(status=HealthStatus.UNHEALTHY)
    stopping = Stopping(since=NOW - 1, signal=15, by="planner")
    run = ended(**{"health": ill, "stopping": stopping, **fields})
    policy = RestartPolicy(condition="always", unhealthy="restart")
    assert sequel(run, policy, Intent(turn=1), NOW).kind == kind


@pytest.mark.parametrize(
    ("results", "streak", "attempt"),
    [
        ([30.0, 35.0], 2, 2),  # it went well for 30 s: the next is the first restart in a row
        ([3.0, 5.0], 2, 6),  # for 3 s only
        ([22.0, 24.0], 8, 6),  # the failures before those that are kept began at 10 - 0.0001 s
        ([22.0, 24.0], 7, 2),  # at 12 s
        ([12.0], 1, 2),
        ([8.0], 1, 6),
    ],
)
def test_how_long_a_run_went_well_that_turned_unhealthy(
    results: list[float], streak: int, attempt: int
) -> None:
    began = NOW - 50
    known = tuple(
        ProbeResult(started=began + at - (0.0001 if streak == 8 else 0), ended=began + at + 0.1, exit_code=1)
        for at in results
    )
    ill = Health(status=HealthStatus.UNHEALTHY, was_healthy=True, failing_streak=streak, results=known)
    run = ended(health=ill, stopping=Stopping(since=NOW - 1, signal=15, by="planner"), attempt=5)
    policy = RestartPolicy(condition="always", unhealthy="restart")
    assert sequel(run, policy, Intent(turn=1), NOW).attempt == attempt


@pytest.mark.parametrize(
    ("asked", "wait"),
    [(NOW, 0.0), (NOW - 7, 7.0), (NOW - 500, 60.0), (0.0, 60.0), (NOW + 1, 60.0)],
)
def test_when_an_unhealthy_container_is_replaced(asked: float, wait: float) -> None:
    (web,) = converge(up(stack("shop", web=service())), nothing()).containers
    assert replaced_at(replace(web, created=NOW), Intent(asked=asked)) == NOW + wait


def test_what_can_not_be_executed_is_not_started_again_by_itself() -> None:
    desired = up(stack("shop", web=service(restart="always")))
    world = converge(desired, nothing())
    broken = replace(called(world, "shop-web-1"), run=ended(error="no such file", exit_code=127))
    decided = plan(desired, replace(world, containers=(broken,)), NOW + 100)
    assert not any(isinstance(one, StartContainer) for one in decided.actions)
    assert waits(decided)["shop-web-1"] == ("no such file", True)


# --- rehearsals ------------------------------------------------------------------------------------------


def test_a_rehearsal_ends_where_a_probe_is_all_that_is_left() -> None:
    desired = up(
        stack("shop", db=service(healthcheck=check(interval=1.0)), web=service(after={"db": "healthy"}))
    )
    lines = rehearse(desired, nothing(), NOW)
    assert [(line.verb, line.target) for line in lines if line.target.startswith("probe")] == [
        ("probe", "probe:shop-db-1")
    ]
    assert lines[-1].target == "container:shop-web-1"
    assert lines[-1].at < 3


def test_a_rehearsal_says_how_long_a_stop_takes_and_no_more() -> None:
    desired = up(stack("shop", web=service()))
    world = converge(desired, nothing())
    lines = rehearse(wanting(desired, "web", wanted="absent"), world, NOW)
    assert [(line.verb, round(line.at, 2)) for line in lines] == [("stop", 0.0), ("remove", 0.1)]


def test_probes_are_not_asked_of_who_stands_still_or_is_stopping() -> None:
    desired = up(stack("shop", web=service(healthcheck=check(interval=1.0))))
    world = converge(desired, nothing())
    web = called(world, "shop-web-1")
    assert web.run is not None
    for run, asked in (
        (web.run, True),
        (replace(web.run, paused=True), False),
        (replace(web.run, stopping=Stopping(since=NOW, signal=15, by="user")), False),
        (replace(web.run, finished=NOW), False),
    ):
        decided = plan(desired, replace(world, containers=(replace(web, run=run),)), NOW + 500)
        assert any(isinstance(one, ProbeContainer) for one in decided.actions) is asked
