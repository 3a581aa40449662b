"""Scenario files: every key is understood, every mistake is told with its place."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from orchestrator.engines.simulated import Faults, Program
from orchestrator.simulation import script
from orchestrator.simulation.scenario import (
    Kill,
    KillSupervisor,
    Lose,
    Order,
    PowerCut,
    Scale,
    Scenario,
)
from orchestrator.simulation.script import understand
from orchestrator.stackfile.problem import StackfileError
from orchestrator.stackfile.read import Source
from tests.kit.stacks import service, stack

STACK = stack("shop", db=service(), web=service(after="db"))
SCHEMA = json.loads((Path(__file__).parents[3] / "schemas" / "scenario.json").read_text())
WHOLE = """
lasts: 6h
healing: 90
services:
  db: {starts_in: 2s, stops_in: never, healthy_after: 10s, hangs_after: 1h, probes: [1, 0], probe_takes: 20ms, log_ready_after: 3s}
  web: {exits: {after: 30s, codes: [1, 0]}, log_ready_after: never, crashes: {every: 1h, exit_code: 134}, refuses: {exit_code: 126, error: nope}}
faults: {retryable: 0.5, permanent: 0.25, late: 1, delay: [1ms, 50ms], observe_delay: 2ms}
events:
  - {at: 8m, scale: {web: 4}}
  - {at: 1m, kill: web}
  - {at: 2m, kill: {service: web, slot: 2, exit_code: 1}}
  - {at: 3m, kill_supervisor: {for: 5s}}
  - {at: 4m, power_cut: true}
  - {at: 5m, remove: {network: default}}
  - {at: 6m, remove: {service: db}}
  - {at: 7m, restart: [db, web]}
  - {at: 9m, stop: web}
  - {at: 10m, start: true}
  - {at: 11m, down: true}
  - {at: 12m, up: true}
"""


def understood(text: str) -> Scenario:
    return understand(Source(path="day.yml", text=text), STACK)


def test_every_key_is_understood() -> None:
    found = understood(WHOLE)
    assert (found.lasts, found.healing) == (21600.0, 90.0)
    assert found.programs["db"] == Program(
        starts_in=2.0,
        ends_within=None,
        healthy_after=10.0,
        hangs_after=3600.0,
        probes=(1, 0),
        probe_takes=0.02,
        log_ready_after=3.0,
    )
    assert found.programs["web"] == Program(
        exits_after=30.0,
        exit_codes=(1, 0),
        log_ready_after=None,
        crashes_every=3600.0,
        crash_code=134,
        refuses=(126, "nope"),
    )
    assert found.faults == Faults(
        retryable=0.5, permanent=0.25, late=1.0, delay=(0.001, 0.05), observe_delay=(0.002, 0.002)
    )
    assert found.events == (
        Kill(at=60, service="web"),
        Kill(at=120, service="web", slot=2, exit_code=1),
        KillSupervisor(at=180, absent=5),
        PowerCut(at=240),
        Lose(at=300, network="default"),
        Lose(at=360, service="db"),
        Order(at=420, command="restart", services=("db", "web")),
        Scale(at=480, replicas={"web": 4}),
        Order(at=540, command="stop", services=("web",)),
        Order(at=600, command="start"),
        Order(at=660, command="down"),
        Order(at=720, command="up"),
    )


def test_nothing_said_is_a_day_on_which_nothing_happens() -> None:
    assert understood("") == Scenario() == understood("events: []")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("last: 1h", "day.yml:1:1: error[E012]: unknown key last"),
        ("lasts: soon", "lasts: 'soon' is not a time"),
        ("lasts: -1", "lasts: -1 is not a time"),
        ("lasts: 900d", "at most 3.16224e+07 s"),
        ("services: {wbe: {}}", "services.wbe: no such service"),
        ("services: {web: 3}", "services.web: must be a mapping"),
        (
            "services: {web: {exits: {codes: [0, 300]}}}",
            "services.web.exits.codes: [0, 300] is not exit codes",
        ),
        ("services: {web: {crashes: {}}}", "services.web.crashes: every is missing"),
        ("services: {web: {refuses: {exit_code: 3}}}", "3 is not a whole number from 126 to 127"),
        ("services: {web: {starts: 1}}", "services.web: unknown key starts"),
        ("faults: {late: 2}", "faults.late: 2 is not a part between 0 and 1"),
        ("faults: {delay: [5ms, 1ms]}", "faults.delay:"),
        ("faults: {late: true}", "faults.late: True is not a part between 0 and 1"),
        ("events: {}", "events: must be a list"),
        ("events: [{kill: web}]", "day.yml:1:10: error[E014]: events[0]: at is missing"),
        ("events: [{at: 1s}]", "events[0]: must say one thing beside at"),
        ("events: [{at: 1s, kill: web, up: true}]", "events[0]: must say one thing beside at"),
        ("events: [{at: 1s, explode: web}]", "events[0]: must say one thing beside at"),
        ("events: [{at: 1s, kill: nobody}]", "events[0].kill: no such service: 'nobody'"),
        ("events: [{at: 1s, kill: {service: web, slot: 0}}]", "events[0].kill.slot: 0 is not a whole number"),
        ("events: [{at: 1s, remove: {network: back}}]", "events[0].remove.network: no such network: 'back'"),
        ("events: [{at: 1s, restart: [nobody]}]", "events[0].restart: no such service: 'nobody'"),
        ("events: [{at: 1s, scale: {web: -1}}]", "events[0].scale.web: -1 is not a whole number"),
        ("events: [3]", "events[0]: must be a mapping"),
        ("a: b: c", "day.yml:1:5: error[E001]: not YAML"),
        ("{}\n---\n{}", "a scenario is one document"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, said: str) -> None:
    with pytest.raises(StackfileError) as caught:
        understood(text)
    assert said in str(caught.value)
    assert caught.value.exit_code == 15


def test_the_schema_says_the_same_as_the_reader() -> None:
    """Every key of one is a key of the other, and what is understood is valid."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(yaml.safe_load(WHOLE), SCHEMA)
    assert set(SCHEMA["properties"]) == set(script.TOP)
    assert set(SCHEMA["$defs"]["service"]["properties"]) == set(script.SERVICE)
    assert set(SCHEMA["$defs"]["faults"]["properties"]) == set(script.FAULTS)
    assert set(SCHEMA["$defs"]["event"]["properties"]) == {"at", *script.EVENTS}
