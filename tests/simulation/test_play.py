"""Plays: what a scenario asks for happens, the same seed is the same history, a broken law is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli import simulate as command
from orchestrator.engines.simulated import Faults, Program
from orchestrator.model.frozen import replace
from orchestrator.model.plan import Plan
from orchestrator.planner.plan import plan
from orchestrator.reconciler import loop
from orchestrator.simulation.play import Played, play
from orchestrator.simulation.scenario import (
    Kill,
    KillSupervisor,
    Lose,
    Order,
    PowerCut,
    Scale,
    Scenario,
)
from orchestrator.simulation.shrink import shrink
from tests.kit.stacks import check, service, stack, steps

SHOP = stack(
    "shop",
    db=service(image="db", restart="always", healthcheck=check(interval=5.0), volumes=("data:/d",)),
    tables=service(after={"db": "healthy"}),
    web=service(
        after={"tables": "completed", "db": "healthy!"}, restart="on-failure", replicas=2, ports=(":80",)
    ),
)
EVENTS = (
    Kill(at=100, service="web", slot=2, exit_code=3),
    KillSupervisor(at=200),
    PowerCut(at=300),
    Lose(at=400, service="web"),
    Lose(at=500, network="default"),
    Scale(at=600, replicas={"web": 4}),
    Order(at=700, command="restart", services=("db",)),
    Order(at=750, command="stop", services=("web",)),
    Order(at=770, command="start", services=("web",)),
    Order(at=800, command="down"),
    Order(at=900, command="up"),
)
ROUGH = Scenario(lasts=1000.0, faults=Faults(retryable=0.1, late=0.05, delay=(0.001, 0.2)), events=EVENTS)


def lines(played: Played) -> list[str]:
    return [command.line(event) for event in played.happenings]


def test_everything_that_a_scenario_can_say_happens() -> None:
    played = play(SHOP, ROUGH, 1)
    assert played.broken == ""
    assert played.converged is not None
    said = [event.because for event in played.happenings if event.target == "scenario"]
    assert said == [str(event) for event in EVENTS]
    assert sorted(one.name for one in played.containers) == [
        "shop-db-1",
        "shop-tables-1",
        *(f"shop-web-{number}" for number in (1, 2, 3, 4)),
    ]
    text = "".join(lines(played))
    for sentence in (
        "exit 3",
        "the machine was restarted",
        "network shop_default is gone",
        "asked to restart",
    ):
        assert sentence in text


def test_the_same_seed_is_the_same_history_and_another_is_another() -> None:
    first, again, other = play(SHOP, ROUGH, 5), play(SHOP, ROUGH, 5), play(SHOP, ROUGH, 6)
    assert lines(first) == lines(again)
    assert lines(first) != lines(other)


@pytest.mark.parametrize("seed", range(20))
def test_the_laws_hold_on_a_rough_day(seed: int) -> None:
    programs = {
        "db": Program(starts_in=2.0, healthy_after=7.0, crashes_every=200.0),
        "tables": Program(exits_after=3.0, exit_codes=(1, 0)),
        "web": Program(ends_within=None, hangs_after=60.0),
    }
    played = play(SHOP, replace(ROUGH, programs=programs), seed)
    assert played.broken == "", f"seed {seed}"


def test_a_program_that_never_gets_healthy_is_not_asked_to_be_at_rest() -> None:
    played = play(SHOP, Scenario(lasts=60.0, programs={"db": Program(probes=(1,))}), 1)
    assert (played.broken, played.unquiet) == ("", ("db", "tables", "web"))


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
@pytest.mark.parametrize("at", [0.7, 7.0])
def test_an_update_of_a_job_ends_when_the_new_one_has_done_it(order: str, at: float) -> None:
    """The old one still at work, or long done."""
    before = stack(job=service(restart="on-failure", deploy=steps(order=order)))
    after = stack(job=service(restart="on-failure", user="1", deploy=steps(order=order)))
    change = Order(at=at, command="up", stack=after)
    scenario = Scenario(lasts=15, programs={"job": Program(exits_after=1.0)}, events=(change,))
    played = play(before, scenario, 1)
    assert played.broken == ""
    assert [one.definition.user for one in played.containers] == ["1"]


def hasty(*arguments: object) -> Plan:
    """A planner that starts what it has made, gates or not."""
    desired, *rest = arguments
    free = {
        name: replace(one, depends_on=())
        for name, one in desired.stack.services.items()  # type: ignore[attr-defined]
    }
    careless = replace(desired, stack=replace(desired.stack, services=free))  # type: ignore[attr-defined, type-var]
    return plan(careless, *rest)  # type: ignore[arg-type]


def test_a_planner_that_ignores_gates_is_found_and_the_history_made_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "plan", hasty)
    played = play(SHOP, ROUGH, 3)
    assert "starts" in played.broken
    shortest = shrink(SHOP, played, go_on=lambda: True)
    assert shortest.broken.split()[1] == "starts"
    assert shortest.scenario.events == ()
    assert shortest.scenario.faults.retryable == 0.0
    assert shortest.ended <= played.ended


def test_a_planner_that_forgets_is_found_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never acts on web: nothing unsafe, and never what was asked for."""

    def lazy(*arguments: object) -> Plan:
        decided = plan(*arguments)  # type: ignore[arg-type]
        kept = tuple(action for action in decided.actions if "web" not in action.target)
        return replace(decided, actions=kept)

    monkeypatch.setattr(loop, "plan", lazy)
    played = play(SHOP, Scenario(lasts=30.0, healing=60.0), 1)
    assert played.broken == "not converged 60 s after the last trouble: web has 0 containers, not 2"


