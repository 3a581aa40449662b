"""`exec`: descriptors, signals, terminals, exit codes."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.api.paths import Paths
from orchestrator.cli.execute import Stdio, environment
from tests.unit.cli import command
from tests.unit.cli.scripted import Scripted, Talk

STACK = "name: shop\nservices:\n  web:\n    x-rootfs: host\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "stack.yml").write_text(STACK)
    return tmp_path


def _serve(root: Path, answer: Callable[[Talk], None]) -> Scripted:
    return Scripted(Paths.find(str(root), {}), answer)


def _child(script: str) -> Callable[[Talk], None]:
    """Runs a shell command on the descriptors that came, as a container would."""

    def answer(talk: Talk) -> None:
        stdin, stdout, stderr = talk.fds
        process = subprocess.Popen(["sh", "-c", script], stdin=stdin, stdout=stdout, stderr=stderr)
        for fd in talk.fds:
            os.close(fd)
        talk.fds = []

        def signals() -> None:
            while (message := talk.receive()) is not None:
                process.send_signal(message["signal"])

        threading.Thread(target=signals, daemon=True).start()
        code = process.wait(20)
        talk.end(exit_code=code if code >= 0 else 128 - code)

    return answer


def _exec(root: Path, *words: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [*command.MAIN, "--root", str(root), "exec", *words],
        input=stdin,
        capture_output=True,
        cwd=root,
        env=command.environment(),
        timeout=20,
    )
    return done.returncode, done.stdout, done.stderr


def test_input_output_and_code_are_the_commands(root: Path) -> None:
    with _serve(root, _child("cat; echo oops >&2; exit 7")):
        assert _exec(root, "web", "x", stdin=b"\0bytes\xff") == (7, b"\0bytes\xff", b"oops\n")


def test_the_request_says_all_that_the_line_says(root: Path) -> None:
    with _serve(root, _child("true")) as server:
        words = ("-u", "root", "-w", "/srv", "-e", "A=1", "--index", "2", "--privileged", "web", "ls", "-l")
        _exec(root, *words)

    (request,) = server.requests
    assert (
        request.items()
        >= {
            "verb": "exec",
            "stack": "shop",
            "service": "web",
            "command": ["ls", "-l"],
            "user": "root",
            "workdir": "/srv",
            "environment": {"A": "1"},
            "index": 2,
            "privileged": True,
            "tty": False,
            "detach": False,
        }.items()
    )


def test_a_file_is_not_handed_over_but_its_bytes_are(root: Path, tmp_path: Path) -> None:
    """A container with our uid could open /proc/self/fd/0 for writing."""
    source, sink = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"x" * 1_000_000)
    kinds: list[str] = []

    def answer(talk: Talk) -> None:
        kinds.extend(os.readlink(f"/proc/self/fd/{fd}")[:5] for fd in talk.fds)
        _child("cat")(talk)

    with _serve(root, answer), source.open("rb") as stdin, sink.open("wb") as stdout:
        done = subprocess.run(
            [*command.MAIN, "--root", str(root), "exec", "web", "cat"],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            cwd=root,
            env=command.environment(),
            timeout=20,
        )

    assert done.returncode == 0
    assert sink.read_bytes() == source.read_bytes()
    assert kinds == ["pipe:", "pipe:", "/dev/"]


def test_without_tty_a_terminal_of_ours_never_reaches_the_container(root: Path) -> None:
    kinds: list[bool] = []

    def answer(talk: Talk) -> None:
        kinds.extend(os.isatty(fd) for fd in talk.fds)
        _child("cat")(talk)

    with _serve(root, answer):
        terminal = command.OnTerminal(root, "exec", "-T", "web", "cat")
        terminal.type(b"hello\n")
        terminal.until(b"hello\r\nhello\r\n")
        terminal.type(b"\x04")
        assert terminal.end() == 0
        terminal.close()

    assert kinds == [False, False, False]


def test_signals_are_passed_on(root: Path) -> None:
    with _serve(root, _child("trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.05; done")):
        process = subprocess.Popen(
            [*command.MAIN, "--root", str(root), "exec", "web", "x"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=root,
            env=command.environment(),
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"got it\n"
        process.stdout.close()
        assert process.wait(20) == 9


def test_whoever_ignores_ctrl_c_is_left_at_the_third(root: Path) -> None:
    gone = threading.Event()

    def answer(talk: Talk) -> None:
        while talk.receive() is not None:
            pass
        gone.set()

    with _serve(root, answer) as server:
        process = command.start(root, "exec", "web", "x")
        while not server.requests:
            time.sleep(0.01)
        time.sleep(0.1)
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        process.communicate(timeout=20)
        assert gone.wait(10)

    assert process.returncode == 130


@pytest.mark.parametrize(
    ("code", "message"), [(127, "nosuch: not found"), (126, "not executable"), (1, "not running")]
)
def test_what_could_not_be_run_is_told(root: Path, code: int, message: str) -> None:
    with _serve(root, lambda talk: talk.end(exit_code=code, error=message)):
        got, out, err = _exec(root, "web", "nosuch")

    assert (got, out) == (code, b"")
    assert message in err.decode()


# --- on a terminal --------------------------------------------------------------------------------------


def _on_terminal(script: str, sizes: list[tuple[int, int]] | None = None) -> Callable[[Talk], None]:
    """Runs a shell command on a new terminal and sends its master, as the keeper does."""

    def answer(talk: Talk) -> None:
        assert talk.fds == []
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (talk.request["rows"], talk.request["columns"]))
        process = subprocess.Popen(
            ["sh", "-c", script], stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        if sizes is not None:
            sizes.append((talk.request["rows"], talk.request["columns"]))
        talk.send({"event": "terminal"}, fds=[master])
        os.close(master)

        def end() -> None:
            code = process.wait(20)
            with contextlib.suppress(BrokenPipeError):
                talk.end(exit_code=code)

        ending = threading.Thread(target=end)
        ending.start()
        while talk.receive() is not None:
            pass
        process.terminate()
        ending.join()

    return answer


def test_keys_and_screen_are_the_commands_and_our_terminal_is_restored(root: Path) -> None:
    sizes: list[tuple[int, int]] = []
    with _serve(root, _on_terminal("stty size; read line; echo got $line; exit 5", sizes)):
        terminal = command.OnTerminal(root, "exec", "web", "sh", rows=33, columns=101)
        terminal.until(b"33 101")
        assert not terminal.restored
        terminal.type(b"some words\r")
        terminal.until(b"got some words")
        assert terminal.end() == 5
        assert terminal.restored
        terminal.close()

    assert sizes == [(33, 101)]


def test_a_new_size_of_our_window_reaches_the_command(root: Path) -> None:
    script = 'echo ready; while [ "$(stty size)" != "44 122" ]; do sleep 0.02; done; stty size'
    with _serve(root, _on_terminal(script)):
        terminal = command.OnTerminal(root, "exec", "web", "sh")
        terminal.until(b"ready")
        termios.tcsetwinsize(terminal.master, (44, 122))
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.until(b"44 122")
        terminal.end()
        terminal.close()


def test_ctrl_c_is_a_key_for_the_command(root: Path) -> None:
    with _serve(root, _on_terminal("stty raw; echo ready; head -c1 | od -An -tx1")):
        terminal = command.OnTerminal(root, "exec", "web", "sh")
        terminal.until(b"ready")
        terminal.type(b"\x03")
        terminal.until(b" 03")
        assert terminal.end() == 0
        terminal.close()


def test_our_terminal_is_restored_when_we_are_terminated(root: Path) -> None:
    with _serve(root, _on_terminal("echo ready; sleep 20")):
        terminal = command.OnTerminal(root, "exec", "web", "sh")
        terminal.until(b"ready")
        terminal.process.terminate()
        assert terminal.end() == 143
        assert terminal.restored
        terminal.close()


def test_much_pasted_text_neither_blocks_nor_gets_lost(root: Path) -> None:
    """The command writes back all it reads: if we waited for it to read, both would wait for ever."""
    with _serve(root, _on_terminal("stty raw -echo; echo ready; head -c 200000 | tee /dev/null | wc -c >&2")):
        terminal = command.OnTerminal(root, "exec", "web", "sh")
        terminal.until(b"ready")
        feeder = threading.Thread(target=terminal.type, args=(b"x" * 200_000,))
        feeder.start()
        terminal.until(b"200000")
        feeder.join()
        assert terminal.end() == 0
        terminal.close()


# --- parts ----------------------------------------------------------------------------------------------


def test_a_variable_without_value_is_ours_and_absent_if_we_have_none() -> None:
    assert environment(("A=1", "B=", "HOME", "NONE", "A=2=3"), {"HOME": "/root"}) == {
        "A": "2=3",
        "B": "",
        "HOME": "/root",
    }


def test_pipes_that_were_made_are_closed() -> None:
    before = set(os.listdir("/proc/self/fd"))
    stdio = Stdio()
    stdio.hand_over()
    stdio.close()

    assert set(os.listdir("/proc/self/fd")) == before
