"""The blocking client, against real sockets and real processes."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import __version__
from orchestrator.api import client
from orchestrator.api.paths import Paths
from orchestrator.model.errors import ExitCode, PystackError
from tests.kit import family
from tests.unit.cli.scripted import Scripted, Talk

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a supervisor")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.find(str(tmp_path), {})


def test_a_call_carries_our_version_and_returns_the_result(paths: Paths) -> None:
    def answer(talk: Talk) -> None:
        talk.send({"event": "action"})
        talk.end({"seen": talk.request})

    with Scripted(paths, answer):
        result = client.call(paths, {"verb": "ping", "n": 1})

    assert result == {"seen": {"verb": "ping", "n": 1, "version": __version__}}


def test_an_error_at_the_end_is_raised_with_its_exit_code(paths: Paths) -> None:
    with (
        Scripted(paths, lambda talk: talk.end(exit_code=7, error="port 80 is taken")),
        pytest.raises(PystackError, match="port 80 is taken") as caught,
    ):
        client.call(paths, {"verb": "up"})

    assert caught.value.exit_code is ExitCode.CONFLICT


def test_a_supervisor_that_goes_in_the_middle_is_an_error(paths: Paths) -> None:
    with (
        Scripted(paths, lambda talk: talk.send({"event": "action"})),
        pytest.raises(PystackError, match="was lost in the middle") as caught,
    ):
        client.call(paths, {"verb": "up"})

    assert caught.value.exit_code is ExitCode.SUPERVISOR


def test_a_question_is_asked_again_when_the_supervisor_is_killed_under_it(paths: Paths) -> None:
    asked: list[str] = []

    def answer(talk: Talk) -> None:
        asked.append(str(talk.request["verb"]))
        if len(asked) > 1:
            talk.end({"rows": 3})

    with Scripted(paths, answer):
        assert client.ask(paths, {"verb": "ps"}) == {"rows": 3}
    assert asked == ["ps", "ps"]

    with (
        Scripted(paths, lambda talk: asked.append("again")),
        pytest.raises(PystackError, match="was lost in the middle"),
    ):
        client.ask(paths, {"verb": "ps"})
    assert asked[2:] == ["again"] * client.ATTEMPTS


def test_descriptors_travel_both_ways(paths: Paths) -> None:
    def answer(talk: Talk) -> None:
        data = os.read(talk.fds[0], 100)
        read_end, write_end = os.pipe()
        os.write(write_end, data.upper())
        os.close(write_end)
        talk.send({"event": "terminal"}, fds=[read_end])
        os.close(read_end)
        talk.end()

    read_end, write_end = os.pipe()
    os.write(write_end, b"hello")
    with Scripted(paths, answer), client.Connection(paths, {"verb": "exec"}, [read_end]) as connection:
        list(connection.lines())
        (received,) = connection.received_fds

    assert os.read(received, 100) == b"HELLO"
    assert not os.get_inheritable(received)
    for fd in (read_end, write_end, received):
        os.close(fd)


def test_large_messages_and_messages_midway_arrive(paths: Paths) -> None:
    big = "x" * 3_000_000

    def answer(talk: Talk) -> None:
        more = talk.receive()
        talk.end([talk.request["big"] == big, more])

    with Scripted(paths, answer), client.Connection(paths, {"verb": "up", "big": big}) as connection:
        connection.send({"signal": 15})
        *_, last = connection.lines()

    assert last["end"]["result"] == [True, {"signal": 15}]


def test_nobody_there_is_told_in_a_sentence(paths: Paths) -> None:
    assert not client.alive(paths)
    with pytest.raises(PystackError, match="no supervisor is running") as caught:
        client.call(paths, {"verb": "ps"})
    assert caught.value.exit_code is ExitCode.SUPERVISOR


def test_a_socket_that_a_dead_supervisor_left_counts_as_nobody(paths: Paths) -> None:
    paths.run.mkdir()
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(paths.socket)
    stale.close()

    assert not client.alive(paths)


def test_there_is_nothing_to_ask_where_no_stack_was_ever_made(paths: Paths) -> None:
    assert client.idle(paths)
    assert client.ask(paths, {"verb": "ps"}) is None

    (paths.data / "stacks").mkdir(parents=True)
    assert client.idle(paths)

    (paths.data / "stacks" / "shop").mkdir()
    assert not client.idle(paths)


def test_a_path_too_long_for_a_socket_address_works(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    paths = Paths.find(str(deep), {})
    paths.run.mkdir()
    here = os.getcwd()
    os.chdir(paths.run)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind("supervisor.sock")
        listener.listen()
        assert client.alive(paths)
    finally:
        os.chdir(here)
        listener.close()


# --- starting a supervisor ------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands where the Python interpreter would: the test writes a shell script into it."""
    script = tmp_path / "interpreter"
    monkeypatch.setattr(sys, "executable", str(script))
    yield script
    family.bury(10)


