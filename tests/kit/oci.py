"""The command `pystack-oci` to call, and OCI bundles over a busybox root for it.

with Runtime(tmp_path) as oci:
    oci.bundle(["sh", "-c", "echo hello; exit 3"])
    assert oci.ask("run", "c1") == (3, "hello\\n", "")
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from orchestrator.kernel import syscalls
from tests.kit import family
from tests.kit.keeper import MASKED, NEW, PATIENCE, READ_ONLY, build_image, default_mounts, default_process

COMMAND = (sys.executable, "-c", "from orchestrator.oci.__main__ import main; main()")
"""As the installed one does it; "-m" would look for it at length."""


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Runtime:
    """A --root of its own and a bundle; whatever is left of it goes at the end."""

    def __init__(self, root: Path, command: Sequence[str] = COMMAND) -> None:
        self.path = root
        self.state = root / "state"
        self.home = root / "bundle"
        self.rootfs = build_image(self.home / "rootfs")
        self.command = tuple(command)
        self._children: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        # Containers of `create` outlive it: then they are ours, as they are conmon's.
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for child in self._children:
            child.kill()
            child.communicate()
        left = self.ids()
        for name in left:
            self.ask("delete", "--force", name)
        reap()
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 0)
        shutil.rmtree(self.path / "bundle")

    def argv(self, *words: str) -> list[str]:
        """The whole command line."""
        return [*self.command, "--root", str(self.state), *words]

    def ask(
        self,
        *words: str,
        stdin: str = "",
        fds: Sequence[int] = (),
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Said:
        """Run a command to its end. With files, for what a container inherits may outlive the command."""
        out, err = self.path / "out", self.path / "err"
        with out.open("w") as out_file, err.open("w") as err_file:
            done = subprocess.run(
                self.argv(*words),
                input=stdin,
                stdout=out_file,
                stderr=err_file,
                text=True,
                timeout=PATIENCE,
                pass_fds=tuple(fds),
                env={**os.environ, **(environ or {})},
                cwd=cwd or self.home,
            )
        return Said(done.returncode, out.read_text(), err.read_text())

    def do(self, *words: str, **more: Any) -> str:
        """A command that must succeed; what it printed."""
        said = self.ask(*words, **more)
        assert said.code == 0, said
        return said.out

    def refused(self, *words: str, **more: Any) -> str:
        """A command that must fail with 1; what it complained about."""
        said = self.ask(*words, **more)
        assert said.code == 1, said
        assert "Traceback" not in said.err, said.err
        return said.err

    def spawn(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        """A command that goes on."""
        child = subprocess.Popen(
            self.argv(*words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.home,
            **more,
        )
        self._children.append(child)
        return child

    def config(
        self,
        args: Sequence[str],
        *,
        process: Mapping[str, object] | None = None,
        linux: Mapping[str, object] | None = None,
        mounts: Sequence[Mapping[str, object]] = (),
        namespaces: Sequence[str | Mapping[str, object]] = NEW,
        **config: object,
    ) -> dict[str, Any]:
        """A whole config.json; what is given replaces the defaults key by key."""
        spaces = [{"type": entry} if isinstance(entry, str) else dict(entry) for entry in namespaces]
        return {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {**default_process(args), **(process or {})},
            "mounts": [*default_mounts(), *mounts],
            "linux": {
                "namespaces": spaces,
                "maskedPaths": MASKED,
                "readonlyPaths": READ_ONLY,
                # "pystack" in its name: what is left behind is then seen.
                "cgroupsPath": f"/pystack-test/{os.getpid()}",
                **(linux or {}),
            },
            **config,
        }

    def bundle(self, args: Sequence[str], **config: Any) -> dict[str, Any]:
        """Write config.json."""
        document = self.config(args, **config)
        self.write(document)
        return document

    def write(self, document: object) -> None:
        (self.home / "config.json").write_text(json.dumps(document))

    def run(self, args: Sequence[str], *, name: str = "r", stdin: str = "", **config: Any) -> Said:
        """A container to its end."""
        self.bundle(args, **config)
        return self.ask("run", name, stdin=stdin)

    def shell(self, script: str, **config: Any) -> str:
        """What a script prints in a container; it must succeed."""
        said = self.run(["sh", "-c", script], **config)
        assert (said.code, said.err) == (0, ""), said
        return said.out

    def status(self, name: str) -> str:
        return str(self.read_state(name)["status"])

    def read_state(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.do("state", name))
        return found

    def wait(self, name: str, status: str = "stopped") -> dict[str, Any]:
        """Until the container is in that state."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.read_state(name))["status"] != status:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found

    def ids(self) -> list[str]:
        return sorted(path.name for path in self.state.glob("[!.]*")) if self.state.exists() else []


class Console:
    """The other end of --console-socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self.master = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        if self.master >= 0:
            os.close(self.master)

    def receive(self) -> int:
        """The master of the terminal."""
        self._listener.settimeout(PATIENCE)
        connection, _ = self._listener.accept()
        with connection:
            _, fds, _, _ = socket.recv_fds(connection, 4096, 4)
        assert len(fds) == 1
        self.master = fds[0]
        return self.master

    def until(self, text: str) -> str:
        """What the terminal shows, up to and with `text`."""
        seen = ""
        deadline = time.monotonic() + PATIENCE
        while text not in seen:
            assert time.monotonic() < deadline, seen
            seen += os.read(self.master, 4096).decode()
        return seen


def reap() -> None:
    """Collect whatever ended and is ours."""
    family.bury(2)


def end(pid: int) -> int:
    """Kill a child of ours and collect it; its exit code."""
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def until(what: Callable[[], bool]) -> bool:
    """Wait for something to become true; False when it does not."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
