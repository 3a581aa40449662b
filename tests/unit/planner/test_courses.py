"""Updates by steps, each rule at its edge: who is good, when it is over, what holds it up, and what is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model.desired import Desired, Edition, Rollout
from orchestrator.model.observation import (
    Container,
    Failure,
    Health,
    HealthStatus,
    ImageState,
    Observation,
    Stopping,
)
from orchestrator.model.stack import OfService, Service
from orchestrator.planner.plan import plan
from orchestrator.planner.rollouts import Course, accept, course, serves, told
from tests.kit.stacks import check, converge, nothing, service, stack, steps, wanting
from tests.kit.stacks import up as wanted
from tests.unit.planner.test_rollouts import (
    NOW,
    changed,
    newer,
    settle,
    standing,
    steps_of,
    up,
    web,
    with_health,
)

HEALTHY, UNHEALTHY = Health(status=HealthStatus.HEALTHY), Health(status=HealthStatus.UNHEALTHY)
GONE = Stopping(since=NOW, signal=15, by="planner")


def begun(before: Service, after: Service, **options: Any) -> tuple[Desired, Observation]:
    """An update that is written down and has done nothing yet."""
    desired, world = changed(stack(web=before), stack(web=after), **options)
    return settle(desired, world)[0], world


def among(world: Observation, *containers: Container) -> Observation:
    return replace(world, containers=containers)


def new(desired: Desired, one: Container, letter: str = "a", **run: Any) -> Container:
    turn = desired.intents["web"].turn
    made = newer(one, desired.stack.services["web"], letter, **{"turn": turn, **run})
    assert isinstance(made, Container)
    return made


def outcome(desired: Desired, world: Observation, now: float = NOW) -> str:
    return settle(desired, world, now)[0].rollouts["web"].outcome


# --- what the file says ----------------------------------------------------------------------------------

BASE: dict[str, Any] = {
    "parallelism": 1,
    "delay": 0.0,
    "monitor": 5.0,
    "ratio": 0.0,
    "action": "pause",
    "start_first": False,
}


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({}, {}),
        ({"parallelism": 0}, {"parallelism": 0}),
        ({"parallelism": -1}, {"parallelism": 0}),
        ({"parallelism": 3, "delay": 2.0}, {"parallelism": 3, "delay": 2.0}),
        ({"monitor": 0.0}, {}),
        ({"monitor": 9.0, "max_failure_ratio": 0.5}, {"monitor": 9.0, "ratio": 0.5}),
        ({"failure_action": "pause"}, {}),
        ({"failure_action": "continue"}, {"action": "continue"}),
        ({"failure_action": "rollback"}, {"action": "rollback"}),
        ({"failure_action": "explode"}, {}),
        ({"order": "stop-first"}, {}),
        ({"order": "start-first"}, {"start_first": True}),
    ],
)
def test_how_an_update_goes_by_what_the_file_says(said: dict[str, Any], meant: dict[str, Any]) -> None:
    assert course(service(deploy=steps(**said)), "update") == Course(**{**BASE, **meant})
    back = steps(said, parallelism=7)
    assert course(service(deploy=back), "rollback") == Course(**{**BASE, **meant})
    assert course(service(deploy=back), "update").parallelism == 7


def test_how_it_goes_when_nothing_is_said() -> None:
    for kind in ("update", "rollback"):
        assert course(service(), kind) == Course(**BASE)
    assert course(service(deploy=steps(parallelism=7)), "rollback") == Course(**BASE)


CHECKED = {"healthcheck": check()}


@pytest.mark.parametrize(
    ("fields", "run", "does"),
    [
        ({}, None, False),
        ({}, {}, True),
        ({}, {"finished": NOW}, False),
        ({}, {"stopping": GONE}, False),
        (CHECKED, {"health": None}, False),
        (CHECKED, {"health": Health()}, False),
        (CHECKED, {"health": UNHEALTHY}, False),
        (CHECKED, {"health": HEALTHY}, True),
        (CHECKED, {"health": HEALTHY, "stopping": GONE}, False),
    ],
)
def test_who_serves(fields: dict[str, Any], run: dict[str, Any] | None, does: bool) -> None:
    (one,) = converge(wanted(stack(web=service(**fields))), nothing()).containers
    assert one.run is not None
    assert serves(replace(one, run=None if run is None else replace(one.run, **run))) is does


# --- how it begins, and is given up ----------------------------------------------------------------------


def test_an_update_counts_those_that_are_out_of_date_and_knows_who_serves_already() -> None:
    desired, world = changed(stack(web=web("1", replicas=4)), stack(web=web("2", replicas=4)))
    one, two, three, four = world.containers
    good, young = new(desired, one, health=HEALTHY), new(desired, two, "b", health=Health())
    broken = replace(three, broken="its directory is gone")
    rollout = settle(desired, among(world, good, young, broken, four))[0].rollouts["web"]
    assert (rollout.total, rollout.image_id) == (2, "")
    assert rollout.ready == {good.id: 0.0}
    assert (rollout.because, rollout.failed, rollout.began) == ("", {}, NOW)


def test_of_two_of_which_as_many_were_it_goes_back_to_the_one_that_serves() -> None:
    desired, world = changed(stack(web=web("1")), stack(web=web("2")))
    one, two = world.containers
    odd = replace(two, definition=replace(two.definition, user="9"), fingerprint="9", created=one.created + 5)
    for sick, user in ((0, "9"), (1, "1")):
        there = [one, odd]
        there[sick] = with_health(there[sick], HealthStatus.UNHEALTHY)
        before = settle(desired, among(world, *there))[0].rollouts["web"].before
        assert before is not None
        assert before.service.user == user
    before = settle(desired, among(world, one, odd))[0].rollouts["web"].before
    assert before is not None
    assert before.service.user == "9", "of two that serve the younger"


def test_an_update_that_is_taken_back_before_its_first_step_is_over_without_a_word() -> None:
    """Nor is anybody restarted for it."""
    before, after = (stack(web=web(user), side=service(after={"web": "started!"})) for user in "12")
    desired, world = changed(before, after)
    desired, _ = settle(desired, world)
    back = up(desired, before, world)
    desired, decided = settle(back, world)
    rollout = desired.rollouts["web"]
    assert (rollout.outcome, rollout.fingerprint, rollout.before) == ("done", None, None)
    assert steps_of(decided) == []
    assert told("web", back.rollouts["web"], rollout) is None
    assert desired.intents["side"] == back.intents["side"]


def test_a_third_definition_begins_anew_and_goes_back_to_the_first() -> None:
    desired, world = begun(web("1"), web("2"))
    first, second = world.containers
    half = among(world, new(desired, first, health=HEALTHY), second)
    desired, _ = settle(desired, half, NOW + 1)
    third = settle(up(desired, stack(web=web("3")), half), half, NOW + 2)[0].rollouts["web"]
    assert (third.kind, third.total, third.because, third.turn) == ("update", 2, "", 3)
    assert third.before is not None
    assert third.before.service.user == "1"


# --- who is good, and when -------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "good"), [(4.9, False), (5.0, True), (60.0, True)])
def test_without_a_health_check_it_is_good_after_the_time_in_which_it_is_watched(
    age: float, good: bool
) -> None:
    desired, world = begun(web("1", healthcheck=None), web("2", healthcheck=None))
    one, two = world.containers
    made = new(desired, one, started=NOW + 10 - age)
    desired, decided = settle(desired, among(world, made, two), NOW + 10)
    assert desired.rollouts["web"].ready == ({made.id: NOW + 10} if good else {})
    assert steps_of(decided) == (["stop shop-web-2: definition changed: user"] if good else [])
    if not good:
        assert decided.wake_at == pytest.approx(NOW + 10 + 5 - age)


def job(user: str) -> Service:
    return web(user, healthcheck=None, restart="on-failure")


@pytest.mark.parametrize(
    ("ending", "old", "good"),
    [
        ({"exit_code": 0}, "serves", False),
        ({"exit_code": 0}, "is gone", True),
        ({"exit_code": 0, "stopping": GONE}, "is gone", False),
        ({"exit_code": 1}, "is gone", False),
        ({"exit_code": 0, "error": "no such file"}, "is gone", False),
    ],
)
def test_a_job_that_has_succeeded_is_good_if_nothing_serves_in_its_place(
    ending: dict[str, Any], old: str, good: bool
) -> None:
    desired, world = begun(job("1"), job("2"))
    one, two = world.containers
    made = new(desired, one, started=NOW, finished=NOW + 1, **ending)
    assert two.run is not None
    if old == "is gone":
        two = replace(two, run=replace(two.run, finished=NOW, exit_code=0))
    found, _ = settle(desired, among(world, made, two), NOW + 2)
    assert (made.id in found.rollouts["web"].ready) is good


def test_a_job_has_failed_where_any_of_the_old_ones_serves() -> None:
    desired, world = begun(replace(job("1"), replicas=3), replace(job("2"), replicas=3))
    one, two, three = world.containers
    assert two.run is not None
    gone = replace(two, run=replace(two.run, finished=NOW, exit_code=0))
    made = new(desired, one, started=NOW, finished=NOW + 1, exit_code=0)
    found = settle(desired, among(world, made, gone, three), NOW + 2)[0].rollouts["web"]
    assert found.failed == {"shop-web-1": NOW + 2}


def test_who_has_lost_what_it_stands_on_does_not_wait_for_its_turn() -> None:
    """By a new image as by a new definition: one that serves waits, one that is cut off does not."""
    for before, after in ((web("1"), web("2")), (web(image="web"), web(image="web"))):
        desired, world = changed(stack(web=before), stack(web=after), "web")
        world = replace(world, images={"web": ImageState(id="sha256:newer")})
        _, two = world.containers
        astray = {"shop_default": "10.0.0.9"}
        lost = among(world, world.containers[0], replace(two, addresses=astray))
        assert steps_of(settle(desired, world)[1])[0].startswith("stop shop-web-1")
        ends = {step.partition(":")[0] for step in steps_of(settle(desired, lost)[1])}
        assert "stop shop-web-2" in ends


def test_a_job_that_comes_back_whatever_its_code_is_no_job() -> None:
    desired, world = begun(web("1", healthcheck=None), web("2", healthcheck=None))
    one, two = world.containers
    assert two.run is not None
    made = new(desired, one, started=NOW, finished=NOW + 1, exit_code=0)
    gone = replace(two, run=replace(two.run, finished=NOW, exit_code=0))
    found, _ = settle(desired, among(world, made, gone), NOW + 2)
    assert found.rollouts["web"].ready == {}


# --- when it is over -------------------------------------------------------------------------------------


def ready(desired: Desired, **at: float) -> Desired:
    """The containers `a`, `b` were found good then."""
    known = {letter * 64: when for letter, when in at.items()}
    return replace(desired, rollouts={"web": replace(desired.rollouts["web"], ready=known)})


@pytest.mark.parametrize(
    ("of_a", "of_b", "there", "over"),
    [
        (HEALTHY, HEALTHY, {"a": NOW, "b": NOW}, True),
        (HEALTHY, Health(), {"a": NOW, "b": NOW}, False),  # it was good, and is starting again
        (HEALTHY, Health(), {"a": NOW}, False),
        (HEALTHY, HEALTHY, {"a": NOW, "b": NOW + 5.5}, False),  # watched for 5 s
        (HEALTHY, Health(), {"a": NOW, "b": 0.0}, True),  # it was there before
    ],
)
def test_an_update_is_over_when_all_are_new_good_and_watched(
    of_a: Health, of_b: Health, there: Mapping[str, float], over: bool
) -> None:
    desired, world = begun(web("1"), web("2"))
    one, two = world.containers
    both = among(world, new(desired, one, "a", health=of_a), new(desired, two, "b", health=of_b))
    assert (outcome(ready(desired, **there), both, NOW + 10) == "done") is over
    assert outcome(ready(desired, **there), among(world, both.containers[0]), NOW + 10) == ""


def test_a_pause_ends_when_all_are_new_and_good_after_all_and_nothing_is_said_of_it() -> None:
    desired, world = begun(web("1"), web("2"))
    one, two = world.containers
    late = among(world, new(desired, one, "a", health=HEALTHY), new(desired, two, "b", health=UNHEALTHY))
    desired, _ = settle(desired, late, NOW + 1)
    assert desired.rollouts["web"].outcome == "paused"
    assert outcome(desired, late, NOW + 60) == "paused"
    well = among(world, *(with_health(each, HealthStatus.HEALTHY) for each in late.containers))
    desired, _ = settle(desired, well, NOW + 60)
    assert outcome(desired, well, NOW + 64.9) == "paused"
    done = settle(desired, well, NOW + 65)[0].rollouts["web"]
    assert (done.outcome, done.because, done.before, done.ready, done.failed) == ("done", "", None, {}, {})


def test_where_failures_are_put_up_with_the_update_ends_with_them() -> None:
    fields = {"deploy": steps(failure_action="continue", delay=7.0)}
    desired, world = begun(web("1", **fields), web("2", **fields))
    one, two = world.containers
    sick = new(desired, one, "a", health=UNHEALTHY)
    desired, decided = settle(desired, among(world, sick, two), NOW + 1)
    assert desired.rollouts["web"].failed == {"shop-web-1": NOW + 1}
    assert steps_of(decided) == []
    assert decided.wake_at is not None
    assert decided.wake_at <= NOW + 8
    assert steps_of(settle(desired, among(world, sick, two), NOW + 7.9)[1]) == []
    assert steps_of(settle(desired, among(world, sick, two), NOW + 8)[1]) == [
        "stop shop-web-2: definition changed: user"
    ]
    good = new(desired, two, "b", health=HEALTHY)
    desired, _ = settle(desired, among(world, sick, good), NOW + 9)
    found = settle(desired, among(world, sick, good), NOW + 20)[0].rollouts["web"]
    assert told("web", desired.rollouts["web"], found) == ("update", "all are new; failed: shop-web-1", "ok")


def test_start_first_and_going_on_it_is_paused_when_none_is_left_to_try() -> None:
    fields = {"deploy": steps(failure_action="continue", order="start-first", parallelism=2)}
    desired, world = begun(web("1", **fields), web("2", **fields))
    one, two = world.containers
    third = replace(new(desired, one, "a", health=UNHEALTHY), name="shop-web-3", slot=3)
    fourth = replace(new(desired, two, "b", health=HEALTHY), name="shop-web-4", slot=4)
    young = replace(fourth, run=replace(fourth.run, health=Health()))  # type: ignore[type-var]
    desired, _ = settle(desired, among(world, one, two, third, young), NOW + 1)
    assert desired.rollouts["web"].outcome == "", "one may still be good"
    desired, decided = settle(desired, among(world, one, two, third, fourth), NOW + 2)
    assert steps_of(decided) == ["stop shop-web-1: definition changed: user; the new ones serve"]
    assert (
        desired.rollouts["web"].because
        == "container shop-web-3 has failed, and the old one stays in its place"
    )
    alone = settle(ready(desired), among(world, third, fourth), NOW + 3)[0]
    assert alone.rollouts["web"].outcome != ""


# --- what is a failure -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "run", "failed"),
    [
        ({}, {"finished": NOW + 1, "exit_code": 1}, True),
        ({}, {"finished": NOW - 1, "exit_code": 1}, False),  # before the update began
        ({}, {"finished": NOW + 1, "exit_code": 1, "stopping": GONE}, False),
        ({}, {"finished": NOW + 1, "exit_code": 1, "before_boot": True}, False),
        ({"restart": "no"}, {"finished": NOW + 1, "exit_code": None, "before_boot": True}, True),
        ({"restart": "no"}, {"finished": NOW + 1, "exit_code": 1, "before_boot": True}, True),
        ({"restart": "no"}, {"finished": NOW + 1, "exit_code": 0, "before_boot": True}, False),
        ({}, {"health": UNHEALTHY}, True),
        ({}, {"health": UNHEALTHY, "stopping": GONE}, False),
        ({}, {"health": Health()}, False),
        ({"healthcheck": None}, {"finished": NOW + 1, "exit_code": 0}, True),  # restart: always
        ({"healthcheck": None, "restart": "on-failure"}, {"finished": NOW + 1, "exit_code": 0}, True),
        ({"healthcheck": None, "restart": "on-failure"}, {"finished": NOW + 1, "exit_code": 2}, True),
    ],
)
def test_what_is_a_failure(fields: dict[str, Any], run: dict[str, Any], failed: bool) -> None:
    """The second serves all the while, so a job that ends is no success."""
    desired, world = begun(web("1", **fields), web("2", **fields))
    one, two = world.containers
    found, _ = settle(desired, among(world, new(desired, one, started=NOW, **run), two), NOW + 2)
    assert (found.rollouts["web"].outcome == "paused") is failed


@pytest.mark.parametrize(
    ("checked", "ended", "failed"),
    [(True, 15.0, True), (True, 15.1, False), (False, 10.0, True), (False, 10.1, False)],
)
def test_how_long_after_it_was_found_good_an_end_counts(checked: bool, ended: float, failed: bool) -> None:
    """Good since 10 s; with a health check it is watched from then on, without it was before that."""
    fields = {} if checked else {"healthcheck": None}
    desired, world = begun(web("1", **fields), web("2", **fields))
    one, two = world.containers
    made = new(desired, one, "a", started=NOW, finished=NOW + ended, exit_code=1)
    found = settle(ready(desired, a=NOW + 10), among(world, made, two), NOW + 20)[0].rollouts["web"]
    assert (found.outcome == "paused") is failed
    if failed:
        assert found.because == f"container shop-web-1 exited (1) after {ended:.1f} s (1 of 2 failed)"


def test_who_never_comes_back_has_failed_whenever_that_was() -> None:
    fields = {"healthcheck": None, "restart": "no"}
    desired, world = begun(web("1", **fields), web("2", **fields))
    one, two = world.containers
    made = new(desired, one, "a", started=NOW, finished=NOW + 60, exit_code=1)
    assert outcome(ready(desired, a=NOW + 10), among(world, made, two), NOW + 61) == "paused"


def test_who_was_there_before_is_no_failure_of_the_update() -> None:
    desired, world = begun(web("1"), web("2"))
    one, two = world.containers
    sick = new(desired, one, "a", health=UNHEALTHY)
    assert outcome(ready(desired, a=0.0), among(world, sick, two), NOW + 2) == ""


def test_one_of_one_is_not_counted() -> None:
    desired, world = begun(web("1", replicas=1), web("2", replicas=1))
    (one,) = world.containers
    found = settle(desired, among(world, new(desired, one, health=UNHEALTHY)), NOW + 1)[0].rollouts["web"]
    assert found.because == "container shop-web-1 is unhealthy"


FAILED = "container shop-web-1: no space"


@pytest.mark.parametrize(
    ("target", "fields", "because"),
    [
        ("container:shop-web-1", {"verb": "create", "retryable": False}, FAILED),
        ("container:shop-web-1", {"verb": "start", "retryable": False}, FAILED),
        ("container:shop-web-1", {"verb": "remove", "retryable": False}, None),
        ("container:shop-web-1", {"verb": "create", "retryable": False, "lasting": True}, None),
        ("container:shop-web-1", {"verb": "create", "count": 5}, None),
        ("container:shop-web-1", {"verb": "create", "count": 6}, FAILED),
        ("container:shop-web-9", {"verb": "create", "retryable": False}, "container shop-web-9: no space"),
        ("container:shop-web-2", {"verb": "create", "retryable": False}, None),  # an old one sits there
        ("container:shop-webs-1", {"verb": "create", "retryable": False}, None),
        ("container:shop-web-x", {"verb": "create", "retryable": False}, None),
        ("network:shop-web-1", {"verb": "create", "retryable": False}, None),
        (
            "container:shop-web-1",
            {"verb": "create", "retryable": False, "because": "shop-web-1 has no room"},
            "shop-web-1 has no room",
        ),
    ],
)
def test_what_can_not_be_made_has_failed(target: str, fields: dict[str, Any], because: str | None) -> None:
    desired, world = begun(web("1"), web("2"))
    fields = {"count": 1, "because": "no space", **fields}
    failures = {target: Failure(target=target, at=NOW + 1, **fields)}
    empty = replace(among(world, world.containers[1]), failures=failures)
    found = settle(desired, empty, NOW + 2)[0].rollouts["web"]
    assert (found.outcome, found.because) == (
        ("paused", f"{because} (1 of 2 failed)") if because else ("", "")
    )


def test_of_a_service_with_a_container_name_only_that_one_is_its() -> None:
    fields = {"replicas": 1, "container_name": "it1"}
    desired, world = begun(web("1", **fields), web("2", **fields))
    for name, paused in (("it1", True), ("it12", False), ("it2", False)):
        target = f"container:{name}"
        failure = Failure(target=target, verb="create", count=1, at=NOW, because="no", retryable=False)
        empty = replace(among(world), failures={target: failure})
        assert (outcome(desired, empty, NOW + 1) == "paused") is paused


@pytest.mark.parametrize(("ratio", "failed"), [(0.5, ""), (0.49, "paused")])
def test_the_ratio_of_failures_that_is_put_up_with_counts_itself(ratio: float, failed: str) -> None:
    fields = {"deploy": steps(max_failure_ratio=ratio)}
    desired, world = begun(web("1", **fields), web("2", **fields))
    one, two = world.containers
    sick = new(desired, one, "a", health=UNHEALTHY)
    assert outcome(desired, among(world, sick, two), NOW + 1) == failed


def test_it_goes_back_only_to_something_else() -> None:
    course_ = steps(failure_action="rollback")
    desired, world = begun(web("1", deploy=course_), web("2", deploy=course_))
    one, two = world.containers
    failing = among(world, new(desired, one, health=UNHEALTHY), two)
    rollout = desired.rollouts["web"]
    assert rollout.before is not None
    nothing_before = replace(rollout, before=None)
    found = settle(replace(desired, rollouts={"web": nothing_before}), failing, NOW + 1)[0].rollouts["web"]
    words = "container shop-web-1 is unhealthy (1 of 2 failed)"
    assert (found.outcome, found.because) == ("paused", f"{words}, and there is nothing to go back to")
    same = replace(rollout.before, fingerprint=rollout.fingerprint or "")
    found = settle(replace(desired, rollouts={"web": replace(rollout, before=same)}), failing, NOW + 1)[
        0
    ].rollouts["web"]
    assert (found.outcome, found.because) == ("paused", f"{words}, and what was before is the same")
    verdict = plan(desired, failing, NOW + 1).rollouts["web"]
    assert verdict == Rollout(
        kind="rollback", because=words, before=rollout.before, turn=rollout.turn, began=NOW + 1
    )


@pytest.mark.parametrize("shared", ["network_mode", "pid", "ipc", "uts"])
def test_there_is_no_way_back_to_the_namespace_of_a_service_that_is_gone(shared: str) -> None:
    desired, world = begun(web("1"), web("2", deploy=steps(failure_action="rollback")))
    old = replace(web("1"), name="web", **{shared: OfService(service="db")})  # type: ignore[arg-type]
    edition = Edition(service=old, fingerprint="x", image_id="")
    desired = replace(desired, rollouts={"web": replace(desired.rollouts["web"], before=edition)})
    one, two = world.containers
    found, _ = settle(desired, among(world, new(desired, one, health=UNHEALTHY), two), NOW + 1)
    assert found.rollouts["web"].because.endswith("service db, beside which it was before, is gone")


# --- what is written down --------------------------------------------------------------------------------


def test_who_waits_for_a_dependent_waits_on_when_that_is_restarted() -> None:
    """Its own update, ordered by the same `up`, counts as of the turn in which it is restarted."""
    wish = stack(db=web("2"), web=service(after={"db": "started!"}), job=service(after={"db": "started!"}))
    desired = up(None, wish)
    own, other = Rollout(fingerprint="y", turn=1), Rollout(fingerprint="z", turn=7)
    desired = replace(desired, rollouts={"web": own, "job": other})
    done = Rollout(outcome="done", fingerprint="x", turn=1)
    after = accept(desired, {"db": done})
    assert after.intents["web"].turn == 2
    assert (after.rollouts["web"].turn, after.rollouts["job"].turn) == (2, 7)


def test_only_who_is_wanted_running_is_restarted_with_what_was_updated() -> None:
    wish = stack(db=web("2"), web=service(after={"db": "started!"}))
    desired = up(None, wish)
    done = Rollout(outcome="done", fingerprint="x", turn=1)
    for other in ("stopped", "absent", "created"):
        idle = wanting(desired, "web", wanted=other)
        assert accept(idle, {"db": done}).intents == idle.intents
    nobody = replace(desired, intents={"db": desired.intents["db"]})
    assert accept(nobody, {"db": done}).intents == nobody.intents
    for rollout in (replace(done, fingerprint=None), replace(done, outcome="")):
        assert accept(desired, {"db": rollout}).intents == desired.intents


def test_what_is_told_of_a_beginning() -> None:
    way = Rollout(fingerprint="x", total=1, began=1.0)
    assert told("web", None, way) == ("update", "1 container is to be replaced, step by step", "begun")
    asked = Rollout(began=1.0)
    assert told("web", asked, way) is not None, "it had only been asked for"
    assert told("web", replace(way, began=0.5), way) is not None, "another one"
    assert told("web", way, way) is None
    back = replace(way, kind="rollback", because="x failed")
    assert told("web", way, replace(back, began=2.0)) == (
        "rollback",
        "1 container is to be replaced, step by step",
        "begun",
    )


# --- how many at a time ----------------------------------------------------------------------------------

Count = tuple[int, int, int, int, int, int]
"""Old ones that serve and that don't, new ones that are ready, that start, that failed and are put up with, and
that were there before and don't serve."""


