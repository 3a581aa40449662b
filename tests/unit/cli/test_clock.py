"""Times as text and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli import clock

SECOND = 1_000_000_000


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9000, 1, 1)))  # noqa: DTZ001
def test_times_agree_with_the_standard_library(moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC)
    nanoseconds = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000

    assert clock.parse(aware.isoformat()) == nanoseconds
    assert clock.show(nanoseconds) == aware.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond:06}000Z"
    assert clock.parse(clock.show(nanoseconds)) == nanoseconds


@given(st.integers(-14 * 60, 14 * 60))
def test_zones_are_heeded(minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))

    assert clock.parse(datetime(2026, 1, 2, 3, 4, 5, tzinfo=zone).isoformat()) == int(
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=zone).timestamp() * SECOND
    )


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("2026-01-02", "2026-01-02T00:00:00Z"),
        ("2026-01-02T03:04", "2026-01-02T03:04:00Z"),
        ("2026-01-02 03:04:05.5", "2026-01-02T03:04:05.5Z"),
        ("2026-01-02t03:04:05z", "2026-01-02T03:04:05Z"),
    ],
)
def test_parts_may_be_left_out(text: str, full: str) -> None:
    assert clock.parse(text) == clock.parse(full)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-01-02T25:00", "2026-01-02T03:04:05.x"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        clock.parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("10m", 600), ("250ms", 0.25), ("1m5ms", 60.005)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert clock.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "5x", "-5m", "1.2.3s"])
def test_what_is_no_duration_is_none(text: str) -> None:
    assert clock.duration(text) is None


def test_since_may_be_a_duration_a_number_or_a_time() -> None:
    now = clock.parse("2026-01-02T03:04:05Z")

    assert clock.moment("5m", now) == "2026-01-02T02:59:05.000000000Z"
    assert clock.moment("1767322800", now) == "2026-01-02T03:00:00.000000000Z"
    assert clock.moment("1767322800.25", now) == "2026-01-02T03:00:00.250000000Z"
    assert clock.moment("2026-01-02", now) == "2026-01-02T00:00:00.000000000Z"
    with pytest.raises(ValueError, match=r"."):
        clock.moment("soon", now)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (47 * 3600, "47 hours"),
        (50 * 3600, "2 days"),
        (20 * 86400, "2 weeks"),
        (90 * 86400, "3 months"),
        (3 * 365 * 86400, "3 years"),
    ],
)
def test_ages_are_told_in_dockers_words(seconds: float, words: str) -> None:
    assert clock.ago(seconds) == words
