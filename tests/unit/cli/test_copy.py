"""Bytes between descriptors."""

from __future__ import annotations

import os
import pty
import tempfile

import pytest

from orchestrator.cli import copy


def test_input_goes_through_and_its_end_too() -> None:
    source, source_write = os.pipe()
    sink_read, sink = os.pipe()
    flow = copy.Flow(source, sink)
    os.write(source_write, b"hello")
    flow.pull()
    os.close(source_write)
    flow.pull()

    assert os.read(sink_read, 100) == b"hello"
    assert os.read(sink_read, 100) == b""
    assert flow.ended
    assert not flow.hungry
    for fd in (source, sink_read):
        os.close(fd)


def test_a_sink_that_takes_nothing_stops_the_reading_and_nothing_is_lost() -> None:
    source, source_write = os.pipe()
    sink_read, sink = os.pipe()
    flow = copy.Flow(source, sink)
    sent = 0
    while flow.hungry:
        sent += os.write(source_write, b"x" * 4096)
        flow.pull()
    assert flow.loaded

    got = 0
    while got < sent:
        got += len(os.read(sink_read, 65536))
        flow.push()
    assert not flow.loaded
    assert flow.hungry
    flow.close()
    for fd in (source, source_write, sink_read):
        os.close(fd)


def test_a_reader_that_has_gone_ends_the_flow() -> None:
    source, source_write = os.pipe()
    sink_read, sink = os.pipe()
    os.close(sink_read)
    flow = copy.Flow(source, sink)
    os.write(source_write, b"x")
    flow.pull()

    assert flow.ended
    assert not flow.loaded
    for fd in (source, source_write):
        os.close(fd)


def test_the_end_of_our_input_does_not_close_a_terminal() -> None:
    source, source_write = os.pipe()
    sink_read, sink = os.pipe()
    flow = copy.Flow(source, sink, keep_sink=True)
    os.close(source_write)
    flow.pull()

    assert flow.sink == sink
    os.write(sink, b"still open")
    flow.close()
    for fd in (source, sink_read):
        os.close(fd)


@pytest.mark.parametrize("kind", ["pipe", "null", "file", "zero", "terminal", "closed"])
def test_a_container_gets_pipes_and_nothing_that_can_be_opened_again(kind: str) -> None:
    read_end, write_end = os.pipe()
    master, slave = pty.openpty()
    with tempfile.TemporaryFile() as file:
        null = os.open("/dev/null", os.O_RDONLY)
        zero = os.open("/dev/zero", os.O_RDONLY)
        fd = {
            "pipe": read_end,
            "null": null,
            "file": file.fileno(),
            "zero": zero,
            "terminal": slave,
            "closed": 9999,
        }[kind]

        assert copy.harmless(fd) == (kind in ("pipe", "null"))
    for fd in (read_end, write_end, master, slave, null, zero):
        os.close(fd)


def test_draining_does_not_wait(capfd: pytest.CaptureFixture[str]) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"what is there\n")
    copy.drain(read_end, 1)

    assert capfd.readouterr().out == "what is there\n"
    for fd in (read_end, write_end):
        os.close(fd)