def mixed(count: Count, replicas: int, **fields: Any) -> tuple[Desired, Observation]:
    """An update in the middle. New ones have the low seats, where they have taken the place of old ones; with
    start-first those behind."""
    options = {"replicas": replicas, "deploy": steps(failure_action="continue", **fields)}
    desired, world = begun(web("1", **options), web("2", **options))
    serving, sick, *fresh = count
    (first, *_) = world.containers
    behind = fields.get("order") == "start-first"
    old = [with_health(first, HealthStatus.HEALTHY)] * serving + [
        with_health(first, HealthStatus.UNHEALTHY)
    ] * sick
    states = [HEALTHY] * fresh[0] + [Health()] * fresh[1] + [UNHEALTHY] * fresh[2] + [Health()] * fresh[3]
    young = [new(desired, first, health=state) for state in states]
    there = [*old, *young] if behind else [*young, *old]
    letters = "0123456789abcdef"
    there = [
        replace(one, id=letters[slot] * 64, slot=slot, name=f"shop-web-{slot}")
        for slot, one in enumerate(there, 1)
    ]
    ours = [one for one in there if one.definition.user == "2"]
    ready_ones = {one.id: NOW - 1 for one in ours[: fresh[0]]}
    idle = {one.id: 0.0 for one in ours[len(ours) - fresh[3] :]}
    failed = {one.name: NOW - 1 for one in ours[fresh[0] + fresh[1] :][: fresh[2]]}
    record = replace(desired.rollouts["web"], ready={**ready_ones, **idle}, failed=failed, began=NOW - 9)
    return replace(desired, rollouts={"web": record}), among(world, *there)


