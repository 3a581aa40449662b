"""Scenario files: every key is understood, every mistake is told with its place."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from orchestrator.engines.simulated import Faults, Program, Pull
from orchestrator.simulation import script
from orchestrator.simulation.scenario import (
    Fail,
    Kill,
    KillSupervisor,
    Lose,
    NewImage,
    Order,
    PowerCut,
    Scale,
    Scenario,
)
from orchestrator.simulation.script import understand
from orchestrator.stackfile.problem import StackfileError
from orchestrator.stackfile.read import Source
from tests.kit.stacks import service, stack

STACK = stack("shop", db=service(volumes=("data:/d",)), web=service(after="db"))
NEXT = stack("shop", web=service(user="1"))
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
  - {at: 13m, kill: {service: db, oom: true}}
  - {at: 14m, remove: {volume: data}}
  - {at: 15m, remove: {image: app}}
  - {at: 16m, new_image: app}
  - {at: 17m, fail: {action: create, for: 30s}}
  - {at: 18m, up: {services: web, file: next.yml, force_recreate: true, no_deps: true, timeout: 2s}}
  - {at: 19m, up: {no_recreate: true, remove_orphans: true}}
  - {at: 20m, restart: {services: [web], no_deps: true}}
  - {at: 21m, stop: {services: web, timeout: 0}}
  - {at: 22m, rm: {volumes: true}}
  - {at: 23m, user_kill: [web]}
  - {at: 24m, down: {volumes: true, timeout: 1s}}
cured: true
images: {app: {takes: 40s, fails: 2}, db: }
"""


def understood(text: str) -> Scenario:
    return understand(Source(path="day.yml", text=text), STACK, load={"next.yml": NEXT}.__getitem__)


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
        Kill(at=780, service="db", oom=True),
        Lose(at=840, volume="data"),
        Lose(at=900, image="app"),
        NewImage(at=960, image="app"),
        Fail(at=1020, verb="create", lasts=30.0),
        Order(
            at=1080,
            command="up",
            services=("web",),
            stack=NEXT,
            force_recreate=True,
            no_deps=True,
            timeout=2.0,
        ),
        Order(at=1140, command="up", no_recreate=True, remove_orphans=True),
        Order(at=1200, command="restart", services=("web",), no_deps=True),
        Order(at=1260, command="stop", services=("web",), timeout=0.0),
        Order(at=1320, command="rm", volumes=True),
        Order(at=1380, command="kill", services=("web",)),
        Order(at=1440, command="down", volumes=True, timeout=1.0),
    )
    assert found.cured
    assert found.images == {"app": Pull(takes=40.0, fails=2), "db": Pull()}


def test_what_a_changed_file_brings_may_be_spoken_of_from_then_on() -> None:
    other = stack("shop", web=service(), cache=service(networks=("back",)))
    text = """events:
      - {at: 1m, up: {file: other.yml, services: cache}}
      - {at: 2m, kill: cache}
      - {at: 3m, remove: {network: back}}
      - {at: 4m, stop: db}
    """
    found = understand(Source(path="day.yml", text=text), STACK, load=lambda _: other)
    assert found.events[1:] == (
        Kill(at=120, service="cache"),
        Lose(at=180, network="back"),
        Order(at=240, command="stop", services=("db",)),
    )
    with pytest.raises(StackfileError, match="no other file can be read here"):
        understand(Source(path="day.yml", text=text), STACK)


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
        ("cured: 1", "cured: 1 is not true or false"),
        ("images: {app: {fails: -1}}", "images.app.fails: -1 is not a whole number"),
        ("images: {app: {slow: true}}", "images.app: unknown key slow"),
        ("events: [{at: 1s, fail: {action: fly}}]", "events[0].fail.action: 'fly' is no action"),
        ("events: [{at: 1s, remove: {volume: logs}}]", "events[0].remove.volume: no such volume: 'logs'"),
        ("events: [{at: 1s, up: {services: nobody}}]", "events[0].up.services: no such service: 'nobody'"),
        ("events: [{at: 1s, up: {file: next.yml, services: db}}]", "no such service: 'db'"),
        ("events: [{at: 1s, down: {services: web}}]", "events[0].down: unknown key services"),
        ("events: [{at: 1s, stop: {timeout: soon}}]", "events[0].stop.timeout: 'soon' is not a time"),
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
