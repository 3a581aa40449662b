"""pause, unpause and update: what is asked of the supervisor, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.paths import Paths
from tests.unit.cli import command
from tests.unit.cli.scripted import Scripted, Talk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "stack.yml").write_text("name: shop\nservices:\n  web:\n    x-rootfs: host\n")
    return tmp_path


def done(talk: Talk) -> None:
    verb = talk.request["verb"]
    if verb == "update":
        talk.send({"event": "warning", "message": "shop-web-1: not all is counted"})
    talk.send({"event": "action", "target": "container:shop-web-1", "verb": verb, "outcome": "done"})
    talk.end({"done": ["shop-web-1"]})


@pytest.mark.parametrize(
    ("words", "shown"), [(("pause",), "Paused"), (("unpause", "web"), "Unpaused")], ids=["pause", "unpause"]
)
def test_pause_and_unpause_show_each_container(root: Path, words: tuple[str, ...], shown: str) -> None:
    with Scripted(Paths.find(str(root), {}), done) as server:
        assert command.run(root, *words) == (0, "", f" Container shop-web-1  {shown}\n")
    (request,) = server.requests
    assert request.items() >= {"verb": words[0], "stack": "shop", "services": list(words[1:])}.items()


def test_nothing_to_pause_is_said(root: Path) -> None:
    with Scripted(Paths.find(str(root), {}), lambda talk: talk.end({"done": []})):
        assert command.run(root, "pause") == (0, "", "No container to pause\n")


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (("-m", "64m", "--memory-swap", "-1"), {"memory": 64 << 20, "memory_swap": -1}),
        (("--memory", "0", "--memory-reservation=1.5g"), {"memory": 0, "memory_reservation": 3 << 29}),
        (("--cpus", "1.5", "-c", "512"), {"cpus": 1.5, "cpu_shares": 512}),
        (("--cpu-quota=-1", "--cpu-period", "50000"), {"cpu_quota": -1, "cpu_period": 50000}),
        (("--cpuset-cpus", "0-1", "--cpuset-mems", "0"), {"cpuset": "0-1", "cpuset_mems": "0"}),
        (("--pids-limit", "-1", "--blkio-weight", "300"), {"pids": -1, "blkio_weight": 300}),
        (("--restart", "on-failure:3"), {"restart": "on-failure:3"}),
    ],
)
def test_update_sends_what_was_said_and_nothing_else(
    root: Path, words: tuple[str, ...], changes: dict[str, Any]
) -> None:
    with Scripted(Paths.find(str(root), {}), done) as server:
        answer = command.run(root, "update", *words, "web", "other-db-1")
    assert answer == (0, "shop-web-1\n", "warning: shop-web-1: not all is counted\n")
    (request,) = server.requests
    assert (request["stack"], request["names"]) == ("shop", ["web", "other-db-1"])
    assert request["changes"] == changes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("web",), "You must provide one or more flags when using this command."),
        (("-m", "much", "web"), "--memory: 'much' is not a size"),
        (("-m", "-1", "web"), "--memory: '-1' is not a size"),
        (("--pids-limit", "few", "web"), "--pids-limit: 'few' is not a whole number"),
        (("--cpus", "1",), "missing argument"),
    ],
)  # fmt: skip
def test_update_refuses_what_it_cannot_read(root: Path, words: tuple[str, ...], message: str) -> None:
    code, out, err = command.run(root, "update", *words)
    assert (code, out) == (2, "")
    assert message in err


def test_a_container_can_be_named_where_no_stack_file_is(tmp_path: Path) -> None:
    with Scripted(Paths.find(str(tmp_path), {}), done) as server:
        code, out, _ = command.run(tmp_path, "update", "--cpus", "1", "shop-web-1")
        assert (code, out) == (0, "shop-web-1\n")
        code, _, err = command.run(tmp_path, "pause")
    assert code != 0
    assert "no" in err
    assert [request["stack"] for request in server.requests] == [""]
