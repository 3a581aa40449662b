"""The user's terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import termios

import pytest

from orchestrator.cli.terminal import DetachKeys, Raw, resize, size


def test_raw_mode_ends_however_it_is_left() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    with contextlib.suppress(RuntimeError), Raw(slave):
        assert not termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
        raise RuntimeError

    assert termios.tcgetattr(slave) == before
    for fd in (master, slave):
        os.close(fd)


def test_what_is_no_terminal_is_left_alone() -> None:
    read_end, write_end = os.pipe()
    with Raw(read_end):
        pass
    for fd in (read_end, write_end):
        os.close(fd)


def test_a_containers_terminal_takes_the_size_of_ours() -> None:
    master, slave = pty.openpty()
    resize(master)

    assert termios.tcgetwinsize(slave) == size()
    for fd in (master, slave):
        os.close(fd)


@pytest.mark.parametrize(
    ("typed", "through", "pressed"),
    [
        ([b"ls\r"], b"ls\r", False),
        ([b"\x10\x11"], b"", True),
        ([b"\x10", b"\x11"], b"", True),
        ([b"a\x10", b"b"], b"a\x10b", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x11\x10"], b"\x11", False),
    ],
)
def test_the_keys_to_leave_are_found_and_all_others_go_through(
    typed: list[bytes], through: bytes, *, pressed: bool
) -> None:
    keys = DetachKeys()

    assert b"".join(map(keys, typed)) == through
    assert keys.pressed == pressed
