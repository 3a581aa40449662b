"""Lines of a container's log file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.record import LINE_LIMIT, Joiner, Record, between, join, parse

T = b"2026-11-22T14:00:00.%09dZ"


def _line(record: Record) -> bytes:
    stream = b"stderr" if record.error else b"stdout"
    return b" ".join((record.time, stream, b"F" if record.ends else b"P", record.text))


RECORDS = st.builds(
    Record,
    st.integers(0, 999_999_999).map(lambda n: T % n),
    st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")),
    error=st.booleans(),
    ends=st.booleans(),
)


@given(RECORDS)
def test_any_bytes_but_a_newline_come_back(record: Record) -> None:
    assert parse(_line(record)) == record


@pytest.mark.parametrize("line", [b"", b"garbage", b"2026 stdout F", b"2026 stdlog F x", b"\0\0\0\0"])
def test_what_is_no_record_is_skipped(line: bytes) -> None:
    assert parse(line) is None


@given(st.lists(RECORDS, max_size=30))
def test_joining_loses_and_invents_nothing(records: list[Record]) -> None:
    lines = list(join(records))

    for error in (False, True):
        before = b"".join(r.text + (b"\n" if r.ends else b"") for r in records if r.error == error)
        after = b"".join(r.text + (b"\n" if r.ends else b"") for r in lines if r.error == error)
        assert after == before
        assert sum(not line.ends for line in lines if line.error == error) <= 1


def test_pieces_of_a_line_are_joined_though_the_other_stream_speaks_between() -> None:
    records = [
        Record(T % 1, b"hel", ends=False),
        Record(T % 2, b"oops", error=True),
        Record(T % 3, b"lo"),
    ]

    assert list(join(records)) == [Record(T % 2, b"oops", error=True), Record(T % 1, b"hello")]


def test_a_line_without_end_is_kept_until_it_is_asked_for() -> None:
    joiner = Joiner()

    assert joiner.take(Record(T % 1, b"prompt> ", ends=False)) == []
    assert joiner.rest() == [Record(T % 1, b"prompt> ", ends=False)]
    assert joiner.rest() == []


def test_an_endless_line_is_shown_in_pieces() -> None:
    joiner = Joiner()
    piece = Record(T % 1, b"x" * (LINE_LIMIT // 2), ends=False)

    assert joiner.take(piece) == []
    (shown,) = joiner.take(piece)
    assert len(shown.text) == LINE_LIMIT


def test_bounds_take_the_first_and_leave_the_last() -> None:
    records = [Record(T % n, b"") for n in range(5)]

    assert [r.time for r in between(records, T % 1, T % 3)] == [T % 1, T % 2]
    assert len(list(between(records, b"", b""))) == 5
