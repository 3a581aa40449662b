"""What `stats` shows of samples: docker's words, on terminals, in pipes, as JSON."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.paths import Paths
from orchestrator.cli import stats
from tests.unit.cli import command
from tests.unit.cli.scripted import Scripted, Talk

SECOND = 1_000_000_000


def row(**fields: Any) -> dict[str, Any]:
    return {
        "id": "ab" * 32,
        "name": "shop-web-1",
        "service": "web",
        "state": "running",
        "at": SECOND,
        "cpu": 0,
        "memory": 3 << 20,
        "memory_limit": 64 << 20,
        "memory_limited": True,
        "counted": "controller",
        "pids": 2,
        "pids_limit": None,
        "read": 0,
        "written": 12_300_000,
        "received": 999,
        "sent": 1000,
        **fields,
    }


LATER = row(at=2 * SECOND, cpu=SECOND // 4)


@pytest.mark.parametrize(
    ("count", "in_1024", "in_1000"),
    [
        (0, "0B", "0B"),
        (1023, "1023B", "1.02kB"),
        (1024, "1KiB", "1.02kB"),
        (1_234_567, "1.177MiB", "1.23MB"),
        (25_282_428_928, "23.55GiB", "25.3GB"),
    ],
)
def test_sizes_have_docker_s_digits(count: int, in_1024: str, in_1000: str) -> None:
    assert stats.binary(count) == in_1024
    assert stats.decimal(count) == in_1000


@pytest.mark.parametrize(
    ("before", "now", "shown"),
    [
        (row(), LATER, "25.00%"),
        (row(), row(at=2 * SECOND, cpu=2 * SECOND), "200.00%"),
        (None, LATER, "--"),
        (row(cpu=SECOND), LATER, "--"),
        (row(at=2 * SECOND), LATER, "--"),
    ],
    ids=["a quarter", "two cores", "one sample", "a new run", "no time"],
)
def test_the_processor_s_share_is_of_the_time_between_two_samples(
    before: dict[str, Any] | None, now: dict[str, Any], shown: str
) -> None:
    assert stats.figures(now, before)["CPUPerc"] == shown


def test_one_that_does_not_run_uses_nothing() -> None:
    idle = row(state="exited", memory=0, written=0, received=0, sent=0, pids=0)
    told = stats.figures(idle, None)
    assert (told["CPUPerc"], told["MemUsage"], told["MemPerc"]) == ("0.00%", "0B / 0B", "0.00%")


def test_a_table_as_docker_s() -> None:
    assert stats.render([stats.figures(LATER, row())], None) == (
        "CONTAINER ID   NAME         CPU %     MEM USAGE / LIMIT   MEM %     NET I/O      BLOCK I/O     PIDS\n"
        "abababababab   shop-web-1   25.00%    3MiB / 64MiB        4.69%     999B / 1kB   0B / 12.3MB   2\n"
    )


def test_a_frame_never_wraps_nor_scrolls() -> None:
    lines = [f"line {number} " + "x" * 50 for number in range(20)]
    shown = stats.clip(lines, 20, 6)
    assert len(shown) == 5
    assert all(len(line) <= 20 for line in shown)
    assert shown[-1] == "... and 16 more"
    assert stats.clip(["a", "b"], 80, 24) == ["a", "b"]


# --- the command -------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "stack.yml").write_text("name: shop\nservices:\n  web:\n    x-rootfs: host\n")
    return tmp_path


def two_samples(talk: Talk) -> None:
    talk.send({"event": "stats", "rows": [row()]}, {"event": "stats", "rows": [LATER]})
    talk.end()


def test_once_is_one_table_and_json_one_object_a_container(root: Path) -> None:
    with Scripted(Paths.find(str(root), {}), two_samples) as server:
        code, out, err = command.run(root, "stats", "--no-stream", "-a", "web")
        assert (code, err) == (0, "")
        assert [line.split()[:3] for line in out.splitlines()] == [
            ["CONTAINER", "ID", "NAME"],
            ["abababababab", "shop-web-1", "25.00%"],
        ]
        code, out, err = command.run(root, "stats", "--no-stream", "--no-trunc", "--format", "json")
    (told,) = [json.loads(line) for line in out.splitlines()]
    assert told == {
        "BlockIO": "0B / 12.3MB",
        "CPUPerc": "25.00%",
        "Container": "abababababab",
        "ID": "ab" * 32,
        "MemPerc": "4.69%",
        "MemSource": "controller",
        "MemUsage": "3MiB / 64MiB",
        "Name": "shop-web-1",
        "NetIO": "999B / 1kB",
        "PIDs": "2",
        "Service": "web",
    }
    first, second = server.requests
    assert (
        first.items() >= {"verb": "stats", "stack": "shop", "names": ["web"], "all": True, "count": 2}.items()
    )
    assert (second["names"], second["all"]) == ([], False)


def test_a_pipe_gets_one_table_after_another_without_control_characters(root: Path) -> None:
    def three(talk: Talk) -> None:
        talk.send({"event": "stats", "rows": [row()]}, {"event": "stats", "rows": [LATER]})
        talk.send({"event": "stats", "rows": [row(at=3 * SECOND, cpu=SECOND)]})
        talk.end()

    with Scripted(Paths.find(str(root), {}), three):
        code, out, _ = command.run(root, "stats")
    assert code == 0
    assert [line.split()[2] for line in out.splitlines()] == ["NAME", "25.00%", "NAME", "75.00%"]
    assert "\x1b" not in out


def test_a_terminal_gets_a_table_that_is_painted_over(root: Path) -> None:
    going = threading.Event()

    def slowly(talk: Talk) -> None:
        talk.send({"event": "stats", "rows": [row()]})
        going.wait(20)
        talk.send({"event": "stats", "rows": [LATER, row(id="cd" * 32)]})
        talk.end()

    with Scripted(Paths.find(str(root), {}), slowly):
        terminal = command.OnTerminal(root, "stats")
        assert b"--" in terminal.until(b"shop-web-1")
        going.set()
        terminal.until(b"25.00%")
        assert terminal.end() == 0
    assert b"\x1b[2A\r\x1b[0J" in terminal.shown  # two lines up, and the rest of the screen is empty
    assert terminal.shown.endswith(b"\x1b[?25h")


def test_without_a_stack_there_is_nothing_to_look_at(root: Path) -> None:
    code, out, err = command.run(root, "stats")
    assert (code, out) == (1, "")
    assert 'no container found for project "shop"' in err
