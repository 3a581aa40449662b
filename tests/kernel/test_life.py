"""Lives of real containers that touch each other: one-shots, crashes that others follow."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from orchestrator.model import codec
from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("life")


CHAIN = """
    name: chain
    services:
      tables:
        x-rootfs: {path: $BOX}
        command: echo made
      db:
        x-rootfs: {path: $BOX}
        command: sleep 1000
        restart: always
        healthcheck: {test: [CMD, "true"], interval: 200ms}
        depends_on: {tables: {condition: service_completed_successfully}}
      web:
        x-rootfs: {path: $BOX}
        command: sleep 1000
        init: true
        depends_on: {db: {condition: service_healthy, restart: true}}
"""


def test_dependents_follow_a_crash_and_a_one_shot_runs_once(site: Site) -> None:
    site.up(CHAIN, wait=True)
    db, web = site.row("chain", "db"), site.row("chain", "web")
    os.kill(db["pid"], signal.SIGKILL)
    until(lambda: site.row("chain", "web")["pid"] not in (0, web["pid"]), "another run of web")
    assert site.row("chain", "db")["health"] == "healthy"
    assert site.row("chain", "db")["restarts"] == 1
    again = site.up(CHAIN, wait=True)
    assert again.actions() == []
    assert site.output("chain", "tables") == b"made\n"
    plan = site.ask("plan", stack=codec.encode(site.stack(CHAIN))).result
    assert plan["lines"] == []
    assert site.up(CHAIN, "tables", wait=True).actions("start") == ["container:chain-tables-1"]
    site.down("chain")


SICK = """
    name: sick
    services:
      again:
        x-rootfs: {path: $BOX}
        command: sh -c "rm -f /sick; exec sleep 1000"
        init: true
        healthcheck: {test: [CMD, test, "!", "-e", /sick], interval: 100ms, retries: 2}
        x-on-unhealthy: restart
      anew:
        x-rootfs: {path: $BOX}
        command: sleep 1000
        init: true
        healthcheck: {test: [CMD, test, "!", "-e", /sick], interval: 100ms, retries: 2}
        x-on-unhealthy: recreate
      left:
        x-rootfs: {path: $BOX}
        command: sleep 1000
        healthcheck: {test: [CMD, test, "!", "-e", /sick], interval: 100ms, retries: 2}
"""


def test_what_turns_unhealthy_is_restarted_or_recreated_where_the_file_says_so(site: Site) -> None:
    site.up(SICK, wait=True)
    before = {name: site.row("sick", name) for name in ("again", "anew", "left")}
    for name in before:
        site.execute("sick", name, "touch", "/sick")
    again = site.becomes("sick", "again", restarts=1, health="healthy")
    assert again["id"] == before["again"]["id"]
    anew = until(
        lambda: (
            (rows := [row for row in site.ps("sick") if row["service"] == "anew"])
            and rows[0]["health"] == "healthy"
            and rows[0]["id"] != before["anew"]["id"]
            and rows[0]
        ),
        "another container",
    )
    assert anew["addresses"].keys() == before["anew"]["addresses"].keys()
    left = site.becomes("sick", "left", health="unhealthy")
    assert left["pid"] == before["left"]["pid"]
    told = site.ask("events", stack="sick", history=True, follow=False).lines
    said = {line["because"] for line in told if line.get("verb") in ("stop", "remove")}
    assert {"is unhealthy (x-on-unhealthy: restart)", "is unhealthy (x-on-unhealthy: recreate)"} <= said
    site.down("sick")


STEPS = """
    name: steps
    services:
      db:
        x-rootfs: {path: $BOX}
        command: sleep 1000
      web:
        x-rootfs: {path: $BOX}
        command: sh -c "cat /data/* /own/*; exec sleep 1000"
        init: true
        scale: 2
        environment: {WHO: web, NUMBER: "1"}
        volumes: ["data:/data", "/own"]
        depends_on: [db]
        pre_start:
          - command: [sh, -c, "echo $$WHO $$NUMBER >> /data/a; hostname -i; echo CODE; exit CODE"]
            environment: {WHO: first}
          - command: [sh, -c, "cp /data/a /own/b; id -u"]
            user: "7"
            per_replica: true
    volumes: {data: {}}
"""


def test_steps_of_pre_start_run_before_the_service_on_its_networks_and_volumes(site: Site) -> None:
    text = STEPS.replace("CODE", "0").replace('user: "7"', 'user: "0"')
    site.up(text)
    for slot in (1, 2):
        site.prints("steps", "web", b"first 1\nfirst 1\n", slot=slot)  # of the named and of its own volume
    rows = {row["name"]: row for row in site.ps("steps")}
    steps = sorted(name for name, row in rows.items() if row.get("step"))
    assert steps == ["steps-web-pre_start-1", "steps-web-pre_start-2-1", "steps-web-pre_start-2-2"]
    assert {rows[name]["status"].partition(")")[0] for name in steps} == {"Exited (0"}
    logs = [line for line in site.ask("logs", stack="steps", services=["web"]).lines if line.get("log")]
    assert sorted(line["name"] for line in logs) == sorted([*steps, "steps-web-1", "steps-web-2"])
    assert site.up(text).actions() == []
    assert site.ask("plan", stack=codec.encode(site.stack(text))).result["lines"] == []
    site.down("steps", remove_volumes=True)


def test_a_step_that_fails_is_told_with_where_to_look(site: Site) -> None:
    failed = site.up(STEPS.replace("CODE", "3"), exit_code=None)
    assert failed.exit_code == 1
    assert failed.error == "\n".join(
        f"container steps-web-{slot}: pre_start step 1 of web didn't complete successfully: exit 3"
        for slot in (1, 2)
    )
    assert "`pystack logs web`" in failed.hint
    assert site.row("steps", "db")["state"] == "running"
    mended = site.up(STEPS.replace("CODE", "0").replace('user: "7"', 'user: "0"'))
    assert mended.exit_code == 0
    site.down("steps", remove_volumes=True)
