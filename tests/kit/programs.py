"""Running the installed command line as a user does, in a state root of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kit import leaks
from tests.kit.patience import patient

REPOSITORY = Path(__file__).resolve().parents[2]
_NOT_KEPT = ("PYSTACK_", "COMPOSE_", "NO_COLOR", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
LIMIT = 90.0
"""Seconds after which a command counts as hanging."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One finished command: exit code, what it printed, how many seconds it took."""

    command: str
    exit_code: int
    stdout: str
    stderr: str
    seconds: float

    def __str__(self) -> str:
        shown = f"$ {self.command}\n{self.stdout}{self.stderr}".rstrip()
        return f"{shown}\n(exit code {self.exit_code}, {self.seconds:.2f} s)"


class Failed(AssertionError):
    """A command ended otherwise than expected; says all there is to say about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pystack:
    """`pystack --root ROOT` in `directory`, with `environment` besides the machine's own."""

    root: Path
    directory: Path = REPOSITORY
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, exit_code: int | None = 0, stdin: str = "", limit: float = LIMIT) -> Ran:
        """Raises Failed when it ends with another exit code (None: any will do) or not at all."""
        return self.shell([*program(), *arguments], exit_code=exit_code, stdin=stdin, limit=limit)

    def shell(
        self,
        command: str | Sequence[str],
        *,
        exit_code: int | None = 0,
        stdin: str = "",
        limit: float = LIMIT,
    ) -> Ran:
        """The same for any command; text goes to a shell, in which `pystack` is the one under test."""
        shown = command if isinstance(command, str) else " ".join(["pystack", *command[len(program()) :]])
        argv = ["bash", "-c", command] if isinstance(command, str) else command
        begun = time.monotonic()
        # Output goes through files' pipes of our own group: whoever hangs is ended with all it started.
        with subprocess.Popen(
            argv,
            cwd=self.directory,
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(stdin.encode(), timeout=patient(limit))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
                err += f"(hangs: ended after {limit:g} s)".encode()
        ran = Ran(
            command=shown,
            exit_code=process.returncode,
            stdout=out.decode(errors="replace"),
            stderr=err.decode(errors="replace"),
            seconds=time.monotonic() - begun,
        )
        if exit_code is not None and ran.exit_code != exit_code:
            raise Failed(f"expected exit code {exit_code}\n{ran}\n{self.story()}")
        return ran

    @property
    def environ(self) -> dict[str, str]:
        """Without what the caller's own shell may have set for pystack or Compose."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_KEPT)}
        bin_directory = str(Path(program()[0]).parent)
        return {
            **kept,
            "PATH": f"{bin_directory}:{kept.get('PATH', '/usr/bin:/bin')}",
            "PYSTACK_ROOT": str(self.root),
            **self.environment,
        }

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """Rows of `ps --all --format json`."""
        ran = self.run("ps", "--all", "--format", "json", *services)
        return [json.loads(line) for line in ran.stdout.splitlines()]

    def story(self) -> str:
        """What supervisor and keeper have said, for the report of a failure."""
        parts = []
        for path in sorted(self.root.glob("run/*.log")):
            text = path.read_text(errors="replace").strip()
            if text:
                parts.append(f"--- {path.name}\n{text[-3000:]}")
        return "\n".join(parts)

    def abandon(self) -> None:
        """Take everything of this state root away by force, when a test has failed half-way."""
        for _ in range(3):
            for row in json.loads(self.run("ls", "--all", "--format", "json", exit_code=None).stdout or "[]"):
                self.run("-p", row["Name"], "down", "-v", "-t", "0", exit_code=None, limit=30)
        leaks.sweep(leaks.Root(path=self.root))


def program() -> list[str]:
    """The installed console script of this interpreter's environment."""
    script = Path(sys.executable).parent / "pystack"
    if script.exists():
        return [str(script)]
    found = shutil.which("pystack")
    return [found] if found else [sys.executable, "-m", "orchestrator"]


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port nobody listens on at this moment, below the range from which the kernel picks."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    first = 20000
    for step in range(low - first):
        port = first + (os.getpid() * 17 + step) % (low - first)
        with socket.socket(socket.AF_INET, kind) as trial:
            try:
                trial.bind(("0.0.0.0", port))
            except OSError:
                continue
            if port not in _given:
                _given.add(port)
                return port
    raise RuntimeError("no port is free")


_given: set[int] = set()
