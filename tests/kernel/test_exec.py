"""A second program in a running container: `pystack exec`, health checks."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.kernel import capabilities, packets, syscalls, terminal
from tests.kit.keeper import DOCKER_CAPABILITIES, Machine, Refused, Run, until

pytestmark = pytest.mark.kernel


@pytest.fixture
def machine(state_root: Path) -> Iterator[Machine]:
    with Machine(state_root) as machine:
        yield machine


@pytest.fixture
def run(machine: Machine) -> Run:
    """A container that goes on."""
    return machine.start(["sleep", "100"])


def in_terminal(machine: Machine, run: Run, script: str, **process: object) -> tuple[int, int]:
    """Start a shell script with a terminal: its pidfd and the master."""
    wanted = {"args": ["sh", "-c", script], "cwd": "/", "terminal": True, **process}
    _, fds = machine.client.ask("exec", id="tty", container=run.name, process=wanted)
    for fd in fds:
        machine.own(fd)
    return fds[0], fds[1]


def read_until(master: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        seen += os.read(master, 4096)
    return seen


def test_it_runs_inside_and_its_exit_code_is_told(machine: Machine, run: Run) -> None:
    code, out, err = machine.exec(run, ["sh", "-c", "hostname; cat /proc/1/cmdline; echo err >&2; exit 7"])
    assert (code, out.replace("\0", " "), err) == (7, f"{run.name}\nsleep 100 ", "err\n")


def test_it_is_in_all_the_containers_namespaces(machine: Machine, run: Run) -> None:
    script = "cd /proc/self/ns; for n in mnt uts ipc pid net cgroup; do readlink $n; done"
    found = machine.exec(run, ["sh", "-c", script])[1].split()
    names = ("mnt", "uts", "ipc", "pid", "net", "cgroup")
    assert found == [os.readlink(f"/proc/{run.pid}/ns/{name}") for name in names]


def test_it_has_the_privileges_of_the_container(machine: Machine, run: Run) -> None:
    status = machine.exec(run, ["cat", "/proc/self/status"])[1]
    wanted = f"{capabilities.mask(DOCKER_CAPABILITIES):016x}"
    assert f"CapEff:\t{wanted}\n" in status
    assert f"CapBnd:\t{wanted}\n" in status
    for zero in ("CapInh", "CapAmb", "SigIgn", "SigBlk"):
        assert f"{zero}:\t{0:016x}\n" in status
    assert "NoNewPrivs:\t0" in status


def test_privileged_means_all_that_there_is(machine: Machine, run: Run) -> None:
    status = machine.exec(run, ["cat", "/proc/self/status"], privileged=True)[1]
    here = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd")
    )
    assert here.replace("CapBnd", "CapEff") in status.splitlines()


def test_no_new_privileges_is_the_containers(machine: Machine) -> None:
    run = machine.start(["sleep", "100"], process={"noNewPrivileges": True})
    assert machine.exec(run, ["grep", "NoNewPrivs", "/proc/self/status"])[1] == "NoNewPrivs:\t1\n"


def test_nothing_but_stdio_is_open(machine: Machine, run: Run) -> None:
    assert machine.exec(run, ["ls", "/proc/self/fd"])[1].split() == ["0", "1", "2", "3"]


def test_user_directory_and_environment(machine: Machine) -> None:
    """Of the container unless it is said otherwise."""
    run = machine.start(
        ["sleep", "100"], launch={"user": "app"}, process={"env": ["PATH=/bin", "A=1"], "cwd": "/etc"}
    )
    script = ["sh", "-c", "id -un; pwd; echo $A $B $HOME"]
    assert machine.exec(run, script)[1].split() == ["app", "/", "1", "/home/app"]
    other = {"user_name": "web:app", "cwd": "/tmp", "env": ["PATH=/bin", "B=2"]}
    assert machine.exec(run, [*script[:2], "id -un; id -gn; pwd; echo $A $B $HOME"], **other)[1].split() == [
        "web",
        "app",
        "/tmp",
        "2",
        "/var",
    ]
    assert machine.exec(run, ["id", "-u"], user={"uid": 4321, "gid": 1})[1] == "4321\n"


def test_errors_are_those_of_a_shell(machine: Machine, run: Run) -> None:
    for args, code in ((["foo"], 127), (["/etc"], 126)):
        with pytest.raises(Refused) as refused:
            machine.exec(run, args)
        assert refused.value.exit_code == code
    with pytest.raises(Refused) as refused:
        machine.exec(run, ["true"], cwd="/no/where")
    assert refused.value.step == "cwd"


def test_a_container_that_does_not_run(machine: Machine) -> None:
    run = machine.start(["true"])
    run.wait()
    with pytest.raises(Refused) as refused:
        machine.exec(run, ["true"])
    assert refused.value.errno == 3


def test_it_ends_with_the_container(machine: Machine, run: Run) -> None:
    pipes = [os.open("/dev/null", os.O_RDWR) for _ in range(3)]
    wanted = {"args": ["sleep", "100"], "cwd": "/"}
    _, fds = machine.client.ask("exec", pipes, id="long", container=run.name, process=wanted)
    packets.close([*pipes, *fds])
    run.kill()
    assert machine.client.exited("long")["exit_code"] == 137
    assert run.wait() == 137


def test_it_can_be_signalled_by_its_pidfd(machine: Machine, run: Run) -> None:
    pidfd, master = in_terminal(machine, run, "trap 'exit 3' USR1; echo ready; while :; do sleep 0.05; done")
    read_until(master, b"ready")
    syscalls.pidfd_send_signal(pidfd, signal.SIGUSR1)
    assert machine.client.exited("tty")["exit_code"] == 3


def test_a_hundred_in_flight(machine: Machine, run: Run) -> None:
    null = machine.own(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
    wanted = {"args": ["sh", "-c", "exit $((1 + 1))"], "cwd": "/"}
    tags = [
        machine.client.send("exec", [null] * 3, id=f"e{n}", container=run.name, process=wanted)
        for n in range(100)
    ]
    for tag in tags:
        packets.close(machine.client.reply(tag)[1])
    assert [machine.client.exited(f"e{n}")["exit_code"] for n in range(100)] == [2] * 100


def test_in_a_crowd_that_asks_at_once_each_gets_its_own_answer(machine: Machine, run: Run) -> None:
    null = machine.own(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
    asked = [
        ("a", run.name, 3),
        ("a", run.name, 3),
        ("b", "nobody", 3),
        ("c", run.name, 2),
        ("d", run.name, 3),
    ]
    answers: list[object] = []
    with stopped(machine):
        tags = [
            machine.client.send(
                "exec", [null] * count, id=name, container=container, process={"args": ["true"]}
            )
            for name, container, count in asked
        ]
    for tag in tags:
        try:
            packets.close(machine.client.reply(tag)[1])
            answers.append("runs")
        except Refused as refused:
            answers.append(refused.errno)
    assert answers == ["runs", errno.EBUSY, errno.ESRCH, errno.EINVAL, "runs"]
    assert [machine.client.exited(name)["exit_code"] for name in "ad"] == [0, 0]


def test_a_crowd_costs_the_keeper_fewer_copies_of_its_pages(machine: Machine, run: Run) -> None:
    """Those that were asked for at once are forked one right after the other."""
    null = machine.own(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
    names = [f"e{number}" for number in range(25)]

    def ask(name: str) -> int:
        return machine.client.send(
            "exec", [null] * 3, id=name, container=run.name, process={"args": ["true"]}
        )

    def end(name: str, tag: int) -> None:
        packets.close(machine.client.reply(tag)[1])
        assert machine.client.exited(name)["exit_code"] == 0

    begun = faults(machine)
    for name in names:
        end(name, ask(name))
    singly, begun = faults(machine) - begun, faults(machine)
    with stopped(machine):
        tags = [ask(name) for name in names]
    for name, tag in zip(names, tags, strict=True):
        end(name, tag)
    assert faults(machine) - begun < 0.7 * singly


@contextlib.contextmanager
def stopped(machine: Machine) -> Iterator[None]:
    """The keeper finds all that was asked for meanwhile when it goes on."""
    machine.keeper.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        machine.keeper.send_signal(signal.SIGCONT)


def faults(machine: Machine) -> int:
    """Pages that the keeper has had to copy or to get so far (field 10 of proc_pid_stat(5))."""
    return int(Path(f"/proc/{machine.keeper.pid}/stat").read_text().rpartition(") ")[2].split()[7])


def test_a_terminal(machine: Machine, run: Run) -> None:
    """Its own session on the container's devpts, with the size that was asked for, until it is resized."""
    size = {"height": 11, "width": 22}
    script = "tty; stty size; trap 'stty size; exit 6' WINCH; echo ready; while :; do sleep 0.05; done"
    _, master = in_terminal(machine, run, script, consoleSize=size)
    assert b"/dev/pts/0\r\n11 22\r\n" in read_until(master, b"ready")
    terminal.resize(master, 44, 55)
    assert b"44 55" in read_until(master, b"44 55")
    assert machine.client.exited("tty")["exit_code"] == 6


