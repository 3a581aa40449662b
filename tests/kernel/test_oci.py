"""`pystack-oci` from create to delete, as an engine drives it, on the real kernel."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.kernel import capabilities
from tests.kit.keeper import DOCKER_CAPABILITIES
from tests.kit.oci import Console, Runtime, end, reap, until
from tests.kit.ordinary import Ordinary
from tests.kit.patience import patient

pytestmark = pytest.mark.kernel

WAIT = ["sh", "-c", "trap 'exit 7' TERM; trap 'echo one >> /sign' USR1; while :; do sleep 0.02; done"]


@pytest.fixture
def oci(tmp_path: Path) -> Iterator[Runtime]:
    with Runtime(tmp_path) as made:
        yield made


def signed(oci: Runtime, name: str, text: str) -> bool:
    file = oci.rootfs / name
    return file.exists() and file.read_text() == text


# --- the life of a container


def test_a_life_in_runcs_words(oci: Runtime) -> None:
    """Each operation in its state, and refused in every other with exit code 1 and no effect."""
    oci.bundle(WAIT, annotations={"org.example.key": "value"})
    assert "container does not exist" in oci.refused("state", "c")
    assert "container does not exist" in oci.refused("start", "c")
    assert "container does not exist" in oci.refused("kill", "c")
    assert "container does not exist" in oci.refused("delete", "c")

    oci.do("create", "--bundle", str(oci.home), "--pid-file", str(oci.path / "pid"), "c", cwd=Path("/"))
    state = oci.read_state("c")
    pid = state["pid"]
    assert state == {
        "ociVersion": "1.0.2",
        "id": "c",
        "pid": int((oci.path / "pid").read_text()),
        "status": "created",
        "bundle": str(oci.home),
        "rootfs": str(oci.rootfs),
        "created": state["created"],
        "annotations": {"org.example.key": "value"},
        "owner": "",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", state["created"])
    assert "already exists" in oci.refused("create", "c")
    assert "not stopped: created" in oci.refused("delete", "c")
    assert "container not paused" in oci.refused("resume", "c")
    assert oci.read_state("c") == state

    oci.do("start", "c")
    assert oci.read_state("c") == {**state, "status": "running"}
    assert "cannot start an already running container" in oci.refused("start", "c")
    assert "not stopped: running" in oci.refused("delete", "c")
    oci.do("kill", "c", "USR1")
    assert until(lambda: signed(oci, "sign", "one\n"))
    oci.do("kill", "c")

    # A zombie, for nobody has collected it yet, is no process any more.
    assert oci.wait("c") == {**state, "status": "stopped", "pid": 0}
    assert os.waitpid(pid, 0)[1] == 7 << 8
    stopped = oci.read_state("c")
    assert "cannot start a container that has stopped" in oci.refused("start", "c")
    assert "container not running" in oci.refused("kill", "c", "KILL")
    assert "container not running" in oci.refused("pause", "c")
    assert oci.read_state("c") == stopped
    oci.do("delete", "c")
    assert oci.ids() == []
    assert "container does not exist" in oci.refused("delete", "c")
    oci.do("delete", "--force", "c")


def test_later_edits_of_the_configuration_have_no_effect(oci: Runtime) -> None:
    oci.bundle(["sh", "-c", "echo first > /said"])
    oci.do("create", "c")
    oci.bundle(["sh", "-c", "echo second > /said"])
    oci.do("start", "c")
    oci.wait("c")
    assert (oci.rootfs / "said").read_text() == "first\n"


def test_run_ends_as_its_program_and_leaves_nothing(oci: Runtime) -> None:
    oci.bundle(["sh", "-c", "cat; echo told >&2; exit 9"])
    assert oci.ask("run", "c", stdin="given") == (9, "given", "told\n")
    assert oci.ids() == []
    oci.bundle(["sh", "-c", "kill -KILL $$"], namespaces=["mount"])
    assert oci.ask("run", "c").code == 137
    oci.bundle(["true"])
    oci.do("run", "--keep", "c")
    assert oci.status("c") == "stopped"


def test_run_passes_signals_on(oci: Runtime) -> None:
    oci.bundle(["sh", "-c", "trap 'exit 5' TERM; echo > /up; while :; do sleep 0.02; done"])
    child = oci.spawn("run", "c")
    assert until((oci.rootfs / "up").exists)
    child.terminate()
    assert child.wait(10) == 5
    assert oci.ids() == []


def test_run_detached_returns_at_once(oci: Runtime) -> None:
    oci.bundle(WAIT)
    oci.do("run", "-d", "--pid-file", str(oci.path / "pid"), "c")
    assert oci.status("c") == "running"
    assert Path(f"/proc/{(oci.path / 'pid').read_text()}/comm").read_text() == "sh\n"
    oci.do("delete", "-f", "c")
    assert oci.ids() == []


def test_an_id_is_never_a_path(oci: Runtime) -> None:
    oci.bundle(["true"])
    for name in ("..", "../c"):
        assert "invalid container ID format" in oci.refused("create", name)
        assert "invalid container ID format" in oci.refused("delete", "--force", name)
    assert sorted(os.listdir(oci.path)) == ["bundle", "err", "out"]


def test_state_is_for_its_owner_alone(oci: Runtime) -> None:
    oci.bundle(WAIT)
    oci.do("create", "+a.b_c-1")
    assert (oci.state / "+a.b_c-1").stat().st_mode & 0o777 == 0o700
    for file in (oci.state / "+a.b_c-1").iterdir():
        assert file.stat().st_mode & 0o077 == 0


def test_without_pivot_root_and_without_a_keyring_of_its_own(oci: Runtime) -> None:
    """For a root on an initramfs: the host's files can't be named all the same."""
    oci.bundle(["sh", "-c", f"ls {oci.path} || ls / | grep -c bin; grep -c . /proc/self/mountinfo"])
    said = oci.ask("run", "--no-pivot", "--no-new-keyring", "c")
    assert said.code == 0
    assert said.out.split()[0] == "1"
    assert "No such file" in said.err


def test_a_container_without_a_namespace_of_its_own(oci: Runtime) -> None:
    """Its root is all that it has; its mounts go with it."""
    tmpfs = {"destination": "/t", "type": "tmpfs", "source": "t"}
    oci.write(oci.config(WAIT, namespaces=[]) | {"mounts": [tmpfs]})
    before = Path("/proc/self/mountinfo").read_text()
    oci.do("run", "-d", "c")
    assert "passwd" in oci.do("exec", "c", "ls", "/etc")
    assert str(oci.rootfs) in Path("/proc/self/mountinfo").read_text()
    oci.do("delete", "--force", "c")
    assert Path("/proc/self/mountinfo").read_text() == before


def test_an_ordinary_user_runs_what_spec_writes(tmp_path: Path) -> None:
    """With one id, no control group, and state below XDG_RUNTIME_DIR."""
    with Ordinary(tmp_path) as user:
        command = [sys.executable, "-m", "orchestrator.oci"]
        user.do("mkdir", "b")
        user.do(*command, "spec", "--rootless", "--bundle", "b")
        file = user.home / "b/config.json"
        document = json.loads(file.read_text())
        document["process"] |= {"terminal": False, "args": ["sh", "-c", "id -u; id -g; touch /new && exit 3"]}
        document["root"] = {"path": str(user.box)}
        file.write_text(json.dumps(document))
        ran = user.do(*command, "run", "--bundle", "b", "c", exit_code=3)
        assert ran.stdout == "0\n0\n"
        assert "no control groups" in ran.stderr
        assert (user.box / "new").stat().st_uid == user.uid
        assert (tmp_path / "run/pystack-oci").is_dir()
        assert user.do(*command, "list", "-q").stdout == ""
        document["linux"]["resources"] = {"memory": {"limit": 1 << 26}}
        file.write_text(json.dumps(document))
        assert "control group" in user.do(*command, "run", "--bundle", "b", "c", exit_code=1).stderr


# --- what goes wrong leaves nothing


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ociVersion": "2.0.0"}, "ociVersion: unknown version specified: 2.0.0"),
        ({"ociVersion": "one"}, "ociVersion: 'one' is not a semantic version"),
        ({"root": None}, "root: missing"),
        ({"root": {"path": "nowhere"}}, "root.path"),
        (
            {"hooks": {"prestart": [{"path": "true"}]}},
            "hooks.prestart[0].path: 'true' is not an absolute path",
        ),
        ({"mounts": [{"destination": "/x", "type": "nofs", "source": "x"}]}, "nofs"),
    ],
)
def test_a_bad_configuration_is_named(oci: Runtime, change: dict[str, object], told: str) -> None:
    oci.write({**oci.config(["true"]), **change})
    assert told in oci.refused("create", "c")
    assert oci.ids() == []


def test_a_program_that_cannot_be_run_fails_at_create(oci: Runtime) -> None:
    """podman makes 127 and 126 of these words."""
    oci.bundle(["nosuch"])
    assert "executable file not found in $PATH" in oci.refused("create", "c").replace('\\"', '"')
    oci.bundle(["/etc/passwd"])
    assert "permission denied" in oci.refused("create", "c")
    assert oci.ids() == []


def test_a_pid_file_that_cannot_be_written_ends_the_container(oci: Runtime) -> None:
    oci.bundle(WAIT)
    assert "--pid-file" in oci.refused("create", "--pid-file", "/nowhere/pid", "c")
    assert oci.ids() == []


def test_a_create_that_was_killed_is_cleaned_by_delete_force(oci: Runtime) -> None:
    """SIGKILL in a hook, which is in the middle: processes and control groups are there by then."""
    hook = {
        "path": str(oci.rootfs / "bin/sh"),
        "args": ["sh", "-c", f"echo $$ > {oci.path}/in; exec sleep 600"],
    }
    oci.bundle(WAIT, hooks={"createRuntime": [hook]})
    child = oci.spawn("create", "c")
    assert until((oci.path / "in").exists)
    assert oci.status("c") == "creating"
    assert "still being created" in oci.ask("exec", "c", "true").err
    child.kill()
    child.wait()
    end(int((oci.path / "in").read_text()))
    assert oci.status("c") == "stopped"
    assert "already exists" in oci.refused("create", "c")
    oci.do("delete", "--force", "c")
    assert oci.ids() == []
    oci.bundle(["true"])
    oci.do("run", "c")


def test_a_recycled_pid_is_never_signalled(oci: Runtime) -> None:
    """The record names a process of another start time, or of another boot: it is not the container's."""
    oci.bundle(["true"])
    oci.do("run", "--keep", "c")
    victim = subprocess.Popen(["sleep", "60"])
    file = oci.state / "c/state.json"
    start = int(Path(f"/proc/{victim.pid}/stat").read_text().rpartition(") ")[2].split()[19])
    record = json.loads(file.read_text())
    for change in ({"start_time": start - 1}, {"start_time": start, "boot_id": "another"}):
        file.write_text(json.dumps({**record, "pid": victim.pid, **change}))
        assert oci.status("c") == "stopped"
        oci.refused("kill", "c", "KILL")
    oci.do("delete", "-f", "c")
    assert victim.poll() is None
    victim.kill()
    victim.wait()


