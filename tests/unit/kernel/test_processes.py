"""Processes as /proc has them, against what this process knows of itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from orchestrator.kernel.processes import processes, terminal


def test_a_process_is_described() -> None:
    (own,) = processes([os.getpid()])
    assert (own.pid, own.parent, own.uid) == (os.getpid(), os.getppid(), os.geteuid())
    assert 0 < own.started <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert abs(own.cpu - time.process_time()) < 1
    assert "python" in own.command or "pytest" in own.command


def test_names_that_look_like_fields_and_zombies_are_no_obstacle() -> None:
    code = "open('/proc/self/comm', 'w').write(') Z 1 (x'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-Sc", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        (found,) = processes([child.pid])
        assert found.parent == os.getpid()
        child.communicate(b"\n")
    dead = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
    (zombie,) = processes([dead])
    assert zombie.command == "[true]"
    os.waitpid(dead, 0)
    assert processes([dead]) == ()


def test_terminals_by_their_numbers() -> None:
    assert terminal(os.makedev(136, 3)) == "pts/3"
    assert terminal(os.makedev(137, 1)) == "pts/257"
    assert terminal(os.makedev(4, 2)) == "tty2"
    assert terminal(os.makedev(4, 64)) == "ttyS0"
    assert terminal(0) == "?"
