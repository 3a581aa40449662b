"""The program for `init: true` at work: as pid 1 of a pid namespace, with busybox's shell as what it runs."""

from __future__ import annotations

import contextlib
import os
import platform
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.kernel.init import ensure, program
from tests.kit.patience import patient

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a pid namespace is made"),
    pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is not installed"),
    pytest.mark.skipif(
        platform.machine() not in {"x86_64", "aarch64"}, reason="a machine without our program"
    ),
]

SPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(ensure(tmp_path_factory.mktemp("init")))


def run(*command: str, **options: object) -> tuple[int, str, str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=patient(60), **options)  # type: ignore[call-overload]
    return done.returncode, done.stdout, done.stderr


def shell(init: str, script: str) -> tuple[int, str, str]:
    return run(*SPACE, init, "--", "busybox", "sh", "-c", script)


@contextlib.contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    # Whoever runs the tests may ignore signals (nohup(1)), and a shell can't trap what is ignored.
    command = ("env", "--default-signal", *command)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def child_of(pid: int) -> int:
    """The only child of a process, as the host numbers it."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


# --- how it ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 7, 126, 255])
def test_it_ends_as_the_program_ends(init: str, code: int) -> None:
    assert shell(init, f"exit {code}")[0] == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_program_killed_by_a_signal_is_128_and_the_signal(init: str, number: int) -> None:
    assert shell(init, f"kill -{int(number)} $$")[0] == 128 + number


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["no-such-program"], 127, "init: no-such-program: not found\n"),
        (["/no/such/program"], 127, "init: /no/such/program: not found\n"),
        (["/etc/passwd/program"], 127, "init: /etc/passwd/program: not found\n"),
        (["/etc/passwd"], 126, "init: /etc/passwd: permission denied\n"),
        (["/etc"], 126, "init: /etc: permission denied\n"),
        ([""], 127, "init: : not found\n"),
        ([], 127, "init: no program to run\n"),
    ],
)
def test_a_program_that_cannot_run_is_127_or_126(init: str, command: list[str], code: int, said: str) -> None:
    assert run(*SPACE, init, "--", *command) == (code, "", said)


def test_a_file_that_is_no_program_is_126(init: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "text").chmod(0o755)
    assert run(init, str(tmp_path / "text")) == (126, "", f"init: {tmp_path / 'text'}: cannot be executed\n")


def test_the_program_is_searched_on_its_path(init: str, tmp_path: Path) -> None:
    """In order; what may not be run doesn't hide what may; overlong and empty parts do no harm."""
    first, second = tmp_path / "first", tmp_path / "second"
    for place, mode in ((first, 0o644), (second, 0o755)):
        place.mkdir()
        (place / "greet").write_text("#!/bin/sh\necho hello $0\n")
        (place / "greet").chmod(mode)
    path = f"{'x' * 5000}:{first}:{second}:/bin"
    assert run(init, "greet", env={"PATH": path}) == (0, f"hello {second}/greet\n", "")
    code, _, said = run(init, "greet", env={"PATH": f"{first}:/bin"})
    assert (code, said) == (126, "init: greet: permission denied\n")
    assert run(init, "greet", env={"PATH": ":/bin"}, cwd=second)[0] == 0
    assert run(init, "greet", env={"PATH": ""}, cwd=second)[0] == 0
    assert run(init, "g" * 5000, env={"PATH": "/bin"})[0] == 127
    assert run(init, "true", env={})[0] == 0


def test_arguments_and_environment_arrive_as_they_were(init: str) -> None:
    code, output, _ = run(
        init, "sh", "-c", 'printf "%s|" "$@"; echo "$A"', "sh", "--", "", "a b", env={"A": "ä\n"}
    )
    assert (code, output) == (0, "--||a b|ä\n\n")


# --- orphans -----------------------------------------------------------------------------------------


def test_two_hundred_orphans_leave_no_zombie(init: str) -> None:
    """Each inner shell starts a process in the background and ends, which makes it an orphan."""
    script = """
        i=0; while [ $i -lt 200 ]; do (busybox sleep 0.1 & ) ; i=$((i+1)); done
        n=0; while [ $n -lt 100 ]; do
            left=$(busybox grep -l '^PPid:.1$' /proc/[0-9]*/status | busybox wc -l)
            [ $left -le 1 ] && break; busybox sleep 0.05; n=$((n+1))
        done
        echo $left $(busybox grep -c 'State:.Z' /proc/[0-9]*/status | busybox grep -c ':1$')
    """
    assert shell(init, script)[:2] == (0, "1 0\n")


def test_the_storm_of_orphans_does_not_hide_the_end_of_the_program(init: str) -> None:
    """Many SIGCHLD become one; the program's own death is among them."""
    script = "i=0; while [ $i -lt 300 ]; do (busybox true &); i=$((i+1)); done; exit 42"
    assert [shell(init, script)[0] for _ in range(5)] == [42] * 5