# --- descriptors and terminals


def test_a_terminal_goes_to_the_console_socket(oci: Runtime) -> None:
    oci.bundle(
        ["sh", "-c", "tty; stty size; read word; echo got $word"],
        process={"terminal": True, "consoleSize": {"height": 33, "width": 99}},
    )
    assert "setting console socket" in oci.refused("create", "c")
    with Console(oci.path / "console") as console:
        oci.do("create", "--console-socket", str(console.path), "c")
        console.receive()
        oci.do("start", "c")
        assert console.until("33 99").split() == ["/dev/pts/0", "33", "99"]
        os.write(console.master, b"hello\n")
        console.until("got hello")
    oci.wait("c")


def test_a_console_socket_without_a_terminal_is_refused(oci: Runtime) -> None:
    oci.bundle(["true"])
    assert "will not detach or allocate tty" in oci.refused("create", "--console-socket", "/x", "c")


def test_preserved_descriptors_and_no_others(oci: Runtime) -> None:
    oci.bundle(["sh", "-c", "cat <&4; ls /proc/self/fd; echo $LISTEN_FDS $LISTEN_PID"])
    readers = []
    for text in (b"three", b"four\n", b"five"):
        reader, writer = os.pipe()
        os.write(writer, text)
        os.close(writer)
        readers.append(reader)
    kept = [os.dup2(reader, 70 + index) for index, reader in enumerate(readers)]
    script = " ".join(f"{place}<&{fd}" for place, fd in zip((3, 4, 5), kept, strict=True))
    out = oci.path / "out"
    for count, environ, listed in (("2", "", "0 1 2 3 4 5"), ("1", "LISTEN_FDS=1", "0 1 2 3 4 5")):
        command = shlex.join(oci.argv("run", "--preserve-fds", count, "c"))
        done = subprocess.run(
            ["bash", "-c", f"exec {script}; {environ} {command} > {out}"],
            pass_fds=kept,
            cwd=oci.home,
            check=False,
        )
        assert done.returncode == 0
        lines = out.read_text().splitlines()
        # The last is the directory that ls itself reads.
        assert " ".join(lines[-7:-1] if len(lines) > 7 else lines[:-1]) in (listed, f"four {listed}")
        assert lines[-1] == ("1 1" if environ else "")
    for fd in (*readers, *kept):
        os.close(fd)
    assert "preserved-fd 3" in oci.refused("run", "--preserve-fds", "1", "c")


