"""CVE-2019-5736 and its kin: what enters a container, or starts it, is not to be had from inside."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.kit.keeper import Machine, Run, until

pytestmark = pytest.mark.kernel

ATTACK = """#!/bin/sh
echo "holds $(stat -Lc %s /proc/self/fd/9) bytes"
while :; do
    (echo pwned >> /proc/self/fd/9) 2>> /said && echo wrote >> /said && break
    sleep 0.02
done
sleep 100
"""
SEALED_LIMIT = 0.005


def digest(path: Path | str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def needed_loader(program: Path) -> str:
    """The PT_INTERP of a program, found the lazy way."""
    data = program.read_bytes()[:4096]
    start = data.index(b"/lib")
    return data[start : data.index(b"\0", start)].decode()


def own_python(root: Path) -> Path:
    """A copy of the interpreter that nobody but the keeper runs."""
    copy = root / "python3"
    shutil.copy(os.path.realpath(sys.executable), copy)
    return copy


def hold_the_interpreter(machine: Machine, loader: Path, command: str) -> Run:
    """A container that has what started it open, and tries to write there all the time."""
    place = machine.image / needed_loader(Path(machine.python)).lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(loader, place)
    (machine.image / "attack.sh").write_text(ATTACK)
    script = machine.image / "script"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    run = machine.start([command], name="thief")
    run.said(f"holds {Path(machine.python).stat().st_size} bytes")
    return run


def said(machine: Machine) -> str:
    path = machine.root / "layers/thief/upper/said"
    return path.read_text() if path.exists() else ""


def die(machine: Machine) -> None:
    """The keeper is killed: from now on nobody runs its interpreter, which protected it (ETXTBSY)."""
    machine.keeper.kill()
    machine.keeper.wait()


@pytest.mark.parametrize("command", ["/proc/self/exe", "/script"])
def test_a_container_that_runs_the_interpreter_cannot_write_to_it(
    state_root: Path, loader: Path, command: str
) -> None:
    """Also as the interpreter of a script: `#!/proc/self/exe`. Not even when the keeper has died."""
    python = own_python(state_root)
    before = digest(python)
    with Machine(state_root, python=str(python)) as machine:
        hold_the_interpreter(machine, loader, command)
        die(machine)
        until(lambda: said(machine).count("Read-only file system") > 5, "attempts")
        assert "wrote" not in said(machine)
    assert digest(python) == before


def test_the_attack_works_on_an_interpreter_that_is_not_sealed(state_root: Path, loader: Path) -> None:
    """Else the test above would prove nothing."""
    python = own_python(state_root)
    before = digest(python)
    with Machine(state_root, python=str(python), sealed=False) as machine:
        hold_the_interpreter(machine, loader, "/proc/self/exe")
        until(lambda: "Text file busy" in said(machine), "an attempt")
        die(machine)
        until(lambda: "wrote" in said(machine), "success")
    assert digest(python) != before


def test_whoever_enters_cannot_be_caught(machine: Machine, attacker: Path) -> None:
    """Its program, directories, descriptors, memory and namespaces, by /proc, pidfd and ptrace, as root of the
    container without a filter of system calls, in 150 `exec`s."""
    libraries = {
        line.split()[-1]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if ".so" in line and "(deleted)" not in line
    }
    files = [os.path.realpath(sys.executable), *libraries]
    before = [digest(path) for path in files]
    shutil.copy(attacker, machine.image / "bin/attacker")
    run = machine.start(["attacker", "hunt"])
    run.said("ready")
    for _ in range(150):
        assert machine.exec(run, ["true"])[0] == 0
    run.kill(signal.SIGTERM)
    assert run.wait() == 0
    verdict = run.output()
    seen = int(verdict.split("seen ")[1].split()[0])
    assert seen > 20, verdict
    assert verdict.strip().splitlines()[-1] == f"seen {seen} caught 0 last nothing", verdict
    assert [digest(path) for path in files] == before


def test_the_keeper_is_sealed_as_the_supervisor_starts_it(machine: Machine) -> None:
    """Its executable lies on a mount that is read-only and in no mount namespace, whatever it is for others."""
    exe = os.open(f"/proc/{machine.keeper.pid}/exe", os.O_PATH)
    try:
        flags = os.fstatvfs(exe).f_flag
        fdinfo = Path(f"/proc/self/fdinfo/{exe}").read_text()
    finally:
        os.close(exe)
    assert flags & os.ST_RDONLY
    number = next(line.split()[1] for line in fdinfo.splitlines() if line.startswith("mnt_id"))
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    assert number not in [line.split()[0] for line in mounts]
