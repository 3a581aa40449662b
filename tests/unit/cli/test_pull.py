"""pull: what it prints, which images it means, what it says when it goes wrong. Nothing is unpacked here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli import pull as commands
from orchestrator.cli.pull import Board, Row, Want, line, table
from orchestrator.cli.scope import Scope
from orchestrator.images.transfer.arriving import Step
from orchestrator.images.transfer.pulling import Pulled
from orchestrator.model.errors import UserError


def step(state: str, here: int = 0, given: int = 0, because: str = "") -> Step:
    return Step(
        image="redis:7",
        layer="0123456789ab",
        state=state,  # type: ignore[arg-type]
        here=here,
        size=60_000_000,
        given=given,
        because=because,
    )


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (step("waiting"), "0123456789ab: Waiting"),
        (step("downloading", 30_000_000), "0123456789ab: Downloading  30MB/60MB"),
        (step("downloading", 30_000_000, 80_000_000), "0123456789ab: Downloading  30MB/60MB  80MB extracted"),
        (step("extracting", 60_000_000, 90_000_000), "0123456789ab: Extracting  60MB/60MB  90MB extracted"),
        (step("retrying", because="cut; again in 1 s"), "0123456789ab: Retrying: cut; again in 1 s"),
        (step("done"), "0123456789ab: Pull complete"),
        (step("here"), "0123456789ab: Already exists"),
    ],
)
def test_each_state_of_a_layer_has_its_words(now: Step, text: str) -> None:
    assert line(Row(now)) == text


def test_the_speed_is_that_of_the_last_seconds() -> None:
    row = Row(step("downloading"))
    for second in range(6):
        row.take(step("downloading", second * second * 1_000_000), float(second))
    assert line(row) == "0123456789ab: Downloading  25MB/60MB  8MB/s"
    assert list(table([row], many=True)) == ["redis:7: 0123456789ab: Downloading  25MB/60MB  8MB/s"]


def test_without_a_terminal_a_line_is_printed_when_a_layer_is_done(capfd: pytest.CaptureFixture[str]) -> None:
    pulled = Pulled(name="redis:latest", digest="sha256:1", id="sha256:2", fresh=True)
    with Board(live=False, quiet=False, records=False) as board:
        board.begin(Want("redis"))
        for state in ("waiting", "downloading", "downloading", "extracting", "done"):
            board.take(step(state))
        board.end(Want("redis"), pulled)
    assert capfd.readouterr().out == (
        "Using default tag: latest\nlatest: Pulling from library/redis\n0123456789ab: Pull complete\n"
        "Digest: sha256:1\nStatus: Downloaded newer image for redis:latest\ndocker.io/library/redis:latest\n"
    )


def test_quietly_only_the_name_is_printed_and_records_are_objects(capfd: pytest.CaptureFixture[str]) -> None:
    pulled = Pulled(name="redis:7", digest="sha256:1", id="sha256:2", fresh=False)
    for quiet in (True, False):
        with Board(live=False, quiet=quiet, records=not quiet) as board:
            board.begin(Want("redis:7"))
            board.take(step("here"))
            board.end(Want("redis:7"), pulled)
    first, *records = capfd.readouterr().out.splitlines()
    assert first == "docker.io/library/redis:7"
    assert [json.loads(one)["image"] for one in records] == ["redis:7", "redis:7"]
    assert json.loads(records[1])["status"] == "current"


STACK = """
services:
  web: {image: "localhost:1/web", depends_on: [db]}
  db: {image: "localhost:1/db:2", pull_policy: never}
  here: {image: "localhost:1/here", pull_policy: always}
"""


def wanted(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str, include_deps: bool = False
) -> list[tuple[str, str]]:
    found: list[Want] = []

    def perform(_scope: Scope, wants: list[Want], **_: object) -> int:
        found.extend(wants)
        return 0

    monkeypatch.setattr(commands, "_perform", perform)
    monkeypatch.chdir(folder)
    commands.pull(
        Scope(root=str(folder / "root")),
        names=names,
        platform=None,
        all_tags=False,
        quiet=False,
        ignore_pull_failures=False,
        ignore_buildable=False,
        include_deps=include_deps,
        policy=None,
    )
    return [(want.name, want.service) for want in found]


def test_a_name_is_a_service_where_there_is_one_and_else_an_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert wanted(monkeypatch, tmp_path, "web") == [("web", "")]
    (tmp_path / "compose.yml").write_text(STACK)
    assert wanted(monkeypatch, tmp_path, "web", "redis", "a/b") == [
        ("redis", ""),
        ("a/b", ""),
        ("localhost:1/web", "web"),
    ]
    assert wanted(monkeypatch, tmp_path) == [("localhost:1/here", "here"), ("localhost:1/web", "web")]
    assert wanted(monkeypatch, tmp_path, "web", include_deps=True) == [("localhost:1/web", "web")]
    assert "Service db  Skipped: its pull_policy is never" in capfd.readouterr().err


def test_a_broken_stack_file_is_told_with_the_way_around_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "compose.yml").write_text("services: [")
    with pytest.raises(UserError) as caught:
        wanted(monkeypatch, tmp_path, "redis")
    assert "pystack image pull" in caught.value.hint
    assert wanted(monkeypatch, tmp_path, "redis:7") == [("redis:7", "")]
