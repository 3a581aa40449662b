"""An ordinary user, made by the suite: an account that only a mount namespace of the suite's own knows.

    with Ordinary(tmp_path, uid=4242) as user:
        user.pystack("up", "-d")

What the user needs and may not reach on this machine (an interpreter below /root, pytest's own directory) is
bound to where it is, below directories that everybody may enter. The user has no privilege at all: no
capability, no supplementary group, no cgroup, no range of ids unless `ranges`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kit.keeper import build_image
from tests.kit.patience import patient
from tests.kit.programs import REPOSITORY, Failed, Ran

NAME = "ordinary"
FIRST_RANGE = 200_000
"""The first id of the range in /etc/subuid and /etc/subgid."""

OUTSIDE = "203.0.113.5"
"""In a network of the user's own: an address of the "host", beyond what its interface is in."""
_NETWORK = f"""
link set lo up
link add out0 type veth peer name far0
link set out0 up
link set far0 up
address add 198.51.100.2/24 dev out0
route add default via 198.51.100.1
address add {OUTSIDE}/32 dev lo
"""

_HOLDER = """
import os, sys, json, subprocess
sys.path.insert(0, sys.argv[1])
from orchestrator.kernel import syscalls
want = json.loads(sys.argv[2])
flags = syscalls.CLONE_NEWNS | (syscalls.CLONE_NEWNET if want["network"] else 0)
syscalls.unshare(flags)
syscalls.mount(None, "/", None, syscalls.MS_PRIVATE | syscalls.MS_REC)
held = {path: os.open(path, os.O_PATH) for path in want["needed"]}
for closed in want["closed"]:
    syscalls.mount("tmpfs", closed, "tmpfs", 0, "mode=755")
for path, fd in held.items():
    if os.path.isdir(f"/proc/self/fd/{fd}"):
        os.makedirs(path, 0o755, exist_ok=True)
    syscalls.mount(f"/proc/self/fd/{fd}", path, None, syscalls.MS_BIND | syscalls.MS_REC)
for file, text in want["files"].items():
    syscalls.mount(text, file, None, syscalls.MS_BIND)
for line in filter(None, want["network"].splitlines()):
    subprocess.run(["ip", *line.split()], check=True)
print("ready", flush=True)
sys.stdin.read()
"""


