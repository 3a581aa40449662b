"""The keeper: what it promises about starts, exits, the store and the supervisor, on the real kernel."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.kernel import packets, syscalls
from tests.kit.keeper import REMEMBERS_EXITS, SCRIPT, Machine, Refused, until
from tests.kit.patience import patient

pytestmark = pytest.mark.kernel

SUPERVISOR = """
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.kit.keeper import Client
client = Client(Path(sys.argv[1]))
client.ask("hello", respawn=[sys.executable, *sys.argv], environ={"MARK": "again"})
def leave(*_):
    client.ask("goodbye")
    sys.exit()
signal.signal(signal.SIGTERM, leave)
said = {"mark": os.environ["MARK"], "cwd": os.getcwd(), "session": os.getsid(0), "pid": os.getpid()}
Path(sys.argv[2] + ".new").write_text(json.dumps(said))
os.rename(sys.argv[2] + ".new", sys.argv[2])
while True:
    signal.pause()
"""


@pytest.fixture
def machine(state_root: Path) -> Iterator[Machine]:
    with Machine(state_root) as machine:
        yield machine


def test_a_program_runs_and_its_exit_code_is_told(machine: Machine) -> None:
    assert machine.outcome(["sh", "-c", "echo out; echo err >&2; exit 3"]) == (3, "out\n", "err\n")


def test_death_by_signal_is_128_and_the_signal(machine: Machine) -> None:
    run = machine.start(["sleep", "100"])
    run.kill()
    end = machine.client.exited(run.name)
    assert (end["exit_code"], end["signal"]) == (137, 9)


def test_the_exit_record_is_on_disk_before_the_event(machine: Machine) -> None:
    for number in range(10):
        run = machine.start(["sh", "-c", "exit 42"], name=f"record{number}")
        end = machine.client.exited(run.name)
        record = run.record()
        assert record["exit_code"] == 42
        assert record["at"] == end["at"]
        assert record["pid"] == run.pid
        assert record["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_the_birth_record_names_the_very_process(machine: Machine) -> None:
    run = machine.start(["sleep", "100"])
    born = json.loads((run.bundle / "pid.json").read_text())
    started = Path(f"/proc/{run.pid}/stat").read_text().rpartition(") ")[2].split()[19]
    assert (born["pid"], born["start_time"]) == (run.pid, int(started))


def test_a_second_start_of_a_running_id_is_refused(machine: Machine) -> None:
    run = machine.start(["sleep", "100"])
    with pytest.raises(Refused) as refused:
        machine.start(["true"], name=run.name)
    assert refused.value.errno == 16  # EBUSY
    assert (run.bundle / "pid.json").exists()


def test_an_id_can_be_started_again_after_its_end(machine: Machine) -> None:
    assert machine.outcome(["sh", "-c", "exit 1"], name="again")[0] == 1
    assert machine.outcome(["sh", "-c", "exit 2"], name="again")[0] == 2


def test_fifty_starts_are_in_flight_at_once(machine: Machine) -> None:
    """All requests are sent before the first reply is read; each gets its own answer."""
    prepared = [machine.prepare(f"flight{n}", ["sh", "-c", f"echo {n}; exit {n}"]) for n in range(50)]
    tags = [machine.request(run) for run in prepared]
    for run, tag in zip(prepared, tags, strict=True):
        machine.confirm(run, tag)
    assert [run.wait() for run in prepared] == list(range(50))
    assert [run.output() for run in prepared] == [f"{n}\n" for n in range(50)]


def test_the_reply_comes_before_the_end(machine: Machine) -> None:
    """However short the life: a client never hears of the end of something it doesn't know to run."""
    watcher = machine.client
    for number in range(20):
        run = machine.prepare(f"short{number}", ["true"])
        machine.request(run)
        first, fds = packets.receive(watcher.sock) or ({}, [])
        second, _ = packets.receive(watcher.sock) or ({}, [])
        packets.close(fds)
        assert ("pid" in first, second.get("event")) == (True, "exited")


def test_containers_outlive_the_supervisors_connection(machine: Machine) -> None:
    """The supervisor's side is cut; the next one is told what runs, and how the rest ended is on disk."""
    lives = machine.start(["sleep", "100"])
    dies = machine.start(["sh", "-c", "read line < /proc/self/fd/0; sleep 0.2; exit 7"])
    machine.client.close()
    until((dies.bundle / "exit.json").exists, "the exit record")
    assert dies.record()["exit_code"] == 7
    machine.client = machine.connect()
    assert machine.hello()["runs"] == [{"id": lives.name, "pid": lives.pid}]