def test_a_terminal_passes_ctrl_c(machine: Machine, run: Run) -> None:
    _, master = in_terminal(machine, run, "trap 'exit 5' INT; echo ready; while :; do sleep 0.05; done")
    read_until(master, b"ready")
    os.write(master, b"\x03")
    assert machine.client.exited("tty")["exit_code"] == 5


def test_a_closed_terminal_hangs_up(machine: Machine, run: Run) -> None:
    wanted = {
        "args": ["sh", "-c", "trap 'exit 8' HUP; echo ready; while :; do sleep 0.05; done"],
        "terminal": True,
    }
    _, fds = machine.client.ask("exec", id="tty", container=run.name, process=wanted)
    read_until(fds[1], b"ready")
    packets.close(fds)
    assert machine.client.exited("tty")["exit_code"] == 8


def test_a_planted_multiplexer_is_refused(machine: Machine) -> None:
    """With no devpts mount the image's own /dev/pts/ptmx is found: a FIFO must neither block nor serve."""
    (machine.image / "dev/pts").mkdir(parents=True)
    os.mkfifo(machine.image / "dev/pts/ptmx")
    run = machine.start(["sleep", "100"], config={"mounts": []})
    wanted = {"args": ["true"], "terminal": True}
    with pytest.raises(Refused) as refused:
        machine.client.ask("exec", id="tty", container=run.name, process=wanted)
    assert refused.value.step == "terminal"


