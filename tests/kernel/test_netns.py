"""Network namespaces as descriptors."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from orchestrator.kernel import netns
from tests.kit.wires import run

pytestmark = pytest.mark.kernel


def here() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def test_a_new_namespace_is_empty_and_the_thread_stays_where_it_was() -> None:
    home = here()
    made = netns.create()
    try:
        assert here() == home
        assert os.fstat(made).st_ino != home
        assert [line.split(": ")[1] for line in run(made, "ip", "-o", "link").splitlines()] == ["lo"]
        assert not os.get_inheritable(made)
    finally:
        os.close(made)


def test_a_thread_comes_back_also_from_an_error() -> None:
    home = here()
    made = netns.create()
    try:
        with netns.inside(made):
            assert here() == os.fstat(made).st_ino
        assert here() == home
        with pytest.raises(ZeroDivisionError), netns.inside(made):
            _ = 1 / 0
        assert here() == home
    finally:
        os.close(made)


def test_what_is_not_a_namespace_is_refused_and_nothing_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with open("/dev/null") as wrong, pytest.raises(OSError, match="setns"), netns.inside(wrong.fileno()):
        pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_socket_stays_in_the_namespace_it_was_opened_in() -> None:
    made = netns.create()
    try:
        run(made, "ip", "link", "set", "lo", "up")
        run(made, "ip", "addr", "add", "192.0.2.77/32", "dev", "lo")
        with closing(netns.socket_in(made, socket.AF_INET, socket.SOCK_DGRAM)) as inner:
            inner.bind(("192.0.2.77", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outer, pytest.raises(OSError):
            outer.bind(("192.0.2.77", 0))
    finally:
        os.close(made)


def test_threads_do_not_meet() -> None:
    """Eight threads go in and out of namespaces of their own; each always finds itself where it should be."""
    home = here()

    def wander(_: int) -> bool:
        made = netns.create()
        try:
            for _ in range(50):
                with netns.inside(made):
                    if here() != os.fstat(made).st_ino:
                        return False
                if here() != home:
                    return False
            return True
        finally:
            os.close(made)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(wander, range(8)))