def test_a_killed_supervisor_is_started_again(machine: Machine) -> None:
    """The keeper runs the command it was given, with its environment, until somebody says hello."""
    mark = machine.root / "respawned"
    script = machine.root / "supervisor.py"
    script.write_text(SUPERVISOR)
    checkout = Path(__file__).parents[2]
    command = [sys.executable, str(script), str(machine.socket), str(mark), str(checkout)]
    first = subprocess.Popen(command, env={"MARK": "first"})
    until(mark.exists, "the first supervisor")
    mark.unlink()
    first.kill()
    first.wait()
    until(mark.exists, "the second supervisor")
    said = json.loads(mark.read_text())
    assert said["mark"] == "again"
    assert said["cwd"] == "/"
    assert said["session"] == said["pid"]
    assert said["pid"] != first.pid
    # The new one is a child of the keeper; it says goodbye when told to end.
    os.kill(said["pid"], signal.SIGTERM)
    machine.keeper.wait(patient(10))


def test_a_supervisor_that_fails_at_once_is_tried_with_growing_pauses(machine: Machine) -> None:
    count = machine.root / "count"
    script = f"date +%s%N >> {count}"
    hello = (
        "import sys; from pathlib import Path; from tests.kit.keeper import Client; "
        "Client(Path(sys.argv[1])).ask('hello', respawn=sys.argv[2:], environ={'PATH': '/bin:/usr/bin'})"
    )
    command = [sys.executable, "-c", hello, str(machine.socket), "/bin/sh", "-c", script]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
    until(lambda: count.exists() and len(count.read_text().split()) >= 4, "four attempts")
    times = [int(text) / 1e9 for text in count.read_text().split()][:4]
    pauses = [later - sooner for sooner, later in pairwise(times)]
    assert pauses[0] < pauses[1] < pauses[2]
    assert pauses[0] >= 0.1
    machine.hello()


def test_after_goodbye_nobody_is_started_again(machine: Machine) -> None:
    mark = machine.root / "mark"
    run = machine.start(["sleep", "100"])
    machine.hello(respawn=["/bin/touch", str(mark)])
    machine.client.ask("goodbye")
    machine.client.close()
    time.sleep(0.2)
    assert not mark.exists()
    assert machine.keeper.poll() is None
    run.kill()
    machine.keeper.wait(patient(10))
    assert run.record()["exit_code"] == 137


def test_the_keeper_goes_with_goodbye_when_nothing_runs(machine: Machine) -> None:
    machine.outcome(["true"])
    machine.client.ask("goodbye")
    assert machine.keeper.wait(patient(10)) == 0
    assert [path.name for path in machine.run_dir.iterdir()] == ["bundles"]


def test_a_new_supervisor_that_comes_as_the_old_one_leaves_is_served(machine: Machine) -> None:
    """It has connected and not spoken yet: the keeper waits for what it has to say."""
    successor = machine.connect()
    tag = successor.send("hello", respawn=[], environ={})
    # Refused when the successor was heard first: then the old one has nothing to say any more.
    with contextlib.suppress(Refused):
        machine.client.ask("goodbye")
    assert successor.reply(tag)[0]["runs"] == []
    machine.client.close()
    machine.client = successor
    assert machine.outcome(["true"])[0] == 0


def test_a_killed_keeper_takes_no_container_along(machine: Machine) -> None:
    """The container lives on; the next keeper can enter it, and a newer kernel knows its exit code."""
    run = machine.start(["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"])
    run.said("ready")
    machine.kill_keeper()
    assert machine.hello()["runs"] == []
    with pytest.raises(Refused):
        machine.exec(run, ["hostname"])
    adopted = {"bundle": str(run.bundle), "pid": run.pid}
    assert machine.exec(run, ["hostname"], request=adopted) == (0, f"{run.name}\n", "")
    run.kill(signal.SIGTERM)
    if not REMEMBERS_EXITS:
        until(lambda: not os.path.exists(f"/proc/{run.pid}"), "somebody to reap it")
        assert syscalls.pidfd_exit_status(run.pidfd) is None
        return
    until(lambda: syscalls.pidfd_exit_status(run.pidfd) is not None, "somebody to reap it")
    assert os.waitstatus_to_exitcode(syscalls.pidfd_exit_status(run.pidfd) or 0) == 9


def test_a_recycled_pid_is_never_entered(machine: Machine) -> None:
    """pid.json of a container that is gone, whose number now is somebody else's."""
    run = machine.start(["sleep", "100"])
    born = json.loads((run.bundle / "pid.json").read_text())
    machine.kill_keeper()
    (run.bundle / "pid.json").write_text(json.dumps({**born, "start_time": born["start_time"] - 1}))
    with pytest.raises(Refused) as refused:
        machine.exec(run, ["true"], request={"bundle": str(run.bundle)})
    assert refused.value.errno == 3  # ESRCH


def test_only_one_keeper_a_run_directory(machine: Machine) -> None:
    second = subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), str(machine.run_dir)], timeout=patient(10)
    )
    assert second.returncode == 0
    assert machine.outcome(["true"])[0] == 0


def test_another_user_is_not_served(machine: Machine) -> None:
    """Even with the socket opened wide, the peer's uid decides."""
    machine.socket.chmod(0o777)
    machine.run_dir.chmod(0o711)
    knock = """
import os, socket
os.setgid(65534), os.setuid(65534)
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect("keeper.sock")
try:
    sock.send(b'{"op":"hello"}')
    answer = sock.recv(1000)
except (ConnectionResetError, BrokenPipeError):
    answer = b""
print(answer)
"""
    command = [sys.executable, "-I", "-c", knock]
    said = subprocess.run(command, cwd=machine.run_dir, capture_output=True, text=True)
    assert (said.stdout, said.stderr) == ("b''\n", "")