@pytest.mark.parametrize(
    ("parallelism", "count", "stopped"),
    [
        (1, (4, 0, 0, 0, 0, 0), 1),
        (2, (4, 0, 0, 0, 0, 0), 2),
        (0, (4, 0, 0, 0, 0, 0), 4),
        (9, (4, 0, 0, 0, 0, 0), 4),
        (1, (3, 0, 0, 1, 0, 0), 0),
        (2, (3, 0, 0, 1, 0, 0), 1),
        (1, (3, 0, 1, 0, 0, 0), 1),
        (1, (2, 0, 2, 0, 0, 0), 1),
        (1, (2, 0, 1, 1, 0, 0), 0),
        (2, (1, 0, 2, 1, 0, 0), 1),
        (1, (3, 0, 0, 0, 1, 0), 1),
        (1, (2, 0, 0, 1, 1, 0), 0),
        (1, (2, 0, 1, 0, 1, 0), 1),
        (1, (2, 2, 0, 0, 0, 0), 1),
        (2, (1, 3, 0, 0, 0, 0), 2),
        (1, (3, 0, 0, 0, 0, 1), 0),
        (1, (2, 1, 0, 0, 0, 1), 1),
        (1, (1, 2, 0, 0, 0, 1), 1),
        (1, (0, 0, 4, 0, 0, 0), 0),
        (1, (4, 0, 1, 0, 0, 0), 2),  # one more than wanted: that one leaves for good
        (1, (4, 0, 0, 1, 0, 0), 1),
    ],
)
def test_stop_first_so_many_make_room(parallelism: int, count: Count, stopped: int) -> None:
    desired, world = mixed(count, 4, parallelism=parallelism)
    found = [step for step in steps_of(settle(desired, world)[1]) if step.startswith("stop")]
    assert len(found) == stopped
    assert all("definition changed: user" in step for step in found)
    leaving = [step for step in found if step.endswith("; the new ones serve")]
    assert len(leaving) == (sum(count) > 4)


