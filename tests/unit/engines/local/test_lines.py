"""A run has printed its line when the log says so, however it came there; and nothing takes for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from orchestrator.engines.local.lines import LINE_LIMIT, Lines, Mark, mark, plain
from orchestrator.engines.local.logs import LogFile, Rotation, records, stamp

WHEN = stamp(0)


class Bench:
    """A log, and what was told of it."""

    def __init__(self, home: Path, **rotation: int) -> None:
        self.path = home / "container.log"
        self.log = LogFile(self.path, Rotation(**rotation))
        self.told: list[tuple[bool, str]] = []
        self.lines: Lines | None = None

    def prints(self, text: bytes, stream: bytes = b"stdout") -> None:
        self.log.append(records(text, stream, WHEN))
        if self.lines is not None:
            self.lines.grown()

    def look(self, pattern: str, place: Mark | None = None, files: int = 5) -> Lines:
        place = mark(self.path) if place is None else place
        self.lines = Lines(self.path, files, place, pattern, lambda *told: self.told.append(told))
        return self.lines

    async def complete(self, pattern: str, place: Mark | None = None) -> bool:
        """What is found in all that is there."""
        lines = self.look(pattern, place)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lines.run)
            await lines.finish()
        ((found, trouble),) = self.told
        assert trouble == ""
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.log.close()


async def test_a_line_is_told_as_soon_as_it_is_there(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    lines = bench.look(r"ready in \d+ ms")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lines.run)
        bench.prints(b"starting\nready in ")
        await trio.sleep(1)
        assert bench.told == []
        bench.prints(b"ready in 7 ms", b"stderr")
        await trio.sleep(1)
        assert bench.told == []
        bench.prints(b"12 ms\r\n")
        await trio.sleep(1)
        assert bench.told == [(True, "")]


async def test_what_an_earlier_run_printed_does_not_count(bench: Bench) -> None:
    bench.prints(b"ready\n")
    place = mark(bench.path)
    bench.prints(b"starting\n")
    assert not await bench.complete("ready", place)


async def test_what_stands_behind_the_mark_is_found_by_the_next_supervisor(bench: Bench) -> None:
    bench.prints(b"old\n")
    place = mark(bench.path)
    bench.prints(b"ready\n")
    assert await bench.complete("^ready$", place)


async def test_a_last_line_without_an_end_counts_when_the_run_is_over(bench: Bench) -> None:
    place = mark(bench.path)
    bench.prints(b"rea")
    bench.prints(b"dy")
    assert await bench.complete("^ready$", place)


async def test_a_log_that_was_turned_over_is_followed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_size=2000, max_files=4)
    bench.prints(b"old\n")
    place = mark(bench.path)
    for number in range(60):
        bench.prints(b"line %d\n" % number)
        if number == 40:
            bench.prints(b"ready\n")
    bench.log.close()
    assert (tmp_path / "container.log.1").exists()
    assert await bench.complete("ready", place)


async def test_a_mark_whose_file_has_gone_begins_with_what_is_left(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_size=1000, max_files=2)
    place = mark(bench.path)
    for number in range(100):
        bench.prints(b"line %d\n" % number)
    bench.log.close()
    assert await bench.complete("line 98", place)
    bench.told.clear()
    assert not await bench.complete("line 0$", place)


async def test_of_a_long_line_the_beginning_is_looked_at(bench: Bench) -> None:
    place = mark(bench.path)
    bench.prints(b"x" * (LINE_LIMIT - 5) + b"ready, but late\n")
    assert await bench.complete("ready$", place)
    bench.told.clear()
    bench.prints(b"y" * LINE_LIMIT + b"steady\n")
    assert not await bench.complete("steady", place)


async def test_a_pattern_that_would_take_for_ever_is_given_up(bench: Bench) -> None:
    lines = bench.look("^(a+)+$")
    bench.prints(b"a" * 64 + b"!\n")
    began = time.monotonic()
    await lines.run()
    assert bench.told == [(False, "its x-log-ready takes longer than 0.1 s for a line that it has printed")]
    assert time.monotonic() - began < 10


async def test_a_pattern_that_takes_long_to_be_understood_is_given_up(bench: Bench) -> None:
    pattern = "(?i)" + "[a-\U0010ffff]" * 120
    lines = bench.look(pattern)
    began = time.process_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lines.run)
    assert time.process_time() - began < 1
    assert bench.told == [(False, "its x-log-ready takes longer than 0.25 s to be understood")]


async def test_a_flood_lets_others_in(bench: Bench) -> None:
    place = mark(bench.path)
    for _ in range(20):
        bench.prints(b"".join(b"%060d\n" % n for n in range(1000)))
    lines = bench.look("[0-9 ]*ready", place)
    longest = 0.0
    async with trio.open_nursery() as nursery:

        async def others() -> None:
            nonlocal longest
            while True:
                began = time.thread_time()
                await trio.lowlevel.checkpoint()
                longest = max(longest, time.thread_time() - began)

        nursery.start_soon(others)
        nursery.start_soon(lines.run)
        await lines.finish()
        nursery.cancel_scope.cancel()
    assert bench.told == [(False, "")]
    assert 0 < longest < 0.1


@pytest.mark.parametrize(
    ("pattern", "same"),
    [
        (".*ready", "ready"),
        (".*?ready", "ready"),
        (".+ready", ".+ready"),
        (".*+ready", ".*+ready"),
        ("a", "a"),
    ],
)
def test_a_lead_that_finds_nothing_more_is_left_out(pattern: str, same: str) -> None:
    assert plain(pattern) == same
