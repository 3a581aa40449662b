"""OCI bundles on the real kernel: what the container sees, in which order things happen, what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.kernel import create, seccomp
from orchestrator.kernel.reading import Document, RefusedError
from orchestrator.kernel.report import ExecError
from orchestrator.kernel.security import machine_lsms
from tests.kit.bundles import Agent, Box

pytestmark = pytest.mark.kernel


@pytest.fixture
def box(state_root: Path) -> Iterator[Box]:
    with Box(state_root) as box:
        yield box


def test_a_bundle_runs_and_tells_how_it_ended(box: Box) -> None:
    assert box.outcome(["sh", "-c", "echo hello; echo bad >&2; exit 3"]) == (3, "hello\n", "bad\n")


def test_a_created_container_waits_for_its_start(box: Box) -> None:
    held = box.create(["sh", "-c", "echo started"])
    assert os.readlink(f"/proc/{held.pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
    assert held.output() == ""
    held.start()
    assert held.wait() == 0
    assert held.output() == "started\n"


def test_a_program_that_is_not_there_is_told_when_the_container_is_made(box: Box) -> None:
    with pytest.raises(ExecError) as refused:
        box.create(["foo"])
    assert (refused.value.exit_code, str(refused.value)) == (
        127,
        'exec: "foo": executable file not found in $PATH',
    )
    with pytest.raises(ExecError) as refused:
        box.create(["/etc/passwd"])
    assert refused.value.exit_code == 126


def test_what_execve_refuses_is_told_at_the_start(box: Box) -> None:
    (box.rootfs / "bin/empty").write_text("")
    (box.rootfs / "bin/empty").chmod(0o755)
    held = box.create(["empty"])
    with pytest.raises(RuntimeError, match="exec format error"):
        held.start()


def test_the_root_is_not_reached_through_a_link(box: Box) -> None:
    (box.bundle / "link").symlink_to("rootfs")
    with pytest.raises(ExecError, match="Not a directory"):
        box.create(["true"], root={"path": "link"})


def test_a_namespace_of_another_kind_is_refused(box: Box) -> None:
    with pytest.raises(RefusedError, match="is not a network namespace"):
        box.create(["true"], namespaces=["mount", {"type": "network", "path": "/proc/self/ns/uts"}])
    with pytest.raises(RefusedError, match="is not a namespace"):
        box.create(["true"], namespaces=["mount", {"type": "network", "path": "/proc/self/status"}])


def test_exec_runs_beside_the_first_process(box: Box) -> None:
    held = box.start(["sleep", "60"], hostname="there")
    assert box.exec(held, ["sh", "-c", "hostname; cut -d' ' -f1 /proc/1/stat; exit 4"]) == (
        4,
        "there\n1\n",
        "",
    )
    with pytest.raises(ExecError, match="executable file not found"):
        box.exec(held, ["foo"])


# --- the process


def test_descriptors_for_the_program_and_no_others(box: Box) -> None:
    said = box.shell("ls /proc/self/fd").split()
    assert said == ["0", "1", "2", "3"]  # the last is the directory that ls reads
    with pytest.raises(RefusedError, match=r"--preserve-fds 90: descriptor \d+ is not open"):
        box.create(["true"], preserve=90)


@pytest.mark.parametrize("fd", range(3, 20, 4))
def test_no_descriptor_leads_the_working_directory_out(box: Box, fd: int) -> None:
    """CVE-2024-21626."""
    with pytest.raises((ExecError, RefusedError)):
        box.create(["true"], process={"cwd": f"/proc/self/fd/{fd}"})


def test_no_signal_is_ignored_or_blocked_and_the_session_is_new(box: Box) -> None:
    said = box.shell("grep -E 'Sig(Blk|Ign)' /proc/self/status; cut -d' ' -f6 /proc/self/stat")
    assert said.split()[1::2] == ["0" * 16, "0" * 16]
    assert said.split()[4] == "1"


def test_user_and_groups_are_just_those_numbers(box: Box) -> None:
    user = {"uid": 4_000_000_000, "gid": 33, "additionalGids": [5, 44], "umask": 0o077}
    assert box.shell("id -u; id -G; umask; echo $HOME", process={"user": user}).splitlines() == [
        "4000000000",
        "33 5 44",
        "0077",
        "/",
    ]
    assert box.shell("id -G; echo $HOME", process={"user": {"uid": 1000, "gid": 0}}) == "0\n/home/app\n"
    with pytest.raises(ExecError, match="neither a uid nor a gid"):
        box.create(["true"], process={"user": {"uid": 2**32 - 1, "gid": 0}})


def test_capabilities_as_asked_and_unknown_ones_are_told(box: Box) -> None:
    kinds = ("bounding", "effective", "permitted", "inheritable", "ambient")
    sets = {kind: ["CAP_KILL", "CAP_FROB"] for kind in kinds}
    process = {"user": {"uid": 7, "gid": 7}, "capabilities": sets, "noNewPrivileges": True}
    said = box.shell("grep -E 'Cap|NoNew' /proc/self/status", process=process)
    assert {line.split()[1] for line in said.splitlines()} == {"0000000000000020", "1"}
    assert [word for word in box.warnings if "CAP_FROB" in word]


def test_limits_scheduling_and_what_the_kernel_is_taken_for(box: Box) -> None:
    process = {
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
        "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6},
        "oomScoreAdj": 77,
    }
    linux = {"personality": {"domain": "LINUX32"}, "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"}}
    script = (
        "ulimit -n; ulimit -Hn; cut -d' ' -f19,41 /proc/self/stat; ionice -p $$; uname -m; "
        "cat /proc/self/oom_score_adj; grep -c bind:0 /proc/self/numa_maps"
    )
    said = box.shell(script, process=process, linux=linux).splitlines()
    machine = {"x86_64": "i686"}.get(os.uname().machine, "")
    assert said[:6] == ["10", "20", "5 3", "best-effort: prio 6", machine or said[4], "77"]
    assert int(said[6]) > 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"process": {"selinuxLabel": "frob"}}, "no SELinux"),
        ({"linux": {"mountLabel": "frob"}}, "linux.mountLabel"),
        ({"linux": {"intelRdt": {"closID": "x"}}}, "linux.intelRdt"),
        ({"linux": {"personality": {"domain": "BSD"}}}, "'BSD' is none of"),
        ({"linux": {"memoryPolicy": {"mode": "MPOL_FROB"}}}, "'MPOL_FROB'"),
        ({"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "3-1"}}}, "not a list"),
        ({"process": {"scheduler": {"policy": "SCHED_ISO"}}}, "'SCHED_ISO'"),
        ({"process": {"scheduler": {"policy": "SCHED_OTHER", "priority": 3}}}, "only SCHED_FIFO"),
        ({"process": {"ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 9}}}, "between 0 and 7"),
        ({"process": {"rlimits": [{"type": "RLIMIT_FROB", "soft": 1, "hard": 1}]}}, "'RLIMIT_FROB'"),
        ({"process": {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2**40}]}}, "RLIMIT_NOFILE"),
        ({"hooks": {"poststop": [{"path": "sh"}]}}, "not an absolute path"),
        ({"hooks": {"prestart": [{"path": "/bin/sh", "timeout": 0}]}}, "more than 0 seconds"),
    ],
)
def test_what_cannot_be_is_refused_by_name(box: Box, config: dict[str, object], words: str) -> None:
    with pytest.raises((ExecError, RefusedError)) as refused:
        box.create(["true"], **config)
    assert words in str(refused.value)


def test_an_apparmor_profile_that_there_is_not_is_refused_by_name(box: Box) -> None:
    """Where the kernel has none of it, when the container is made; else by the kernel, at the start."""
    if "apparmor" in machine_lsms():
        held = box.create(["true"], process={"apparmorProfile": "frob"})
        with pytest.raises(RuntimeError, match="apparmorProfile: frob"):
            held.start()
    else:
        with pytest.raises(RefusedError, match=r"apparmorProfile: frob: this machine has no AppArmor"):
            box.create(["true"], process={"apparmorProfile": "frob"})


def test_processors_for_exec_alone(box: Box) -> None:
    held = box.start(["sleep", "60"])
    last = max(os.sched_getaffinity(0))
    grep = ["grep", "Cpus_allowed_list", "/proc/self/status"]
    said = box.exec(held, grep, execCPUAffinity={"initial": "0", "final": str(last)})[1]
    assert said.split() == ["Cpus_allowed_list:", str(last)]


def test_a_terminal_is_handed_over_with_its_size(box: Box) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        process = {"terminal": True, "consoleSize": {"height": 11, "width": 22}}
        held = box.create(["sh", "-c", "stty size; tty"], console=theirs.fileno(), process=process)
        _, fds, _, _ = socket.recv_fds(ours, 100, 2)
    said = b""
    with contextlib.suppress(OSError):  # EIO: the last slave was closed
        held.start()
        while part := os.read(fds[0], 1000):
            said += part
    os.close(fds[0])
    assert held.wait() == 0
    assert said == b"11 22\r\n/dev/pts/0\r\n"
    with pytest.raises(RefusedError, match="no console socket"):
        box.create(["true"], process={"terminal": True})


# --- hooks

SCRIPT = """#!/bin/sh
read -r state
echo "$1 $X $(readlink /proc/self/ns/mnt) $state" >> {log}
"""


def test_hooks_in_their_order_and_namespace(box: Box) -> None:
    (box.root / "hook").write_text(SCRIPT.format(log=box.root / "log"))
    (box.rootfs / "hook").write_text(SCRIPT.format(log="/log"))
    for path in (box.root / "hook", box.rootfs / "hook"):
        path.chmod(0o755)

    def hook(kind: str, path: str) -> list[dict[str, object]]:
        return [{"path": path, "args": ["hook", kind], "env": ["X=set", "PATH=/bin:/usr/bin"]}]

    outer = ("prestart", "createRuntime", "createContainer")
    wanted = {kind: hook(kind, str(box.root / "hook")) for kind in outer}
    held = box.create(
        ["sh", "-c", "cat /log"], hooks={**wanted, "startContainer": hook("startContainer", "/hook")}
    )
    lines = [line.split(" ", 3) for line in (box.root / "log").read_text().splitlines()]
    assert [line[0] for line in lines] == list(outer)
    assert {line[1] for line in lines} == {"set"}
    here, there = os.readlink("/proc/self/ns/mnt"), os.readlink(f"/proc/{held.pid}/ns/mnt")
    assert [line[2] for line in lines] == [here, here, there]
    states = [json.loads(line[3]) for line in lines]
    # As the spec has it: the pid as seen by the runtime, or by the container.
    assert [(state["status"], state["pid"]) for state in states] == [
        ("creating", held.pid),
        ("creating", held.pid),
        ("creating", 1),
    ]
    assert not (box.rootfs / "log").exists()
    held.start()
    assert held.wait() == 0
    started = held.output().split(" ", 3)
    assert started[:3] == ["startContainer", "set", there]
    assert json.loads(started[3])["status"] == "created"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails_fails_the_container(box: Box, kind: str) -> None:
    fails = {"path": "/bin/sh", "args": ["sh", "-c", "echo because >&2; exit 3"]}
    with pytest.raises(ExecError, match=rf"hooks.{kind}\[0\] \(/bin/sh\): ended with 3: because"):
        box.create(["true"], hooks={kind: [fails]})


def test_hooks_that_hang_or_fail_late(box: Box) -> None:
    slow = {"path": "/bin/sh", "args": ["sh", "-c", "sleep 60 & sleep 60"], "timeout": 1}
    with pytest.raises(ExecError, match="killed, it took over 1 s"):
        box.create(["true"], hooks={"prestart": [slow]})
    held = box.create(["true"], hooks={"startContainer": [{"path": "/bin/false"}]})
    with pytest.raises(RuntimeError, match="ended with 1"):
        held.start()
    told: list[str] = []
    missing = Document({"poststop": [{"path": "/no/such"}, {"path": "/bin/true"}]}, "hooks")
    create.run_hooks(missing, "poststop", b"{}", told.append)
    assert told == ["hooks.poststop[0] (/no/such): No such file or directory"]


# --- seccomp


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_listener_answers_for_the_container(box: Box, *, no_new_privileges: bool) -> None:
    """Also for the calls that lead to the program: sendmsg, capset, execve."""
    path = box.root / "agent"
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(path),
        "listenerMetadata": "words",
        "syscalls": [
            {"names": ["mkdir", "mkdirat", "sendmsg", "capset", "execve"], "action": "SCMP_ACT_NOTIFY"}
        ],
    }
    with Agent(path, refuse=("mkdir", "mkdirat")) as agent:
        said = box.outcome(
            ["sh", "-c", "mkdir /x; grep Seccomp: /proc/self/status"],
            seccomp=seccomp.compile_profile(profile),
            linux={"seccomp": profile},
            process={"noNewPrivileges": no_new_privileges},
        )
    assert said == (0, "Seccomp:\t2\n", "mkdir: can't create directory '/x': Input/output error\n")
    assert agent.told["fds"] == ["seccompFd"]
    assert agent.told["metadata"] == "words"
    assert agent.told["pid"] == box.held[0].pid
    assert agent.told["state"]["id"]


def test_a_listener_that_is_not_there(box: Box) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    }
    program = seccomp.compile_profile(profile)
    with pytest.raises(RefusedError, match="needs a listenerPath"):
        box.create(["true"], seccomp=program, linux={"seccomp": profile})
    with pytest.raises(OSError, match="listenerPath /no/such"):
        box.create(["true"], seccomp=program, linux={"seccomp": {**profile, "listenerPath": "/no/such"}})