@pytest.mark.parametrize(
    ("parallelism", "count", "made", "stopped"),
    [
        (1, (4, 0, 0, 0, 0, 0), 1, 0),
        (2, (4, 0, 0, 0, 0, 0), 2, 0),
        (0, (4, 0, 0, 0, 0, 0), 4, 0),
        (9, (4, 0, 0, 0, 0, 0), 4, 0),
        (1, (4, 0, 0, 1, 0, 0), 0, 0),
        (2, (4, 0, 0, 1, 0, 0), 1, 0),
        (1, (4, 0, 1, 0, 0, 0), 1, 1),
        (1, (3, 0, 1, 0, 0, 0), 1, 0),
        (2, (3, 0, 1, 1, 0, 0), 1, 0),
        (2, (4, 0, 3, 0, 0, 0), 1, 3),
        (4, (2, 0, 2, 0, 0, 0), 2, 0),
        (1, (4, 0, 4, 0, 0, 0), 0, 4),
        (1, (4, 0, 0, 0, 1, 0), 1, 0),
        (1, (3, 0, 1, 0, 1, 0), 1, 0),
        (1, (3, 0, 0, 0, 0, 1), 1, 0),
        (1, (3, 1, 1, 0, 0, 0), 1, 1),
    ],
)
def test_start_first_so_many_are_made_and_so_many_may_go(
    parallelism: int, count: Count, made: int, stopped: int
) -> None:
    desired, world = mixed(count, 4, parallelism=parallelism, order="start-first")
    found = steps_of(settle(desired, world)[1])
    assert len([step for step in found if step.startswith("create")]) == made
    ending = [step for step in found if step.startswith("stop")]
    assert len(ending) == stopped
    assert all(step.endswith("; the new ones serve") for step in ending)


