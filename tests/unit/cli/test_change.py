"""Commands that change a stack by its name alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.paths import Paths
from orchestrator.cli.change import signal_name
from orchestrator.model.errors import UserError
from tests.unit.cli import command
from tests.unit.cli.scripted import Scripted, Talk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "stack.yml").write_text("name: shop\nservices:\n  web:\n    x-rootfs: host\n")
    return tmp_path


def _serve(root: Path, answer: Callable[[Talk], None] | None = None) -> Scripted:
    def done(talk: Talk) -> None:
        talk.send({"event": "action", "target": "container:shop-web-1", "verb": "stop", "outcome": "done"})
        talk.end()

    return Scripted(Paths.find(str(root), {}), answer or done)


@pytest.mark.parametrize(
    ("words", "request_part"),
    [
        (("down",), {"verb": "down", "remove_volumes": False, "remove_orphans": False, "timeout": None}),
        (
            ("down", "-v", "--remove-orphans", "-t", "3"),
            {"remove_volumes": True, "remove_orphans": True, "timeout": 3.0},
        ),
        (("stop", "web"), {"verb": "stop", "services": ["web"], "timeout": None}),
        (("start", "web"), {"verb": "start", "services": ["web"]}),
        (
            ("restart", "--no-deps", "-t1"),
            {"verb": "restart", "services": [], "timeout": 1.0, "no_deps": True},
        ),
    ],
)
def test_the_request_says_what_the_line_says(
    root: Path, words: tuple[str, ...], request_part: dict[str, Any]
) -> None:
    with _serve(root) as server:
        code, out, err = command.run(root, *words)

    assert (code, out, err) == (0, "", " Container shop-web-1  Stopping\n Container shop-web-1  Stopped\n")
    (request,) = server.requests
    assert request.items() >= {"stack": "shop", **request_part}.items()


@pytest.mark.parametrize(
    ("words", "request_part", "said"),
    [
        (("kill", "web"), {"services": ["web"], "signal": "SIGKILL"}, "Killed"),
        (("kill", "-s", "hup"), {"services": [], "signal": "SIGHUP"}, "Signalled"),
        (("kill", "-s", "37"), {"signal": "37"}, "Signalled"),
        (("kill", "-s", "SIGRTMIN+3"), {"signal": "RTMIN+3"}, "Signalled"),
    ],
)
def test_kill_says_whom_it_has_hit(
    root: Path, words: tuple[str, ...], request_part: dict[str, Any], said: str
) -> None:
    with _serve(root, lambda talk: talk.end({"killed": ["shop-web-1"]})) as server:
        code, out, err = command.run(root, *words)

    assert (code, out) == (0, "")
    assert err.splitlines()[-1] == f" Container shop-web-1  {said}"
    (request,) = server.requests
    assert request.items() >= {"verb": "kill", "stack": "shop", **request_part}.items()


def test_kill_where_nothing_runs_says_so_and_is_no_failure(root: Path) -> None:
    with _serve(root, lambda talk: talk.end({"killed": []})):
        assert command.run(root, "kill") == (0, "", "No container to kill\n")


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "kill", "events"])
def test_a_service_that_the_file_does_not_have_is_refused_without_a_supervisor(root: Path, verb: str) -> None:
    assert command.run(root, verb, "wbe") == (1, "", "error: no such service: wbe\n")


def test_down_where_nothing_is_says_so_and_is_no_failure(root: Path) -> None:
    with _serve(root, lambda talk: talk.end()):
        code, _, err = command.run(root, "down")
    again, _, offline = command.run(root, "down")

    assert (code, again) == (0, 0)
    assert err == offline == 'warning: No resource found to remove for project "shop".\n'


def test_orphans_by_environment_and_its_contradiction(root: Path) -> None:
    with _serve(root) as server:
        command.run(root, "down", env={"COMPOSE_REMOVE_ORPHANS": "true"})
        code, _, err = command.run(root, "down", "--remove-orphans", env={"COMPOSE_IGNORE_ORPHANS": "1"})

    assert server.requests[0]["remove_orphans"] is True
    assert code == 2
    assert "COMPOSE_IGNORE_ORPHANS" in err


def test_rm_takes_what_does_not_run_and_asks_first(root: Path) -> None:
    rows = [
        {"name": "shop-web-1", "service": "web", "state": "exited", "oneoff": False},
        {"name": "shop-db-1", "service": "db", "state": "running", "oneoff": False},
        {"name": "shop-web-run-1", "service": "web-run-1", "state": "exited", "oneoff": True},
    ]

    def answer(talk: Talk) -> None:
        talk.end(rows if talk.request["verb"] == "ps" else None)

    with _serve(root, answer) as server:
        refused = command.run(root, "rm")
        verbs = [request["verb"] for request in server.requests]
        forced = command.run(root, "rm", "-f")
        none = command.run(root, "rm", "-f", "db")

    assert refused[2] == "? Going to remove shop-web-1 Are you sure? [yN] "
    assert "rm" not in verbs
    assert forced[0] == 0
    assert [request["verb"] for request in server.requests].count("rm") == 1
    assert none[2] == "No stacked containers\n".replace("stacked", "stopped")


@pytest.mark.parametrize(("text", "name"), [("9", "SIGKILL"), ("term", "SIGTERM"), ("SIGHUP", "SIGHUP")])
def test_a_signal_may_be_a_name_or_a_number(text: str, name: str) -> None:
    assert signal_name(text) == name


@pytest.mark.parametrize("text", ["", "NOPE", "0", "999", "SIG"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="no signal"):
        signal_name(text)