class Ordinary:
    """One user, with a home, a run directory and a root file system with busybox (`box`) below `root`.

    `cgroup`: a directory of control groups that the user's processes begin in. `network`: whether the
    "host" is a network namespace of the user's own, with nothing but loopback.
    """

    def __init__(
        self, root: Path, *, uid: int = 4242, ranges: bool = False, network: bool = False, cgroup: str = ""
    ) -> None:
        self.root, self.uid, self.cgroup, self._network = root, uid, cgroup, network
        self.home, self.run_dir, self.box = root / "home", root / "run" / "pystack", root / "box"
        self._ranges = ranges
        self._holder: subprocess.Popen[str] | None = None
        self.covered: dict[str, str] = {}
        """File of the machine -> what the user finds in its place."""

    def __enter__(self) -> Self:
        import json

        for directory in (self.home, self.root / "run", self.root / "data"):
            directory.mkdir(mode=0o700)
        build_image(self.box)
        for path in (self.root, *self.root.rglob("*")):
            os.chown(path, self.uid, self.uid, follow_symlinks=False)
        want = {
            "network": _NETWORK if self._network else "",
            "needed": sorted(map(str, _outermost(self._needed()))),
            "closed": sorted({str(closed) for path in self._needed() if (closed := _closed(path))}),
            "files": {**self._accounts(), **self.covered},
        }
        self._holder = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(REPOSITORY), json.dumps(want)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout
        assert self._holder.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Everything of the user's is ended by force, whatever a test has left."""
        for _ in range(50):
            left = self.processes()
            if not left:
                break
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        if self._holder:
            self._holder.communicate()

    def _needed(self) -> list[Path]:
        """What the interpreter and we are made of."""
        parts = [Path(sys.prefix), Path(sys.base_prefix), REPOSITORY, self.root]
        parts += [Path(path) for path in sys.path if "site-packages" in path]
        return [part.resolve() for part in parts if part.exists()]

    def _accounts(self) -> dict[str, str]:
        """/etc/passwd and its like with one account more: file -> file with the text."""
        rows = {
            "passwd": f"{NAME}:x:{self.uid}:{self.uid}::{self.home}:/bin/sh\n",
            "group": f"{NAME}:x:{self.uid}:\n",
            "subuid": f"{NAME}:{FIRST_RANGE}:65536\n" if self._ranges else "",
            "subgid": f"{NAME}:{FIRST_RANGE}:65536\n" if self._ranges else "",
        }
        made = {}
        (self.root / "etc").mkdir()
        for name, row in rows.items():
            if Path("/etc", name).exists():
                text = Path("/etc", name).read_text()
                (self.root / "etc" / name).write_text(text + row)
                made[f"/etc/{name}"] = str(self.root / "etc" / name)
        return made

    # --- doing ---------------------------------------------------------------------------------------

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.home),
            "USER": NAME,
            "XDG_RUNTIME_DIR": str(self.root / "run"),
            "XDG_DATA_HOME": str(self.root / "data"),
            "PYTHONPATH": ":".join([str(REPOSITORY), *(p for p in sys.path if "site-packages" in p)]),
        }

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command as root gives it, that it may run as the user."""
        assert self._holder
        enter = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt"]
        enter += [f"--net=/proc/{self._holder.pid}/ns/net"] if self._network else []
        become = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        environ = [f"{name}={value}" for name, value in self.environ.items()]
        full = [*enter, *become, "env", "-i", "-C", str(self.home), *environ, *command]
        if self.cgroup:
            return ["sh", "-c", f'echo $$ > {self.cgroup}/cgroup.procs; exec "$@"', "sh", *full]
        return full

    def do(self, *command: str, exit_code: int | None = 0, stdin: str = "", limit: float = 60) -> Ran:
        """Run a command as the user. Raises Failed when it ends otherwise (None: any will do)."""
        begun = time.monotonic()
        done = subprocess.run(
            self.argv(command),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=patient(limit),
            check=False,
        )
        ran = Ran(
            command=" ".join(command),
            exit_code=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            seconds=time.monotonic() - begun,
        )
        if exit_code is not None and ran.exit_code != exit_code:
            raise Failed(f"expected exit code {exit_code}\n{ran}\n{self.story()}")
        return ran

    def beside(self, *command: str) -> subprocess.Popen[bytes]:
        """A process of root's that sees the same "host" as the user."""
        assert self._holder
        place = f"/proc/{self._holder.pid}/ns"
        return subprocess.Popen(["nsenter", f"--mount={place}/mnt", f"--net={place}/net", *command])

    def pystack(self, *arguments: str, exit_code: int | None = 0, stdin: str = "") -> Ran:
        return self.do(sys.executable, "-m", "orchestrator", *arguments, exit_code=exit_code, stdin=stdin)

    def write(self, text: str, **more: object) -> None:
        """The stack file in the user's home; $BOX and what is in `more` is put in."""
        for name, value in {"BOX": self.box, **more}.items():
            text = text.replace(f"${name}", str(value))
        path = self.home / "stack.yml"
        path.write_text(text)
        os.chown(path, self.uid, self.uid)

    def story(self) -> str:
        logs = self.run_dir.glob("*.log") if self.run_dir.is_dir() else ()
        return "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in logs)

    # --- looking -------------------------------------------------------------------------------------

    def processes(self) -> dict[int, str]:
        """pid -> command line of what runs with the user's id, or with one of their range."""
        found = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with contextlib.suppress(OSError, ValueError):
                fields = dict(
                    line.split(":\t", 1) for line in Path(f"/proc/{name}/status").read_text().splitlines()
                )
                uid = int(fields["Uid"].split()[0])
                ours = uid == self.uid or (self._ranges and 0 <= uid - FIRST_RANGE < 65536)
                if ours and fields["State"][0] not in "ZX":
                    found[int(name)] = (
                        Path(f"/proc/{name}/cmdline")
                        .read_bytes()
                        .replace(b"\0", b" ")
                        .decode(errors="replace")
                    )
        return found

    def pid_of(self, part: str) -> int:
        """The one process of the user's with `part` in its command line."""
        found = [pid for pid, command in self.processes().items() if part in command]
        assert len(found) == 1, (part, self.processes())
        return found[0]


def kill(pid: int) -> None:
    """SIGKILL, and wait until it has gone."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        import select

        assert select.select([pidfd], [], [], patient(10))[0], f"{pid} does not die"
    finally:
        os.close(pidfd)


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Without those that lie in another."""
    found: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


def _closed(path: Path) -> Path | None:
    """The first directory on the way to `path` that others may not enter."""
    for parent in reversed(path.parents):
        if not parent.stat().st_mode & stat.S_IXOTH:
            return parent
    return None


def open_node(path: Path, major: int, minor: int) -> str:
    """A device node that everybody may open, to stand for the machine's own."""
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    path.chmod(0o666)
    return str(path)


def has_ranges() -> bool:
    return bool(shutil.which("newuidmap") and shutil.which("newgidmap"))
