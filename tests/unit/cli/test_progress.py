"""Action events -> words, lines, objects and frames."""

from __future__ import annotations

from typing import Any

from orchestrator.cli import columns, progress


def action(verb: str, outcome: str, name: str = "shop-web-1", at: float = 0.0, **more: Any) -> dict[str, Any]:
    return {
        "event": "action",
        "at": at,
        "target": f"container:{name}",
        "verb": verb,
        "outcome": outcome,
        **more,
    }


def _lines(*events: dict[str, Any]) -> list[str]:
    board = progress.Board()
    return [progress.plain(row) for event in events for row in board.take(event)]


def test_plain_lines_are_those_of_docker_compose() -> None:
    network = {"event": "action", "target": "network:shop_default", "verb": "create", "outcome": "done"}

    assert _lines(
        network,
        action("create", "begun"),
        action("create", "done"),
        action("start", "begun"),
        action("start", "done"),
    ) == [
        " Network shop_default  Created\n",
        " Container shop-web-1  Creating\n",
        " Container shop-web-1  Created\n",
        " Container shop-web-1  Starting\n",
        " Container shop-web-1  Started\n",
    ]


def test_a_container_that_was_asked_to_stop_has_stopped_when_it_is_removed() -> None:
    assert _lines(action("stop", "begun"), action("stop", "done"), action("remove", "done")) == [
        " Container shop-web-1  Stopping\n",
        " Container shop-web-1  Stopped\n",
        " Container shop-web-1  Removed\n",
    ]


def test_at_the_end_whoever_was_stopping_has_stopped_and_nobody_waits() -> None:
    board = progress.Board()
    for event in (
        action("stop", "done", "a"),
        action("kill", "done", "b"),
        {"event": "wait", "target": "container:c", "because": "a stops first"},
    ):
        board.take(event)

    assert [progress.plain(row) for row in board.finish(1.0)] == [
        " Container a  Stopped\n",
        " Container b  Killed\n",
    ]
    assert "container:c" not in board.rows


def test_whoever_waits_says_for_what_and_once() -> None:
    wait = {"event": "wait", "target": "container:shop-web-1", "because": "db is starting", "failed": False}

    assert _lines(wait, wait, {**wait, "because": "db is unhealthy", "failed": True}) == [
        " Container shop-web-1  Waiting  db is starting\n",
        " Container shop-web-1  Failed  db is unhealthy\n",
    ]


def test_a_failure_carries_its_error_and_no_control_characters() -> None:
    (line,) = _lines(action("start", "failed", error="no such \x1b[31mfile"))

    assert line == " Container shop-web-1  Error  no such \N{REPLACEMENT CHARACTER}[31mfile\n"


def test_probes_are_not_shown_and_do_not_count_as_doing_something() -> None:
    board = progress.Board()
    event = {"event": "action", "target": "probe:shop-web-1", "verb": "probe", "outcome": "done"}

    assert board.take(event) == []
    assert not board.acted


def test_json_rows_have_stable_fields() -> None:
    board = progress.Board()
    (row,) = board.take(action("start", "done", at=1.23456, because="db is healthy"))

    assert progress.record(row) == {
        "kind": "container",
        "name": "shop-web-1",
        "status": "started",
        "at": 1.235,
        "because": "db is healthy",
    }


def _board(count: int) -> progress.Board:
    board = progress.Board()
    for number in range(count):
        board.take(action("create", "done", f"c-{number}", at=1.0))
    return board


def _frame(board: progress.Board, *, height: int = 24, width: int = 80) -> list[str]:
    rows = list(board.rows.values())
    return progress.frame(rows, now=3.0, width=width, height=height, title="Running", colour=False)


def test_a_frame_has_a_head_with_counts_and_a_line_a_target() -> None:
    board = _board(1)
    board.take(action("start", "begun", "other", at=1.0))
    head, first, second = _frame(board, width=60)

    assert head == "[+] Running 1/2"
    assert first.startswith(" ✔ Container c-0    Created ")
    assert second.startswith(" ⠿ Container other  Starting ")
    assert second.endswith(" 2.0s")
    assert columns.width(first) == columns.width(second) <= 60


def test_no_line_is_wider_than_the_terminal_whatever_stands_in_it() -> None:
    board = progress.Board()
    board.take(action("start", "failed", "日本" * 30, error="x\ny" * 100))
    for width in (1, 10, 40, 80):
        for line in _frame(board, width=width)[1:]:
            assert columns.width(line) <= max(width, 9)
            assert "\n" not in line


def test_in_a_small_window_those_under_way_stay_visible() -> None:
    board = _board(50)
    board.take(action("start", "begun", "c-3", at=2.0))
    board.take(action("start", "failed", "c-7", at=2.0, error="broken"))
    lines = _frame(board, height=10)

    assert len(lines) <= 9
    assert lines[0] == "[+] Running 49/50"
    assert any("c-3 " in line for line in lines)
    assert any("broken" in line for line in lines)


def test_repainting_goes_up_over_the_old_lines_and_clears_them() -> None:
    first = progress.repaint(0, ["a", "b"])
    again = progress.repaint(2, ["c"])

    assert first.startswith("\x1b[?2026h")
    assert first.endswith("\x1b[?2026l")
    assert "\x1b[2A" in again
    assert "\x1b[0J" in again
    assert again.index("\x1b[0J") < again.index("c\n")


def test_a_failure_and_the_verdict_about_it_are_told_once() -> None:
    board = progress.Board()
    told = [
        *board.take({**action("start", "failed"), "error": "no such user"}),
        *board.take(
            {"event": "wait", "target": "container:shop-web-1", "because": "no such user", "failed": True}
        ),
        *board.take(
            {"event": "wait", "target": "container:shop-web-1", "because": "gave up", "failed": True}
        ),
    ]
    assert [(row.word, row.error or row.because) for row in told] == [
        ("Error", "no such user"),
        ("Failed", "gave up"),
    ]


def test_what_was_being_removed_at_a_good_end_is_removed() -> None:
    board = progress.Board()
    board.take(action("remove", "begun"))
    assert [row.word for row in board.finish(1.0)] == ["Removed"]