def test_while_it_is_paused_who_is_too_many_goes_and_what_is_missing_is_made() -> None:
    for order, made in (("stop-first", "shop-web-2"), ("start-first", "shop-web-5")):
        desired, world = mixed((3, 0, 1, 0, 0, 0), 4, order=order)
        desired = replace(
            desired, rollouts={"web": replace(desired.rollouts["web"], outcome="paused", because="x")}
        )
        gone = min(world.containers, key=lambda one: one.definition.user or "")
        fewer = among(world, *(one for one in world.containers if one is not gone))
        (only,) = steps_of(settle(desired, fewer)[1])
        assert only == f"create {made}: missing"
        assert steps_of(settle(desired, world)[1]) == []


# --- how far it has come, for who waits ------------------------------------------------------------------


def refused(after: str) -> tuple[Desired, Observation]:
    """The update of `db` lacks its image, and nobody may pull it; `web` is updated `after` it, and `api`."""
    desired, world = changed(
        *(
            stack(db=web(image=image, pull_policy="never"), api=web(user), web=web(user, after=after))
            for image, user in (("old", "1"), ("new", "2"))
        ),
        "old",
    )
    return settle(desired, world)[0], world


def test_who_waits_for_an_update_that_can_not_be_is_not_waited_for() -> None:
    desired, world = refused("db")
    world = among(world, *(one for one in world.containers if one.service != "api"))
    desired = replace(desired, intents={name: one for name, one in desired.intents.items() if name != "api"})
    desired, decided = settle(desired, world)
    found = standing(desired, world, decided)
    for verdict in (found.started, found.ready):
        assert verdict.done
        assert verdict.failures == ("service db: image not here: new, and pull_policy is never",)
        assert verdict.exit_code == 6
    assert {one.service for one in found.seats} == {"db", "web"}


def test_who_waits_for_an_update_that_goes_on_is_waited_for() -> None:
    desired, world = refused("api")
    found = standing(desired, world, settle(desired, world)[1])
    assert not found.started.done
    assert len(found.seats) == 6


def test_only_the_update_that_was_ordered_last_is_told_of() -> None:
    """One that was rolled back in an earlier turn is an old story."""
    desired, world = changed(stack(web=web("1")), stack(web=web("1")))
    for turn, failures in ((2, ("the update of web was rolled back: x failed",)), (1, ())):
        rollout = Rollout(kind="rollback", outcome="done", because="x failed", fingerprint="y", turn=turn)
        told_of = replace(desired, rollouts={"web": rollout})
        found = standing(told_of, world, plan(told_of, world, NOW))
        assert found.started.failures == failures
        assert found.started.done
