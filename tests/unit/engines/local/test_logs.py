"""Log records, and the files they stand in."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engines.local import logs
from orchestrator.engines.local.logs import LogFile, Rotation, records, stamp, texts, unfinished

WHEN = b"2026-11-22T14:00:00.123456789Z"
CHUNKS = st.lists(
    st.binary(min_size=1, max_size=60) | st.sampled_from([b"\n", b"a\n", b"\n\n", b"\0", b" F x\n"])
)


def test_the_time_has_nanoseconds_and_is_utc() -> None:
    assert stamp(1795356000123456789) == b"2026-11-22T14:00:00.123456789Z"
    assert stamp(0) == b"1970-01-01T00:00:00.000000000Z"


def test_a_line_is_one_record_and_what_goes_on_is_marked() -> None:
    assert records(b"one\ntwo\nthr", b"stdout", WHEN) == b"".join(
        WHEN + b" stdout " + rest for rest in (b"F one\n", b"F two\n", b"P thr\n")
    )
    assert records(b"ee\n\n", b"stderr", WHEN) == WHEN + b" stderr F ee\n" + WHEN + b" stderr F \n"
    assert records(b"", b"stdout", WHEN) == b""


@given(CHUNKS, CHUNKS)
def test_every_byte_comes_back_however_it_was_cut_and_interleaved(out: list[bytes], err: list[bytes]) -> None:
    written = b""
    for number in range(max(len(out), len(err))):
        for stream, chunks in ((b"stdout", out), (b"stderr", err)):
            if number < len(chunks):
                written += records(chunks[number], stream, stamp(number))
    assert texts(written, b"stdout") == b"".join(out)
    assert texts(written, b"stderr") == b"".join(err)


@given(CHUNKS)
def test_a_stream_is_unfinished_when_its_last_byte_is_no_newline(chunks: list[bytes]) -> None:
    written = b"".join(records(chunk, b"stdout", WHEN) for chunk in chunks)
    open_ended = bool(chunks) and not chunks[-1].endswith(b"\n")
    assert unfinished(written) == ((b"stdout",) if open_ended else ())


@given(
    CHUNKS,
    st.integers(min_value=0, max_value=400),
    st.integers(min_value=1, max_value=4),
)
def test_rotation_keeps_the_end_of_it_all_in_files_that_are_small(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], size: int, files: int
) -> None:
    home = tmp_path_factory.mktemp("log")
    log = LogFile(home / "container.log", Rotation(max_size=size, max_files=files))
    for chunk in chunks:
        log.append(records(chunk, b"stdout", WHEN))
    log.close()
    found = sorted(home.iterdir(), key=lambda path: -int(path.suffix[1:].replace("log", "0")))
    assert len(found) <= files
    kept = b""
    for path in found:
        content = path.read_bytes()
        assert content.endswith(b"\n")
        assert not size or len(content) <= size or content.count(b"\n") == 1
        kept += texts(content, b"stdout")
    whole = b"".join(chunks)
    assert whole.endswith(kept)
    assert kept == whole or (size and len(found) == files)


def test_a_new_run_begins_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    log = LogFile(path, Rotation())
    log.append(records(b"open", b"stdout", WHEN) + records(b"done\n", b"stderr", WHEN))
    log.close_lines()
    log.append(records(b"next\n", b"stdout", WHEN))
    log.close()
    assert texts(path.read_bytes(), b"stdout") == b"open\nnext\n"
    assert texts(path.read_bytes(), b"stderr") == b"done\n"


def test_a_record_that_was_cut_off_by_a_kill_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    whole = records(b"whole\n", b"stdout", WHEN)
    path.write_bytes(whole + b"2026-11-22T14:00:00.1234")
    log = LogFile(path, Rotation())
    log.append(records(b"next\n", b"stdout", WHEN))
    log.close()
    assert path.read_bytes() == whole + records(b"next\n", b"stdout", WHEN)


def test_a_link_in_the_file_s_place_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    (tmp_path / "container.log").symlink_to(victim)
    log = LogFile(tmp_path / "container.log", Rotation())
    text = records(b"x\n", b"stdout", WHEN)
    log.append(text)
    assert victim.read_bytes() == b""
    assert log.lost == len(text)


@contextlib.contextmanager
def small_files(limit: int) -> Iterator[None]:
    """No file of this process may grow over `limit` bytes (RLIMIT_FSIZE); pytest's own output neither."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_without_room_whole_records_are_lost_and_counted_never_halves(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "container.log", Rotation(max_size=0))
    first = records(b"f" * 700 + b"\n", b"stdout", WHEN)
    second = records(b"s" * 700 + b"\n", b"stdout", WHEN)
    with small_files(1000):
        log.append(first)
        log.append(second)
        log.append(records(b"third\n", b"stdout", WHEN))
    log.close()
    assert texts((tmp_path / "container.log").read_bytes(), b"stdout") == b"f" * 700 + b"\nthird\n"
    assert log.lost == len(second)


def test_what_was_written_since_can_be_read_and_taken_back(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "container.log", Rotation())
    log.append(b"one\n")
    size = log.size()
    log.append(b"two\n")
    assert log.since(size) == b"two\n"
    log.take_back(size)
    log.take_back(size + 100)
    assert log.since(0) == b"one\n"
    log.close()
    assert os.path.getsize(tmp_path / "container.log") == 4


def test_the_defaults_are_bounded() -> None:
    assert logs.DEFAULT_MAX_SIZE * logs.DEFAULT_MAX_FILES <= 100 * 1024 * 1024
