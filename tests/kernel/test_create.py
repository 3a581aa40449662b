"""OCI bundles on the real kernel: what the container sees, in which order things happen, what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.kernel.reading import RefusedError
from orchestrator.kernel.report import ExecError
from tests.kit.bundles import Box

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
