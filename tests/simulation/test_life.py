"""Lives of containers that touch each other: one-shots, retries, crashes that others follow."""

from __future__ import annotations

import trio

from orchestrator.engines.simulated import Program
from orchestrator.model.action import StartContainer
from orchestrator.model.stack import Stack
from orchestrator.simulation.play import Played, play
from orchestrator.simulation.scenario import KillSupervisor, Order, PowerCut, Scenario
from tests.kit.stacks import service, stack, up
from tests.simulation.stage import Stage
from tests.simulation.stage import play as act


def begun(played: Played, name: str) -> list[float]:
    """When a container was started, in seconds of the play."""
    target = f"container:{name}"
    return [
        one.at for one in played.happenings if (one.target, one.verb, one.outcome) == (target, "start", "ok")
    ]


def told(wish: Stack, *events: Order | KillSupervisor | PowerCut, **programs: Program) -> Played:
    played = play(wish, Scenario(lasts=300.0, programs=programs, events=events), 1)
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
