"""Tables as text."""

from __future__ import annotations

import pytest

from orchestrator.cli import columns


def test_columns_are_as_wide_as_their_longest_cell_and_no_line_ends_in_blanks() -> None:
    text = columns.table(("NAME", "STATE", "PORTS"), [("web-1", "up", ""), ("a", "exited", "80/tcp")])

    assert text == "NAME      STATE     PORTS\nweb-1     up\na         exited    80/tcp\n"


def test_wide_letters_take_two_columns_and_combining_marks_none() -> None:
    assert [columns.width(text) for text in ("abc", "日本", "e\u0301", "🐍")] == [3, 4, 1, 2]
    assert columns.table(("日", "x"), [("a", "y")]) == "日        x\na         y\n"


def test_long_text_is_shortened_with_a_sign() -> None:
    assert columns.shorten("docker-entrypoint.sh nginx", 20) == "docker-entrypoint.s…"
    assert columns.shorten("short", 20) == "short"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1500, "1.5kB"),
        (4_260_000, "4.26MB"),
        (999_600_000, "1GB"),
        (10**13, "10TB"),
    ],
)
def test_sizes_are_told_as_docker_does(count: int, text: str) -> None:
    assert columns.size(count) == text