def test_a_socket_as_output(machine: Machine, run: Run) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wanted = {"args": ["echo", "hi"], "cwd": "/"}
        fd = theirs.fileno()
        _, fds = machine.client.ask("exec", [fd, fd, fd], id="sock", container=run.name, process=wanted)
        packets.close(fds)
        assert ours.recv(10) == b"hi\n"
    machine.client.exited("sock")


def test_it_joins_the_containers_cgroups(machine: Machine) -> None:
    name = f"pystack-test-{os.getpid()}-exec"
    top = next(
        line.split()[1]
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if line.split()[2] in ("cgroup", "cgroup2") and "cpuset" not in line
    )
    os.mkdir(f"{top}/{name}")
    try:
        run = machine.start(["sleep", "100"], launch={"cgroups": [f"{top}/{name}"]})
        _, master = in_terminal(machine, run, "echo ready; sleep 100")
        read_until(master, b"ready")
        assert len(Path(f"{top}/{name}/cgroup.procs").read_text().split()) >= 2
        run.kill()
        machine.client.exited("tty")
        run.wait()
    finally:
        until(lambda: not Path(f"{top}/{name}/cgroup.procs").read_text(), "an empty group")
        os.rmdir(f"{top}/{name}")


def test_the_entering_process_cannot_be_opened_from_inside(machine: Machine) -> None:
    """CVE-2019-5736: the container looks for /proc/PID/exe of whoever enters, to write to the interpreter.

    It is root in there and looks as fast as it can while commands come in: it never gets hold of anything
    but its own programs.
    """
    hunter = """
        trap 'exit 0' TERM
        echo ready
        while :; do
            for p in /proc/[0-9]*; do
                exe=$(readlink $p/exe 2>/dev/null) || continue
                case $exe in /bin/busybox|'') ;; *) echo "caught $exe" >> /caught ;; esac
            done
        done
    """
    run = machine.start(["sh", "-c", hunter])
    run.said("ready")
    for _ in range(40):
        machine.exec(run, ["true"])
    assert machine.exec(run, ["cat", "/caught"])[1] == ""
    assert stat.S_ISREG(os.stat("/proc/self/exe").st_mode)
