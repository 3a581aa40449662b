"""docs/semantics.md: every row of its tables is put to the planner."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api import orders
from orchestrator.engines.local import facts
from orchestrator.model import effects, rotation
from orchestrator.model.action import (
    CreateContainer,
    ProbeContainer,
    RemoveContainer,
    RoutePorts,
    SignalContainer,
    StartContainer,
)
from orchestrator.model.desired import Desired, Intent
from orchestrator.model.fingerprint import of_service
from orchestrator.model.observation import (
    Failure,
    Health,
    HealthStatus,
    Observation,
    ProbeResult,
    Run,
    Stopping,
)
from orchestrator.model.sections import InitContainer
from orchestrator.model.stack import RestartPolicy, Stack
from orchestrator.planner.plan import plan
from orchestrator.planner.restarts import sequel
from orchestrator.planner.rollouts import accept, course
from tests.kit.stacks import apply_all, check, converge, nothing, policy, service, stack, steps, up, wanting
from tests.simulation.updating import BROKEN, Play, user, users

PAGE = (Path(__file__).parents[2] / "docs" / "semantics.md").read_text()
NOW = 100.0


def table(name: str) -> list[list[str]]:
    """Head and rows of a table of the page."""
    rows = PAGE.split(f"<!-- table: {name} -->\n")[1].split("\n\n")[0].splitlines()
    found = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return [found[0], *found[2:]]


def cells(name: str) -> list[tuple[str, str, str]]:
    """(row, column, what the page says)."""
    head, *rows = table(name)
    return [(row[0], column, said) for row in rows for column, said in zip(head[1:], row[1:], strict=True)]


# --- after a run has ended -----------------------------------------------------------------------------

BY_USER = Stopping(since=99.0, signal=15, by="user")
BY_PLANNER = Stopping(since=99.0, signal=15, by="planner")
ENDS: dict[str, dict[str, Any]] = {
    "exit code 0": {"exit_code": 0},
    "another exit code": {"exit_code": 3},
    "its exit code was lost": {"exit_code": None},
    "out of memory": {"exit_code": 137, "oom_killed": True},
    "the user stopped or killed it": {"exit_code": 137, "stopping": BY_USER},
    "we stopped it to restart it with a dependency": {"exit_code": 143, "stopping": BY_PLANNER},
    "its command can't be executed": {"exit_code": 127, "error": "not found"},
    "with the machine, exit code 0 before": {"exit_code": 0, "before_boot": True},
    "with the machine, while it ran": {"exit_code": None, "before_boot": True},
}
KINDS = {"stays": "rest", "back-off": "later", "starts": "start", "refused": "broken"}


@pytest.mark.parametrize(("ended", "rule", "said"), cells("ends"))
def test_what_follows_an_end(ended: str, rule: str, said: str) -> None:
    run = Run(turn=1, started=98.0, finished=NOW, **ENDS[ended])
    assert sequel(run, policy(rule), Intent(turn=1), NOW).kind == KINDS[said]


@pytest.mark.parametrize(("number", "waits"), table("backoff")[1:])
def test_the_back_off(number: str, waits: str) -> None:
    run = Run(turn=1, started=NOW - 1, finished=NOW, exit_code=1, attempt=int(number))
    then = sequel(run, policy("always"), Intent(turn=1), NOW)
    assert then.at - NOW == pytest.approx(float(waits.removesuffix(" s")))


@pytest.mark.parametrize(("said", "lasted", "before", "then"), table("policies")[1:])
def test_a_restart_policy(said: str, lasted: str, before: str, then: str) -> None:
    keys = dict(re.findall(r"(\w+) ([\d.]+)", said))
    limits: dict[str, Any] = {key: float(value) for key, value in keys.items() if key != "max_attempts"}
    if "max_attempts" in keys:
        limits["max_attempts"] = int(keys["max_attempts"])
    seconds, count = float(lasted.removesuffix(" s")), int(before)
    run = Run(turn=1, started=NOW - seconds, finished=NOW, exit_code=1, attempt=count + 1, restarts=count)
    found = sequel(run, replace(policy("on-failure"), **limits), Intent(turn=1), NOW)
    assert (f"restarts after {found.at - NOW:g} s" if found.kind == "later" else "stays") == then


# --- unhealthy -------------------------------------------------------------------------------------------


def sick(state: str, remedy: str) -> tuple[Desired, Observation]:
    rule = RestartPolicy(condition="on-failure", max_attempts=3, unhealthy=remedy)  # type: ignore[arg-type]
    wish = stack("shop", web=replace(service(healthcheck=check()), restart=rule))
    desired = up(wish, asked=NOW - 65 if "half a minute" in state else 50.0)
    world = converge(desired, nothing(), NOW - 20)
    (web,) = world.containers
    failed = ProbeResult(started=NOW - 1, ended=NOW - 0.1, exit_code=1)
    status = HealthStatus.STARTING if "starting" in state else HealthStatus.UNHEALTHY
    health = Health(status=status, failing_streak=2, results=(failed,))
    run = Run(turn=1, started=NOW - 5, pid=7, health=health, paused="paused" in state)
    if "max_attempts" in state:
        run = replace(run, attempt=4)
    if "stopped" in state:
        run = replace(run, stopping=BY_PLANNER, finished=NOW, exit_code=143, pid=0)
    made = NOW - 30 if "half a minute" in state else 51.0  # 35 s after the order, or 1 s
    return desired, replace(world, containers=(replace(web, run=run, created=made),))


@pytest.mark.parametrize(("state", "remedy", "said"), cells("unhealthy"))
def test_a_container_that_turns_unhealthy(state: str, remedy: str, said: str) -> None:
    desired, world = sick(state, remedy)
    decided = plan(desired, world, NOW)
    done = [one for one in decided.actions if not isinstance(one, ProbeContainer)]
    kinds = {"stops": SignalContainer, "starts": StartContainer, "removed": RemoveContainer}
    assert [type(one) for one in done] == ([kinds[said]] if said in kinds else [])
    if said == "back-off":
        assert decided.wake_at == pytest.approx(NOW + 0.1)
        (start,) = plan(desired, world, NOW + 0.11).actions
        assert isinstance(start, StartContainer)
        assert (start.attempt, start.restarts) == (2, 1)


# --- gates ---------------------------------------------------------------------------------------------

CONDITIONS = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}


def beside(condition: str, state: str) -> tuple[Desired, Observation]:
    """A built web that waits for db, and db as the row says."""
    checked = "no health check" not in state
    wish = stack(
        "shop",
        db=service(
            restart="on-failure" if "back-off" in state else "on-failure:3" if "given up" in state else "no",
            healthcheck=check() if checked else None,
        ),
        web=service(after={"db": CONDITIONS[condition]}),
    )
    desired, world = up(wish), nothing()
    for _ in range(3):  # networks and containers, nothing started
        made = [one for one in plan(desired, world, NOW).actions if not isinstance(one, StartContainer)]
        world = apply_all(world, made, NOW)
    db = next(one for one in world.containers if one.service == "db")
    others = tuple(one for one in world.containers if one.service != "db")
    if state == "is not built yet":
        return desired, replace(world, containers=others)
    run = _run(state)
    if "to be restarted" in state:
        rule = RestartPolicy(unhealthy="restart")
        db = replace(db, definition=replace(db.definition, restart=rule))
    return desired, replace(world, containers=(*others, replace(db, run=run)))


def _run(state: str) -> Run | None:
    running = Run(turn=1, started=NOW - 1, pid=7)
    health = {
        name: replace(running, health=Health(status=status))
        for name, status in (
            ("runs, health starting", HealthStatus.STARTING),
            ("runs, healthy", HealthStatus.HEALTHY),
            ("runs, unhealthy", HealthStatus.UNHEALTHY),
            ("runs, unhealthy, is to be restarted or replaced", HealthStatus.UNHEALTHY),
        )
    }
    ended = replace(running, finished=NOW, pid=0)
    return {
        "is built, not started": None,
        "runs, has no health check": running,
        **health,
        "ended with 0": replace(ended, exit_code=0),
        "ended with 1": replace(ended, exit_code=1),
        "ended with 1, back-off": replace(ended, exit_code=1),
        "ended with 1, given up after its attempts": replace(ended, exit_code=1, attempt=4),
        "can't be executed": replace(ended, exit_code=127, error="exec: not found"),
    }[state]  # fmt: skip


@pytest.mark.parametrize(("state", "condition", "said"), cells("gates"))
def test_a_gate(state: str, condition: str, said: str) -> None:
    desired, world = beside(condition, state)
    decided = plan(desired, world, NOW)
    started = any(isinstance(one, StartContainer) and one.name == "shop-web-1" for one in decided.actions)
    waits = [one for one in decided.waits if one.target == "container:shop-web-1"]
    assert {
        "opens": started,
        "waits": not started and not waits[0].failed,
        "fails": bool(waits) and waits[0].failed,
    }[said], decided


# --- a dependency that crashed ---------------------------------------------------------------------------


def crashed(state: str, restart: bool) -> tuple[Desired, Observation]:
    """db and web run, web since before or after db, which is as the row says."""
    condition = ("healthy" if "service_healthy" in state else "started") + ("!" if restart else "")
    rule = "no" if "nothing follows" in state else "always"
    wish = stack("shop", db=service(restart=rule, healthcheck=check()), web=service(after={"db": condition}))
    desired, world = up(wish), nothing()
    world = converge(desired, world, NOW - 20)
    back = Run(turn=1, started=NOW - 1, attempt=2, restarts=1, pid=7, health=Health())
    match state:
        case "has ended, back-off" | "has ended, and nothing follows":
            back = replace(back, started=NOW - 30, restarts=0, attempt=1, finished=NOW, exit_code=1)
        case "was back before the dependent's run began":
            back = replace(back, started=NOW - 30)
        case "was restarted by the user":
            back = replace(back, restarts=0)
    db, web = sorted(world.containers, key=lambda one: one.name)
    return desired, replace(world, containers=(replace(db, run=back), web))


@pytest.mark.parametrize(("state", "column", "said"), cells("crashes"))
def test_a_crash_of_a_dependency(state: str, column: str, said: str) -> None:
    desired, world = crashed(state, column == "restart: true")
    signals = [one for one in plan(desired, world, NOW).actions if isinstance(one, SignalContainer)]
    assert [one.name for one in signals] == (["shop-web-1"] if said == "restarted" else [])
    paused = tuple(replace(one, run=replace(one.run, paused=True)) for one in world.containers if one.run)
    idle = plan(desired, replace(world, containers=paused), NOW).actions
    assert not any(isinstance(one, SignalContainer) for one in idle)


# --- updates by steps ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "default"), [row[:2] for row in table("course")[1:]])
@pytest.mark.parametrize("kind", ["update", "rollback"])
def test_a_default_of_an_update(key: str, default: str, kind: str) -> None:
    found = course(service(deploy=steps()), kind)
    said = {
        "parallelism": found.parallelism,
        "delay": f"{found.delay:g} s",
        "failure_action": found.action,
        "monitor": f"{found.monitor:g} s",
        "max_failure_ratio": found.ratio,
        "order": "start-first" if found.start_first else "stop-first",
    }[key]
    assert str(said) == default


GOOD = Health(status=HealthStatus.HEALTHY)
NEWCOMERS: dict[str, Run | None] = {
    "is built, not started": None,
    "runs, health starting": Run(turn=1, started=NOW - 9, health=Health()),
    "runs, healthy": Run(turn=1, started=NOW - 1, health=GOOD),
    "runs, unhealthy": Run(turn=1, started=NOW - 9, health=Health(status=HealthStatus.UNHEALTHY)),
    "runs without a health check, for less than `monitor`": Run(turn=1, started=NOW - 4.9),
    "runs without a health check, for `monitor`": Run(turn=1, started=NOW - 5),
    "ended before it was good": Run(turn=1, started=NOW - 9, finished=NOW, exit_code=1),
    "was good, ended within `monitor`, back-off": Run(
        turn=1, started=NOW - 9, finished=NOW - 3.1, exit_code=1, health=GOOD
    ),
    "was good, ended later, back-off": Run(
        turn=1, started=NOW - 9, finished=NOW - 2.9, exit_code=1, health=GOOD
    ),
    "was good, ended later, and nothing follows": Run(turn=1, started=NOW - 9, finished=NOW, exit_code=1),
    "was stopped by the user": Run(turn=1, started=NOW - 9, finished=NOW, exit_code=143, stopping=BY_USER),
    "ended with the machine, and starts again": Run(
        turn=1, started=NOW - 9, finished=NOW - 5, exit_code=None, before_boot=True
    ),
    "ended with the machine, and nothing follows": Run(
        turn=1, started=NOW - 9, finished=NOW - 5, exit_code=None, before_boot=True
    ),
    "its command can't be executed": Run(turn=1, started=NOW, finished=NOW, exit_code=127, error="not found"),
}
UNMADE = {
    "is not built yet": [],
    "could not be made, tried again": [(5, True)],
    "could not be made, for good, or six times": [(6, True), (1, False)],
}
"""(How often, whether it is tried again) of the failures to make it."""


@pytest.mark.parametrize(("state", "said"), table("newcomers")[1:])
def test_a_new_container(state: str, said: str) -> None:
    run, rule = NEWCOMERS.get(state), "no" if "nothing follows" in state else "always"
    checked = check() if run is None or run.health is not None else None
    fields: dict[str, Any] = {"restart": rule, "deploy": steps(), "healthcheck": checked, "replicas": 2}
    new = stack(web=service(user="2", **fields))
    desired, world = up(new), converge(up(stack(web=service(user="1", **fields))), nothing(), 10.0)
    desired = accept(desired, plan(desired, world, 80.0).rollouts)
    web, old = new.services["web"], {one.slot: one for one in world.containers}
    made = replace(old[1], id="f" * 64, definition=web, fingerprint=of_service(web), run=run)
    there = (old[2],) if state in UNMADE else (made, old[2])
    if state.startswith("was good"):
        good = replace(desired.rollouts["web"], ready={made.id: NOW - 8})
        desired = replace(desired, rollouts={"web": good})
    for count, retryable in UNMADE.get(state) or [(0, True)]:
        failure = Failure(
            target=f"container:{made.name}",
            verb="create",
            count=count,
            at=NOW,
            because="no",
            retryable=retryable,
        )
        seen = replace(world, containers=there, at=NOW, failures={failure.target: failure} if count else {})
        record = plan(desired, seen, NOW).rollouts.get("web", desired.rollouts["web"])
        found = "failed" if record.failed else "good" if record.ready.get(made.id) == NOW else "on its way"
        assert found == said


@pytest.mark.parametrize(
    ("action", "order", "left"),
    [(a, o.split()[0], left) for a, o, left in cells("failures") if "leaves" in o],
)
def test_what_a_failed_update_leaves(action: str, order: str, left: str) -> None:
    fields = {"failure_action": action, "order": order}
    found = Play(user("1", **fields), user("2", **fields), programs={"2": BROKEN})
    there = users(found.stage)
    words = [f"{there.count(which)} {word}" for which, word in (("1", "old"), ("2", "new")) if which in there]
    assert ", ".join(words) == left


# --- shared host ports -----------------------------------------------------------------------------------


def side_by_side(state: str, other: HealthStatus) -> tuple[Desired, Observation]:
    """Two containers that share a port: the first as the row says, the second with this health."""
    wish = stack("shop", web=service(ports=("80:80",), replicas=2, healthcheck=check()))
    world = converge(up(wish), nothing(), NOW)
    subject, neighbour = world.containers
    assert subject.run is not None
    assert neighbour.run is not None
    healthy = Health(status=HealthStatus.HEALTHY)
    run, bare = replace(subject.run, health=healthy), replace(subject.run, health=None)
    subject = {
        "runs without a health check": replace(subject, healthcheck=None, run=bare),
        "runs without a health check, does not listen on its TCP ports yet": replace(
            subject, healthcheck=None, run=bare
        ),
        "runs, health starting": replace(subject, run=replace(run, health=Health())),
        "runs, unhealthy": replace(subject, run=replace(run, health=Health(status=HealthStatus.UNHEALTHY))),
        "is paused": replace(subject, run=replace(run, paused=True)),
        "was told to stop": replace(subject, run=replace(run, stopping=BY_PLANNER)),
        "has ended": replace(subject, run=replace(run, finished=NOW, exit_code=0)),
    }.get(state, replace(subject, run=run))
    neighbour = replace(neighbour, run=replace(neighbour.run, health=Health(status=other)))
    if "is to be stopped" in state:
        subject = replace(subject, slot=3)
        wish = stack("shop", web=service(ports=("80:80",), replicas=1, healthcheck=check()))
    deaf = frozenset({subject.id} if "listen" in state else ())
    return up(wish), replace(world, containers=(subject, neighbour), deaf=deaf)


@pytest.mark.parametrize(("state", "column", "said"), cells("rotation"))
def test_who_is_in_the_rotation(state: str, column: str, said: str) -> None:
    other = HealthStatus.UNHEALTHY if "nobody" in column else HealthStatus.HEALTHY
    desired, world = side_by_side(state, other)
    routes = [one for one in plan(desired, world, NOW).actions if isinstance(one, RoutePorts)]
    for route in routes:
        world = effects.expect(world, route, NOW)
    running = [one for one in world.containers if one.state == "running"]
    found = {one.service + str(one.slot) for one in rotation.takers(running)}
    assert ("in" if found & {"web1", "web3"} else "out") == said
    assert "web2" in found or said == "in", "somebody gets them"


@pytest.mark.parametrize(("why", "said"), table("drained")[1:])
def test_who_is_drained(why: str, said: str) -> None:
    deploy = steps() if "by steps" in why else None
    wish = stack("shop", web=service(ports=("80:80",), replicas=3, deploy=deploy))
    fewer = stack("shop", web=service(ports=("80:80",), replicas=2))
    changed = stack("shop", web=service(ports=("80:80",), replicas=3, deploy=deploy, user="1"))
    world = converge(up(wish), nothing(), NOW)
    desired = {
        "a lower scale": up(fewer),
        "a lower scale, with `-t 0`": up(fewer, stop_timeout=0.0),
        "an update by steps": up(changed),
        "a change, all at once": up(changed),
        "stop": wanting(up(wish), "web", wanted="stopped"),
        "restart": wanting(up(wish), "web", restart_turn=2),
        "down": Desired(stack=wish, down=True),
    }[why]
    now, told = NOW, dict[float, int]()
    for _ in range(80):
        decided = plan(desired, world, now)
        for signal in (one for one in decided.actions if isinstance(one, SignalContainer)):
            told.setdefault(round(now - NOW, 1), signal.signal)
        if told:
            break
        world = apply_all(world, decided.actions, now)
        gone = {one.id: 1 for one in world.containers if one.run and one.run.rotation}
        world, now = replace(world, connections=gone), now + 0.1
        desired = accept(desired, decided.rollouts)
    (first,) = told
    assert {
        "is drained": 5.0 <= first < 5.5,
        "at once": first == 0 and told[0] == 15,
        "killed at once": first == 0 and told[0] == 9,
    }[said], told


# --- steps of pre_start ----------------------------------------------------------------------------------


def prepared(**fields: Any) -> Stack:
    step = InitContainer(command=("prepare",))
    return stack("shop", web=replace(service(image="web", restart="always", **fields), pre_start=(step,)))


def after_step(code: int) -> tuple[Desired, Observation]:
    """web has a step, which has ended with `code`; what can run, runs."""
    first = orders.acknowledge(None, orders.up(None, prepared(), orders.UpOptions()), (), NOW - 20)
    world = converge(first, nothing("web"), NOW - 20)
    step = next(one for one in world.containers if one.definition.step is not None)
    return first, converge(first, effects.expect_exit(world, step.id, NOW - 10, code), NOW - 9)


def happened(what: str, before: Desired, world: Observation) -> tuple[Desired, Observation]:
    match what:
        case "`up` again":
            return ordered("up", before, world), world
        case "`restart` of the service":
            return ordered("restart", before, world), world
        case "`stop`, then `up`":
            stopped = orders.stop(before, ["web"], None)
            world = converge(stopped, world, NOW - 5)
            return ordered("up", stopped, world), world
        case "a crash of the service":
            web = next(one for one in world.containers if one.definition.step is None)
            return before, effects.expect_exit(world, web.id, NOW, 1)
        case "a restart of the machine":
            ended = [
                replace(one, run=replace(one.run, finished=NOW, before_boot=True)) if one.run else one
                for one in world.containers
            ]
            return before, replace(world, containers=tuple(ended))
        case "an `up` with another image of the service":
            other = {name: replace(image, id="sha256:other") for name, image in world.images.items()}
            return ordered("up", before, world), replace(world, images=other)
    forced = what == "`up --force-recreate`"
    assert forced or what == "an `up` with a changed definition of the service"
    wanted = orders.up(
        before, prepared(**({} if forced else {"user": "7"})), orders.UpOptions(force_recreate=forced)
    )
    return orders.acknowledge(before, wanted, world.containers, NOW), world


@pytest.mark.parametrize(("what", "column", "said"), cells("steps"))
def test_a_step_of_pre_start(what: str, column: str, said: str) -> None:
    desired, world = happened(what, *after_step(0 if column == "it has succeeded" else 3))
    began: list[str] = []
    now = NOW + 1
    for _ in range(20):
        actions = [one for one in plan(desired, world, now).actions if not isinstance(one, ProbeContainer)]
        began += [one.name for one in actions if isinstance(one, StartContainer)]
        world = apply_all(world, actions, now)
        now += 1
    assert ("shop-web-pre_start-1" in began) == (said == "runs again"), began
    assert began.count("shop-web-pre_start-1") <= 1


# --- commands ------------------------------------------------------------------------------------------


def standing(state: str) -> tuple[Desired, Observation]:
    """A stack of one service, and its container as the row says. A one-shot has somebody who waits for it, and
    who has not been asked for."""
    later = {"later": service(after={"web": "completed"})} if "one-shot" in state else {}
    wish = stack("shop", web=service(user="1"), **later)
    first = orders.up(None, wish, orders.UpOptions(services=("web",)))
    world = converge(first, nothing(), NOW)
    web = world.containers[0]
    assert web.run is not None
    match state:
        case "is missing":
            return first, replace(world, containers=())
        case "is built, not started":
            return first, replace(world, containers=(replace(web, run=None),))
        case "runs, and its definition has changed":
            changed = stack("shop", web=service(user="2"))
            return replace(first, stack=changed), world
        case "has ended" | "is a one-shot that has succeeded":
            return first, effects.expect_exit(world, web.id, NOW, 0)
        case "is a one-shot that has failed":
            return first, effects.expect_exit(world, web.id, NOW, 1)
        case "was stopped by the user":
            stopped = replace(web.run, stopping=BY_USER, finished=NOW, exit_code=143)
            return orders.stop(first, ["web"], None), replace(world, containers=(replace(web, run=stopped),))
    assert state == "runs"
    return first, world


def ordered(command: str, before: Desired, world: Observation) -> Desired:
    match command:
        case "up":
            who = tuple({*before.stack.services} - {"web"})
            wanted = orders.up(before, before.stack, orders.UpOptions(services=who))
            wanted = replace(wanted, intents={"web": wanted.intents["web"]})
        case "start":
            made = [one.service for one in world.containers]
            wanted = orders.start(before, made) if made else before
        case "stop":
            wanted = orders.stop(before, ["web"], None)
        case "restart":
            wanted = orders.restart(before, ["web"], timeout=None, no_deps=False)
        case _:
            wanted = orders.down(before, remove_volumes=False, remove_orphans=False, timeout=None)
    return orders.acknowledge(before, wanted, world.containers, NOW)


def played(desired: Desired, world: Observation) -> str:
    """What is done to containers, in words."""
    words: list[str] = []
    now = NOW + 1
    for _ in range(30):
        actions = [one for one in plan(desired, world, now).actions if not isinstance(one, ProbeContainer)]
        words += filter(None, (_word(one) for one in actions))
        world = apply_all(world, actions, now)
        now += 1
    return " and ".join(words) or "nothing"


def _word(action: object) -> str:
    match action:
        case CreateContainer():
            return "builds"
        case StartContainer():
            return "starts"
        case SignalContainer():
            return "stops"
        case RemoveContainer():
            return "removes"
    return ""


@pytest.mark.parametrize(("state", "command", "said"), cells("commands"))
def test_a_command(state: str, command: str, said: str) -> None:
    before, world = standing(state)
    if command == "start" and state == "is missing":
        assert said == "nothing"  # the verb refuses to start what was never made
        return
    found = played(ordered(command, before, world), world)
    assert found == said.replace("replaces", "stops and removes and builds and starts")


def test_every_table_of_the_page_is_read() -> None:
    assert set(re.findall(r"<!-- table: (\w+) -->", PAGE)) == {
        "ends",
        "backoff",
        "drift",
        "lost",
        "policies",
        "gates",
        "probes",
        "lines",
        "content",
        "crashes",
        "unhealthy",
        "steps",
        "course",
        "newcomers",
        "failures",
        "rotation",
        "drained",
        "commands",
    }
    assert set(NEWCOMERS) | set(UNMADE) == {row[0] for row in table("newcomers")[1:]}
    assert set(ENDS) == {row[0] for row in table("ends")[1:]}


# --- behind our back -----------------------------------------------------------------------------------


def sentences() -> set[str]:
    """All that the engine can say of what was changed."""
    said = set()
    for kind in facts.KINDS:
        of = "FILE" if kind in ("limit", "group", "directory", "volume") else "N"
        for found in ("B", facts.MISSING, facts.RUNNING, facts.NONE):
            fact = facts.Fact("container:x", kind, of)
            because = facts.difference(fact, "A", found, facts.Owner()).because
            said.add(because.replace(f" to {found}", " to B"))
    return said


def test_every_drift_that_can_be_told_stands_in_the_table() -> None:
    assert {row[0] for row in table("drift")[1:]} == sentences()


WITH_DATA = stack("s", a=service(volumes=("data:/x",), restart="always"))
LOST = {
    "runs": lambda one: one,
    "has ended, and should run": lambda one: replace(one, run=replace(one.run, finished=1.0, exit_code=1)),
    "is missing": lambda one: None,
    "runs, and its definition has changed": lambda one: one,
}


@pytest.mark.parametrize(("how", "what", "said"), cells("lost"))
def test_what_becomes_of_who_has_lost_a_directory(how: str, what: str, said: str) -> None:
    desired = up(WITH_DATA)
    world = converge(desired, nothing())
    (one,) = (LOST[how](found) for found in world.containers)
    volumes = world.volumes
    if what.startswith("its volume"):
        volumes = {name: replace(found, lost="its directory /x is gone") for name, found in volumes.items()}
    elif one is not None:
        one = replace(one, broken="its directory /x was deleted")
    if "definition" in how:
        changed = replace(WITH_DATA.services["a"], command=("other",))
        desired = up(stack("s", a=changed))
    desired = replace(desired, repair="--no-repair" not in what)
    decided = plan(desired, replace(world, containers=(one,) if one else (), volumes=volumes), NOW + 60)
    done = {type(action) for action in decided.actions}
    refused = any(wait.failed for wait in decided.waits if wait.target == "container:s-a-1")
    match said:
        case "goes on":
            assert (done, refused) == (set(), False)
        case "goes on, refused" | "refused":
            assert (done, refused) == (set(), True)
        case "is replaced":
            assert done & {SignalContainer, RemoveContainer}
        case "starts":
            assert done == {StartContainer}
        case "is made":
            assert done == {CreateContainer}
        case _:
            raise AssertionError(said)