def _write(script: Path, text: str) -> None:
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)


@needs_root
def test_it_is_ready_when_it_says_so_and_has_a_session_and_no_terminal_of_its_own(
    paths: Paths, program: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report"
    _write(
        program,
        f'echo "$@" >{report}; readlink /proc/self/fd/0 /proc/self/cwd >>{report}; '
        f'cut -d" " -f1,6 /proc/$$/stat >>{report}; umask >/dev/null; '
        f"ls /proc/self/fd | tr '\\n' ' ' >>{report}; echo >>{report}; "
        f"env | sort >>{report}; echo said; printf 1 >&3",
    )
    leaked = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leaked, True)  # noqa: FBT003 - the system's own words
    os.environ["SECRET_OF_THE_USER"] = "1"
    try:
        client.ensure_supervisor(paths)
    finally:
        os.close(leaked)
        del os.environ["SECRET_OF_THE_USER"]

    arguments, stdin, cwd, identity, fds, *environment = report.read_text().splitlines()
    assert arguments == f"-m orchestrator.daemon --run {paths.run_dir} --data {paths.data_dir} --ready-fd 3"
    assert (stdin, cwd) == ("/dev/null", "/")
    pid, session = identity.split()
    assert pid == session
    assert str(leaked) not in fds.split()[3:]
    assert not [line for line in environment if line.startswith("SECRET")]
    assert paths.run.stat().st_mode & 0o777 == 0o700
    assert Path(paths.log).stat().st_mode & 0o777 == 0o600
    assert os.getcwd() != "/"


@needs_root
def test_one_that_dies_is_told_with_its_last_words(paths: Paths, program: Path) -> None:
    _write(program, "echo 'the kernel has no overlayfs' >&2; exit 5")

    with pytest.raises(PystackError, match="the kernel has no overlayfs") as caught:
        client.ensure_supervisor(paths)

    assert caught.value.exit_code is ExitCode.SUPERVISOR
    assert "exit code 5" in caught.value.message
    assert paths.log in caught.value.hint


@needs_root
def test_the_words_of_an_earlier_supervisor_are_not_taken_for_its_own(paths: Paths, program: Path) -> None:
    paths.run.mkdir()
    Path(paths.log).write_text("old news\n")
    _write(program, "echo fresh >&2; exit 1")

    with pytest.raises(PystackError, match="fresh") as caught:
        client.ensure_supervisor(paths)

    assert "old news" not in caught.value.message


@needs_root
def test_the_loser_of_two_waits_for_the_winners_socket(paths: Paths, program: Path) -> None:
    _write(program, "exit 0")
    servers: list[Scripted] = []

    def open_late() -> None:
        time.sleep(0.15)
        server = Scripted(paths, lambda talk: talk.end())
        server.__enter__()
        servers.append(server)

    late = threading.Thread(target=open_late)
    late.start()
    client.ensure_supervisor(paths)
    late.join()

    assert client.alive(paths)
    servers[0].__exit__()
