"""What is decided and written down of updates by steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.api import orders
from orchestrator.model import codec
from orchestrator.model.action import (
    CreateContainer,
    ProbeContainer,
    RemoveContainer,
    RoutePorts,
    SignalContainer,
    StartContainer,
    verb,
)
from orchestrator.model.desired import Desired, Edition, Intent, Rollout, Wanted
from orchestrator.model.fingerprint import of_service
from orchestrator.model.observation import (
    Health,
    HealthStatus,
    ImageState,
    Observation,
    ProbeResult,
    Stopping,
)
from orchestrator.model.plan import Plan
from orchestrator.model.stack import Attachment, FileMount, OfHost, OfService, Port, Service, Stack
from orchestrator.planner.drift import differences
from orchestrator.planner.plan import plan
from orchestrator.planner.progress import Progress, progress
from orchestrator.planner.rehearse import rehearse
from orchestrator.planner.rollouts import accept, said, told
from tests.kit.stacks import apply_all, check, converge, nothing, port, service, stack, steps

NOW = 100.0


def web(user: str = "1", /, **fields: Any) -> Service:
    ports = fields.pop("ports", ())
    fields = {"replicas": 2, "deploy": steps(), "healthcheck": check(), "restart": "always", **fields}
    made = service(user=user, **fields)
    return replace(made, ports=tuple(one if isinstance(one, Port) else port(one) for one in ports))


NOTHING = nothing()


def up(previous: Desired | None, wish: Stack, world: Observation = NOTHING, **options: Any) -> Desired:
    found = orders.up(previous, wish, orders.UpOptions(**options))
    return orders.acknowledge(previous, found, world.containers, NOW)


def changed(before: Stack, after: Stack, *images: str, **options: Any) -> tuple[Desired, Observation]:
    """`before` runs and is healthy, `after` is ordered."""
    first = up(None, before)
    world = converge(first, nothing(*images), 10.0)
    world = replace(
        world, containers=tuple(with_health(one, HealthStatus.HEALTHY) for one in world.containers)
    )
    return up(first, after, world, **options), world


def with_health(one: Any, status: HealthStatus) -> Any:
    health = Health(status=status) if one.healthcheck is not None else None
    return replace(one, run=replace(one.run, health=health))


def settle(desired: Desired, world: Observation, now: float = NOW) -> tuple[Desired, Plan]:
    """What is written down until there is nothing more, and the plan then."""
    for _ in range(8):
        decided = plan(desired, world, now)
        if not decided.rollouts:
            return desired, decided
        desired = accept(desired, decided.rollouts)
    raise AssertionError("no end of notes")


def sick(desired: Desired, world: Observation, name: str = "web") -> Observation:
    """The first of the new ones was made in the seat of an old one, and is unhealthy."""
    wish = desired.stack.services[name]
    first = next(one for one in world.containers if one.service == name)
    made = replace(first, id="f" * 64, definition=wish, fingerprint=of_service(wish), created=NOW)
    made = replace(with_health(made, HealthStatus.UNHEALTHY), generation=desired.intents[name].generation)
    return replace(world, containers=tuple(made if one is first else one for one in world.containers))


def steps_of(decided: Plan) -> list[str]:
    kinds = (CreateContainer, RemoveContainer, SignalContainer, StartContainer)
    return [f"{verb(one)} {one.name}: {one.because}" for one in decided.actions if isinstance(one, kinds)]


def standing(desired: Desired, world: Observation, decided: Plan) -> Progress:
    return progress(desired, replace(world, at=NOW), decided)


# --- the first step ------------------------------------------------------------------------------------


def test_nothing_is_done_before_it_is_written_down() -> None:
    desired, world = changed(stack(web=web("1")), stack(web=web("2")))
    first = plan(desired, world, NOW)
    assert steps_of(first) == []
    assert not first.settled
    desired, decided = settle(desired, world)
    assert steps_of(decided) == ["stop shop-web-1: definition changed: user"]
    rollout = desired.rollouts["web"]
    assert (rollout.kind, rollout.outcome, rollout.total, rollout.turn) == ("update", "", 2, 2)
    assert rollout.before is not None
    assert rollout.before.service.user == "1"
    assert codec.decode(Desired, codec.encode(desired)) == desired


def test_without_update_config_all_are_replaced_at_once() -> None:
    desired, world = changed(stack(web=web("1", deploy=None)), stack(web=web("2", deploy=None)))
    assert len(steps_of(plan(desired, world, NOW))) == 2
    assert settle(desired, world)[0].rollouts == {}


def test_how_updates_go_is_no_reason_for_one() -> None:
    desired, world = changed(stack(web=web("1")), stack(web=web("1", deploy=steps(delay=9.0))))
    desired, decided = settle(desired, world)
    assert (steps_of(decided), desired.rollouts) == ([], {})


def test_up_without_start_and_without_recreate_know_no_steps() -> None:
    desired, world = changed(stack(web=web("1")), stack(web=web("2")), no_recreate=True)
    assert steps_of(settle(desired, world)[1]) == []
    desired, world = changed(stack(web=web("1")), stack(web=web("2")), wanted=Wanted.CREATED)
    assert len(steps_of(settle(desired, world)[1])) == 2


def test_old_ones_that_do_not_serve_go_first() -> None:
    desired, world = changed(stack(web=web("1")), stack(web=web("2")))
    one, two = world.containers
    world = replace(world, containers=(one, with_health(two, HealthStatus.UNHEALTHY)))
    assert steps_of(settle(desired, world)[1]) == ["stop shop-web-2: definition changed: user"]


def test_who_is_on_the_way_out_already_comes_before_all_others() -> None:
    """As after a crash: the stop of the second had begun, and the first has turned unhealthy since."""
    desired, world = changed(stack(web=web("1")), stack(web=web("2")))
    one, two = world.containers
    assert two.run is not None
    stopping = replace(two, run=replace(two.run, stopping=Stopping(since=NOW, signal=15, by="planner")))
    world = replace(world, containers=(with_health(one, HealthStatus.UNHEALTHY), stopping))
    assert steps_of(settle(desired, world)[1]) == []
    ended = replace(stopping, run=replace(stopping.run, finished=NOW, exit_code=143))  # type: ignore[type-var]
    world = replace(world, containers=(world.containers[0], ended))
    assert steps_of(settle(desired, world)[1]) == ["remove shop-web-2: definition changed: user"]


OBSTACLES: dict[str, dict[str, Any]] = {
    "it has a container_name": {"container_name": "it", "replicas": 1},
    "it has an ipv4_address": {
        "networks": (Attachment(network="default", ipv4_address="172.28.0.9"),),
        "replicas": 1,
    },
    "it has a mac_address": {"networks": (Attachment(network="default", mac_address="02:00:00:00:00:01"),)},
    "it is on the network of the machine": {"network_mode": OfHost()},
    "it is on the network of db": {"network_mode": OfService(service="db")},
    "side shares its network": {},
    "its ports 9000-9001/tcp have no room for one more": {"ports": ("9000-9001:80",)},
    "it publishes a port with mode: host": {
        "ports": (Port(target=80, published=(9000, 9000), mode="host"),),
        "replicas": 1,
    },
}


@pytest.mark.parametrize("because", OBSTACLES)
def test_where_start_first_is_not_possible(because: str) -> None:
    def wish(user: str) -> Stack:
        others = {"db": service()}
        if "side" in because:
            others["side"] = service(network_mode=OfService(service="web"))
        return stack(web=web(user, deploy=steps(order="start-first"), **OBSTACLES[because]), **others)

    desired, world = changed(wish("1"), wish("2"))
    decided = settle(desired, world)[1]
    assert decided.warnings == (
        f"service web can't be updated start-first, as {because}: the old container stops first",
    )
    assert not any(step.startswith("create") for step in steps_of(decided))


@pytest.mark.parametrize("published", ["9000:80", "9000-9002:80", ":80"])
def test_where_ports_do_not_stand_against_it(published: str) -> None:
    one, two = (stack(web=web(user, ports=(published,), deploy=steps(order="start-first"))) for user in "12")
    desired, world = changed(one, two)
    decided = settle(desired, world)[1]
    assert [type(one) for one in decided.actions if not isinstance(one, ProbeContainer | RoutePorts)] == [
        CreateContainer
    ]


# --- who waits -----------------------------------------------------------------------------------------


def test_it_waits_for_its_image_and_says_so_if_that_may_not_be_pulled() -> None:
    before, after = (stack(web=web(image=name, pull_policy="never")) for name in ("old", "new"))
    desired, world = changed(before, after, "old")
    desired, decided = settle(desired, world)
    assert steps_of(decided) == []
    found = standing(desired, world, decided)
    assert found.started.done
    assert found.started.failures == ("service web: image not here: new, and pull_policy is never",)
    assert found.started.exit_code == 6
    world = replace(world, images={**world.images, "new": ImageState(id="sha256:new")})
    assert len(steps_of(settle(desired, world)[1])) == 1


def test_scaling_down_does_not_wait() -> None:
    before = stack(web=web(image="old", replicas=3))
    after = stack(web=web(image="new", pull_policy="never", replicas=1))
    desired, world = changed(before, after, "old")
    assert steps_of(settle(desired, world)[1]) == [f"stop shop-web-{slot}: scaled to 1" for slot in (2, 3)]


def test_it_waits_for_the_updates_of_those_it_depends_on() -> None:
    before, after = (stack(db=web(user), web=web(user, after="db")) for user in "12")
    desired, world = changed(before, after)
    desired, decided = settle(desired, world)
    assert [step.partition(":")[0] for step in steps_of(decided)] == ["stop shop-db-1"]
    waits = {wait.target: wait.because for wait in decided.waits}
    assert waits["service:web"] == "0 of 2 containers are new, but first db is updated"
    found = standing(desired, world, decided)
    assert not found.started.done


def test_a_dependent_may_start_beside_new_ones_that_are_not_good_yet() -> None:
    """As many are good as are wanted: those of before."""
    wish = {"deploy": steps(order="start-first")}
    before = stack(db=web("1", **wish))
    after = stack(db=web("2", **wish), web=service(after={"db": "healthy"}))
    desired, world = changed(before, after)
    desired, decided = settle(desired, world)
    made = [one for one in decided.actions if isinstance(one, CreateContainer)]
    assert [one.name for one in made] == ["shop-db-3", "shop-web-1"]
    world = apply_all(world, decided.actions, NOW)
    assert "start shop-web-1: db is healthy" in steps_of(settle(desired, world)[1])


# --- verdicts ------------------------------------------------------------------------------------------


def test_up_says_that_it_was_paused_and_a_later_command_does_not() -> None:
    desired, world = changed(stack(web=web("1")), stack(web=web("2")))
    desired, decided = settle(desired, world)
    assert not standing(desired, world, decided).started.done
    world = sick(desired, world)
    desired, decided = settle(desired, world, NOW + 1)
    sentence = "the update of web is paused: container shop-web-1 is unhealthy (1 of 2 failed)"
    assert said("web", desired.rollouts["web"]) == sentence
    assert [(one.target, one.because) for one in decided.waits if one.failed] == [("service:web", sentence)]
    assert steps_of(decided) == []
    found = standing(desired, world, decided)
    for verdict in (found.started, found.ready):
        assert (verdict.done, verdict.failures, verdict.exit_code) == (True, (sentence,), 1)
        assert verdict.hint == "`pystack logs web` shows what it wrote"
    told_by_drift, _ = differences(desired, world, NOW + 1)
    assert (told_by_drift.service, told_by_drift.found, told_by_drift.mendable) == ("web", "paused", False)
    assert told_by_drift.because == sentence
    later = orders.start(desired, ["web"])
    assert standing(later, world, settle(later, world, NOW + 1)[1]).started.failures == ()


def drifted(desired: Desired, world: Observation, now: float = NOW) -> list[tuple[str, str, str, bool]]:
    found = differences(desired, world, now)
    return [(one.target, one.found, one.because, one.mendable) for one in found]


def test_drift_names_each_container_that_an_update_has_not_reached() -> None:
    desired, world = changed(stack(web=web("1", replicas=3)), stack(web=web("2", replicas=3)))
    desired, _ = settle(desired, world)
    later = "definition changed: user, but its turn is still to come"
    assert drifted(desired, world)[1:] == [
        ("service:web", "under way", "0 of 3 containers are new", True),
        ("container:shop-web-2", "running", later, True),
        ("container:shop-web-3", "running", later, True),
    ]
    world = sick(desired, world)
    desired, _ = settle(desired, world, NOW + 1)
    never = "definition changed: user, but the update is paused"
    assert drifted(desired, world, NOW + 1)[1:] == [
        ("container:shop-web-2", "running", never, False),
        ("container:shop-web-3", "running", never, False),
    ]


def test_drift_names_who_waits_for_the_update_of_another() -> None:
    def wish(number: str) -> Stack:
        return stack(db=web(number), web=web(number, after="db"))

    desired, world = changed(wish("1"), wish("2"))
    desired, _ = settle(desired, world)
    rows = {target: because for target, _, because, _ in drifted(desired, world)}
    assert rows["container:shop-web-1"] == "definition changed: user, but first db is updated"


def test_a_rollback_is_the_definition_before_with_what_the_file_says_of_its_number() -> None:
    before = stack(web=web("1"), db=service())
    course = steps(failure_action="rollback")
    after = stack(web=web("2", deploy=course, replicas=3, after="db"), db=service())
    desired, world = changed(before, after)
    desired, _ = settle(desired, world)
    desired, decided = settle(desired, sick(desired, world), NOW + 1)
    found = desired.stack.services["web"]
    assert (found.user, found.replicas, found.deploy) == ("1", 3, course)
    assert [one.service for one in found.depends_on] == ["db"]
    assert steps_of(decided) == ["create shop-web-3: missing"]  # then the one that failed
    rollout = desired.rollouts["web"]
    assert (rollout.kind, rollout.outcome, rollout.turn) == ("rollback", "", 2)
    words = "rolled back: container shop-web-1 is unhealthy (1 of 2 failed)"
    assert said("web", rollout) == f"the update of web is being {words}"
    done = replace(desired, rollouts={"web": replace(rollout, outcome="done", before=None)})
    sound = replace(world, containers=tuple(one for one in world.containers if one.service == "web"))
    found_up = progress(done, replace(sound, at=NOW), Plan(), ("web",))
    assert f"the update of web was {words}" in found_up.started.failures
    assert found_up.started.exit_code == 1


GONE: dict[str, tuple[dict[str, Any], str]] = {
    "network": ({"networks": ("back",)}, "network back, which it was on before, is gone"),
    "volume": ({"volumes": ("data:/d",)}, "volume data, which it had before, is gone"),
    "peer": ({"network_mode": OfService(service="db")}, "service db, beside which it was before, is gone"),
}


@pytest.mark.parametrize("what", GONE)
def test_what_can_not_be_gone_back_to_is_a_pause_that_says_why(what: str) -> None:
    fields, because = GONE[what]
    old = replace(web("1", **fields), name="web")
    new = stack(web=web("2", deploy=steps(failure_action="rollback")))
    desired, world = changed(stack(web=web("1")), new)
    desired, _ = settle(desired, world)
    edition = Edition(service=old, fingerprint=of_service(old), image_id="")
    desired = replace(desired, rollouts={"web": replace(desired.rollouts["web"], before=edition)})
    desired, _ = settle(desired, sick(desired, world), NOW + 1)
    rollout = desired.rollouts["web"]
    assert rollout.outcome == "paused"
    assert rollout.because.endswith(f"(1 of 2 failed), and {because}")


def test_the_networks_of_before_are_kept_to_go_back_to() -> None:
    before = stack(web=web("1", networks=("back",)))
    after = stack(web=web("2", deploy=steps(failure_action="rollback")))
    desired, world = changed(before, after)
    assert set(desired.stack.networks) == {"back", "default"}
    assert set(
        up(up(None, stack(web=web("1", networks=("back",)))), stack(web=web("2", deploy=None))).stack.networks
    ) == {"default"}
    desired, _ = settle(desired, world)
    verdict = Rollout(kind="rollback", because="x", before=desired.rollouts["web"].before, turn=2)
    desired = accept(desired, {"web": verdict})
    assert desired.stack.services["web"].networks[0].network == "back"
    assert steps_of(settle(desired, world)[1]) == []


def test_up_keeps_an_update_to_the_same_end_and_ends_a_verdict() -> None:
    before, after = stack(web=web("1")), stack(web=web("2"))
    desired, world = changed(before, after)
    desired, _ = settle(desired, world)
    under_way = desired.rollouts["web"]
    assert up(desired, after, world).rollouts["web"] == replace(under_way, turn=3)
    assert up(desired, after, world, force_recreate=True).rollouts["web"] == Rollout(before=under_way.before)
    third = up(desired, stack(web=web("3")), world)
    assert third.rollouts["web"] == Rollout(before=under_way.before)
    paused, _ = settle(desired, sick(desired, world), NOW + 1)
    assert up(paused, after, world).rollouts["web"] == Rollout(before=under_way.before)
    assert up(paused, stack(web=web("2"), db=service()), world, services=("db",)).rollouts == paused.rollouts
    assert up(paused, stack(db=service()), world).rollouts == {}
    gone = orders.down(paused, remove_volumes=False, remove_orphans=False, timeout=None)
    assert up(gone, after, world).rollouts == {}


@pytest.mark.parametrize("what", ["user", "content"])
def test_who_goes_on_the_way_back_goes_because_the_update_failed(what: str) -> None:
    def wish(number: str) -> Stack:
        course = steps(failure_action="rollback")
        if what == "user":
            return stack(web=web(number, deploy=course))
        config = FileMount(kind="config", name="app", target="/app", content=number)
        return stack(web=replace(web("1", deploy=course), mounts=(config,)))

    before, after = wish("1"), wish("2")
    desired, world = changed(before, after)
    desired, _ = settle(desired, world)
    desired, decided = settle(desired, sick(desired, world), NOW + 1)
    assert desired.rollouts["web"].kind == "rollback"
    assert steps_of(decided) == ["stop shop-web-1: its update failed and is taken back"]


def test_the_image_before_is_pinned_until_the_next_up() -> None:
    wish = stack(web=web(image="web", deploy=steps(failure_action="rollback")))
    desired, world = changed(wish, wish, "web")
    newer = {"web": ImageState(id="sha256:newer"), "sha256:web": world.images["web"]}
    world = replace(world, images=newer)
    desired, decided = settle(desired, world)
    assert steps_of(decided) == ["stop shop-web-1: image web is another one now"]
    first, *others = world.containers
    failing = replace(with_health(first, HealthStatus.UNHEALTHY), id="f" * 64, image_id="sha256:newer")
    world = replace(world, containers=(failing, *others))
    desired, decided = settle(desired, world, NOW + 1)
    assert desired.pins == {"web": "sha256:web"}
    assert steps_of(decided) == ["stop shop-web-1: the service goes back to the image before"]
    empty = replace(world, containers=tuple(others))
    made = [one for one in settle(desired, empty, NOW + 1)[1].actions if isinstance(one, CreateContainer)]
    assert [one.image_id for one in made] == ["sha256:web"]
    assert up(desired, wish, world).pins == {}


# --- what is told --------------------------------------------------------------------------------------


def test_dependents_are_ordered_to_restart_once() -> None:
    wish = stack(db=web("2"), web=service(after={"db": "started!"}), api=service(after={"db": "started"}))
    desired = up(None, wish)
    done = Rollout(outcome="done", fingerprint="x", turn=1)
    after = accept(desired, {"db": done})
    assert after.intents["web"] == replace(
        desired.intents["web"], turn=2, restart_turn=2, restart_because="db was updated"
    )
    assert after.intents["api"] == desired.intents["api"]
    assert accept(after, {"db": done}) == after
    alone = replace(desired, intents={**desired.intents, "web": Intent(ignore_dependencies=True)})
    assert accept(alone, {"db": done}).intents == alone.intents
    again = orders.restart(after, ["web"], timeout=None, no_deps=True)
    assert again.intents["web"].restart_because == ""


def test_the_history_hears_of_beginnings_verdicts_and_ends_only() -> None:
    way = Rollout(fingerprint="x", total=4, began=1.0)
    assert told("web", None, way) == ("update", "4 containers are to be replaced, step by step", "begun")
    assert told("web", way, replace(way, ready={"a": 1.0})) is None
    assert told("web", way, replace(way, failed={"a": 1.0})) is None
    paused = replace(way, outcome="paused", because="x failed")
    assert told("web", way, paused) == ("update", "the update of web is paused: x failed", "failed")
    assert told("web", paused, paused) is None
    assert told("web", replace(way, failed={"b": 1.0}), replace(way, outcome="done")) == (
        "update",
        "all are new; failed: b",
        "ok",
    )
    back = Rollout(
        kind="rollback", because="x failed", before=Edition(fingerprint="w", image_id="", service=web("1"))
    )
    sentence = "the update of web is being rolled back: x failed"
    assert told("web", way, back) == ("update", sentence, "failed")
    undone = replace(back, fingerprint="w", outcome="done")
    assert told("web", back, undone) == ("rollback", "all are as before", "ok")


def test_plan_rehearses_the_steps() -> None:
    course = steps(order="start-first", parallelism=1)
    desired, world = changed(stack(web=web("1", deploy=course)), stack(web=web("2", deploy=course)))
    lines = [str(one.verb) for one in rehearse(desired, world, NOW) if one.verb != "probe"]
    assert lines == ["create", "start", "stop", "create", "start", "remove", "stop", "remove"]


# --- small print ---------------------------------------------------------------------------------------


def three(desired: Desired, world: Observation) -> tuple[Any, Any, Any, Service]:
    return (*world.containers, desired.stack.services["web"])  # type: ignore[return-value]


def newer(one: Any, wish: Service, letter: str, **run: Any) -> Any:
    made = replace(one, id=letter * 64, definition=wish, fingerprint=of_service(wish), created=NOW)
    return replace(made, run=replace(made.run, **run))


def test_it_goes_back_to_what_most_of_them_were() -> None:
    desired, world = changed(stack(web=web("1", replicas=3)), stack(web=web("2", replicas=3)))
    one, two, three_, wish = three(desired, world)
    odd = newer(three_, replace(wish, user="9"), "e")
    for order in ((one, two, odd), (odd, one, two)):
        rollout = settle(desired, replace(world, containers=order))[0].rollouts["web"]
        assert rollout.before is not None
        assert rollout.before.service.user == "1"


def test_scaled_down_below_the_new_ones_the_good_ones_stay() -> None:
    desired, world = changed(stack(web=web("1", replicas=3)), stack(web=web("2", replicas=1)))
    one, two, _, wish = three(desired, world)
    desired, _ = settle(desired, world)
    starting = newer(one, wish, "a", health=Health())
    world = replace(world, containers=(starting, newer(two, wish, "b"), world.containers[2]))
    removed = steps_of(settle(desired, world, NOW + 1)[1])
    assert "stop shop-web-1: scaled to 1" in removed
    assert not any("web-2" in step for step in removed)


def test_the_planner_looks_again_when_the_time_of_a_new_one_is_over() -> None:
    course = steps(monitor=7.0, delay=3.0)
    fields = {"deploy": course, "healthcheck": check(interval=60.0)}
    desired, world = changed(stack(web=web("1", **fields)), stack(web=web("2", **fields)))
    wish, (one, two) = desired.stack.services["web"], world.containers
    probed = (ProbeResult(started=NOW - 1, ended=NOW, exit_code=0),)
    health = Health(status=HealthStatus.HEALTHY, results=probed)
    made = newer(one, wish, "a", started=NOW - 2, health=health)
    world = replace(world, containers=(made, replace(two, run=replace(two.run, health=health))))
    desired, _ = settle(replace(desired), replace(world, containers=world.containers[1:]))
    desired, decided = settle(desired, world, NOW)
    assert desired.rollouts["web"].ready == {made.id: NOW}
    assert (decided.wake_at, steps_of(decided)) == (NOW + 3.0, [])
    assert steps_of(settle(desired, world, NOW + 3.0)[1]) == ["stop shop-web-2: definition changed: user"]
    last = replace(world, containers=(made, newer(two, wish, "b", health=health)))
    desired, _ = settle(desired, last, NOW + 4.0)
    assert settle(desired, last, NOW + 10.9)[1].wake_at == NOW + 11.0
    assert settle(desired, last, NOW + 11.0)[0].rollouts["web"].outcome == "done"


@pytest.mark.parametrize(
    ("ending", "because"),
    [
        ({"exit_code": 3}, "container shop-web-1 exited (3) after 1.5 s"),
        ({"exit_code": None}, "container shop-web-1: its exit code was lost after 1.5 s"),
        ({"exit_code": 127, "error": "no such file"}, "container shop-web-1: no such file"),
    ],
)
def test_a_verdict_names_the_first_failure(ending: dict[str, Any], because: str) -> None:
    desired, world = changed(stack(web=web("1")), stack(web=web("2")))
    desired, _ = settle(desired, world)
    made = newer(
        world.containers[0], desired.stack.services["web"], "a", started=NOW, finished=NOW + 1.5, **ending
    )
    desired, _ = settle(desired, replace(world, containers=(made, world.containers[1])), NOW + 2)
    assert desired.rollouts["web"].because == f"{because} (1 of 2 failed)"