# --- exec


def test_exec(oci: Runtime) -> None:
    oci.bundle(WAIT)
    oci.do("create", "c")
    oci.do("start", "c")
    assert oci.ask("exec", "c", "sh", "-c", "cat; echo err >&2; exit 4", stdin="in") == (4, "in", "err\n")
    options = ["-e", "A=1", "--env", "B=2", "--cwd", "/tmp", "-u", "1000:33", "-g", "29", "--no-new-privs"]
    script = "echo $A $B; pwd; id -u; id -G; grep NoNewPrivs /proc/self/status"
    said = oci.do("exec", *options, "c", "sh", "-c", script)
    assert said.split() == ["1", "2", "/tmp", "1000", "33", "29", "NoNewPrivs:", "1"]
    more = oci.do("exec", "--cap", "CAP_SYS_NICE", "c", "grep", "CapEff", "/proc/self/status")
    assert int(more.split()[1], 16) == capabilities.mask([*DOCKER_CAPABILITIES, "CAP_SYS_NICE"])
    missing = oci.ask("exec", "c", "nosuch")
    assert missing.code == 255
    assert "executable file not found in $PATH" in missing.err
    process = {"args": ["sh", "-c", "pwd; echo $X"], "cwd": "/etc", "env": ["PATH=/bin", "X=y"]}
    (oci.path / "process.json").write_text(json.dumps(process))
    assert oci.do("exec", "--process", str(oci.path / "process.json"), "c") == "/etc\ny\n"
    assert oci.ask("exec", "nobody", "true").code == 255
    oci.do("pause", "c")
    assert "paused" in oci.ask("exec", "c", "true").err


