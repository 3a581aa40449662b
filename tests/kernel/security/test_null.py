"""The host's null device lies below every mask, and is the input of many a process: its mode and owner are the
host's, and a container that could change them would stop every other program of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.keeper import Machine, bind, mount
from tests.kit.site import Site

pytestmark = pytest.mark.kernel

CHANGE = """
for file in /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/keys /proc/timer_list /proc/interrupts /dev/null; do
    chmod 0 $file; chown 1234:1234 $file; setfattr -n trusted.x -v 1 $file
done
exit 0
"""


@pytest.fixture(autouse=True)
def the_hosts() -> Iterator[None]:
    """Compared afterwards, and put right when a test has failed."""
    before = os.stat("/dev/null")
    yield
    after = os.stat("/dev/null")
    os.chown("/dev/null", before.st_uid, before.st_gid)
    os.chmod("/dev/null", before.st_mode & 0o7777)
    assert (oct(after.st_mode), after.st_uid, after.st_gid, after.st_rdev) == (
        oct(before.st_mode),
        before.st_uid,
        before.st_gid,
        before.st_rdev,
    )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "machine") as machine:
        yield machine


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


def test_the_first_process_and_an_exec_change_it_through_no_mask_and_no_descriptor(machine: Machine) -> None:
    run = machine.start(["sh", "-c", f"{CHANGE}\nsleep 100".replace("exit 0", "echo did")])
    run.said("did")
    machine.exec(run, ["sh", "-c", CHANGE])


def test_a_container_without_a_null_device_gets_one_that_it_cannot_change(machine: Machine) -> None:
    (machine.root / "empty").mkdir()
    config = {"mounts": [mount("/proc", "proc", []), bind(machine.root / "empty", "/dev")]}
    run = machine.start(["sh", "-c", f"readlink /proc/self/fd/0\n{CHANGE}"], config=config)
    assert run.wait() == 0
    # Unreachable from inside: a mount that no namespace has.
    assert run.output().strip() == "/"
    machine.start(["sh", "-c", CHANGE], config=config, launch={"stdout": None, "stderr": None}).wait()


def test_health_checks_and_execs_without_input_do_not_hand_it_out(site: Site) -> None:
    """Theirs is the container's own: whatever is /dev/null out here is opened anew in there."""
    (site.dir / "change.sh").write_text(
        CHANGE.replace("exit 0", "stat -Lc '%d:%i' /proc/self/fd/0 /dev/null")
    )
    site.up(
        """
        name: u1
        services:
          c:
            x-rootfs: {path: $BOX}
            command: sleep 100
            volumes: [$DIR/change.sh:/change.sh]
            healthcheck: {test: [CMD, sh, -c, "sh /change.sh > /said 2>/dev/null"], interval: 0.1s}
        """
    )
    site.becomes("u1", "c", health="healthy")
    same = site.execute("u1", "c", "cat", "/said").split()
    assert same[0] == same[1]
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        site.begin("exec", [null] * 3, stack="u1", service="c", command=["sh", "/change.sh"]).wait()
        site.begin("exec", stack="u1", service="c", command=["sh", "/change.sh"], detach=True).wait()
        site.execute("u1", "c", "sleep", "0.1")
    finally:
        os.close(null)
    site.down("u1")