def test_an_exception_of_the_planner_breaks_a_law(monkeypatch: pytest.MonkeyPatch) -> None:
    def confused(*_: object) -> Plan:
        raise KeyError("web")

    monkeypatch.setattr(loop, "plan", confused)
    assert play(SHOP, Scenario(lasts=30.0), 1).broken == "KeyError: 'web'"


# --- the command ---------------------------------------------------------------------------------------

FILE = """
name: shop
services:
  db: {image: db, restart: always, healthcheck: {test: [CMD, x], interval: 30s}}
  web: {image: web, depends_on: {db: {condition: service_healthy}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stack.yml").write_text(FILE)
    (tmp_path / "day.yml").write_text("lasts: 1h\nevents: [{at: 10m, kill: db}]\n")
    return tmp_path


def pystack(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", "simulate", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        text=True,
        capture_output=True,
        timeout=60,
    )


def test_the_command_prints_the_timeline_and_the_verdict(folder: Path) -> None:
    done = pystack(folder, "--faults", "day.yml", "--seed", "7")
    assert done.returncode == 0, done.stderr
    assert "0d 00:10:00.00  scenario                     event     kill db (exit 137)\n" in done.stdout
    assert done.stdout.endswith(
        "seed 7: all laws held over 1 h, 6 actions; 2 of 2 containers run; converged 1 s after the last trouble\n"
    )


def test_the_command_plays_many_seeds_and_speaks_json(folder: Path) -> None:
    many = pystack(folder, "--faults", "day.yml", "--runs", "3")
    assert [row.split(":")[0] for row in many.stdout.splitlines()] == ["seed 1", "seed 2", "seed 3"]
    told = json.loads(pystack(folder, "--days", "0.01", "--format", "json").stdout)
    assert (told["seed"], told["broken"], told["ended"] > 864) == (1, None, True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--days", "0"), 2, "--days 0: more than 0"),
        (("--runs", "0"), 2, "--runs 0: from 1"),
        (("--faults", "none.yml"), 14, "none.yml: No such file or directory"),
        (("--faults", "stack.yml"), 15, "stack.yml:2:1: error[E012]: unknown key name"),
    ],
)
def test_bad_input_is_one_message(folder: Path, words: tuple[str, ...], code: int, said: str) -> None:
    done = pystack(folder, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_breach_is_told_with_its_seed_and_the_shortest_history(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "plan", hasty)
    played: Played = play(SHOP, ROUGH, 3)
    assert command._explain(SHOP, played, as_json=False) == 1
    said = capfd.readouterr()
    assert "A law was broken with seed 3 at" in said.out
    assert "The shortest history found that breaks it" in said.out
    assert "seed 3: shop-" in said.err
