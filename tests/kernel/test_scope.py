"""Under systemd: one scope for a state root, which outlives whatever `up` was said in."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import leaks
from tests.kit.programs import Pystack, program
from tests.kit.site import alive, until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        not os.path.isdir("/run/systemd/system") or not os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
        reason="needs systemd and cgroup v2 alone",
    ),
]

STACK = """
name: s
services:
  a: {x-rootfs: host, network_mode: none, command: sleep 100000, mem_limit: 64m, cpus: 0.5, pids_limit: 9}
"""


@pytest.fixture
def pystack(state_root: Path) -> Iterator[Pystack]:
    (state_root / "stack.yml").write_text(STACK)
    found = Pystack(root=state_root, directory=state_root)
    try:
        yield found
    finally:
        found.abandon()


def group(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")


def servers(root: Path) -> dict[str, int]:
    """Supervisor and keeper of the state root, by the names of their processes."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(root / "run") in words:
            found["supervisor" if b"orchestrator.daemon" in words else "keeper"] = int(name)
    return found


def up_in_a_service(pystack: Pystack) -> None:
    """`up -d` in a transient service, whose group systemd empties as soon as the command ends."""
    command = ["systemd-run", "--quiet", "--wait", "--collect", f"--setenv=PYSTACK_ROOT={pystack.root}"]
    done = subprocess.run(
        [*command, f"--working-directory={pystack.directory}", *program(), "up", "-d"], capture_output=True
    )
    assert done.returncode == 0, done


def test_all_outlive_the_service_in_which_up_was_said(pystack: Pystack, state_root: Path) -> None:
    up_in_a_service(pystack)
    unit = f"pystack-{leaks.Root(path=state_root).tag}.scope"
    (row,) = pystack.containers()
    assert row["State"] == "running"
    both = servers(state_root)
    assert set(both) == {"supervisor", "keeper"}
    assert {group(pid) for pid in both.values()} == {f"/system.slice/{unit}/pystack-processes"}
    inside = group(row["Pid"])
    assert inside.startswith(f"/system.slice/{unit}/pystack-")
    limits = Path("/sys/fs/cgroup" + inside)
    assert (limits / "memory.max").read_text() == f"{64 << 20}\n"
    assert (limits / "pids.max").read_text() == "9\n"
    assert (limits / "cpu.max").read_text() == "50000 100000\n"
    shown = subprocess.run(
        ["systemctl", "show", "-P", "Delegate", "-P", "ActiveState", unit], capture_output=True, text=True
    )
    assert set(shown.stdout.split()) == {"yes", "active"}
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert (limits / "memory.max").read_text() == f"{64 << 20}\n"
    pystack.run("down", "-t", "0")
    until(lambda: not Path(f"/sys/fs/cgroup/system.slice/{unit}").exists(), "the end of the scope")


def test_a_new_supervisor_enters_the_scope_that_is_there(pystack: Pystack, state_root: Path) -> None:
    """Both our processes killed, the container runs on: what comes next finds it and moves in beside it."""
    up_in_a_service(pystack)
    (before,) = pystack.containers()
    both = servers(state_root)
    for name in ("keeper", "supervisor"):
        os.kill(both[name], 9)
    until(lambda: not any(map(alive, both.values())), "the end of both")
    pystack.run("up", "-d")
    (after,) = pystack.containers()
    assert after["Pid"] == before["Pid"]
    places = {group(pid).rpartition("/")[2] for pid in servers(state_root).values()}
    assert places == {"pystack-processes"}
    pystack.run("exec", "a", "true")
