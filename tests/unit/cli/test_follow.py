"""Reading log files as they grow, are rotated and go away."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli import follow
from orchestrator.cli.follow import LogFile
from orchestrator.cli.record import Record


def _time(number: int) -> bytes:
    return b"2026-11-22T14:00:%02d.%09dZ" % (number // 1000 % 60, number % 1000)


class Writer:
    """Writes as the log pump does: append, rotate by renaming."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0

    def write(self, *texts: bytes, ends: bool = True) -> None:
        with self.path.open("ab") as file:
            for text in texts:
                self.count += 1
                file.write(_time(self.count) + b" stdout " + (b"F " if ends else b"P ") + text + b"\n")

    def numbers(self, first: int, last: int) -> None:
        self.write(*(b"%d" % number for number in range(first, last + 1)))

    def rotate(self, keep: int = 9) -> None:
        for number in range(keep, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            if older.exists():
                if number == keep:
                    older.unlink()
                else:
                    older.rename(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.rename(self.path.with_name(f"{self.path.name}.1"))
        self.path.touch()


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path / "container.log")


@pytest.fixture
def log(writer: Writer) -> Iterator[LogFile]:
    file = LogFile(str(writer.path))
    yield file
    file.close()


def _texts(records: object) -> list[bytes]:
    assert not isinstance(records, int)
    return [record.text for record in records]  # type: ignore[attr-defined]


def _range(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last + 1)]


def test_a_log_that_is_not_there_yet_is_empty(log: LogFile) -> None:
    assert _texts(log.history()) == []
    assert _texts(log.added()) == []
    assert log.tail(5) == []


def test_history_goes_through_the_rotated_files_the_oldest_first(writer: Writer, log: LogFile) -> None:
    for first in (1, 11, 21):
        writer.numbers(first, first + 9)
        writer.rotate()
    writer.numbers(31, 35)

    assert _texts(log.history()) == _range(1, 35)


def test_what_is_added_comes_once(writer: Writer, log: LogFile) -> None:
    writer.numbers(1, 3)
    assert _texts(log.history()) == _range(1, 3)
    assert _texts(log.added()) == []

    writer.numbers(4, 5)
    assert _texts(log.added()) == _range(4, 5)
    assert _texts(log.added()) == []


def test_a_record_that_is_half_written_waits_for_its_other_half(writer: Writer, log: LogFile) -> None:
    with writer.path.open("ab") as file:
        file.write(_time(1) + b" stdout F hel")
    assert _texts(log.history()) == []

    with writer.path.open("ab") as file:
        file.write(b"lo\n")
    assert _texts(log.added()) == [b"hello"]


@pytest.mark.parametrize("rotations", [1, 2, 3])
def test_following_goes_through_rotations_between_two_looks(
    writer: Writer, log: LogFile, rotations: int
) -> None:
    writer.numbers(1, 5)
    _texts(log.history())
    writer.numbers(6, 7)
    for step in range(rotations):
        writer.rotate()
        writer.numbers(8 + 3 * step, 10 + 3 * step)

    assert _texts(log.added()) == _range(6, 7 + 3 * rotations)


def test_a_file_that_rotation_has_dropped_is_read_to_its_end_and_the_rest_follows(
    writer: Writer, log: LogFile
) -> None:
    writer.numbers(1, 5)
    _texts(log.history())
    writer.numbers(6, 7)
    for step in range(3):
        writer.rotate(keep=1)
        writer.numbers(8 + 3 * step, 10 + 3 * step)

    # Ours was deleted two rotations ago, but it was open; 8 to 10 are gone for everybody.
    assert _texts(log.added()) == [*_range(6, 7), *_range(11, 16)]


def test_a_log_that_is_emptied_in_place_goes_on(writer: Writer, log: LogFile) -> None:
    writer.numbers(1, 9)
    _texts(log.history())
    os.truncate(writer.path, 0)
    writer.numbers(10, 11)

    assert _texts(log.added()) == _range(10, 11)


def test_the_last_lines_of_a_removed_container_are_not_lost(writer: Writer, log: LogFile) -> None:
    writer.numbers(1, 2)
    _texts(log.history())
    writer.numbers(3, 4)
    writer.path.unlink()

    assert _texts(log.added()) == _range(3, 4)


def test_half_a_record_before_a_rotation_does_not_stop_the_reader(writer: Writer, log: LogFile) -> None:
    writer.numbers(1, 2)
    _texts(log.history())
    with writer.path.open("ab") as file:
        file.write(b"2026-11-22T14:00:00.000000009Z stdout F torn")
    writer.rotate()
    writer.numbers(3, 4)

    assert _texts(log.added()) == _range(3, 4)


def test_skipping_begins_with_what_comes_next(writer: Writer, log: LogFile) -> None:
    writer.numbers(1, 100)
    log.skip()
    writer.numbers(101, 102)

    assert _texts(log.added()) == _range(101, 102)


@pytest.mark.parametrize("count", [0, 1, 3, 10, 11, 25, 26, 100])
def test_the_tail_reaches_back_through_rotated_files(writer: Writer, log: LogFile, count: int) -> None:
    for first in (1, 11):
        writer.numbers(first, first + 9)
        writer.rotate()
    writer.numbers(21, 25)

    assert _texts(log.tail(count)) == _range(1, 25)[max(25 - count, 0) :]
    writer.numbers(26, 27)
    assert _texts(log.added()) == _range(26, 27)


def test_the_tail_counts_lines_not_pieces(writer: Writer, log: LogFile) -> None:
    writer.write(b"one")
    writer.write(b"tw", ends=False)
    writer.write(b"o")
    writer.write(b"thr", b"e", ends=False)
    writer.write(b"e")

    assert _texts(log.tail(2)) == [b"tw", b"o", b"thr", b"e", b"e"]


def test_the_tail_counts_an_open_line_at_the_end(writer: Writer, log: LogFile) -> None:
    writer.numbers(1, 3)
    writer.write(b"prompt> ", ends=False)

    assert _texts(log.tail(1)) == [b"prompt> "]
    assert _texts(LogFile(str(writer.path)).tail(2)) == [b"3", b"prompt> "]


def test_the_tail_is_right_at_every_size_of_block(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(60):
        writer.write(b"x" * chance.randrange(40), ends=chance.random() < 0.7)
    writer.write(b"end")
    whole = _texts(LogFile(str(writer.path)).history())
    lines_ending = [record for record in LogFile(str(writer.path)).history() if record.ends]
    for block in (7, 64, 1000, 100_000):
        monkeypatch.setattr(follow, "BLOCK", block)
        for count in (1, 5, len(lines_ending), len(lines_ending) + 5):
            found = LogFile(str(writer.path)).tail(count)
            assert _texts(found) == whole[len(whole) - len(found) :]
            assert sum(record.ends for record in found) == min(count, len(lines_ending))
            assert len(found) == len(whole) or _before(writer, found).ends


def _before(writer: Writer, found: list[Record]) -> Record:
    """The record just before the tail: it ends a line, or the tail would begin in the middle of one."""
    everything = list(LogFile(str(writer.path)).history())
    return everything[len(everything) - len(found) - 1]
