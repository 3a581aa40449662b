"""The sentences of `ps` and `ls`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.api import show
from orchestrator.images.config import ImageConfig
from orchestrator.model.observation import Container, Health, HealthStatus, PublishedPort, Run, Stopping
from orchestrator.model.stack import DirectoryRoot, HostRoot, ImageRoot
from tests.kit.stacks import service, stack, up

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "Less than a second"),
        (0.99, "Less than a second"),
        (1.5, "1 second"),
        (59.9, "59 seconds"),
        (MINUTE, "About a minute"),
        (2 * MINUTE - 1, "About a minute"),
        (2 * MINUTE, "2 minutes"),
        (HOUR - 1, "59 minutes"),
        (HOUR, "About an hour"),
        (2 * HOUR, "2 hours"),
        (26 * HOUR, "26 hours"),
        (47 * HOUR, "47 hours"),
        (2 * DAY, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
        (1100 * DAY, "3 years"),
    ],
)
def test_times_in_docker_s_words(seconds: float, words: str) -> None:
    assert show.elapsed(seconds) == words


def test_time_never_runs_backwards_in_words() -> None:
    units = ("Less", "second", "minute", "hour", "day", "week", "month", "year")

    def rank(words: str) -> int:
        return max(number for number, unit in enumerate(units) if unit in words)

    ranks = [rank(show.elapsed(seconds)) for seconds in range(0, 1000 * DAY, 1800)]
    assert ranks == sorted(ranks)


def container(run: Run | None = None, **fields: Any) -> Container:
    made = Container(
        id="a" * 64,
        name="shop-web-1",
        stack="shop",
        service="web",
        slot=1,
        definition=replace(service(image="web:1", command=("run", "x"), entrypoint=("/e",)), name="web"),
        fingerprint="",
        generation=0,
        image_id="sha256:1",
        created=0,
        created_at="2026-11-22T14:00:00Z",
        ports=(PublishedPort(host_ip="", host_port=8080, target=80),),
        run=run,
    )
    return replace(made, **fields)


RUNS = [
    (None, "Created"),
    (Run(turn=1, started=7), "Up 3 seconds"),
    (Run(turn=1, started=7, health=Health()), "Up 3 seconds (health: starting)"),
    (Run(turn=1, started=7, health=Health(status=HealthStatus.HEALTHY)), "Up 3 seconds (healthy)"),
    (Run(turn=1, started=7, health=Health(status=HealthStatus.UNHEALTHY)), "Up 3 seconds (unhealthy)"),
    (Run(turn=1, started=7, stopping=Stopping(since=9, signal=15, by="user")), "Up 3 seconds (stopping)"),
    (Run(turn=1, started=7, paused=True), "Up 3 seconds (Paused)"),
    (Run(turn=1, started=1, finished=8, exit_code=0), "Exited (0) 2 seconds ago"),
    (
        Run(turn=1, started=1, finished=8, exit_code=137, oom_killed=True),
        "Exited (137) OOM killed 2 seconds ago",
    ),
    (Run(turn=1, started=1, finished=8), "Exited (unknown) 2 seconds ago"),
    (Run(turn=1, started=1, finished=8, exit_code=127, error="no"), "Failed to start (127) 2 seconds ago"),
]


@pytest.mark.parametrize(("run", "words"), RUNS)
def test_the_status_of_a_container(run: Run | None, words: str) -> None:
    assert show.status(container(run), 10.0) == words


def test_roots_have_names() -> None:
    assert show.root_name(ImageRoot(reference="web:1")) == "web:1"
    assert show.root_name(HostRoot()) == "(host)"
    assert show.root_name(DirectoryRoot(path="/r")) == "/r"


def test_a_row_says_what_is_and_why_it_is_not_otherwise() -> None:
    desired = up(stack("shop", web=service()))
    row = show.container_row(container(Run(turn=1, started=7, pid=42, restarts=2)), desired, {}, 10.0)
    assert {
        key: row[key] for key in ("name", "state", "image", "command", "pid", "restarts", "exit_code")
    } == {
        "name": "shop-web-1",
        "state": "running",
        "image": "web:1",
        "command": "/e run x",
        "pid": 42,
        "restarts": 2,
        "exit_code": None,
    }
    assert row["ports"] == [{"host_ip": "0.0.0.0", "host_port": 8080, "target": 80, "protocol": "tcp"}]
    ended = show.container_row(
        container(Run(turn=1, started=1, finished=2, exit_code=3, pid=42)),
        desired,
        {"container:shop-web-1": "restarting in 2.0 s"},
        10.0,
    )
    assert (ended["pid"], ended["exit_code"], ended["ports"]) == (0, 3, [])
    assert ended["because"] == "restarting in 2.0 s"


def test_the_command_of_a_row_comes_from_the_image_where_the_service_says_nothing() -> None:
    image = ImageConfig(id="sha256:1", entrypoint=("/entry",), command=("serve", "-v"))
    plain = replace(service(image="web:1"), name="web")
    own = replace(plain, command=("other",))
    shown = [
        show.container_row(container(definition=recipe), None, {}, 0, image)["command"]
        for recipe in (plain, own)
    ]
    assert shown == ["/entry serve -v", "/entry other"]
    assert show.container_row(container(definition=plain), None, {}, 0)["command"] == ""


def test_an_orphan_is_of_no_service_of_the_stack_active_or_not() -> None:
    assert show.container_row(container(), up(stack("shop", other=service())), {}, 0)["orphan"]
    assert show.container_row(container(), None, {}, 0)["orphan"]
    hidden = up(stack("shop", disabled=("web",), other=service()))
    assert not show.container_row(container(), hidden, {}, 0)["orphan"]


def test_a_stack_s_row_counts_its_containers_by_state() -> None:
    running, ended = container(Run(turn=1, started=7)), container(Run(turn=1, started=7, finished=8))
    desired = up(stack("shop", web=service()))
    assert show.stack_row(desired, [running, ended, running])["status"] == "exited(1), running(2)"
    assert show.stack_row(desired, [])["status"] == "created(0)"
