"""Lives of containers that touch each other: one-shots, retries, crashes that others follow."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import trio

from orchestrator.engines.simulated import Program
from orchestrator.model.action import StartContainer
from orchestrator.model.frozen import replace
from orchestrator.model.observation import Container
from orchestrator.model.sections import InitContainer
from orchestrator.model.stack import RestartPolicy, Service, Stack
from orchestrator.planner.plan import plan
from orchestrator.simulation.play import Played, play
from orchestrator.simulation.scenario import Event, Kill, KillSupervisor, Order, PowerCut, Scale, Scenario
from tests.kit import histories
from tests.kit.stacks import check, service, stack, up
from tests.simulation.stage import Stage
from tests.simulation.stage import play as act
from tests.simulation.updating import Play as Update
from tests.simulation.updating import web


def begun(played: Played, name: str) -> list[float]:
    """When a container was started, in seconds of the play."""
    target = f"container:{name}"
    return [
        one.at for one in played.happenings if (one.target, one.verb, one.outcome) == (target, "start", "ok")
    ]


def told(wish: Stack, *events: Event, lasts: float = 0.0, **programs: Program) -> Played:
    """A play that goes on for half a minute after its last event."""
    lasts = lasts or max((event.at for event in events), default=0.0) + 30
    played = play(wish, Scenario(lasts=lasts, programs=programs, events=events), 1)
    assert played.broken == ""
    return played


def test_a_one_shot_that_has_succeeded_is_not_run_by_a_later_up() -> None:
    wish = stack(tables=service(), web=service(after={"tables": "completed"}), echo=service())
    played = told(
        wish,
        Order(at=10, command="up"),
        KillSupervisor(at=20),
        Order(at=30, command="stop"),
        Order(at=40, command="up"),
        PowerCut(at=50),
        Order(at=60, command="up"),
        Order(at=100, command="up", services=("tables",)),
        echo=Program(exits_after=1.0),
    )
    assert [round(at) for at in begun(played, "shop-tables-1")] == [0, 100]
    assert [round(at) for at in begun(played, "shop-echo-1")] == [0, 10, 40, 60]  # nobody waits for it


def test_a_retrying_one_shot_is_judged_when_its_retries_end() -> None:
    async def scene(policy: str, codes: tuple[int, ...]) -> tuple[list[str], str]:
        wish = stack(job=service(restart=policy), web=service(after={"job": "completed"}))
        stage = Stage(desired=up(wish), programs={"job": Program(exits_after=1.0, exit_codes=codes)})
        async with stage.supervisor() as loop:
            await stage.settled()
            await trio.sleep(1000)
            assert loop.view is not None
            refused = [wait.because for wait in loop.view.plan.waits if wait.failed]
        stage.check()
        names = [one.name for _, one in stage.engine.applied if isinstance(one, StartContainer)]
        return names, "".join(refused)

    async def scenes() -> None:
        job, web = "shop-job-1", "shop-web-1"
        assert await scene("on-failure", (1, 1, 0)) == ([job, job, job, web], "")
        assert await scene("on-failure:2", (1, 1, 0)) == ([job, job, job, web], "")
        names, refused = await scene("on-failure:2", (4,))
        assert names == [job, job, job]
        assert 'service "job" didn\'t complete successfully: exit 4' in refused
        names, refused = await scene("no", (4,))
        assert names == [job]

    act(scenes)


CHAIN = stack(
    db=service(restart="always", healthcheck=check()),
    api=service(after={"db": "healthy!"}),
    web=service(after={"api": "started!"}, replicas=2),
    log=service(after={"db": "healthy"}),
    tables=service(after={"db": "healthy!"}),
)
DB = Program(healthy_after=5.0)


def test_dependents_follow_a_dependency_that_crashed_once_it_is_healthy_and_in_order() -> None:
    played = told(CHAIN, Kill(at=100, service="db"), db=DB, tables=Program(exits_after=1.0))
    (first, back), (_, api) = begun(played, "shop-db-1"), begun(played, "shop-api-1")
    assert first < 1
    assert 100 < back < 101
    assert back + 5 <= api < back + 7
    stopped = [one.target for one in played.happenings if (one.verb, one.outcome) == ("stop", "ok")]
    assert sorted(stopped[:2]) == ["container:shop-web-1", "container:shop-web-2"]
    assert stopped[2:] == ["container:shop-api-1"]
    assert all(api < begun(played, f"shop-web-{slot}")[1] < api + 1 for slot in (1, 2))
    for untouched in ("shop-log-1", "shop-tables-1"):  # has not asked for it; has completed
        assert len(begun(played, untouched)) == 1


def test_one_crash_is_followed_once_whoever_is_killed_meanwhile() -> None:
    for moment in (30.05, 33, 36.1, 36.2):
        events = (Kill(at=30, service="db"), KillSupervisor(at=moment, absent=3.0))
        played = told(CHAIN, *events, db=DB)
        assert len(begun(played, "shop-db-1")) == 2, moment
        assert len(begun(played, "shop-api-1")) == 2, moment
        assert len(begun(played, "shop-web-1")) == 2, moment


def test_an_order_or_the_machine_restart_dependents_no_second_time() -> None:
    orders = (Kill(at=50, service="db"), Order(at=100, command="restart", services=("db",)))
    played = told(CHAIN, *orders, PowerCut(at=200), db=DB)
    assert len(begun(played, "shop-api-1")) == 3  # nobody starts one with restart: no after the power cut
    assert len(begun(played, "shop-db-1")) == 4


def test_a_dependency_that_crashes_again_and_again_disturbs_its_dependents_no_faster_than_it_comes_back() -> (
    None
):
    wish = stack(db=service(restart="always"), web=service(after={"db": "started!"}))
    played = told(wish, lasts=300, db=Program(exits_after=1.0, exit_codes=(1,)))
    gaps = [after - before for before, after in pairwise(begun(played, "shop-web-1"))]
    assert len(gaps) <= len(begun(played, "shop-db-1"))
    assert gaps[-1] > 30


@pytest.mark.parametrize("policy", ["no", "on-failure:1"])
def test_who_never_comes_back_disturbs_nobody(policy: str) -> None:
    wish = stack(db=service(restart=policy), web=service(after={"db": "started!"}))
    played = told(wish, db=Program(exits_after=5.0, exit_codes=(1,)))
    assert len(begun(played, "shop-web-1")) == len(begun(played, "shop-db-1"))


def nursed(remedy: str, **fields: object) -> Service:
    """A service of which unhealthy containers are restarted or recreated."""
    rule = RestartPolicy(unhealthy=remedy, **fields)  # type: ignore[arg-type]
    return replace(service(healthcheck=check()), restart=rule)


SICKLY = Program(hangs_after=3.0)
"""Its health check fails from three seconds after each start."""


def test_what_turns_unhealthy_is_restarted_with_a_back_off_and_dependents_follow() -> None:
    wish = stack(
        db=nursed("restart"), web=service(after={"db": "healthy!"}), log=service(after={"db": "healthy"})
    )
    played = told(wish, lasts=200, db=SICKLY)
    stops = [one for one in played.happenings if (one.verb, one.outcome) == ("stop", "ok")]
    sick = [one for one in stops if one.target == "container:shop-db-1"]
    assert {one.because for one in sick} == {"is unhealthy (x-on-unhealthy: restart)"}
    ends = [one.at for one in sick]
    waits = [start - end for end, start in zip(ends, begun(played, "shop-db-1")[1:], strict=False)]
    assert [round(wait, 1) for wait in waits[:6]] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2], abs=0.11)
    assert len(begun(played, "shop-web-1")) >= len(waits) - 1
    assert len(begun(played, "shop-log-1")) == 1
    (db,) = (one for one in played.containers if one.service == "db")
    assert db.run is not None
    assert db.run.restarts in (len(waits), len(waits) - 1)


def test_a_check_that_never_succeeds_is_given_as_many_restarts_as_are_allowed() -> None:
    wish = stack(db=nursed("restart", max_attempts=2), web=service(after={"db": "healthy"}))
    played = told(wish, db=Program(probes=(1,)))
    assert len(begun(played, "shop-db-1")) == 3
    assert begun(played, "shop-web-1") == []
    refusals = [one.because for one in played.happenings if one.verb == "refuse"]
    assert refusals == ["dependency failed to start: container shop-db-1 is unhealthy"]


def test_what_turns_unhealthy_is_recreated_without_a_storm() -> None:
    wish = stack(db=nursed("recreate"), web=service(after={"db": "healthy!"}))
    played = told(wish, lasts=200, db=SICKLY)
    made = [
        one.at
        for one in played.happenings
        if (one.target, one.verb, one.outcome) == ("container:shop-db-1", "create", "ok")
    ]
    gaps = [after - before for before, after in pairwise(made)]
    assert gaps[0] < 6
    assert all(gap >= min(made[number] - made[0], 60) - 0.1 for number, gap in enumerate(gaps))
    assert len(made) < 12
    assert len(begun(played, "shop-db-1")) == len(made)
    assert {one.because for one in played.happenings if one.verb == "remove"} == {
        "is unhealthy (x-on-unhealthy: recreate)"
    }


def test_a_service_that_recovers_in_time_is_left_alone() -> None:
    played = told(stack(db=nursed("restart")), db=Program(probes=(1, 0, 1, 0)))
    assert len(begun(played, "shop-db-1")) == 1


# --- pre_start -------------------------------------------------------------------------------------------


def prepared(recipe: Service, steps: str) -> Service:
    """A service with steps before it: "once" for all its containers, or "each"."""
    said = (InitContainer(command=("prepare",), per_replica=word == "each") for word in steps.split())
    return replace(recipe, pre_start=tuple(said))


STEPS = stack(
    db=service(restart="always", healthcheck=check()),
    web=prepared(service(after={"db": "healthy!"}, restart="always", replicas=2), "once each"),
    log=service(after="web"),
)
FIRST, SECOND = "shop-web-pre_start-1", "shop-web-pre_start-2"


def test_steps_run_one_after_the_other_before_the_service_and_after_what_it_needs() -> None:
    played = told(STEPS, db=Program(healthy_after=5.0))
    (first,), (one,), (two,) = (begun(played, name) for name in (FIRST, f"{SECOND}-1", f"{SECOND}-2"))
    assert 5 < first < 7
    assert first + 1 <= one < first + 1.2
    assert first + 1 <= two < first + 1.2
    for slot, step in ((1, one), (2, two)):
        (web,) = begun(played, f"shop-web-{slot}")
        assert step + 1 <= web < step + 1.2
    assert begun(played, "shop-log-1")[0] >= max(begun(played, f"shop-web-{slot}")[0] for slot in (1, 2))


def test_a_step_that_has_succeeded_is_run_again_with_a_new_container_only() -> None:
    events = (
        Kill(at=20, service="web"),
        Order(at=40, command="up"),
        Order(at=50, command="restart", services=("web",)),
        Order(at=60, command="stop"),
        Order(at=70, command="up"),
        KillSupervisor(at=80),
        PowerCut(at=90),
        Scale(at=110, replicas={"web": 3}),
        Order(at=150, command="down"),
        Order(at=160, command="up"),
    )
    played = told(STEPS, *events)
    assert [round(at) for at in begun(played, FIRST)] == pytest.approx([1, 160], abs=2)
    assert [round(at) for at in begun(played, f"{SECOND}-1")] == pytest.approx([2, 162], abs=2)
    assert [round(at) for at in begun(played, f"{SECOND}-3")] == pytest.approx([110, 162], abs=2)
    assert {one.name for one in played.containers if one.definition.step} == {
        FIRST,
        *(f"{SECOND}-{slot}" for slot in (1, 2, 3)),
    }


def test_a_step_that_fails_holds_its_service_up_until_the_next_up() -> None:
    programs = {"web:pre_start:1": Program(exits_after=1.0, exit_codes=(3, 0))}
    played = told(STEPS, Order(at=100, command="up"), **programs)
    refusals = {one.target: one.because for one in played.happenings if one.verb == "refuse"}
    said = "pre_start step 1 of web didn't complete successfully: exit 3"
    assert refusals["container:shop-web-1"] == said
    assert refusals["container:shop-log-1"] == f"dependency failed to start: container shop-web-1: {said}"
    first, again = begun(played, FIRST)
    assert first < 3
    assert 100 <= again < 101
    assert 101 <= begun(played, "shop-web-1")[0] < 105


def test_steps_are_carried_through_whoever_is_killed_meanwhile() -> None:
    for moment in (0.01, 1.5, 2.5, 3.3):
        events = (KillSupervisor(at=moment, absent=2.0), PowerCut(at=moment + 2.5, absent=1.0))
        played = told(STEPS, *events)
        assert begun(played, f"shop-web-{2}")
        assert len(begun(played, FIRST)) <= 3


def test_a_change_runs_the_steps_again_and_removes_those_that_are_no_more() -> None:
    async def scene() -> None:
        wish = stack(web=prepared(service(), "once each"))
        stage = Stage(desired=up(wish))
        async with stage.supervisor():
            await stage.settled()
            before = {one.name: one.id for one in stage.engine.world.containers}
            fewer = stack(web=prepared(service(user="1"), "once"))
            await stage.settled(stage.want(up(fewer, turn=2)))
            after = {one.name: one.id for one in stage.engine.world.containers}
            assert sorted(after) == ["shop-web-1", FIRST]
            assert not set(before.values()) & set(after.values())
            forced = up(fewer, turn=3, generation=1)
            await stage.settled(stage.want(forced))
            assert not {one.id for one in stage.engine.world.containers} & set(after.values())
            await stage.settled(stage.want(up(stack(web=service()), turn=4, generation=1)))
            assert [one.name for one in stage.engine.world.containers] == ["shop-web-1"]
        stage.check()

    act(scene)


@pytest.mark.parametrize("kind", ["once", "each"])
@pytest.mark.parametrize(("action", "order"), [("rollback", "stop-first"), ("pause", "start-first")])
def test_containers_of_before_outlive_a_failed_step_of_an_update_and_the_machine(
    kind: str, action: str, order: str
) -> None:
    """They were prepared by the definition that they are made of, and need none of the new one's steps."""

    def wish(user: str) -> Stack:
        return stack(web=prepared(web(user, order=order, failure_action=action), kind))

    def behaves(one: Container) -> Program | None:
        code = 5 if one.definition.user == "2" else 0
        return Program(exits_after=0.5, exit_codes=(code,)) if one.definition.step is not None else None

    found = Update(wish("1"), wish("2"), behaves=behaves)
    desired = found.stage.loop.desired
    assert desired.rollouts["web"].kind == ("rollback" if action == "rollback" else "update")
    world, now = found.stage.engine.world, 5000.0
    ended = [
        replace(one, run=replace(one.run, finished=one.run.finished or now, before_boot=True))
        for one in world.containers
        if one.run is not None
    ]
    starts = [
        one.name
        for one in plan(desired, replace(world, containers=tuple(ended)), now).actions
        if isinstance(one, StartContainer)
    ]
    old = [one.name for one in ended if one.service == "web" and one.definition.user == "1"]
    assert len(old) == 4
    assert set(old) <= set(starts)


