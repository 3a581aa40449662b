"""Names and colours before the lines of logs, as docker compose shows them."""

from __future__ import annotations

from orchestrator.cli.prefix import COLOURS, View, exit_line, short
from orchestrator.cli.record import Record

T = b"2026-11-22T14:00:00.000000001Z"


def test_names_are_padded_to_the_longest_and_the_column_grows_with_a_late_comer() -> None:
    view = View(["web-1", "a-1"])
    assert view.head("a-1") == b"a-1    | "

    view.add("database-1")
    assert view.head("a-1") == b"a-1         | "


def test_colours_follow_the_sorted_names_and_start_again_after_the_last() -> None:
    names = [f"s{number:02}-1" for number in range(12)]
    view = View(reversed(names), colour=True)

    assert view.head("s00-1") == b"\x1b[36ms00-1  | \x1b[0m"
    assert view.head("s01-1").startswith(b"\x1b[33m")
    assert view.head("s11-1").startswith(f"\x1b[{COLOURS[1]}m".encode())


def test_streams_are_kept_apart_in_order_and_neighbours_joined() -> None:
    items = [
        ("a-1", Record(T, b"one")),
        ("b-1", Record(T, b"two\xff")),
        ("a-1", Record(T, b"bad", error=True)),
        ("a-1", Record(T, b"three", ends=False)),
    ]

    assert View(["a-1", "b-1"]).lines(items) == [
        (1, b"a-1  | one\nb-1  | two\xff\n"),
        (2, b"a-1  | bad\n"),
        (1, b"a-1  | three\n"),
    ]


def test_without_prefix_the_text_is_the_bytes_that_were_written() -> None:
    assert View(prefix=False).lines([("a", Record(T, b"\x1b[1m\0x"))]) == [(1, b"\x1b[1m\0x\n")]


def test_times_stand_before_the_text() -> None:
    assert View(prefix=False, timestamps=True).lines([("a", Record(T, b"x"))]) == [(1, T + b" x\n")]


def test_the_stacks_name_is_dropped_and_a_name_of_the_users_own_is_not() -> None:
    assert short("shop-web-1", "shop") == "web-1"
    assert short("my-shop-web", "shop") == "my-shop-web"


def test_the_end_of_a_container_is_told_with_its_code() -> None:
    assert exit_line("web-1", 3, restarting=False) == "web-1 exited with code 3\n"
    assert exit_line("web-1", 0, restarting=True) == "web-1 exited with code 0 (restarting)\n"
