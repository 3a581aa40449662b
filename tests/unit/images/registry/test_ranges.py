"""Headers that say which part of something this is."""

from __future__ import annotations

import pytest

from orchestrator.images.registry import ranges
from orchestrator.images.registry.ranges import Part


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes 100-199/60316467", Part(first=100, last=199, total=60316467)),
        ("Bytes 0-0/1", Part(first=0, last=0, total=1)),
        ("bytes 5-9/*", Part(first=5, last=9, total=None)),
        ("bytes 9-5/20", None),
        ("bytes 5-20/20", None),
        ("bytes */20", None),
        ("items 1-2/3", None),
        ("bytes 1-2", None),
        ("bytes " + "9" * 5000 + "-1/2", None),
        ("", None),
    ],
)
def test_content_range(header: str, part: Part | None) -> None:
    assert ranges.content_range(header) == part


def test_a_206_must_be_the_rest_from_where_we_are() -> None:
    assert ranges.continues("bytes 10-19/20", offset=10, size=20)
    assert ranges.continues("bytes 10-19/*", offset=10, size=20)
    assert not ranges.continues("bytes 9-19/20", offset=10, size=20)
    assert not ranges.continues("bytes 10-18/20", offset=10, size=20)
    assert not ranges.continues("bytes 10-19/21", offset=10, size=20)
    assert not ranges.continues("", offset=10, size=20)


@pytest.mark.parametrize(
    ("header", "count"),
    [("0-99", 100), ("bytes=0-99", 100), ("0-0", 0), ("5-9", 0), ("", 0), ("0--1", 0), ("0-" + "9" * 30, 0)],
)
def test_the_range_of_an_upload_is_how_much_is_there(header: str, count: int) -> None:
    assert ranges.uploaded(header) == count


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('</v2/_catalog?last=b&n=2>; rel="next"', "/v2/_catalog?last=b&n=2"),
        ("</a>;rel=next", "/a"),
        ('<https://x/y>; title="a; b, c" ; rel="prev next"', "https://x/y"),
        ('</first>; rel="prev", </second>; rel="next"', "/second"),
        ('</a>; rel="nextish"', ""),
        ("</a>; rel=next-archive", ""),
        ("</a>", ""),
        ("rel=next", ""),
        ("", ""),
    ],
)
def test_the_next_page(header: str, target: str) -> None:
    assert ranges.next_page(header) == target


def test_a_hostile_link_takes_no_long_time() -> None:
    assert ranges.next_page("<" * 200_000) == ""
    assert ranges.next_page("<a>" + ";a=b " * 100_000) == ""
    assert ranges.next_page("<a>" + '; rel="' + "x " * 100_000) == ""


@pytest.mark.parametrize(
    ("text", "count"), [("12", 12), (" 0 ", 0), ("-1", None), ("", None), ("1e3", None), ("²", None)]
)
def test_lengths_are_digits(text: str, count: int | None) -> None:
    assert ranges.length(text) == count
