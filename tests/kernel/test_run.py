"""`run` and `exec`: programs that a client waits for, reads from, writes to and may leave."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import termios
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.model import codec
from orchestrator.model.stack import Service
from tests.kit.site import Answer, Site, Talk, until

pytestmark = pytest.mark.kernel

STACK = """
    name: NAME
    services:
      a: {x-rootfs: {path: $BOX}, command: sleep 100}
      needed: {x-rootfs: {path: $BOX}, command: sleep 100}
"""


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    try:
        yield reading, writing
    finally:
        for fd in (reading, writing):
            with contextlib.suppress(OSError):
                os.close(fd)


def begin_run(
    site: Site,
    name: str,
    *command: str,
    fds: tuple[int, ...] = (),
    more: dict[str, Any] | None = None,
    **options: Any,
) -> Talk:
    """A one-off of service `a` as the command line makes it."""
    stack = site.stack(STACK.replace("NAME", name))
    oneoff: Service = replace(
        stack.services["a"],
        name="a-run-0123456789ab",
        container_name=f"{name}-a-run-0123456789ab",
        command=command,
        oneoff=True,
        remove_on_exit=bool(options.get("remove")),
        **(more or {}),
    )
    wish = replace(stack, services={**stack.services, oneoff.name: oneoff})
    return site.begin("run", fds, stack=codec.encode(wish), service=oneoff.name, **options)


def printed(site: Site, talk: Talk) -> bytes:
    """What the one-off of an answer has printed, while its container is there."""
    records = site.records(talk.event("container")["id"])
    return b"".join(r.text + (b"\n" if r.flag == b"F" else b"") for r in records if r.stream == b"stdout")


def test_a_run_returns_the_exit_code_and_is_removed_if_asked(site: Site) -> None:
    talk = begin_run(site, "r1", "sh", "-c", "echo out; exit 42", remove=True)
    assert talk.wait().exit_code == 42
    until(lambda: site.ps("r1") == [], "its removal")
    kept = begin_run(site, "r1", "sh", "-c", "echo out")
    assert kept.wait().exit_code == 0
    assert printed(site, kept) == b"out\n"
    assert [row["oneoff"] for row in site.ps("r1")] == [True]
    site.down("r1")
    assert not any(site.places.stacks.glob("r1/**"))


def test_what_a_run_reads_comes_from_the_client_and_ends_with_it(site: Site) -> None:
    with pipe() as (reading, writing):
        talk = begin_run(site, "r2", "sh", "-c", "cat; echo end", fds=(reading,))
        os.close(reading)
        os.write(writing, b"some input\n")
        until(lambda: b"some input" in printed(site, talk), "the first line")
        os.close(writing)
        assert talk.wait().exit_code == 0
    assert printed(site, talk) == b"some input\nend\n"
    site.down("r2")


def test_a_run_without_a_client_s_input_reads_nothing(site: Site) -> None:
    talk = begin_run(site, "r3", "sh", "-c", "cat; echo end")
    assert talk.wait().exit_code == 0
    assert printed(site, talk) == b"end\n"
    site.down("r3")


def test_signals_of_the_client_reach_the_run(site: Site) -> None:
    talk = begin_run(site, "r4", "sh", "-c", "trap 'exit 33' USR1; echo ready; while :; do sleep 0.05; done")
    until(lambda: b"ready" in printed(site, talk), "ready")
    talk.connection.send({"signal": int(signal.SIGUSR1)})
    assert talk.wait().exit_code == 33
    site.down("r4")


def test_a_client_that_goes_takes_its_run_along(site: Site) -> None:
    talk = begin_run(site, "r5", "sleep", "1000", remove=True)
    talk.event("container")
    talk.leave()
    until(lambda: site.ps("r5") == [], "no one-off")
    site.down("r5")


def test_a_detached_run_goes_on_and_is_removed_at_its_end(site: Site) -> None:
    talk = begin_run(site, "r6", "sleep", "0.5", remove=True, detach=True)
    assert talk.wait().exit_code == 0
    assert [row["state"] for row in site.ps("r6")] == ["running"]
    until(lambda: site.ps("r6") == [], "no one-off")
    site.down("r6")


def test_a_run_whose_command_is_not_there_ends_with_127(site: Site) -> None:
    answer = begin_run(site, "r7", "no-such-thing", remove=True).wait()
    assert answer.exit_code == 127
    assert "no-such-thing" in answer.error
    until(lambda: site.ps("r7") == [], "its removal")
    site.down("r7")


def test_a_run_whose_dependency_fails_ends_with_the_reason(site: Site) -> None:
    text = """
        name: r8
        services:
          sick: {x-rootfs: {path: $BOX}, command: "false"}
          a:
            x-rootfs: {path: $BOX}
            command: sleep 100
            depends_on: {sick: {condition: service_completed_successfully}}
    """
    stack = site.stack(text)
    oneoff = replace(stack.services["a"], name="a-run-1", container_name="r8-a-run-1", oneoff=True)
    wish = replace(stack, services={**stack.services, oneoff.name: oneoff})
    answer = site.begin("run", stack=codec.encode(wish), service="a-run-1", remove=True).wait()
    assert answer.exit_code == 1
    assert "sick" in answer.error
    site.down("r8")


def test_a_run_on_a_terminal_has_its_size_its_input_and_its_signals(site: Site) -> None:
    script = (
        "stty size; read line; echo got $line; trap 'exit 44' INT; echo ready; while :; do sleep 0.05; done"
    )
    talk = begin_run(site, "r9", "sh", "-c", script, more={"tty": True, "stdin_open": True})
    talk.event("terminal")
    [master] = until(lambda: list(talk.connection.received_fds), "a terminal")
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 99, 0, 0))
    os.write(master, b"hello\n")
    until(lambda: b"got hello" in printed(site, talk), "an answer")
    until(lambda: b"ready" in printed(site, talk), "ready")
    os.write(master, b"\x03")
    assert talk.wait().exit_code == 44
    os.close(master)
    site.down("r9")


# --- exec -------------------------------------------------------------------------------------------------


def test_exec_returns_the_code_and_both_streams(site: Site) -> None:
    site.up(STACK.replace("NAME", "e1"))
    assert (
        site.execute("e1", "a", "sh", "-c", "cat; echo err >&2; exit 5", stdin=b"in", exit_code=5)
        == "inerr\n"
    )
    assert "not found" in refusal(site, "e1", "no-such-thing", exit_code=127).error
    assert "denied" in refusal(site, "e1", "/etc/passwd", exit_code=126).error
    site.execute("e1", "a", "sh", "-c", "kill -9 $$", exit_code=137)
    assert "too long" in refusal(site, "e1", "sh", "-c", "x" * 200_000, exit_code=126).error.replace(
        "at most", "too long"
    )
    site.down("e1")


def refusal(site: Site, name: str, *command: str, exit_code: int) -> Answer:
    return site.ask("exec", exit_code=exit_code, stack=name, service="a", command=list(command))


def test_exec_into_what_does_not_run_is_refused(site: Site) -> None:
    site.up(STACK.replace("NAME", "e2"))
    site.ask("stop", stack="e2", services=["a"], timeout=0)
    assert "not running" in refusal(site, "e2", "true", exit_code=1).error
    assert (
        "no such service" in site.ask("exec", exit_code=1, stack="e2", service="zz", command=["true"]).error
    )
    for verb, said in (
        ("exec", 'service "a" is not running'),
        ("start", 'no container found for project "nope"'),
        ("restart", 'no container found for project "nope"'),
        ("kill", 'no container found for project "nope"'),
    ):
        answer = site.ask(verb, exit_code=1, stack="nope", service="a", services=["a"], command=["true"])
        assert answer.error == said
    site.ask("stop", stack="nope", services=["a"])
    site.down("e2")


def test_a_client_that_goes_takes_its_exec_along(site: Site) -> None:
    site.up(STACK.replace("NAME", "e3"))
    talk = site.begin(
        "exec", stack="e3", service="a", command=["sh", "-c", "trap '' HUP; sleep 777 & wait; wait"]
    )
    until(lambda: "sleep 777" in site.execute("e3", "a", "ps"), "the process")
    talk.leave()
    until(lambda: "sleep 777" not in site.execute("e3", "a", "ps"), "its end")
    site.down("e3")


def test_exec_on_a_terminal_has_a_size_and_passes_signals(site: Site) -> None:
    site.up(STACK.replace("NAME", "e4"))
    script = "stty size; echo $TERM; trap 'exit 21' WINCH; echo ready; while :; do sleep 0.05; done"
    talk = site.begin(
        "exec", stack="e4", service="a", command=["sh", "-c", script], tty=True, rows=33, columns=101
    )
    talk.event("terminal")
    [master] = until(lambda: list(talk.connection.received_fds), "a terminal")
    said = b""
    while b"ready" not in said:
        said += os.read(master, 1000)
    assert said.startswith(b"33 101\r\nxterm\r\n")
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    assert talk.wait().exit_code == 21
    os.close(master)
    site.down("e4")


def test_exec_goes_on_detached(site: Site) -> None:
    site.up(STACK.replace("NAME", "e5"))
    site.ask("exec", stack="e5", service="a", command=["sh", "-c", "sleep 0.2; touch /done"], detach=True)
    until(lambda: "done" in site.execute("e5", "a", "ls", "/"), "its work")
    site.down("e5")


def test_nothing_is_lost_over_two_hundred_execs_and_restarts(site: Site) -> None:
    """Descriptors of the supervisor and the keeper are as many as before."""
    site.up(
        """
        name: e6
        services:
          a:
            x-rootfs: {path: $BOX}
            command: sleep 100
            healthcheck: {test: "true", interval: 20ms}
        """
    )

    def held() -> dict[int, int]:
        return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in (site.supervisor, site.keeper)}

    for _ in range(3):
        site.ask("exec", stack="e6", service="a", command=["true"])
    site.ask("restart", stack="e6", timeout=0)
    time.sleep(0.3)
    before = held()
    for number in range(200):
        if number % 10 == 0:
            site.ask("restart", stack="e6", timeout=0)
        with pipe() as (reading, _):
            site.ask("exec", [reading, reading, reading], stack="e6", service="a", command=["true"])
    until(
        lambda: all(count <= before[pid] + 3 for pid, count in held().items()),
        f"{before}",
        lambda: str(held()),
    )
    site.down("e6")


WAITING = """
    name: NAME
    services:
      a:
        x-rootfs: {path: $BOX}
        command: sleep 100
        depends_on: [mid]
      mid:
        x-rootfs: {path: $BOX}
        command: sleep 100
        depends_on: {slow: {condition: service_healthy}}
      slow:
        x-rootfs: {path: $BOX}
        command: sleep 100
        healthcheck: {test: [CMD, test, -e, /ok], interval: 100ms, retries: 1000}
