"""The frontier: what one look leads to."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from orchestrator.model import effects
from orchestrator.model.action import (
    Action,
    CreateContainer,
    CreateVolume,
    ProbeContainer,
    RemoveContainer,
    StartContainer,
    verb,
)
from orchestrator.model.desired import Desired, Wanted
from orchestrator.model.observation import (
    Container,
    Failure,
    Health,
    HealthStatus,
    ImageState,
    NetworkState,
    Observation,
    Run,
    VolumeState,
)
from orchestrator.model.plan import Plan
from orchestrator.model.stack import BindMount, Healthcheck, OfService
from orchestrator.planner.plan import finished, plan
from tests.kit.stacks import (
    apply_all,
    check,
    converge,
    down,
    nothing,
    service,
    stack,
    up,
    volume,
    wanting,
)

NOW = 1000.0


def steps(decided: Plan) -> list[str]:
    return [f"{verb(a)} {a.target.partition(':')[2]}: {a.because}" for a in decided.actions]


def waits(decided: Plan) -> dict[str, str]:
    return {w.target.partition(":")[2]: w.because for w in decided.waits}


def names(world: Observation) -> list[str]:
    return sorted(c.name for c in world.containers)


def ids(world: Observation) -> dict[str, str]:
    return {c.name: c.id for c in world.containers}


def history(desired: Desired, world: Observation) -> list[str]:
    """Everything that is done until the planner is content."""
    done: list[str] = []
    now = NOW
    for _ in range(100):
        decided = plan(desired, world, now)
        if not decided.actions:
            return done
        done += steps(decided)
        world = apply_all(world, decided.actions, now)
        now += 0.01
    raise AssertionError("no end")


# --- making -------------------------------------------------------------------------------------------


def test_containers_are_made_at_once_and_started_in_order() -> None:
    wish = stack(web=service(after="db"), db=service())
    assert history(up(wish), nothing()) == [
        "create shop_default: missing",
        "create shop-db-1: missing",
        "create shop-web-1: missing",
        "start shop-db-1: not running",
        "start shop-web-1: db is started",
    ]


def test_an_up_without_changes_does_nothing() -> None:
    wish = stack(web=service(after="db", ports=("80:80",)), db=service(volumes=("data:/d",)))
    world = converge(up(wish), nothing())
    again = plan(up(wish, turn=2), world, NOW)
    assert (again.actions, again.waits, again.wake_at) == ((), (), None)


@pytest.mark.parametrize("policy", ["never", "build"])
def test_a_missing_image_that_may_not_be_pulled_is_refused_by_name(policy: str) -> None:
    wish = stack(web=service(image="nginx:1", pull_policy=policy))
    decided = plan(up(wish), converge(up(stack()), nothing()), NOW)
    (wait,) = (w for w in decided.waits if w.target == "container:shop-web-1")
    assert (wait.failed, wait.exit_code) == (True, 6)
    assert wait.because == f"image not here: nginx:1, and pull_policy is {policy}"
    assert "pystack load -i FILE" in wait.hint


def test_what_the_image_says_goes_into_the_container() -> None:
    image = ImageState(
        id="sha256:1", healthcheck=Healthcheck(test=("CMD", "ok")), stop_signal="SIGINT", volumes=("/data",)
    )
    world = converge(up(stack(web=service(image="web"))), replace(nothing(), images={"web": image}))
    (container,) = world.containers
    assert container.stop_signal == 2
    assert container.healthcheck is not None
    assert container.healthcheck.interval == 30.0
    assert container.anonymous_volumes.keys() == {"/data"}


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("usr1", 10), ("9", 9), ("RTMIN+3", 37), ("SIGRTMIN", 34), ("odd", 15)],
)
def test_stop_signals(text: str, number: int) -> None:
    (container,) = converge(up(stack(web=service(stop_signal=text))), nothing()).containers
    assert container.stop_signal == number


def test_create_makes_and_does_not_start() -> None:
    wish = stack(web=service())
    world = converge(wanting(up(wish), "web", wanted="created"), nothing())
    assert [c.run for c in world.containers] == [None]


def test_services_nobody_asked_for_are_left_alone() -> None:
    wish = stack(web=service(), db=service())
    assert names(converge(up(wish, "web"), nothing())) == ["shop-web-1"]
    both = converge(up(wish), nothing())
    assert plan(up(wish, "web"), both, NOW).actions == ()


def test_ids_are_64_hex_digits_that_follow_from_the_decision() -> None:
    wish = stack(web=service(replicas=2, networks=()))
    one, two = plan(up(wish), nothing(), NOW).actions
    assert isinstance(one, CreateContainer)
    assert isinstance(two, CreateContainer)
    assert one.id != two.id
    assert len(bytes.fromhex(one.id)) == 32
    assert plan(up(wish), nothing(), NOW).actions == (one, two)


# --- seats -----------------------------------------------------------------------------------------------


def test_scaling_up_takes_the_next_numbers_and_down_the_highest() -> None:
    two = converge(up(stack(web=service(replicas=2))), nothing())
    four = converge(up(stack(web=service(replicas=4))), two)
    assert names(four) == ["shop-web-1", "shop-web-2", "shop-web-3", "shop-web-4"]
    assert ids(four).items() >= ids(two).items()
    one = converge(up(stack(web=service(replicas=1))), four)
    assert ids(one) == {"shop-web-1": ids(two)["shop-web-1"]}


def test_scaling_down_takes_the_obsolete_first() -> None:
    world = converge(up(stack(web=service(replicas=3))), nothing())
    wish = stack(web=service(replicas=2))
    aged = replace(world, containers=tuple(
        replace(c, fingerprint="old") if c.slot == 1 else c for c in world.containers))  # fmt: skip
    assert names(converge(up(wish), aged)) == ["shop-web-2", "shop-web-3"]


def test_a_seat_that_was_emptied_by_hand_is_filled_again() -> None:
    wish = stack(web=service(replicas=3))
    world = converge(up(wish), nothing())
    holed = replace(world, containers=tuple(c for c in world.containers if c.slot != 2))
    assert names(converge(up(wish), holed)) == names(world)


def test_replicas_zero_removes_all() -> None:
    world = converge(up(stack(web=service(replicas=2))), nothing())
    assert converge(up(stack(web=service(replicas=0))), world).containers == ()


def test_a_name_held_by_another_service_is_refused() -> None:
    world = converge(up(stack(a=service(container_name="it"))), nothing())
    decided = plan(up(stack(b=service(container_name="it"))), world, NOW)
    (wait,) = (w for w in decided.waits if w.failed)
    assert (wait.because, wait.exit_code) == ("the name it is held by a container of service a", 7)


# --- replacing -------------------------------------------------------------------------------------------


def test_a_changed_definition_replaces_the_container() -> None:
    world = converge(up(stack(web=service(), db=service())), nothing())
    changed = up(stack(web=service(environment={"A": "1"}), db=service()))
    assert history(changed, world) == [
        "stop shop-web-1: definition changed: environment.A",
        "remove shop-web-1: definition changed: environment.A",
        "create shop-web-1: missing",
        "start shop-web-1: not running",
    ]


def test_number_and_dependencies_are_no_part_of_the_definition() -> None:
    world = converge(up(stack(web=service(), db=service())), nothing())
    assert (
        plan(up(stack(web=service(after="db", pull_policy="always"), db=service())), world, NOW).actions == ()
    )


def test_another_image_under_the_same_name_replaces_the_container() -> None:
    desired = up(stack(web=service(image="web")))
    world = converge(desired, nothing("web"))
    newer = replace(world, images={"web": ImageState(id="sha256:newer")})
    assert steps(plan(desired, newer, NOW)) == ["stop shop-web-1: image web is another one now"]
    assert plan(desired, replace(world, images={}), NOW).actions == ()


def test_force_recreate_replaces_once() -> None:
    wish = stack(a=service(), b=service())
    world = converge(up(wish), nothing())
    desired = wanting(up(wish), "a", generation=1)
    after = converge(desired, world)
    assert ids(after)["shop-a-1"] != ids(world)["shop-a-1"]
    assert ids(after)["shop-b-1"] == ids(world)["shop-b-1"]
    assert plan(desired, after, NOW).actions == ()


def test_no_recreate_keeps_what_is_out_of_date() -> None:
    world = converge(up(stack(web=service())), nothing())
    assert plan(up(stack(web=service(user="1")), keep_stale=True), world, NOW).actions == ()


def test_stopped_containers_are_not_replaced() -> None:
    wish = stack(web=service())
    stopped = converge(wanting(up(wish), "web", wanted="stopped"), converge(up(wish), nothing()))
    desired = wanting(up(stack(web=service(user="1"))), "web", wanted="stopped")
    assert plan(desired, stopped, NOW).actions == ()


def test_dependents_that_ask_for_it_are_restarted_around_a_replacement() -> None:
    def wish(**fields: object) -> Desired:
        return up(
            stack(
                db=service(**fields),
                web=service(after={"db": "started!"}),
                other=service(after="db"),  # type: ignore[arg-type]
            )
        )

    world = converge(wish(), nothing())
    assert history(wish(user="1"), world) == [
        "stop shop-web-1: db is replaced",
        "stop shop-db-1: definition changed: user",
        "remove shop-db-1: definition changed: user",
        "create shop-db-1: missing",
        "start shop-db-1: not running",
        "start shop-web-1: was stopped to be restarted",
    ]


def test_restart_takes_along_dependents_that_ask_for_it() -> None:
    wish = stack(db=service(), web=service(after={"db": "started!"}), other=service(after="db"))
    world = converge(up(wish), nothing())
    assert history(wanting(up(wish), "db", restart_turn=2), world) == [
        "stop shop-web-1: db is restarted",
        "stop shop-db-1: asked to restart",
        "start shop-db-1: asked to restart",
        "start shop-web-1: was stopped to be restarted",
    ]
    alone = wanting(up(wish), "db", restart_turn=2, ignore_dependencies=True)
    assert history(alone, world) == ["stop shop-db-1: asked to restart", "start shop-db-1: asked to restart"]


def test_a_crash_takes_those_along_that_ask_for_it_once_it_is_over() -> None:
    wish = stack(db=service(restart="always"), web=service(after={"db": "started!"}), log=service(after="db"))
    world = crash(converge(up(wish), nothing()), "shop-db-1")
    assert history(up(wish), world) == [
        "start shop-db-1: restarting (exit 1, attempt 2)",
        "stop shop-web-1: db was restarted after it had ended, and is back",
        "start shop-web-1: was stopped to be restarted",
    ]
    alone = wanting(up(wish), "web", ignore_dependencies=True)
    assert history(alone, world) == ["start shop-db-1: restarting (exit 1, attempt 2)"]


def test_who_shares_a_namespace_is_replaced_with_its_owner() -> None:
    def wish(**fields: object) -> Desired:
        return up(stack(db=service(**fields), tool=service(network_mode=OfService(service="db"))))  # type: ignore[arg-type]

    world = converge(wish(), nothing())
    after = converge(wish(user="1"), world)
    assert ids(after)["shop-tool-1"] != ids(world)["shop-tool-1"]
    tool = next(c for c in after.containers if c.service == "tool")
    assert tool.peers == {"db": ids(after)["shop-db-1"]}


def test_who_outlived_the_owner_of_its_namespace_is_replaced_too() -> None:
    """We were killed between the two replacements, or somebody removed the owner by hand."""
    desired = up(stack(db=service(), tool=service(network_mode=OfService(service="db"))))
    world = converge(desired, nothing())
    owner = next(c for c in world.containers if c.service == "db")
    world = effects.expect_exit(world, owner.id, NOW, 0)
    world = effects.expect(world, RemoveContainer(id=owner.id, name=owner.name), NOW)
    after = converge(desired, world, NOW)
    tool = next(c for c in after.containers if c.service == "tool")
    assert tool.id != ids(world)["shop-tool-1"]
    assert tool.peers == {"db": ids(after)["shop-db-1"]}


def test_a_start_names_the_containers_it_joins() -> None:
    desired = up(stack(db=service(), tool=service(network_mode=OfService(service="db"))))
    world = converge(desired, nothing())
    crashed = crash(world, "shop-tool-1")
    (start,) = plan(wanting(desired, "tool", turn=2), crashed, NOW).actions
    assert isinstance(start, StartContainer)
    assert start.peers == {"db": ids(world)["shop-db-1"]}


def test_who_shares_the_namespace_of_one_that_has_ended_is_refused() -> None:
    desired = up(stack(db=service(), tool=service(network_mode=OfService(service="db"))))
    world = crash(crash(converge(desired, nothing()), "shop-db-1"), "shop-tool-1")
    decided = plan(wanting(desired, "tool", turn=2), world, NOW)
    assert waits(decided) == {"shop-tool-1": "db, whose network it shares, does not run"}


def test_who_shares_the_namespace_of_the_first_is_not_helped_by_the_second() -> None:
    """The first has ended for good: that the second runs brings its namespace not back."""
    desired = up(stack(db=service(replicas=2), tool=service(network_mode=OfService(service="db"))))
    world = crash(crash(converge(desired, nothing()), "shop-db-1"), "shop-tool-1")
    (wait,) = plan(wanting(desired, "tool", turn=2), world, NOW).waits
    assert (wait.because, wait.failed) == ("db, whose network it shares, does not run", True)
    again = service(replicas=2, restart="always")
    desired = up(stack(db=again, tool=service(network_mode=OfService(service="db"))))
    world = crash(crash(converge(desired, nothing()), "shop-db-1", NOW), "shop-tool-1")
    assert [wait.failed for wait in plan(wanting(desired, "tool", turn=2), world, NOW).waits] == [
        False,
        False,
    ]


# --- volumes ---------------------------------------------------------------------------------------------


def test_an_anonymous_volume_goes_over_to_the_next_occupant_of_the_seat() -> None:
    world = converge(up(stack(web=service(volumes=("/data",), replicas=2))), nothing())
    after = converge(up(stack(web=service(volumes=("/data",), replicas=2, user="1"))), world)
    assert {c.slot: c.anonymous_volumes for c in after.containers} == {
        c.slot: c.anonymous_volumes for c in world.containers
    }
    assert len({c.anonymous_volumes["/data"] for c in world.containers}) == 2
    assert after.volumes.keys() == world.volumes.keys()


def test_a_declared_volume_that_is_mounted_otherwise_needs_no_anonymous_one() -> None:
    image = ImageState(id="1", volumes=("/data", "/cache/", "/rest"))
    wish = stack(web=service(image="web", volumes=("data:/data/",)))
    web = wish.services["web"]
    bound = replace(web, mounts=(*web.mounts, BindMount(source="/tmp", target="/cache")))
    wish = replace(wish, services={"web": bound})
    (container,) = converge(up(wish), replace(nothing(), images={"web": image})).containers
    assert container.anonymous_volumes.keys() == {"/rest"}


def test_named_volumes_survive_down_and_go_with_v() -> None:
    wish = stack(web=service(volumes=("data:/data", "/scratch")))
    world = converge(up(wish), nothing())
    left = converge(down(wish), world)
    assert (left.containers, left.networks, len(left.volumes)) == ((), {}, 2)
    assert converge(down(wish, remove_volumes=True), left).volumes == {}
    assert converge(down(wish, remove_volumes=True), world).volumes == {}


def test_external_volumes_must_exist_and_stay() -> None:
    shared = replace(volume(external=True), name="shared")
    wish = stack(web=service(volumes=("data:/data",)), volumes={"data": shared})
    decided = plan(up(wish), nothing(), NOW)
    assert not any(isinstance(a, CreateVolume) for a in decided.actions)
    assert waits(decided)["shared"] == "external volume shared does not exist"
    state = VolumeState(name="shared", path="", fingerprint="?", stack="shop")
    world = converge(up(wish), nothing(volumes={"shared": state}))
    assert names(world) == ["shop-web-1"]
    assert "shared" in converge(down(wish, remove_volumes=True), world).volumes


def test_a_volume_removed_by_hand_comes_back_under_a_new_container() -> None:
    desired = up(stack(web=service(volumes=("data:/data",)), other=service()))
    world = converge(desired, nothing())
    healed = converge(desired, replace(world, volumes={}))
    assert "shop_data" in healed.volumes
    assert ids(healed)["shop-web-1"] != ids(world)["shop-web-1"]
    assert ids(healed)["shop-other-1"] == ids(world)["shop-other-1"]


# --- going away ------------------------------------------------------------------------------------------


def test_orphans_are_named_and_go_only_when_asked() -> None:
    world = converge(up(stack(web=service(), old=service())), nothing())
    wish = stack(web=service())
    decided = plan(up(wish), world, NOW)
    assert decided.actions == ()
    (warning,) = decided.warnings
    assert "services that the stack file does not have: shop-old-1 (--remove-orphans" in warning
    cleaned = converge(replace(up(wish), remove_orphans=True), world)
    assert names(cleaned) == ["shop-web-1"]


def test_services_of_inactive_profiles_are_no_orphans_but_go_down_with_the_stack() -> None:
    world = converge(up(stack(web=service(), debug=service())), nothing())
    wish = stack(web=service(), disabled=("debug",))
    decided = plan(replace(up(wish), remove_orphans=True), world, NOW)
    assert (decided.actions, decided.warnings) == ((), ())
    assert converge(down(wish), world).containers == ()


def test_down_stops_removes_and_takes_the_network_last() -> None:
    wish = stack(web=service(after="db"), db=service())
    world = converge(up(wish), nothing())
    decided = plan(down(wish), world, NOW)
    assert decided.warnings == ()
    assert waits(decided)["shop_default"] == "shop-db-1 is still attached to it"
    assert history(down(wish), world) == [
        "stop shop-web-1: the stack goes down",
        "stop shop-db-1: the stack goes down",
        "remove shop-web-1: the stack goes down",
        "remove shop-db-1: the stack goes down",
        "remove shop_default: the stack goes down",
    ]


def test_down_is_finished_when_nothing_is_left_and_not_before() -> None:
    wish = stack(web=service(volumes=("data:/data",)))
    world = converge(up(wish), nothing())
    assert not finished(up(wish), nothing())
    assert not finished(down(wish), world)
    left = converge(down(wish), world)
    assert finished(down(wish), left)
    assert not finished(down(wish, remove_volumes=True), left)
    assert finished(down(wish, remove_volumes=True), nothing())


@pytest.mark.parametrize(
    "left",
    [
        VolumeState(name="data", path="/d", fingerprint="x", stack="other"),
        VolumeState(name="data", path="/d", fingerprint="x", stack="shop", users=("f" * 64,)),
        VolumeState(name="shop_shared", path="/d", fingerprint="x", stack="shop"),
    ],
)
def test_down_does_not_wait_for_volumes_of_others_in_use_or_external(left: VolumeState) -> None:
    wish = stack(web=service(volumes=("shared:/d",)), volumes={"shared": volume(external=True)})
    desired = down(wish, remove_volumes=True)
    assert finished(desired, replace(nothing(), volumes={left.name: left}))
    mine = VolumeState(name="mine", path="/m", fingerprint="x", stack="shop")
    assert not finished(desired, replace(nothing(), volumes={left.name: left, "mine": mine}))


@pytest.mark.parametrize(
    ("of", "users", "done"), [("other", (), True), ("shop", ("f" * 64,), True), ("shop", (), False)]
)
def test_down_waits_for_networks_of_its_own_that_nobody_uses(
    of: str, users: tuple[str, ...], done: bool
) -> None:
    left = NetworkState(
        name="n", subnet="172.28.0.0/24", gateway="172.28.0.1", fingerprint="x", stack=of, users=users
    )
    assert finished(down(stack()), replace(nothing(), networks={"n": left})) is done


def test_down_with_orphans_left_is_finished_too() -> None:
    world = converge(up(stack(web=service(), old=service())), nothing())
    left = converge(down(stack(web=service())), world)
    assert names(left) == ["shop-old-1"]
    assert finished(down(stack(web=service())), left)
    assert not finished(down(stack(web=service()), remove_orphans=True), left)


def test_down_of_one_service_leaves_the_rest() -> None:
    wish = stack(web=service(), db=service())
    world = converge(up(wish), nothing())
    left = converge(wanting(up(wish), "db", wanted="absent"), world)
    assert names(left) == ["shop-web-1"]
    assert left.networks.keys() == {"shop_default"}


def test_stop_keeps_the_container_and_start_starts_the_same() -> None:
    wish = stack(web=service(restart="always"))
    world = converge(up(wish), nothing())
    stop = wanting(up(wish), "web", wanted="stopped")
    stopped = converge(stop, world)
    assert plan(stop, stopped, NOW).actions == ()
    started = converge(wanting(stop, "web", wanted="running", turn=2), stopped)
    assert ids(started) == ids(world)
    assert (started.containers[0].run or Run(turn=0, started=0)).turn == 2


def test_a_one_off_sits_on_no_seat_and_goes_with_its_volumes() -> None:
    once = service(
        oneoff=True, remove_on_exit=True, container_name="shop-web-run-1", volumes=("/data",), after="db"
    )
    desired = up(stack(db=service(), job=once))
    world = converge(desired, nothing())
    job = next(c for c in world.containers if c.service == "job")
    assert (job.name, job.slot) == ("shop-web-run-1", 0)
    world = crash(world, job.name)
    assert plan(desired, world, NOW).actions == ()
    gone = converge(wanting(desired, "job", wanted="absent"), world)
    assert names(gone) == ["shop-db-1"]
    assert gone.volumes == {}


def test_an_old_one_off_is_no_orphan() -> None:
    once = service(oneoff=True, container_name="shop-web-run-1")
    world = converge(up(stack(db=service(), job=once)), nothing())
    decided = plan(up(stack(db=service())), world, NOW)
    assert (decided.actions, decided.warnings) == ((), ())
    assert converge(down(stack(db=service())), world).containers == ()


# --- failures, and what is under way -------------------------------------------------------------------


def failing(world: Observation, target: str, **fields: object) -> Observation:
    failure = Failure(target=target, at=NOW, because="disk full", **{"count": 1, **fields})  # type: ignore[arg-type]
    return replace(world, failures={target: failure})


@pytest.mark.parametrize(
    ("count", "delay"), [(1, 0.2), (2, 0.4), (5, 3.2), (8, 25.6), (9, 30.0), (900, 30.0)]
)
def test_what_failed_is_tried_again_later_and_later(count: int, delay: float) -> None:
    desired = up(stack(web=service(networks=())))
    world = failing(nothing(), "container:shop-web-1", verb="create", count=count)
    decided = plan(desired, world, NOW)
    assert decided.actions == ()
    assert decided.wake_at == pytest.approx(NOW + delay)
    assert plan(desired, world, NOW + delay + 1e-6).actions != ()


def test_the_user_is_told_of_what_keeps_failing() -> None:
    desired = up(stack(web=service(networks=())))
    told = [
        plan(desired, failing(nothing(), "container:shop-web-1", count=count), NOW).waits[0].failed
        for count in (1, 5, 6, 100)
    ]
    assert told == [False, False, True, True]


def test_a_lasting_failure_is_told_at_once_and_tried_again_seldom() -> None:
    """A full disk: six tries within two seconds tell the user nothing."""
    desired = up(stack(web=service(networks=())))
    fields = {"verb": "create", "lasting": True, "hint": "make room"}
    world = failing(nothing(), "container:shop-web-1", **fields)
    decided = plan(desired, world, NOW)
    assert [(w.because, w.failed, w.hint) for w in decided.waits] == [("disk full", True, "make room")]
    assert (decided.actions, decided.wake_at) == ((), NOW + 30)
    assert plan(desired, world, NOW + 31).actions != ()


def test_what_failed_for_good_is_not_tried_again() -> None:
    desired = up(stack(web=service(networks=())))
    world = failing(nothing(), "container:shop-web-1", verb="create", retryable=False, exit_code=7)
    decided = plan(desired, world, NOW + 1e6)
    assert (decided.actions, decided.wake_at) == ((), None)
    assert [(w.because, w.failed, w.exit_code) for w in decided.waits] == [("disk full", True, 7)]


def test_a_start_that_failed_does_not_hold_up_the_removal() -> None:
    wish = stack(web=service())
    world = failing(converge(up(wish), nothing()), "container:shop-web-1", verb="start", retryable=False)
    assert steps(plan(down(wish), world, NOW)) == ["stop shop-web-1: the stack goes down"]


def test_a_command_that_cannot_be_executed_waits_for_a_newer_turn() -> None:
    desired = up(stack(web=service(restart="always")))
    world = converge(wanting(desired, "web", wanted="created"), nothing())
    (start,) = plan(desired, world, NOW).actions
    assert isinstance(start, StartContainer)
    world = effects.expect_failed_start(world, start, NOW, 127, "no such command: serve")
    decided = plan(desired, world, NOW + 1)
    assert decided.actions == ()
    assert [(w.because, w.failed, w.exit_code) for w in decided.waits] == [
        ("no such command: serve", True, 127)
    ]
    assert steps(plan(wanting(desired, "web", turn=2), world, NOW + 1)) == [
        "start shop-web-1: asked to start"
    ]


def test_what_is_under_way_is_left_alone_and_said() -> None:
    desired = up(stack(web=service()))
    (create,) = plan(desired, nothing(), NOW).actions
    decided = plan(desired, nothing(), NOW, {create.target: create})
    assert decided.actions == ()
    assert waits(decided)["shop_default"] == "create is under way"
    assert not decided.settled


# --- probes ----------------------------------------------------------------------------------------------


def probes(decided: Plan) -> list[Action]:
    return [a for a in decided.actions if isinstance(a, ProbeContainer)]


def test_a_probe_is_due_one_interval_after_the_start() -> None:
    desired = up(stack(web=service(healthcheck=check(interval=5.0))))
    world = started(desired, at=NOW)
    assert probes(plan(desired, world, NOW + 4.9)) == []
    assert plan(desired, world, NOW + 4.9).wake_at == NOW + 5.0
    (probe,) = probes(plan(desired, world, NOW + 5.0))
    assert isinstance(probe, ProbeContainer)
    assert probe.run_started == NOW


def test_who_is_being_probed_has_its_next_time_already() -> None:
    """A check that ends as the one before wakes nobody."""
    desired = up(stack(web=service(healthcheck=check(interval=5.0))))
    world = started(desired, at=NOW)
    decided = plan(desired, world, NOW + 5)
    (probe,) = probes(decided)
    assert decided.wake_at == pytest.approx(NOW + 10.1)
    assert plan(desired, world, NOW + 7, {probe.target: probe}).wake_at == pytest.approx(NOW + 12.1)


def test_no_probe_for_what_is_stopping_or_being_probed() -> None:
    desired = up(stack(web=service(healthcheck=check(interval=5.0))))
    world = started(desired, at=NOW)
    (probe,) = probes(plan(desired, world, NOW + 5))
    busy = plan(desired, world, NOW + 5, {probe.target: probe})
    assert (busy.actions, busy.waits) == ((), ())
    stop = wanting(desired, "web", wanted="stopped")
    world = effects.expect(world, plan(stop, world, NOW).actions[0], NOW)
    assert probes(plan(stop, world, NOW + 5)) == []


def test_no_probe_for_what_is_paused() -> None:
    desired = up(stack(web=service(healthcheck=check(interval=5.0))))
    world = started(desired, at=NOW)
    (web,) = world.containers
    assert web.run is not None
    paused = replace(world, containers=(replace(web, run=replace(web.run, paused=True)),))
    assert probes(plan(desired, paused, NOW + 5)) == []
    assert plan(desired, paused, NOW + 5).wake_at is None


def test_an_unhealthy_container_is_not_restarted_for_that() -> None:
    desired = up(stack(web=service(healthcheck=check(interval=1e6), restart="always")))
    world = started(desired, at=NOW)
    (web,) = world.containers
    assert web.run is not None
    sick = replace(web, run=replace(web.run, health=Health(status=HealthStatus.UNHEALTHY, failing_streak=9)))
    assert plan(desired, replace(world, containers=(sick,)), NOW).actions == ()


def started(desired: Desired, at: float) -> Observation:
    intents = {name: replace(intent, wanted=Wanted.CREATED) for name, intent in desired.intents.items()}
    world = converge(replace(desired, intents=intents), nothing())
    return apply_all(world, plan(desired, world, at).actions, at)


def crash(world: Observation, name: str, at: float = NOW - 1) -> Observation:
    container: Container = next(c for c in world.containers if c.name == name)
    return effects.expect_exit(world, container.id, at, 1)


def test_a_container_that_left_its_network_is_replaced() -> None:
    before = up(stack(web=service(networks=("a",))))
    world = converge(before, nothing())
    (web,) = world.containers
    detached = replace(world, containers=(replace(web, addresses={}),))
    assert steps(plan(before, detached, NOW)) == ["stop shop-web-1: it is not on network shop_a"]


def test_nothing_depends_on_the_order_of_the_file() -> None:
    wish = stack(a=service(after="b"), b=service(ports=(":80",)), c=service(networks=("x", "default")))
    turned = replace(
        wish,
        services=dict(reversed(wish.services.items())),
        networks=dict(reversed(wish.networks.items())),
    )
    assert history(up(wish), nothing()) == history(up(turned), nothing())


def test_a_pass_over_a_hundred_running_services_is_short() -> None:
    """About 2 ms; the bound leaves room for a busy machine."""
    wish = stack(
        **{f"s{n}": service(after=f"s{n - 1}" if n % 10 else (), ports=(":80",)) for n in range(100)}
    )
    world = converge(up(wish), nothing())
    desired = up(wish)
    took = []
    for _ in range(10):
        began = time.perf_counter()
        assert plan(desired, world, NOW).actions == ()
        took.append(time.perf_counter() - began)
    assert min(took) < 0.01