# --- whatever happens ------------------------------------------------------------------------------------


def adorned(chance: random.Random, recipe: Service) -> Service:
    """A service of a history that may have steps, and a remedy for what turns unhealthy."""
    if chance.random() < 0.4:
        said = [
            InitContainer(
                command=("prepare",),
                per_replica=chance.random() < 0.5,
                image=chance.choice([None, None, "a"]),
            )
            for _ in range(chance.choice([1, 1, 2]))
        ]
        recipe = replace(recipe, pre_start=tuple(said))
    if chance.random() < 0.35:
        recipe = replace(
            recipe, restart=replace(recipe.restart, unhealthy=chance.choice(["restart", "recreate"]))
        )
    return recipe


def step_program(chance: random.Random) -> Program:
    return Program(
        exits_after=chance.choice([0.1, 1.0, 5.0]),
        exit_codes=chance.choice([(0,), (0,), (1, 0), (1,)]),
        starts_in=chance.choice([0.0, 0.5]),
        ends_within=chance.choice([0.01, None]),
    )


@pytest.mark.parametrize("seed", [*range(40), 77, 82, 89, 142, 332, 673, 1361, 2109])
def test_the_laws_hold_with_steps_and_remedies(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those after the first forty have found something, once."""
    plain = histories._service
    monkeypatch.setattr(
        histories,
        "_service",
        lambda chance, earlier, number: adorned(chance, plain(chance, earlier, number)),
    )
    found, chance = histories.history(seed), random.Random(seed)
    names = [f"s{service}:pre_start:{step}" for service in range(7) for step in (1, 2)]
    programs = {name: step_program(chance) for name in names if chance.random() < 0.5}
    scenario = replace(found.scenario, programs={**found.scenario.programs, **programs})
    assert play(found.stack, scenario, seed).broken == ""
