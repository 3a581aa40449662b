"""Running the command line in a process of its own, as a user does."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
LIMIT = 20.0
MAIN = [sys.executable, "-m", "orchestrator"]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "PYSTACK_"))
    }
    return {**kept, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", **(more or {})}


def start(
    root: Path, *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*MAIN, "--root", str(root), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd or root,
        env=environment(env),
    )


def run(
    root: Path, *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)."""
    process = start(root, *words, cwd=cwd, env=env)
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out.decode(), err.decode()


class OnTerminal:
    """A command on a terminal of its own: what it shows, what it is told, what it left the terminal as."""

    def __init__(self, root: Path, *words: str, rows: int = 24, columns: int = 80) -> None:
        self.master, self.slave = os.openpty()
        termios.tcsetwinsize(self.slave, (rows, columns))
        self.before = termios.tcgetattr(self.slave)
        self.shown = b""
        self.process = subprocess.Popen(
            [*MAIN, "--root", str(root), *words],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            cwd=root,
            env=environment(),
            start_new_session=True,
        )

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def until(self, text: bytes) -> bytes:
        """Read until `text` has been shown."""
        deadline = time.monotonic() + LIMIT
        while text not in self.shown:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} never came, but {self.shown!r}"
            if select.select([self.master], [], [], left)[0]:
                self.shown += os.read(self.master, 65536)
        return self.shown

    def end(self) -> int:
        """The exit code; everything that was shown is read."""
        code = self.process.wait(LIMIT)
        while select.select([self.master], [], [], 0)[0]:
            self.shown += os.read(self.master, 65536)
        return code

    @property
    def restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)
