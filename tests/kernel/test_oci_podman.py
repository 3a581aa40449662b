"""Debian's podman, with conmon, runs its containers on `pystack-oci`."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.keeper import PATIENCE, build_image
from tests.kit.oci import Said, until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("podman") is None, reason="needs podman: apt-get install podman"),
]

IMAGE = "localhost/busybox:1"
PARENT = "/podman-under-test"


class Podman:
    """A podman with storage, state and configuration of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        runtime = root / "pystack-oci"
        runtime.write_text(f'#!/bin/sh\nexec {sys.executable} -m orchestrator.oci "$@"\n')
        runtime.chmod(0o755)
        # podman raises the limits of open files and processes, which only CAP_SYS_RESOURCE may.
        (root / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
            '[engine]\nlock_type = "file"\nevents_logger = "none"\n'
        )
        self.command = [
            "podman",
            *("--root", str(root / "storage"), "--runroot", str(root / "run"), "--tmpdir", str(root / "tmp")),
            *("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", str(runtime)),
        ]
        self.environ = {**os.environ, "CONTAINERS_CONF": str(root / "containers.conf")}

    def ask(self, *words: str, stdin: str = "") -> Said:
        done = subprocess.run(
            [*self.command, *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=self.environ,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def do(self, *words: str, stdin: str = "") -> str:
        said = self.ask(*words, stdin=stdin)
        assert said.code == 0, said
        return said.out

    def run(self, *words: str, stdin: str = "") -> Said:
        return self.ask("run", "--rm", *OPTIONS, *words, stdin=stdin)


OPTIONS = ("--network", "none", "--cgroup-parent", PARENT)


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    root = tmp_path_factory.mktemp("podman")
    made = Podman(root)
    image = build_image(root / "image")
    subprocess.run(["tar", "-C", image, "-cf", root / "image.tar", "."], check=True)
    made.do("import", str(root / "image.tar"), IMAGE)
    try:
        yield made
    finally:
        made.ask("rm", "--force", "--all", "--time", "0")
        # The parent and conmon's own are podman's, and stay when it goes; nothing of ours is in there.
        left = [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if f"{PARENT}/" in f"{folder}/"]
        for folder in sorted(left, reverse=True):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        assert not [folder for folder in left if "libpod-" in folder]


def test_run_hands_on_output_input_and_exit_code(podman: Podman) -> None:
    said = podman.run("-i", IMAGE, "sh", "-c", "cat; echo err >&2; exit 7", stdin="in")
    assert (said.code, said.out, said.err) == (7, "in", "err\n")


def test_what_cannot_be_run_is_127_or_126(podman: Podman) -> None:
    assert podman.run(IMAGE, "nosuch").code == 127
    assert podman.run(IMAGE, "/etc").code == 126


def test_run_with_a_terminal(podman: Podman) -> None:
    """podman gives ours to conmon, which gets one of the container's own by the console socket."""
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [
            *podman.command,
            "run",
            "--rm",
            "-it",
            *OPTIONS,
            IMAGE,
            "sh",
            "-c",
            "tty; read x; echo got $x; exit 3",
        ],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=podman.environ,
    )
    os.close(slave)
    seen = b""
    while b"/dev/pts/0" not in seen:
        seen += os.read(master, 4096)
    os.write(master, b"word\n")
    while b"got word" not in seen:
        seen += os.read(master, 4096)
    assert child.wait(PATIENCE) == 3
    os.close(master)


def test_a_detached_container_with_exec_limits_pause_stats_logs_and_stop(podman: Podman) -> None:
    script = "trap 'echo stopping; exit 3' TERM; echo started; while :; do sleep 0.05; done"
    podman.do(
        "run",
        "-d",
        "--name",
        "d",
        "--memory",
        "64m",
        "--pids-limit",
        "40",
        *OPTIONS,
        IMAGE,
        "sh",
        "-c",
        script,
    )
    try:
        said = podman.ask("exec", "-i", "-e", "A=1", "d", "sh", "-c", "cat; echo $A; exit 4", stdin="in ")
        assert (said.code, said.out) == (4, "in 1\n")
        name = podman.do("inspect", "--format", "{{.Id}}", "d").strip()
        groups = Path("/sys/fs/cgroup")
        limits = [
            file.read_text().strip()
            for file in (
                groups / f"memory{PARENT}/libpod-{name}/memory.limit_in_bytes",
                groups / f"pids{PARENT}/libpod-{name}/pids.max",
            )
            if (groups / "memory").exists()
        ]
        assert limits in ([str(64 << 20), "40"], [])
        podman.do("pause", "d")
        assert podman.do("inspect", "--format", "{{.State.Status}}", "d") == "paused\n"
        podman.do("unpause", "d")
        # podman gives up when a process ends while it looks: each of them lives for a twentieth of a second.
        assert any("sleep" in podman.ask("top", "d").out for _ in range(20))
        assert until(lambda: podman.do("logs", "d") == "started\n")
        podman.do("stop", "--time", "5", "d")
        assert podman.do("inspect", "--format", "{{.State.ExitCode}} {{.State.Status}}", "d") == "3 exited\n"
        assert podman.do("logs", "d") == "started\nstopping\n"
        podman.do("start", "d")
        podman.do("kill", "--signal", "KILL", "d")
        assert podman.do("wait", "d") == "137\n"
    finally:
        podman.do("rm", "--force", "--time", "0", "d")


def test_a_container_in_a_user_namespace(podman: Podman) -> None:
    said = podman.run(
        "--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000", IMAGE, "cat", "/proc/self/uid_map"
    )
    assert (said.code, said.out.split()) == (0, ["0", "100000", "5000"]), said
