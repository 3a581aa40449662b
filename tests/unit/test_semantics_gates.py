"""docs/semantics.md: its tables about health checks and the lines that services log when they are ready."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model.action import StartContainer, verb
from orchestrator.model.desired import Desired
from orchestrator.model.health import advance, in_force, next_probe_at
from orchestrator.model.observation import Health, Observation, ProbeResult, Run
from orchestrator.model.sections import TcpProbe
from orchestrator.model.stack import FileMount, Healthcheck
from orchestrator.planner.plan import plan
from tests.kit.stacks import apply_all, converge, nothing, service, stack, up
from tests.unit.test_semantics_page import NOW, cells, table

LINES: dict[str, dict[str, Any]] = {
    "is built, not started": {},
    "runs, has not printed the line": {"log_ready": None},
    "runs, has printed it": {"log_ready": True},
    "runs, its pattern was given up": {"log_ready": False, "log_trouble": "its x-log-ready takes too long"},
    "ended, its last lines are not read yet": {"exit_code": 0},
    "ended with 0, had printed it": {"exit_code": 0, "log_ready": True},
    "ended with 0 without it": {"exit_code": 0, "log_ready": False},
    "ended with 1, had printed it": {"exit_code": 1, "log_ready": True},
    "ended with 1, back-off, had printed it": {"exit_code": 1, "log_ready": True},
    "can't be executed": {"exit_code": 127, "error": "not found", "log_ready": False},
}


def built(desired: Desired) -> Observation:
    """Networks and containers are there, nothing is started."""
    world = nothing()
    for _ in range(3):
        made = [one for one in plan(desired, world, NOW).actions if not isinstance(one, StartContainer)]
        world = apply_all(world, made, NOW)
    return world


def answer(desired: Desired, world: Observation) -> str:
    """What the gate before web says."""
    decided = plan(desired, world, NOW)
    if any(isinstance(one, StartContainer) and one.name == "shop-web-1" for one in decided.actions):
        return "opens"
    (wait,) = (one for one in decided.waits if one.target == "container:shop-web-1")
    return "fails" if wait.failed else "waits"


@pytest.mark.parametrize(("state", "said"), table("lines")[1:])
def test_a_gate_that_waits_for_a_line(state: str, said: str) -> None:
    rule = "on-failure" if "back-off" in state else "no"
    desired = up(
        stack("shop", db=service(restart=rule, log_ready="ready"), web=service(after={"db": "logged"}))
    )
    world = built(desired)
    db, web = sorted(world.containers, key=lambda one: one.name)
    if state == "is not built yet":
        world = replace(world, containers=(web,))
    elif LINES[state]:
        run = Run(turn=1, started=NOW - 1, **LINES[state])
        run = replace(run, finished=NOW) if "exit_code" in LINES[state] else run
        world = replace(world, containers=(replace(db, run=run), web))
    assert answer(desired, world) == said


CHECKS: dict[str, dict[str, Any]] = {
    "`test`": {"test": ("CMD", "true")},
    "`x-http`, `x-tcp`": {"probe": TcpProbe(port=80)},
}


@pytest.mark.parametrize(("kind", "first", "following", "counts"), table("probes")[1:])
def test_when_a_health_check_is_asked(kind: str, first: str, following: str, counts: str) -> None:
    def seconds(text: str) -> float:
        return float(text.split()[1])

    found = in_force(Healthcheck(interval=30.0, **CHECKS[kind]), None)
    assert found is not None
    run = Run(turn=1, started=0.0, health=Health())
    at = next_probe_at(run, found)
    assert at == seconds(first)
    after = replace(run, health=advance(Health(), failed(at), run, found))
    assert next_probe_at(after, found) == pytest.approx(seconds(following))
    assert advance(Health(), failed(seconds(counts)), run, found).failing_streak == 1
    if seconds(counts):
        assert advance(Health(), failed(seconds(counts) - 0.01), run, found).failing_streak == 0


def failed(at: float) -> ProbeResult:
    return ProbeResult(started=at, ended=at, exit_code=1)


# --- content ---------------------------------------------------------------------------------------------


def holding(**fields: Any) -> Desired:
    file = {"kind": "config", "name": "app", "target": "/app", **fields.pop("file", {})}
    found = service(image="web", **fields)
    return up(stack("shop", web=replace(found, mounts=(FileMount(**file),))))


def changed(what: str, on_change: str | None) -> tuple[Desired, Observation]:
    """A stack that runs, and the same with other content."""
    ours = {"on_change": on_change}
    hosts = {**ours, "path": "/host/app", "digest": "1"}
    if "env_file" in what:
        return holding(file=hosts, environment={"A": "2"}), up_to_date(holding(file=hosts, environment={}))
    if "image" in what:
        world = up_to_date(holding(file=hosts))
        return holding(file=hosts), replace(world, images={"web": replace(world.images["web"], id="other")})
    if "content" in what:
        return holding(file={**ours, "content": "b"}), up_to_date(holding(file={**ours, "content": "a"}))
    world = up_to_date(holding(file=hosts))
    now = "" if "gone" in what else "2"
    loaded = {**hosts, "digest": "2"} if "and then" in what else hosts
    return holding(file=loaded), replace(world, files={"/host/app": now})


def up_to_date(desired: Desired) -> Observation:
    return converge(desired, nothing("web"))


@pytest.mark.parametrize(("what", "column", "said"), cells("content"))
def test_what_a_change_of_content_leads_to(what: str, column: str, said: str) -> None:
    decided = plan(*changed(what, "SIGHUP" if column == "with x-on-change" else None), NOW)
    done = [verb(action) for action in decided.actions]
    assert (done, bool(decided.warnings)) == {
        "replaces": (["stop"], False),
        "swaps": (["swap"], False),
        "tells": ([], True),
    }[said]
