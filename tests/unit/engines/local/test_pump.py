"""From FIFO to log: nothing is lost and nothing comes twice, whenever the pump was killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from orchestrator.engines.local.logs import LogFile, Rotation, records, stamp, texts
from orchestrator.engines.local.pump import Moving, Pump, make_fifo, open_fifo

ROW = 0


class Bench:
    """A FIFO that somebody prints to, and the log it goes to."""

    def __init__(self, home: Path) -> None:
        self.home = home
        make_fifo(home / "stdout")
        self.writer = open_fifo(home / "stdout")
        self.grown = 0

    def prints(self, data: bytes) -> None:
        assert os.write(self.writer, data) == len(data)

    def log(self) -> LogFile:
        return LogFile(self.home / "container.log", Rotation())

    def pump(self) -> Pump:
        def grown() -> None:
            self.grown += 1

        fifo = open_fifo(self.home / "stdout")
        return Pump({b"stdout": fifo}, self.log(), grown, Moving(self.home / "moving", 1))

    def kept(self) -> bytes:
        path = self.home / "container.log"
        return texts(path.read_bytes(), b"stdout") if path.exists() else b""

    async def next_pump(self) -> None:
        """As a supervisor does after the death of another."""
        pump = self.pump()
        pump.settle()
        await run_to_the_end(pump)


async def run_to_the_end(pump: Pump) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        await trio.lowlevel.checkpoint()
        await pump.finish()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    os.close(made.writer)


async def test_what_is_in_the_fifo_goes_to_the_log_with_one_notice(bench: Bench) -> None:
    bench.prints(b"one\ntwo\nopen")
    await run_to_the_end(bench.pump())
    assert bench.kept() == b"one\ntwo\nopen"
    assert bench.grown == 1


async def test_it_follows_while_it_grows(bench: Bench) -> None:
    pump = bench.pump()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        for number in range(5):
            bench.prints(b"%d\n" % number)
            with trio.fail_after(5):
                while bench.kept().count(b"\n") <= number:
                    await trio.sleep(0.001)
        await pump.finish()


async def test_killed_before_the_chunk_was_written(bench: Bench) -> None:
    bench.prints(b"chunk\n")
    moving = Moving(bench.home / "moving", 1)
    moving.begin(ROW, 6, 0)
    moving.close()
    await bench.next_pump()
    assert bench.kept() == b"chunk\n"


async def test_killed_in_the_middle_of_writing_it(bench: Bench) -> None:
    """Some records are there, the last of them torn."""
    bench.prints(b"one\ntwo\nthree\n")
    log, moving = bench.log(), Moving(bench.home / "moving", 1)
    log.append(records(b"before\n", b"stdout", stamp(1)))
    moving.begin(ROW, 14, log.size())
    log.close()
    moving.close()
    with open(bench.home / "container.log", "ab") as file:
        file.write(records(b"one\ntwo\nthree\n", b"stdout", stamp(2))[:-9])
    await bench.next_pump()
    assert bench.kept() == b"before\none\ntwo\nthree\n"


async def test_killed_after_writing_it_and_before_taking_it_out(bench: Bench) -> None:
    bench.prints(b"chunk\n")
    log, moving = bench.log(), Moving(bench.home / "moving", 1)
    moving.begin(ROW, 6, log.size())
    log.append(records(b"chunk\n", b"stdout", stamp(1)))
    log.close()
    moving.close()
    bench.prints(b"more\n")
    await bench.next_pump()
    assert bench.kept() == b"chunk\nmore\n"


async def test_killed_after_taking_it_out(bench: Bench) -> None:
    log, moving = bench.log(), Moving(bench.home / "moving", 1)
    moving.begin(ROW, 6, log.size())
    log.append(records(b"chunk\n", b"stdout", stamp(1)))
    log.close()
    moving.close()
    bench.prints(b"other\n")
    await bench.next_pump()
    assert bench.kept() == b"chunk\nother\n"


async def test_the_same_line_again_is_not_taken_for_one_that_was_written(bench: Bench) -> None:
    """Nothing was under way when the pump was killed, so nothing is compared."""
    bench.prints(b"y\n")
    await run_to_the_end(bench.pump())
    bench.prints(b"y\n")
    await bench.next_pump()
    assert bench.kept() == b"y\ny\n"


async def test_a_terminal_that_is_closed_ends_it(tmp_path: Path) -> None:
    master, slave = os.openpty()
    os.set_blocking(master, False)
    log = LogFile(tmp_path / "container.log", Rotation())
    pump = Pump({b"stdout": master}, log, lambda: None, None)
    os.write(slave, b"said\n")
    os.close(slave)
    with trio.fail_after(5):
        await pump.run()
    assert texts((tmp_path / "container.log").read_bytes(), b"stdout") == b"said\r\n"
