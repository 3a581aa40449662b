"""Waiting before the next try."""

from __future__ import annotations

import pytest

from orchestrator.images.registry.backoff import RETRIED, Patience, retry_after

NOW = 1_792_000_000.0


def test_delays_double_up_to_a_limit_and_end_with_the_tries() -> None:
    patience = Patience(tries=8, first=1.0, longest=10.0)
    delays = [patience.delay(failed, chance=0.999999) for failed in range(1, 9)]
    assert [round(delay) for delay in delays[:-1] if delay is not None] == [1, 2, 4, 8, 10, 10, 10]
    assert delays[-1] is None


def test_half_of_a_delay_is_left_to_chance() -> None:
    patience = Patience(first=4.0)
    assert patience.delay(1, chance=0.0) == 2.0
    assert patience.delay(1, chance=0.5) == 3.0


def test_the_registrys_wish_is_the_least_and_a_long_one_is_not_waited_for() -> None:
    patience = Patience()
    assert patience.delay(1, chance=0.0, retry_after=7.0) == 7.0
    assert patience.delay(4, chance=0.0, retry_after=0.0) == 2.0
    assert patience.delay(1, chance=0.0, retry_after=3600.0) is None


def test_no_number_of_failures_overflows() -> None:
    assert Patience(tries=10**9).delay(10**6, chance=0.0) == 8.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("9" * 400, float("inf")),
        ("Wed, 14 Oct 2026 16:26:40 GMT", 0.0),
        ("Wed, 14 Oct 2026 17:48:20 GMT", 100.0),
        ("Mon, 01 Jan 1990 00:00:00 GMT", 0.0),
        ("²", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    assert retry_after(header, now=NOW) == seconds


def test_what_was_refused_for_good_is_not_asked_again() -> None:
    assert RETRIED.isdisjoint({400, 401, 403, 404, 405, 501})
    assert {408, 425, 429, 500, 502, 503, 504} == RETRIED
