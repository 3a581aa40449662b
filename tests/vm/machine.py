"""Runs tests on Debian's own kernel with nothing but cgroup v2, in an emulated machine.

    tests/vm/run [--init bare|systemd] [--limit SECONDS] [--slower FACTOR] [pytest arguments]

Without arguments: the kernel tests, the engines' contract and the examples that need no image. Builds the
machine's disk once (a minute or two) and keeps it below $XDG_CACHE_HOME/pystack-vm; what a run writes to it
is thrown away. Returns pytest's exit code; 124 when the limit passed, 125 when the machine ended without
one. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

from tests.vm.disk import REPOSITORY, prepare, say

HERE = Path(__file__).resolve().parent
DEFAULT = ["-q", "--durations=15", "tests/kernel", "tests/contract", "tests/examples"]
# Trees as Docker and umoci unpack them are the same on every kernel, and Docker takes minutes here.
DEFAULT += ["--ignore=tests/kernel/test_images_trees.py"]
# Crowds are held to figures (lines a second, lookups within 50 ms) that say nothing of an emulated core.
DEFAULT += ["--ignore=tests/kernel/test_crowds.py"]
MEMORY = "2048"
KERNEL = (
    "console=ttyS0 loglevel=3 panic=-1 net.ifnames=0 mitigations=off selinux=0 systemd.show_status=no "
    # The emulator keeps what it has translated by its virtual address: a program that lies elsewhere each time
    # is translated each time, and starts five times as slowly.
    "norandmaps"
)
SLOWER = 10.0
"""How many times longer tests wait there before they give up (tests/kit/patience.py)."""


def main() -> int:
    options, arguments = _options()
    if os.geteuid() != 0:
        sys.exit("tests/vm/run: needs root, to make the disk with the right owners")
    missing = [
        tool for tool in ("qemu-system-x86_64", "mmdebstrap", "mke2fs", "busybox") if not shutil.which(tool)
    ]
    if missing:
        sys.exit(
            f"tests/vm/run: not installed: {', '.join(missing)}; "
            "apt-get install qemu-system-x86 mmdebstrap e2fsprogs busybox-static"
        )
    machine = prepare(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pystack-vm")
    with tempfile.TemporaryDirectory(prefix="pystack-vm-") as name:
        return boot(machine, Path(name), options, arguments or DEFAULT)


def _options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="tests/vm/run", description=__doc__.split("\n\n")[0])
    parser.add_argument("--init", choices=("bare", "systemd"), default="bare", help="what runs as process 1")
    parser.add_argument("--limit", type=float, default=10800, help="seconds after which the machine is ended")
    parser.add_argument(
        "--slower", type=float, default=SLOWER, help="how many times longer tests wait before they give up"
    )
    return parser.parse_known_args()


# --- one run ------------------------------------------------------------------------------------------


def boot(machine: Path, scratch: Path, options: argparse.Namespace, arguments: Sequence[str]) -> int:
    _pack(scratch / "work.tar", options, arguments)
    verdict = scratch / "verdict"
    niceness = os.nice(0) or 15  # others use the machine too, unless we are told how much it may take
    command = [
        "setpriv", "--pdeathsig", "KILL",  # it must not outlive us
        "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max,la57=off", "-smp", "1", "-m", MEMORY,
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-kernel", str(machine / "vmlinuz"), "-initrd", str(machine / "initrd"),
        "-append", KERNEL,
        "-drive", f"file={machine}/root.ext4,format=raw,if=virtio,snapshot=on",
        "-drive", f"file={scratch}/work.tar,format=raw,if=virtio,readonly=on",
        "-device", "virtio-rng-pci",
        "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
        "-serial", f"file:{verdict}",
    ]  # fmt: skip
    begun = time.monotonic()
    with _ended(
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(scratch)},
            start_new_session=True,
        )
    ) as qemu:
        _rank(qemu.pid, niceness)
        try:
            qemu.wait(options.limit)
        except subprocess.TimeoutExpired:
            say(f"ended after {options.limit:g} s")
            return 124
    said = verdict.read_text().strip() if verdict.exists() else ""
    say(f"{options.init}: exit code {said or 'none'} after {time.monotonic() - begun:.0f} s")
    return int(said) if said.isdigit() else 125


def _rank(pid: int, niceness: int) -> None:
    """Gives a session its share of the cores: niceness itself counts only among the processes of one session,
    where the kernel groups them by it (sched(7), "The autogroup feature")."""
    os.setpriority(os.PRIO_PROCESS, pid, niceness)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(f"{niceness}\n")


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _pack(path: Path, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """The repository as it stands here, and what to do with it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    names = [name for name in listed.split("\0") if name and (REPOSITORY / name).exists()]
    task = f"export SLOWER={options.slower:g}\nset -- {shlex.join(arguments)}\n"
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.add(REPOSITORY / name, f"work/pystack/{name}", filter=_as_root)
        for compiled in sorted((REPOSITORY / "orchestrator").rglob("__pycache__/*.cpython-311.pyc")):
            archive.add(compiled, f"work/pystack/{compiled.relative_to(REPOSITORY)}", filter=_as_root)
        _add(archive, "work/task", task, 0o644)
        _add(archive, "work/init", (HERE / "guest" / options.init).read_text(), 0o755)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _add(archive: tarfile.TarFile, name: str, text: str, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(text.encode()), mode, int(time.time())
    archive.addfile(member, BytesIO(text.encode()))


if __name__ == "__main__":
    sys.exit(main())
