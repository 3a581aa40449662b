"""Updates by steps under a virtual clock: what serves meanwhile, what follows a failure, what a crash changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from orchestrator.api import orders
from orchestrator.engines.simulated import Program
from orchestrator.model.action import CreateContainer, StartContainer
from orchestrator.model.observation import Container, ImageState
from orchestrator.model.sections import InitContainer
from orchestrator.model.stack import Attachment, Port, Stack
from orchestrator.planner.rehearse import rehearse
from orchestrator.planner.rollouts import said, serves
from tests.kit.stacks import network, service, stack
from tests.simulation.stage import Stage
from tests.simulation.updating import BROKEN, CRASHES, FAILING, Play, of, slots, up, user, users, web


def test_start_first_never_has_fewer_than_before() -> None:
    found = Play(user("1", order="start-first"), user("2", order="start-first"))
    assert users(found.stage) == ["2"] * 4
    assert (found.watched.fewest, found.watched.most) == (4, 1)
    assert found.watched.most_there <= 6  # one that comes, one that goes
    assert found.rollout.outcome == "done"


@pytest.mark.parametrize(("parallelism", "fewest"), [(1, 3), (2, 2), (3, 1), (0, 0)])
def test_stop_first_never_has_more_under_way_than_it_may(parallelism: int, fewest: int) -> None:
    found = Play(user("1", parallelism=parallelism), user("2", parallelism=parallelism))
    assert (users(found.stage), slots(found.stage)) == (["2"] * 4, [1, 2, 3, 4])
    assert (found.watched.fewest, found.watched.most_there) == (fewest, 4)


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_the_delay_lies_between_two_steps_and_outlives_crashes(order: str) -> None:
    fields = {"order": order, "delay": 6.0, "parallelism": 2, "monitor": 0.5}
    quiet = Play(user("1", **fields), user("2", **fields))
    assert 6 < quiet.took < 9  # two steps, one delay
    crashing = Play(user("1", **fields), user("2", **fields), crash_every=0.6)
    assert users(crashing.stage) == ["2"] * 4
    assert crashing.took < 14


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_who_has_no_health_check_is_good_when_it_has_run_for_the_time_it_is_watched(order: str) -> None:
    fields = {"order": order, "monitor": 2.0, "checked": False}
    found = Play(user("1", **fields), user("2", **fields))
    assert users(found.stage) == ["2"] * 4
    assert 8 < found.took < 9.5
    assert found.watched.fewest == (4 if order == "start-first" else 3)


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
@pytest.mark.parametrize("fault", FAILING)
def test_pause_stops_at_the_first_failure(fault: str, order: str) -> None:
    found = Play(user("1", order=order), user("2", order=order), programs={"2": FAILING[fault]})
    assert found.rollout.outcome == "paused"
    assert users(found.stage).count("1") == (4 if order == "start-first" else 3)
    assert users(found.stage).count("2") == 1
    assert found.watched.fewest == (4 if order == "start-first" else 3)


@pytest.mark.parametrize(
    ("fault", "crash_every"),
    [*((fault, None) for fault in FAILING), ("never healthy", 0.05), ("crashes", 0.4)],
)
@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_rollback_ends_with_all_old_ones(fault: str, order: str, crash_every: float | None) -> None:
    fields = {"order": order, "failure_action": "rollback"}
    found = Play(
        user("1", **fields),
        user("2", **fields),
        programs={"2": FAILING[fault]},
        crash_every=crash_every,
    )
    assert users(found.stage) == ["1"] * 4
    assert (found.rollout.kind, found.rollout.outcome) == ("rollback", "done")


def test_a_rollback_loses_no_more_than_an_update_may() -> None:
    for order, fewest in (("start-first", 4), ("stop-first", 3)):
        fields = {"order": order, "failure_action": "rollback"}
        found = Play(user("1", **fields), user("2", **fields), programs={"2": BROKEN})
        assert found.watched.fewest == fewest
    again = Play(
        user("1", rollback={"order": "start-first"}, **fields), user("2", **fields), programs={"2": BROKEN}
    )
    assert again.watched.fewest == 3


def test_a_way_back_that_fails_pauses() -> None:
    """What was there before does not work any more, when it is made anew."""
    fields = {"failure_action": "rollback", "monitor": 2.0}
    found = Play(
        user("1", **fields), user("2", **fields), behaves=lambda one: BROKEN if one.created > 1000.4 else None
    )
    assert (found.rollout.kind, found.rollout.outcome) == ("rollback", "paused")
    assert said("web", found.rollout) == "the rollback of web is paused: container shop-web-1 is unhealthy"
    assert users(found.stage) == ["1"] * 4


@pytest.mark.parametrize(("ratio", "outcome"), [(0.2, "paused"), (0.25, "done"), (1.0, "done")])
def test_so_many_failures_are_put_up_with(ratio: float, outcome: str) -> None:
    """One of four: the container that is made third in seat 3 never gets healthy."""
    fields = {"max_failure_ratio": ratio, "monitor": 1.0}

    def behaves(one: Container) -> Program | None:
        return BROKEN if one.definition.user == "2" and one.slot == 3 else None

    found = Play(user("1", **fields), user("2", **fields), behaves=behaves)
    assert found.rollout.outcome == outcome
    assert users(found.stage).count("2") == (3 if outcome == "paused" else 4)


WHATEVER: dict[str, dict[str, Any]] = {
    "continue": {"failure_action": "continue", "monitor": 1.0},
    "ratio": {"max_failure_ratio": 1.0, "monitor": 1.0},
}
"""Two ways to go on whatever fails."""


def all_failed(found: Play, order: str, count: int = 4, old: int = 4) -> None:
    """Stop-first, all are new and none serves; start-first, each has an old one beside it, for good."""
    if order == "stop-first":
        assert users(found.stage) == ["2"] * count
    else:
        assert users(found.stage) == ["1"] * old + ["2"] * count
        assert found.watched.fewest == min(old, count)
        assert "has failed, and the old one stays in its place" in found.rollout.because
    assert found.stage.loop.view
    assert found.stage.loop.view.plan.settled


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
@pytest.mark.parametrize("way", WHATEVER)
@pytest.mark.parametrize("fault", ["never healthy", "can't be executed"])
def test_it_goes_on_when_all_fail(fault: str, way: str, order: str) -> None:
    fields = {"order": order, **WHATEVER[way]}
    all_failed(Play(user("1", **fields), user("2", **fields), programs={"2": FAILING[fault]}), order)


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_it_goes_on_when_the_only_one_fails_or_the_supervisor_is_killed(order: str) -> None:
    fields = {"order": order, "failure_action": "continue", "monitor": 1.0}
    one, two = (user(number, replicas=1, **fields) for number in "12")
    all_failed(Play(one, two, programs={"2": BROKEN}), order, 1, 1)
    one, two = (user(number, **fields) for number in "12")
    all_failed(Play(one, two, programs={"2": BROKEN}, crash_every=0.3), order)


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
@pytest.mark.parametrize("count", [2, 4, 6])
def test_it_goes_on_when_it_is_said_again_in_the_middle(count: int, order: str) -> None:
    """With as many containers, or with others."""
    fields = {"order": order, "failure_action": "continue", "monitor": 1.0}

    async def then(stage: Stage) -> None:
        assert 0 < users(stage).count("2") < 4
        await stage.settled(stage.want(up(stage.desired, user("2", replicas=count, **fields), stage)))

    one, two = (user(number, **fields) for number in "12")
    found = Play(one, two, programs={"2": BROKEN}, then=then, within=1.5, unsettled=True)
    all_failed(found, order, count, min(count, 4))


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_it_goes_on_to_something_better_or_away_in_the_middle(order: str) -> None:
    fields = {"order": order, "failure_action": "continue", "monitor": 1.0}

    async def then(stage: Stage) -> None:
        assert any("failed" in wait.because for wait in stage.loop.view.plan.waits)
        await stage.settled(stage.want(up(stage.desired, user("3", **fields), stage)))
        assert users(stage) == ["3"] * 4
        await stage.settled(stage.want(up(stage.desired, user("2", **fields), stage)))
        wish = orders.down(stage.desired, remove_volumes=False, remove_orphans=False, timeout=None)
        await stage.settled(stage.want(wish))
        assert of(stage) == []

    one, two = (user(number, **fields) for number in "12")
    Play(one, two, programs={"2": BROKEN}, then=then, within=1.5, unsettled=True)


def test_a_failure_after_its_time_is_none() -> None:
    """Each crashes once, 3 s after its start, and comes back."""
    for monitor, outcome in ((2.0, "done"), (4.0, "paused")):
        fields = {"monitor": monitor, "checked": False}
        found = Play(
            user("1", **fields),
            user("2", **fields),
            programs={"2": Program(exits_after=3.0, exit_codes=(1,))},
            within=40,
        )
        assert found.rollout.outcome == outcome


def test_the_next_up_tries_again_and_goes_back_to_what_was_good() -> None:
    """A pause, then another attempt with a third definition that is no better: it goes back to the first."""

    async def then(stage: Stage) -> None:
        assert stage.desired.rollouts["web"].outcome == "paused"
        stage.want(orders.restart(stage.desired, ["web"], timeout=None, no_deps=False))
        await trio.sleep(5)
        assert stage.desired.rollouts["web"].outcome == "paused"
        stage.want(up(stage.desired, user("3", failure_action="rollback"), stage))
        await trio.sleep(0.1)
        await stage.settled(within=60)

    found = Play(user("1"), user("2"), programs={"2": BROKEN, "3": BROKEN}, then=then)
    assert found.rollout.kind == "rollback"
    assert users(found.stage) == ["1"] * 4


def test_up_with_a_better_definition_ends_a_pause() -> None:
    async def then(stage: Stage) -> None:
        stage.want(up(stage.desired, user("3", order="start-first"), stage))
        await trio.sleep(0.1)
        await stage.settled(within=60)

    found = Play(
        user("1", order="start-first"), user("2", order="start-first"), programs={"2": BROKEN}, then=then
    )
    assert users(found.stage) == ["3"] * 4
    assert found.watched.fewest == 4


def test_a_verdict_outlives_the_supervisor_and_the_machine() -> None:
    async def then(stage: Stage) -> None:
        verdict = stage.desired.rollouts["web"]
        for _ in range(3):
            async with stage.supervisor():
                await trio.sleep(3)
        assert stage.desired.rollouts["web"] == verdict
        stage.engine.power_cut()
        stage.desired = orders.after_boot(stage.desired)
        async with stage.supervisor():
            await trio.sleep(8)
        assert stage.desired.rollouts["web"].outcome == "paused"

    for fault in (BROKEN, CRASHES):
        found = Play(user("1"), user("2"), programs={"2": fault}, then=then, alone=True)
        assert users(found.stage) == ["1", "1", "1", "2"]


@pytest.mark.parametrize("each", [False, True])
def test_a_step_before_its_start_that_fails_is_a_failure(each: bool) -> None:
    fields = {"order": "start-first", "failure_action": "rollback", "monitor": 1.0}

    def wish(number: str) -> Stack:
        return user(number, pre_start=(InitContainer(command=(number,), per_replica=each),), **fields)

    def behaves(one: Container) -> Program | None:
        code = 1 if one.definition.command == ("2",) else 0
        return Program(exits_after=0.2, exit_codes=(code,)) if one.definition.step is not None else None

    found = Play(wish("1"), wish("2"), behaves=behaves)
    assert users(found.stage) == ["1"] * 4
    assert found.rollout.because == "pre_start step 1 of web exited (1) (1 of 4 failed)"
    assert found.watched.fewest == 4


def test_force_recreate_goes_the_same_way() -> None:
    fields = {"order": "start-first", "failure_action": "rollback"}
    found = Play(user("1", **fields), user("1", **fields), options={"force_recreate": True})
    assert found.rollout.outcome == "done"
    assert (found.watched.fewest, {one.generation for one in of(found.stage)}) == (4, {1})
    found = Play(
        user("1", **fields),
        user("1", **fields),
        options={"force_recreate": True},
        behaves=lambda one: BROKEN if one.generation else None,
    )
    assert (
        found.rollout.because
        == "container shop-web-5 is unhealthy (1 of 4 failed), and what was before is the same"
    )
    assert sorted(one.generation for one in of(found.stage)) == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("broken", [False, True])
def test_another_image_is_followed_step_by_step_and_turned_back_by_its_id(broken: bool) -> None:
    wish = stack(web=web(image="web", order="start-first", failure_action="rollback"))

    def behaves(one: Container) -> Program | None:
        return BROKEN if broken and one.image_id == "sha256:new" else None

    def tag(stage: Stage) -> None:
        """As `pull` does it: nobody orders anything."""
        old = stage.engine.world.images["web"]
        stage.engine.disturb(
            replace(stage.engine.world, images={"web": ImageState(id="sha256:new"), old.id: old})
        )

    found = Play(wish, wish, images=("web",), behaves=behaves, prepare=tag)
    assert {one.image_id for one in of(found.stage)} == {"sha256:web" if broken else "sha256:new"}
    assert found.watched.fewest == 4
    assert found.stage.desired.pins == ({"web": "sha256:web"} if broken else {})


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
@pytest.mark.parametrize("count", [2, 7])
def test_scaling_goes_on_meanwhile(order: str, count: int) -> None:
    found = Play(user("1", order=order), user("2", order=order, replicas=count))
    assert users(found.stage) == ["2"] * count
    assert found.watched.fewest >= min(4, count) - (order == "stop-first")


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("lingers", [0.05, 1.3, 20.0])
@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_plan_tells_who_will_sit_where_however_long_the_old_ones_take(
    order: str, lingers: float, parallelism: int
) -> None:
    fields = {"order": order, "parallelism": parallelism}
    planned: list[str] = []

    def prepare(stage: Stage) -> None:
        wish = up(stage.desired, user("2", **fields), stage)
        lines = rehearse(wish, stage.engine.world, stage.now())
        planned.extend(line.action.name for line in lines if isinstance(line.action, CreateContainer))

    found = Play(
        user("1", **fields), user("2", **fields), {"1": Program(ends_within=lingers)}, prepare=prepare
    )
    made = [one.name for _, one in found.stage.engine.applied if isinstance(one, CreateContainer)][4:]
    assert len(planned) == 4
    assert sorted(made) == sorted(planned)
    assert slots(found.stage) == ([5, 6, 7, 8] if order == "start-first" else [1, 2, 3, 4])


def test_dependents_are_restarted_once_at_the_end_and_wait_for_their_own_update() -> None:
    def wish(number: str) -> Stack:
        return stack(
            db=web(number, replicas=3, delay=2.0),
            web=web(number, replicas=2, after={"db": "healthy!"}),
            cache=service(after={"db": "healthy!"}),
        )

    found = Play(wish("1"), wish("2"))
    began = [
        at
        for at, one in found.stage.engine.applied
        if isinstance(one, StartContainer) and "cache" in one.name
    ]
    last_db = max(
        at for at, one in found.stage.engine.applied if isinstance(one, StartContainer) and "-db-" in one.name
    )
    assert len(began) == 2
    assert began[1] > last_db
    made = [
        at
        for at, one in found.stage.engine.applied
        if isinstance(one, CreateContainer) and "-web-" in one.name
    ]
    assert len(made) == 4
    assert min(made[2:]) > last_db
    assert found.watched.fewest == 1  # of the two of web


@pytest.mark.parametrize(
    "fields",
    [
        {"container_name": "it"},
        {"networks": (Attachment(network="default", ipv4_address="172.28.0.9"),)},
        {"ports": (Port(target=80, published=(80, 80), mode="host"),)},
    ],
)
def test_where_two_cannot_live_at_a_time_the_old_one_stops_first(fields: dict[str, Any]) -> None:
    warnings: list[str] = []

    async def then(stage: Stage) -> None:
        warnings.extend(one.because for one in stage.loop.history if one.verb == "warn")

    one, two = (user(number, order="start-first", replicas=1, **fields) for number in "12")
    found = Play(one, two, then=then)
    assert (users(found.stage), slots(found.stage)) == (["2"], [1])
    assert "can't be updated start-first" in warnings[0]


def test_a_network_that_is_made_anew_waits_for_nobody() -> None:
    fields = {"networks": ("back",), "order": "start-first"}
    before = stack(networks={"back": network("10.1.0.0/24")}, web=web("1", **fields))
    after = stack(networks={"back": network("10.2.0.0/24")}, web=web("2", **fields))
    found = Play(before, after)
    assert {one.addresses["shop_back"][:4] for one in of(found.stage)} == {"10.2"}
    assert users(found.stage) == ["2"] * 4


def test_an_update_that_is_ordered_away_in_the_middle() -> None:
    """`down`, `stop` and an `up` without update_config have their way at once."""

    async def then(stage: Stage) -> None:
        await stage.settled(stage.want(orders.stop(stage.desired, ["web"], None)))
        assert not any(serves(one) for one in of(stage))
        await stage.settled(stage.want(up(stage.desired, stack(web=web("2", deploy=None)), stage)))
        assert users(stage) == ["2"] * 4
        wish = orders.down(stage.desired, remove_volumes=False, remove_orphans=False, timeout=None)
        await stage.settled(stage.want(wish))

    found = Play(
        user("1"), user("2", delay=1000.0, order="start-first"), then=then, within=3.0, unsettled=True
    )
    assert of(found.stage) == []