def test_an_inherited_ignored_sigchld_does_not_hide_it_either(init: str) -> None:
    ignoring = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""
    assert run(sys.executable, "-c", ignoring, init, "sh", "-c", "exit 42")[0] == 42


def test_without_a_pid_namespace_it_buries_orphans_as_well(init: str) -> None:
    """`pid: host`: it asks to be the one that orphans go to."""
    script = "(busybox sleep 5 & echo $!); busybox sleep 0.1; exec busybox sleep 5"
    with started(init, "busybox", "sh", "-c", script) as process:
        orphan = int(line(process))
        assert until(lambda: parent_of(orphan) == process.pid)
        os.kill(orphan, signal.SIGKILL)
        assert until(lambda: not Path(f"/proc/{orphan}").exists())
        process.send_signal(signal.SIGTERM)
        assert process.wait(patient(10)) == 128 + 15


def parent_of(pid: int) -> int:
    found = re.search(r"^PPid:\t(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + patient(seconds)
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# --- signals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "TSTP", "WINCH", "CONT"])
def test_a_signal_is_passed_on(init: str, name: str) -> None:
    """To the program, which answers it and goes on; then TERM ends it without a handler."""
    script = f"trap 'echo got {name}' {name}; echo ready; while :; do busybox sleep 0.05; done"
    with started(*SPACE, init, "--", "busybox", "sh", "-c", script) as process:
        assert line(process) == "ready\n"
        os.kill(child_of(process.pid), signal.Signals[f"SIG{name}"])
        assert line(process) == f"got {name}\n"
        assert process.poll() is None
        if name != "TERM":
            os.kill(child_of(process.pid), signal.SIGTERM)
            assert process.wait(patient(10)) == 128 + 15


def test_a_signal_goes_to_the_program_alone(init: str) -> None:
    """Not to what the program started: a shell decides itself whom it tells."""
    script = "trap 'kill -0 $! && echo alive; exit 3' TERM; busybox sleep 30 & echo $!; wait"
    with started(*SPACE, init, "--", "busybox", "sh", "-c", script) as process:
        line(process)
        os.kill(child_of(process.pid), signal.SIGTERM)
        assert line(process) == "alive\n"
        assert process.wait(patient(10)) == 3


def test_a_signal_that_comes_before_the_program_runs_is_not_lost(init: str) -> None:
    """Started with all signals blocked and one TERM already waiting, as the launcher may do it."""
    early = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_SETMASK, range(1, 65))
os.kill(os.getpid(), signal.SIGTERM)
os.execv(sys.argv[1], sys.argv[1:])
"""
    code, output, _ = run(sys.executable, "-c", early, init, "busybox", "sleep", "30")
    assert (code, output) == (128 + 15, "")


def test_the_program_starts_with_no_signal_blocked(init: str) -> None:
    code, output, _ = shell(init, "busybox grep SigBlk /proc/$$/status")
    assert (code, output) == (0, "SigBlk:\t0000000000000000\n")


# --- the terminal ------------------------------------------------------------------------------------


def test_on_a_terminal_ctrl_c_reaches_the_program(init: str) -> None:
    """The program's process group stands in front of the terminal; nobody gets the signal twice."""
    pid, master = pty.fork()
    if pid == 0:
        script = "trap 'echo interrupted; exit 5' INT; echo ready; while :; do busybox sleep 0.05; done"
        os.execv(init, [init, "--", "busybox", "sh", "-c", script])
    seen = b""
    try:
        for wanted, answer in ((b"ready", b"\x03"), (b"interrupted", b"")):
            deadline = time.monotonic() + patient(10)
            while wanted not in seen and time.monotonic() < deadline:
                seen += os.read(master, 1000)
            assert wanted in seen
            if answer:
                os.write(master, answer)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    finally:
        os.close(master)


# --- the other machine -------------------------------------------------------------------------------


def test_the_arm_program_works_in_an_emulator(tmp_path: Path) -> None:
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("qemu-user is not installed")
    path = tmp_path / "init"
    path.write_bytes(program("aarch64"))
    path.chmod(0o755)
    assert run(emulator, str(path), "--", "sh", "-c", "exit 42")[0] == 42
    assert run(emulator, str(path), "sh", "-c", "kill -9 $$")[0] == 128 + 9
    assert run(emulator, str(path), "no-such-program") == (127, "", "init: no-such-program: not found\n")
    with started(
        emulator,
        str(path),
        "sh",
        "-c",
        "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.1; done",
    ) as process:
        assert line(process) == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert line(process) == "got\n"
        assert process.wait(patient(10)) == 3