"""


def test_a_run_that_is_given_up_while_others_start_leaves_only_these(site: Site) -> None:
    """As docker compose: what runs already runs on, what does not is not started, and no one-off is left."""
    stack = site.stack(WAITING.replace("NAME", "g1"))
    oneoff = replace(stack.services["a"], name="a-run-1", container_name="g1-a-run-1", oneoff=True)
    wish = replace(stack, services={**stack.services, oneoff.name: oneoff})
    talk = site.begin("run", stack=codec.encode(wish), service="a-run-1", remove=False)
    site.becomes("g1", "slow", state="running")
    talk.leave()
    until(lambda: all(not row["oneoff"] for row in site.ps("g1")), "no one-off")
    site.execute("g1", "slow", "touch", "/ok")
    site.becomes("g1", "slow", health="healthy")
    time.sleep(0.3)
    assert {row["service"]: row["state"] for row in site.ps("g1")} == {"slow": "running", "mid": "created"}
    assert set(site.ask("stack", stack="g1").result["stack"]["services"]) == {"a", "mid", "slow"}
    site.up(WAITING.replace("NAME", "g1"))
    assert {row["state"] for row in site.ps("g1")} == {"running"}
    site.down("g1")


def test_a_run_that_its_client_leaves_to_itself_runs_on(site: Site) -> None:
    """Ctrl-P Ctrl-Q; a client that merely goes takes it along (above)."""
    talk = begin_run(site, "g2", "sh", "-c", "trap 'exit 3' HUP; while :; do sleep 0.05; done", remove=True)
    talk.event("container")
    talk.connection.send({"detach": True})
    talk.leave()
    time.sleep(0.5)
    (row,) = site.ps("g2")
    assert row["state"] == "running"
    os.kill(row["pid"], signal.SIGKILL)
    until(lambda: site.ps("g2") == [], "its removal at its end")
    site.down("g2")


def test_an_exec_on_a_terminal_that_its_client_leaves_to_itself_runs_on(site: Site) -> None:
    """Its terminal stays open, and what it prints holds it up no more than before."""
    site.up(STACK.replace("NAME", "g3"))
    script = (
        "echo ready; for i in $(seq 3000); do echo a line that somebody might have read; done; touch /done"
    )
    go = "read x; " + script
    talk = site.begin(
        "exec", stack="g3", service="a", command=["sh", "-c", go], tty=True, rows=24, columns=80
    )
    talk.event("terminal")
    [master] = until(lambda: list(talk.connection.received_fds), "a terminal")
    talk.connection.send({"detach": True})
    time.sleep(0.2)
    os.write(master, b"go\n")
    os.close(master)
    talk.connection.received_fds.clear()
    talk.leave()
    until(lambda: site.execute("g3", "a", "ls", "/done", exit_code=None) == "/done\n", "the end of its work")
    site.down("g3")