def test_exec_with_a_terminal_and_detached(oci: Runtime) -> None:
    """As conmon has it: a process file, a console socket, a pid file, and nobody who waits."""
    oci.bundle(WAIT)
    oci.do("create", "c")
    oci.do("start", "c")
    process = {
        "args": ["sh", "-c", "tty; read x; exit 6"],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "terminal": True,
    }
    file, pid_file = oci.path / "process.json", oci.path / "pid"
    file.write_text(json.dumps(process))
    with Console(oci.path / "console") as console:
        oci.do(
            "exec",
            "-p",
            str(file),
            "--console-socket",
            str(console.path),
            "--pid-file",
            str(pid_file),
            "-d",
            "c",
        )
        console.receive()
        assert "/dev/pts/0" in console.until("\n")
        os.write(console.master, b"\n")
        assert os.waitstatus_to_exitcode(os.waitpid(int(pid_file.read_text()), 0)[1]) == 6


# --- looking and changing


def test_pause_and_resume(oci: Runtime) -> None:
    oci.bundle(["sh", "-c", "while :; do echo x >> /beat; sleep 0.01; done"])
    oci.do("run", "-d", "c")
    beat = oci.rootfs / "beat"
    assert until(beat.exists)
    oci.do("pause", "c")
    assert oci.status("c") == "paused"
    before = beat.stat().st_size
    time.sleep(0.1)
    assert beat.stat().st_size == before
    assert "container not running" in oci.refused("pause", "c")
    oci.do("resume", "c")
    assert oci.status("c") == "running"
    assert until(lambda: beat.stat().st_size > before)
    oci.do("pause", "c")
    oci.do("kill", "c", "KILL")
    oci.wait("c")