def test_descriptors_are_kept_under_a_name(machine: Machine) -> None:
    """They survive the connection that stored them, and are the very same open files."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    machine.client.ask("store", [reader, writer], key="pipe")
    os.write(writer, b"hello")
    packets.close([reader, writer])
    machine.client.close()
    machine.client = machine.connect()
    assert machine.hello()["stored"] == [{"key": "pipe", "count": 2}]
    _, fds = machine.client.ask("fetch", key="pipe")
    assert os.read(fds[0], 10) == b"hello"
    packets.close(fds)
    with pytest.raises(Refused):
        machine.client.ask("store", [0], key="pipe")
    machine.client.ask("store", [0], key="pipe", replace=True)
    machine.client.ask("discard", keys=["pipe", "unknown"])
    with pytest.raises(Refused) as refused:
        machine.client.ask("fetch", key="pipe")
    assert refused.value.errno == 2


def test_a_long_list_comes_in_several_packets(machine: Machine) -> None:
    for number in range(1200):
        machine.client.send("store", [0], key=f"k{number}")
    tag = machine.client.send("hello", respawn=[], environ={})
    kept = 0
    while True:
        message, _ = machine.client.reply(tag)
        stored = message["stored"]
        assert isinstance(stored, list)
        kept += len(stored)
        if not message.get("more"):
            break
    assert kept == 1200


def test_nonsense_is_answered_and_does_no_harm(machine: Machine) -> None:
    for data in (b"{", b"[]", b"\xff", b'{"op":"dance"}', b'{"op":5}', b"[" * 5000):
        packets.send(machine.client.sock, data)
        reply = packets.receive(machine.client.sock)
        assert reply is not None
        assert "error" in reply[0]
    for op in ("start", "exec", "store", "fetch"):
        with pytest.raises(Refused):
            machine.client.ask(op)
    assert machine.outcome(["true"])[0] == 0


def test_strangers_are_reaped(machine: Machine) -> None:
    """What a container without a pid namespace leaves behind becomes the keeper's child, and no zombie."""
    namespaces = ("mount", "uts", "ipc", "network", "cgroup")
    script = "(setsid sleep 0.3 & echo $! > /tmp/orphan) & wait; cat /tmp/orphan"
    orphan = int(machine.shell(script, namespaces=namespaces))
    until(lambda: not Path(f"/proc/{orphan}").exists(), "the orphan to be reaped")


def test_the_keepers_descriptors_do_not_grow(machine: Machine) -> None:
    def held() -> int:
        return len(os.listdir(f"/proc/{machine.keeper.pid}/fd"))

    machine.outcome(["true"])
    before = held()
    for number in range(10):
        machine.outcome(["true"], name=f"grow{number}")
        with pytest.raises(Refused):
            machine.start(["nothing"], name=f"fail{number}")
    run = machine.start(["sleep", "100"])
    machine.exec(run, ["true"])
    assert held() == before + 1  # the pidfd of the one that runs


def test_a_failed_start_leaves_no_process_and_no_record(machine: Machine) -> None:
    run = machine.prepare("failing", ["true"], launch={"cgroups": ["/nowhere"]})
    with pytest.raises(Refused) as refused:
        machine.confirm(run, machine.request(run))
    assert refused.value.step == "cgroups"
    assert not (run.bundle / "pid.json").exists()
    children = Path(f"/proc/{machine.keeper.pid}/task/{machine.keeper.pid}/children").read_text()
    assert children == ""


def test_a_start_killed_in_the_middle_is_an_error(machine: Machine) -> None:
    """A FIFO as seed state makes the child wait for its lock holder; it is killed there."""
    state, data = machine.root / "state", machine.root / "data"
    data.mkdir()
    state.write_text("pending")
    holder = os.open(state, os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_EX)
    seed = [{"target": "/home", "data": str(data), "state": str(state)}]
    run = machine.prepare("stuck", ["true"], launch={"seed": seed})
    tag = machine.request(run)
    until((run.bundle / "pid.json").exists, "the child")
    os.kill(json.loads((run.bundle / "pid.json").read_text())["pid"], signal.SIGKILL)
    with pytest.raises(Refused) as refused:
        machine.confirm(run, tag)
    os.close(holder)
    assert "killed" in refused.value.message


def test_a_start_takes_a_few_milliseconds(machine: Machine) -> None:
    """A guard against accidents, many times what is usual (6-9 ms); the benchmark has the real figure."""
    times = []
    for number in range(20):
        run = machine.prepare(f"quick{number}", ["true"])
        began = time.perf_counter()
        machine.confirm(run, machine.request(run))
        times.append(time.perf_counter() - began)
        run.wait()
    assert statistics.median(times) < patient(0.1)
