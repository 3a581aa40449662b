"""Scenes under a virtual clock: loop, planner and simulated engine together."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import trio

from orchestrator.engines.simulated import Faults, Program
from orchestrator.model.action import (
    CreateContainer,
    ProbeContainer,
    PullImage,
    SignalContainer,
    StartContainer,
    SwapFiles,
    verb,
)
from orchestrator.model.desired import Desired
from orchestrator.model.observation import HealthStatus, State
from orchestrator.model.stack import FileMount
from orchestrator.reconciler.loop import View
from tests.kit.stacks import check, down, network, service, stack, up, wanting
from tests.simulation.stage import Stage, play

SLOW_OBSERVATION = Faults(delay=(0.001, 0.03), observe_delay=(0.0, 0.02))
"""Longer than many actions take: an observation is often out of date when it arrives."""


def starts(stage: Stage, name: str) -> list[float]:
    return [at for at, a in stage.engine.applied if isinstance(a, StartContainer) and a.name == name]


def test_a_hundred_services_take_one_action_each_and_few_passes() -> None:
    async def scene() -> None:
        wish = stack(**{f"s{n}": service() for n in range(100)})
        stage = Stage(desired=up(wish), faults=SLOW_OBSERVATION)
        async with stage.supervisor() as loop:
            took = await stage.settled()
            assert loop.view is not None
            assert loop.view.number < 40
        assert took < 1.5
        assert len(stage.engine.applied) == 201
        stage.check()

    play(scene)


def test_a_gate_opens_within_50_ms_of_the_event() -> None:
    async def scene() -> None:
        wish = stack(
            db=service(healthcheck=check(interval=1.0, retries=9)),
            web=service(after={"db": "healthy"}),
            job=service(),
            after=service(after={"job": "completed"}),
            noise=service(restart="always"),
        )
        programs = {
            "db": Program(probes=(1, 1, 0)),
            "job": Program(exits_after=2.345),
            "noise": Program(exits_after=0.05, exit_codes=(1,)),
        }
        wish = replace(
            wish,
            services={
                **wish.services,
                "db": replace(wish.services["db"], healthcheck=check(interval=1.0, retries=9)),
            },
        )
        stage = Stage(desired=up(wish), programs=programs)
        async with stage.supervisor():
            await trio.sleep(5)
        db = stage.engine.container("shop-db-1")
        assert db.run is not None
        assert db.run.health is not None
        healthy = next(r.ended for r in db.run.health.results if r.exit_code == 0)
        (web,) = starts(stage, "shop-web-1")
        assert 0 <= web - healthy <= 0.05
        job = stage.engine.container("shop-job-1")
        assert job.run is not None
        assert job.run.finished is not None
        (later,) = starts(stage, "shop-after-1")
        assert 0 <= later - job.run.finished <= 0.05
        stage.check()

    play(scene)


def test_one_service_is_up_without_waiting_for_company() -> None:
    async def scene() -> None:
        stage = Stage(desired=up(stack(web=service())), faults=Faults(delay=(0.001, 0.001)))
        async with stage.supervisor():
            assert await stage.settled() < 0.005
        stage.check()

    play(scene)


def test_an_idle_stack_is_looked_at_twice_a_minute() -> None:
    async def scene() -> None:
        stage = Stage(desired=up(stack(web=service())))
        async with stage.supervisor() as loop:
            await stage.settled()
            assert loop.view is not None
            before = loop.view.number
            await trio.sleep(3600)
            assert loop.view.number - before <= 121

    play(scene)


def test_a_crash_loop_backs_off() -> None:
    async def scene() -> None:
        stage = Stage(
            desired=up(stack(web=service(restart="always"))),
            programs={"web": Program(exits_after=0.5, exit_codes=(1,))},
        )
        async with stage.supervisor():
            await trio.sleep(24 * 3600)
        times = starts(stage, "shop-web-1")
        gaps = [round(b - a - 0.5, 1) for a, b in pairwise(times)]
        assert gaps[:10] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2]
        assert set(gaps[10:]) == {60.0}
        stage.check()

    play(scene)


def test_on_failure_3_means_four_starts() -> None:
    async def scene() -> None:
        stage = Stage(
            desired=up(stack(web=service(restart="on-failure:3"))),
            programs={"web": Program(exits_after=0.5, exit_codes=(1,))},
        )
        async with stage.supervisor():
            await stage.settled()
            await trio.sleep(1000)
        assert len(starts(stage, "shop-web-1")) == 4

    play(scene)


def test_who_ignores_the_stop_signal_is_killed_after_the_grace() -> None:
    async def scene() -> None:
        wish = stack(web=service(stop_grace_period=3.0))
        stage = Stage(desired=up(wish), programs={"web": Program(ends_within=None)})
        async with stage.supervisor():
            await stage.settled()
            took = await stage.settled(stage.want(down(wish)))
        signals = [
            (a.signal, round(at, 1)) for at, a in stage.engine.applied if isinstance(a, SignalContainer)
        ]
        assert [signal for signal, _ in signals] == [15, 9]
        assert 3.0 <= took < 3.1
        stage.check()

    play(scene)


def test_a_stop_that_a_crash_interrupted_is_carried_through() -> None:
    async def scene() -> None:
        wish = stack(web=service(stop_grace_period=3.0))
        stage = Stage(desired=up(wish), programs={"web": Program(ends_within=None)})
        async with stage.supervisor():
            await stage.settled()
            stage.want(down(wish))
            await trio.sleep(1)
        await trio.sleep(60)
        async with stage.supervisor():
            assert await stage.settled() < 0.2
        assert stage.engine.world.containers == ()
        stage.check()

    play(scene)


def test_an_exit_that_we_caused_is_not_taken_for_the_programs_own() -> None:
    async def scene() -> None:
        wish = stack(web=service(restart="always"))
        stage = Stage(desired=up(wish))
        async with stage.supervisor():
            await stage.settled()
            await stage.settled(stage.want(wanting(up(wish), "web", wanted="stopped")))
        async with stage.supervisor():
            await trio.sleep(100)
        assert stage.engine.container("shop-web-1").state is State.EXITED
        assert len(starts(stage, "shop-web-1")) == 1

    play(scene)


def test_a_process_killed_from_outside_comes_back() -> None:
    async def scene() -> None:
        stage = Stage(desired=up(stack(web=service(restart="unless-stopped"), once=service())))
        async with stage.supervisor():
            await stage.settled()
            await trio.sleep(1)
            stage.engine.kill("shop-web-1")
            stage.engine.kill("shop-once-1")
            await trio.sleep(1)
        assert stage.engine.container("shop-web-1").state is State.RUNNING
        assert stage.engine.container("shop-once-1").state is State.EXITED

    play(scene)


def test_after_a_power_cut_the_policies_decide() -> None:
    async def scene() -> None:
        wish = stack(web=service(restart="always"), once=service())
        stage = Stage(desired=up(wish))
        async with stage.supervisor():
            await stage.settled()
        stage.engine.power_cut()
        async with stage.supervisor():
            await trio.sleep(5)
        assert stage.engine.container("shop-web-1").state is State.RUNNING
        assert stage.engine.container("shop-once-1").state is State.EXITED
        stage.check()

    play(scene)


def test_a_command_that_is_not_there_is_tried_once_a_turn() -> None:
    async def scene() -> None:
        stage = Stage(
            desired=up(stack(web=service(restart="always"), other=service(after="web"))),
            programs={"web": Program(refuses=(127, "no such command: serve"))},
        )
        async with stage.supervisor() as loop:
            await stage.settled()
            await trio.sleep(500)
            assert loop.view is not None
            refused = {w.target: (w.because, w.exit_code) for w in loop.view.plan.waits}
            assert refused["container:shop-web-1"] == ("no such command: serve", 127)
            assert refused["container:shop-other-1"] == (
                "dependency failed to start: container shop-web-1: no such command: serve",
                127,
            )
            assert len(starts(stage, "shop-web-1")) == 1
            await stage.settled(stage.want(wanting(loop.desired, "web", turn=2)))
        assert len(starts(stage, "shop-web-1")) == 2
        stage.check()

    play(scene)


def test_unhealthy_then_healthy_again_and_the_dependent_follows() -> None:
    async def scene() -> None:
        wish = stack(
            db=service(healthcheck=check(interval=1.0, retries=2)), web=service(after={"db": "healthy"})
        )
        stage = Stage(desired=up(wish), programs={"db": Program(probes=(1, 1, 1, 0))})
        async with stage.supervisor() as loop:

            def failed(view: View) -> bool:
                return any(w.failed and "unhealthy" in w.because for w in view.plan.waits)

            await loop.until(failed)
            await trio.sleep(3)
            words = [
                event.verb
                for event in loop.history
                if event.target == "container:shop-db-1" and event.outcome != "begun"
            ]
            assert words == ["create", "start", "unhealthy", "healthy"]
        assert len(starts(stage, "shop-web-1")) == 1
        run = stage.engine.container("shop-db-1").run
        assert run is not None
        assert run.health is not None
        assert run.health.status is HealthStatus.HEALTHY

    play(scene)


def test_a_hanging_probe_holds_up_neither_stop_nor_starts() -> None:
    async def scene() -> None:
        slow = check(interval=1.0, timeout=30.0)
        wish = stack(**{f"s{n:02}": service(healthcheck=slow) for n in range(30)})
        stage = Stage(desired=up(wish), programs={name: Program(probe_takes=29.0) for name in wish.services})
        async with stage.supervisor():
            await stage.settled()
            await trio.sleep(5)
            assert await stage.settled(stage.want(down(wish))) < 1.0
        stage.check()

    play(scene)


def test_probes_go_on_at_their_interval() -> None:
    async def scene() -> None:
        stage = Stage(desired=up(stack(web=service(healthcheck=check(interval=10.0)))))
        async with stage.supervisor():
            await trio.sleep(3600)
        run = stage.engine.container("shop-web-1").run
        assert run is not None
        assert run.health is not None
        times = [r.started for r in run.health.results]
        assert all(10.0 <= b - a < 10.1 for a, b in pairwise(times))

    play(scene)


def test_two_wishes_in_a_row_leave_only_the_second() -> None:
    async def scene() -> None:
        many = stack(web=service(replicas=60))
        few = stack(web=service(replicas=2, user="1"))
        stage = Stage(desired=up(many), faults=SLOW_OBSERVATION)
        async with stage.supervisor():
            await trio.sleep(0.1)
            await stage.settled(stage.want(up(few, turn=2)))
        assert sorted(c.name for c in stage.engine.world.containers) == ["shop-web-1", "shop-web-2"]
        assert all(c.definition.user == "1" for c in stage.engine.world.containers)
        stage.check()

    play(scene)


def test_a_new_wish_is_not_delayed_by_the_rest_of_the_old_plan() -> None:
    """What was planned and not begun is dropped the moment the wish changes."""

    async def scene() -> None:
        wish = stack(**{f"s{n:03}": service() for n in range(200)})
        stage = Stage(desired=up(wish), faults=Faults(delay=(0.1, 0.1)))
        async with stage.supervisor():
            await trio.sleep(0.35)
            stage.want(down(wish))
            made = sum(isinstance(a, CreateContainer) for _, a in stage.engine.applied)
            await trio.sleep(5)
        after = sum(isinstance(a, CreateContainer) for _, a in stage.engine.applied)
        assert after - made <= 16
        assert stage.engine.world.containers == ()
        stage.check()

    play(scene)


def test_changing_a_network_under_load() -> None:
    async def scene() -> None:
        def wish(internal: bool) -> Desired:
            services = {f"s{n}": service(replicas=3) for n in range(5)}
            return up(stack(networks={"default": network(internal=internal)}, **services))

        stage = Stage(desired=wish(internal=False), faults=SLOW_OBSERVATION)
        async with stage.supervisor():
            await stage.settled()
            await stage.settled(stage.want(wish(internal=True)))
        assert len(stage.engine.world.containers) == 15
        stage.check()

    play(scene)


def test_a_machine_that_lost_a_network_heals() -> None:
    async def scene() -> None:
        stage = Stage(desired=up(stack(web=service(replicas=3))))
        async with stage.supervisor() as loop:
            await stage.settled()
            stage.engine.disturb(replace(stage.engine.world, networks={}))
            await trio.sleep(5)
            assert loop.view is not None
            assert loop.view.plan.settled
        assert stage.engine.world.networks.keys() == {"shop_default"}
        assert len(stage.engine.world.networks["shop_default"].users) == 3
        stage.check()

    play(scene)


def test_every_action_has_its_reason_in_the_history() -> None:
    async def scene() -> None:
        wish = stack(db=service(healthcheck=check()), web=service(after={"db": "healthy"}))
        stage = Stage(desired=up(wish))
        async with stage.supervisor() as loop:
            await stage.settled()
            await stage.settled(stage.want(down(wish)))
            told = [(e.target, e.verb) for e in loop.history if e.outcome == "ok"]
            assert all(event.because for event in loop.history)
        done = [(a.target, verb(a)) for _, a in stage.engine.applied if not isinstance(a, ProbeContainer)]
        assert sorted(told) == sorted(done)

    play(scene)


def test_services_start_while_the_images_of_others_come_and_a_lost_image_comes_back() -> None:
    async def scene() -> None:
        wish = stack(db=service(image="db"), web=service(image="web", restart="always"))
        stage = Stage(desired=up(wish), images=("db",), faults=Faults(delay=(0.1, 0.3)))
        async with stage.supervisor():
            await stage.settled()
            pulled = [a.reference for _, a in stage.engine.applied if isinstance(a, PullImage)]
            assert pulled == ["web"]
            stage.engine.disturb(replace(stage.engine.world, images={}))
            await stage.settled(stage.want(wanting(stage.desired, "web", generation=1, turn=2)))
            pulled = [a.reference for _, a in stage.engine.applied if isinstance(a, PullImage)]
            assert pulled == ["web", "web"]
        stage.check()

    play(scene)


def test_down_does_not_wait_for_a_pull() -> None:
    async def scene() -> None:
        wish = stack(web=service(image="web"))
        stage = Stage(desired=up(wish), faults=Faults(delay=(500.0, 500.0)))
        async with stage.supervisor() as loop:
            await loop.until(lambda _: "image:web" in loop.in_flight or None)
            loop.want(down(wish))
            with trio.fail_after(100):
                while "image:web" in loop.in_flight:
                    await trio.sleep(0.1)

    play(scene)


def test_a_dependent_starts_when_the_line_of_the_current_run_is_there() -> None:
    """db crashes before its line at first; what its first run would have printed opens nothing."""

    async def scene() -> None:
        wish = stack(
            db=service(log_ready="ready", restart="always"),
            mute=service(log_ready="ready"),
            web=service(after={"db": "logged"}),
            lost=service(after={"mute": "logged"}),
        )
        programs = {
            "db": Program(log_ready_after=2.0),
            "mute": Program(log_ready_after=None, exits_after=3.0),
        }
        stage = Stage(desired=up(wish), programs=programs)
        async with stage.supervisor() as loop:
            await trio.sleep(1)
            stage.engine.kill("shop-db-1")
            await trio.sleep(9)
            assert loop.view is not None
            lost = next(wait for wait in loop.view.plan.waits if wait.target == "container:shop-lost-1")
        first, second = starts(stage, "shop-db-1")
        (web,) = starts(stage, "shop-web-1")
        assert second > first + 1
        assert 2.0 <= web - second <= 2.05
        assert lost.failed
        assert "had not logged that it was ready" in lost.because
        stage.check()

    play(scene)


def test_a_changed_file_comes_into_every_container_whoever_is_killed_meanwhile() -> None:
    """At least once, and not for ever: a lost acknowledgement may have it done a second time."""

    async def scene() -> None:
        mount = FileMount(
            kind="config", name="app", target="/app", path="/host/app", digest="1", on_change="SIGHUP"
        )
        wish = stack(web=service(replicas=5))
        web = replace(wish.services["web"], mounts=(mount,))
        stage = Stage(
            desired=up(replace(wish, services={"web": web})),
            faults=Faults(delay=(0.01, 0.05), late=0.3, retryable=0.2),
        )
        async with stage.supervisor():
            await stage.settled()
        runs = {one.id: one.run for one in stage.engine.world.containers}
        for _ in range(5):
            stage.engine.disturb(replace(stage.engine.world, files={"/host/app": "2"}))
            async with stage.supervisor():
                await trio.sleep(0.03)
        async with stage.supervisor():
            await trio.sleep(60)
        assert {one.id: one.run for one in stage.engine.world.containers} == runs
        held = [one.definition.mounts[0] for one in stage.engine.world.containers]
        assert [one.digest for one in held if isinstance(one, FileMount)] == ["2"] * 5
        swaps = [action for _, action in stage.engine.applied if isinstance(action, SwapFiles)]
        assert 5 <= len(swaps) <= 15
        stage.check()

    play(scene)