def test_ps_list_and_kill_all(oci: Runtime) -> None:
    """Without a pid namespace the children outlive the first process; `kill --all` reaches them."""
    oci.bundle(["sh", "-c", "sleep 611 & sleep 612 & wait"], namespaces=["mount"])
    oci.do("run", "-d", "c")
    assert until(lambda: len(json.loads(oci.do("ps", "--format", "json", "c"))) == 3)
    table = oci.do("ps", "c").splitlines()
    assert table[0].split()[:2] == ["UID", "PID"]
    assert sorted(line.split()[-1] for line in table[2:]) == ["611", "612"]
    assert oci.do("ps", "c", "-o", "pid,args").splitlines()[0].split() == ["PID", "COMMAND"]
    assert oci.do("list", "-q") == "c\n"
    row = json.loads(oci.do("list", "--format", "json"))[0]
    assert (row["id"], row["status"], row["owner"]) == ("c", "running", "root")
    header, line = oci.do("list").splitlines()
    assert header.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert line.split()[:3] == ["c", str(row["pid"]), "running"]
    os.kill(row["pid"], signal.SIGKILL)
    oci.wait("c")
    oci.do("kill", "--all", "c", "TERM")
    assert until(lambda: json.loads(oci.do("ps", "-f", "json", "c")) == [])
    reap()
    oci.do("delete", "c")


def test_limits_are_set_read_and_changed(oci: Runtime) -> None:
    resources = {"memory": {"limit": 64 << 20}, "pids": {"limit": 50}}
    oci.bundle(WAIT, linux={"resources": resources})
    oci.do("run", "-d", "c")

    def figures() -> tuple[int, int]:
        stats = json.loads(oci.do("events", "--stats", "c"))
        assert (stats["type"], stats["id"]) == ("stats", "c")
        assert stats["data"]["cpu"]["usage"]["total"] > 0
        assert stats["data"]["memory"]["usage"]["usage"] > 0
        return stats["data"]["memory"]["usage"]["limit"], stats["data"]["pids"]["limit"]

    assert figures() == (64 << 20, 50)
    oci.do("update", "--memory", "96m", "--pids-limit", "60", "c")
    assert figures() == (96 << 20, 60)
    oci.do("update", "-r", "-", "c", stdin=json.dumps({"memory": {"limit": 80 << 20, "swap": 160 << 20}}))
    assert figures() == (80 << 20, 60)
    assert "resources.memory.limit" in oci.refused(
        "update", "-r", "-", "c", stdin='{"memory": {"limit": "1"}}'
    )
    assert "nothing to update" in oci.refused("update", "c")


def test_events_tell_of_memory_kills_and_of_the_end(oci: Runtime) -> None:
    script = "read go; dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 0.3"
    limit = {"memory": {"limit": 8 << 20, "swap": 8 << 20}}
    oci.bundle(["sh", "-c", script], linux={"resources": limit})
    child = oci.spawn("run", "c")
    assert until(lambda: oci.ids() == ["c"] and oci.status("c") == "running")
    events = oci.spawn("events", "--interval", "100ms", "c")
    assert events.stdout is not None
    assert json.loads(events.stdout.readline())["type"] == "stats"
    child.communicate("\n", timeout=20)
    kinds = {json.loads(line)["type"] for line in events.communicate(timeout=20)[0].splitlines()}
    assert "oom" in kinds
    assert events.returncode == 0


# --- hooks


def test_hooks_run_in_their_order_and_namespaces_with_the_state_on_stdin(oci: Runtime) -> None:
    log = oci.path / "log"
    log.mkdir()

    def hook(kind: str, inside: bool = False) -> dict[str, object]:
        # What is seen of the root tells where it runs; in the container the log is a mount.
        shell = "/bin/sh" if inside else str(oci.rootfs / "bin/sh")
        place = "/log" if inside else str(log)
        script = f"echo {kind} >> {place}/order; cat > {place}/{kind}; readlink /proc/self/ns/mnt > {place}/{kind}.ns"
        return {"path": shell, "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], "timeout": 5}

    hooks = {
        kind: [hook(kind, kind == "startContainer")]
        for kind in (
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        )
    }
    bind = {"destination": "/log", "type": "bind", "source": str(log), "options": ["bind"]}
    oci.bundle(["sh", "-c", "echo program >> /log/order"], hooks=hooks, mounts=[bind], annotations={"a": "b"})
    oci.do("create", "c")
    pid = oci.read_state("c")["pid"]
    order = log / "order"
    assert order.read_text().split() == ["prestart", "createRuntime", "createContainer"]
    oci.do("start", "c")
    oci.wait("c")
    oci.do("delete", "c")
    words = order.read_text().split()
    assert words[:4] == ["prestart", "createRuntime", "createContainer", "startContainer"]
    assert sorted(words[4:6]) == ["poststart", "program"]
    assert words[6:] == ["poststop"]
    states = {kind: json.loads((log / kind).read_text()) for kind in hooks}
    for kind, state in states.items():
        assert (state["id"], state["bundle"], state["annotations"]) == ("c", str(oci.home), {"a": "b"}), kind
        assert state["ociVersion"] == "1.0.2"
    assert {kind: state["status"] for kind, state in states.items()} == {
        "prestart": "created",
        "createRuntime": "created",
        "createContainer": "created",
        "startContainer": "created",
        "poststart": "running",
        "poststop": "stopped",
    }
    assert states["prestart"]["pid"] == states["createRuntime"]["pid"] == states["poststart"]["pid"] == pid
    assert states["startContainer"]["pid"] == 1
    ours = os.readlink("/proc/self/ns/mnt")
    inside = {kind for kind in hooks if (log / f"{kind}.ns").read_text().strip() != ours}
    assert inside == {"createContainer", "startContainer"}


@pytest.mark.parametrize("kind", ["prestart", "createContainer"])
def test_a_failing_hook_of_create_undoes_it(oci: Runtime, kind: str) -> None:
    """An error, no container, and poststop hooks: runtime.md, "Lifecycle"."""
    false = {"path": str(oci.rootfs / "bin/false"), "args": ["false"]}
    stop = {"path": str(oci.rootfs / "bin/touch"), "args": ["touch", str(oci.path / "stopped")]}
    oci.bundle(["touch", "/ran"], hooks={kind: [false], "poststop": [stop]})
    assert kind in oci.refused("create", "c")
    assert oci.ids() == []
    assert (oci.path / "stopped").exists()
    assert not (oci.rootfs / "ran").exists()


def test_a_failing_hook_of_start_ends_the_container(oci: Runtime) -> None:
    oci.bundle(["touch", "/ran"], hooks={"startContainer": [{"path": "/bin/false", "args": ["false"]}]})
    oci.do("create", "c")
    assert "startContainer" in oci.refused("start", "c")
    reap()
    assert oci.ids() == []
    assert not (oci.rootfs / "ran").exists()


@pytest.mark.parametrize("kind", ["poststart", "poststop"])
def test_a_failing_hook_afterwards_is_a_warning_and_the_next_goes_on(oci: Runtime, kind: str) -> None:
    false = {"path": str(oci.rootfs / "bin/false"), "args": ["false"]}
    touch = {"path": str(oci.rootfs / "bin/touch"), "args": ["touch", str(oci.path / "next")]}
    oci.bundle(["true"], hooks={kind: [false, touch]})
    said = oci.ask("run", "c")
    assert said.code == 0
    assert "level=warning" in said.err
    assert kind in said.err
    assert (oci.path / "next").exists()


def test_a_hook_that_takes_too_long_is_killed(oci: Runtime) -> None:
    slow = {"path": str(oci.rootfs / "bin/sleep"), "args": ["sleep", "60"], "timeout": 1}
    oci.bundle(["true"], hooks={"prestart": [slow]})
    began = time.monotonic()
    assert "prestart" in oci.refused("create", "c")
    assert time.monotonic() - began < 5


# --- the command line


def test_the_log_has_the_error_in_the_form_that_was_asked_for(oci: Runtime) -> None:
    log = oci.path / "log"
    oci.refused("--log", str(log), "--log-format", "json", "state", "nobody")
    entry = json.loads(log.read_text())
    assert (entry["level"], entry["msg"]) == ("error", "container does not exist")
    log.unlink()
    oci.refused("--log", str(log), "state", "nobody")
    assert re.fullmatch(r'time="[^"]+" level=error msg="container does not exist"\n', log.read_text())


def test_spec_writes_a_configuration_that_runs(oci: Runtime) -> None:
    oci.do("spec")
    assert "exists" in oci.refused("spec")
    document = json.loads((oci.home / "config.json").read_text())
    document["process"] |= {"terminal": False, "args": ["hostname"]}
    oci.write(document)
    assert oci.do("run", "pystack-c") == "pystack-oci\n"


def test_features_and_version(oci: Runtime) -> None:
    features = json.loads(oci.do("features"))
    assert features["ociVersionMin"] == "1.0.0"
    assert "createContainer" in features["hooks"]
    assert {"mount", "user", "time"} <= set(features["linux"]["namespaces"])
    assert re.match(r"pystack-oci version \S+\nspec: 1\.", oci.do("--version"))


def test_what_is_not_there_is_refused_by_name(oci: Runtime) -> None:
    oci.bundle(["true"])
    assert "systemd" in oci.refused("--systemd-cgroup", "create", "c")
    assert "CRIU" in oci.refused("checkpoint", "c")
    assert "not defined: --nonsense" in oci.refused("create", "--nonsense", "c")
    assert oci.ask("nonsense").code == 3
    assert oci.ids() == []


def test_state_answers_fast(oci: Runtime) -> None:
    """Engines ask all the time: under 60 ms of CPU, of which the interpreter itself takes some 15."""
    oci.bundle(WAIT)
    oci.do("create", "c")
    best = min(_cpu_of(oci.argv("state", "c")) for _ in range(5))
    assert best < patient(0.06), f"{best * 1000:.0f} ms"


def _cpu_of(argv: list[str]) -> float:
    before = os.times()
    subprocess.run(argv, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system
