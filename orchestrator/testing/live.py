"""A copy of a stack that runs, driven through the command line as a user would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.api import client
from orchestrator.api.paths import Paths
from orchestrator.testing import copies

LOOK = 0.05
"""Seconds between two looks while something is waited for."""


class CommandFailedError(AssertionError):
    """A command of pystack ended with another code than 0: carries what it said."""

    def __init__(self, words: tuple[str, ...], done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(
            f"pystack {' '.join(words)} ended with {done.returncode}:\n{done.stderr or done.stdout}"
        )
        self.exit_code = done.returncode
        self.output = done.stdout
        self.error = done.stderr


class LiveStack:
    """One copy of one stack file. Made by the fixture `stack`, which also takes it away."""

    def __init__(
        self,
        path: Path,
        name: str,
        home: Path,
        *,
        environment: Mapping[str, str] | None = None,
        profiles: tuple[str, ...] = (),
        keep_ports: bool = False,
        root: str | None = None,
    ) -> None:
        """`path` is the stack file, `name` that of the copy, `home` a directory for the copy's own file;
        `environment` is added to that of the tests. Raises CommandFailedError when the file is wrong."""
        self.name = name
        self.path = path
        self._environment = {**os.environ, **(environment or {})}
        self._environment.pop("COMPOSE_PROJECT_NAME", None)
        self._before: tuple[str, ...] = ("--root", root) if root else ()
        self._paths = Paths.find(root, self._environment)
        words = [word for profile in profiles for word in ("--profile", profile)]
        resolved = self._run((*self._before, "-f", str(path), *words, "config", "--format", "json"))
        self.file = home / f"{name}.json"
        text = json.dumps(copies.copy(json.loads(resolved.stdout), name, keep_ports=keep_ports))
        self.file.touch(mode=0o600)
        self.file.write_text(text)

    # --- commands -----------------------------------------------------------------------------------

    def command(
        self,
        *words: str,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - subprocess calls it so
        timeout: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """`pystack WORDS` about this stack. With `check`, raises CommandFailedError when it fails."""
        scope = (*self._before, "-f", str(self.file), "--project-directory", str(self.path.parent))
        return self._run((*scope, *words), check=check, input=input, timeout=timeout)

    def _run(
        self,
        words: tuple[str, ...],
        *,
        check: bool = True,
        input: str | None = None,  # noqa: A002
        timeout: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", *words],
            env=self._environment,
            input=input,
            stdin=None if input is not None else subprocess.DEVNULL,
            text=True,
            errors="replace",
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise CommandFailedError(words, done)
        return done

    def up(self, *services: str, wait: bool = True, timeout: float = 60.0) -> None:
        """`up -d`; `wait`: until everything runs or is healthy, for `timeout` seconds at most."""
        waiting = ("--wait", "--wait-timeout", str(timeout)) if wait else ()
        self.command("up", "-d", *waiting, *services, timeout=timeout + 60.0)

    def down(self, *, volumes: bool = True) -> None:
        """`down`, with the volumes: nothing of the copy is left."""
        self.command("down", *(("-v",) if volumes else ()), "--remove-orphans")

    def ps(self) -> list[dict[str, Any]]:
        """The rows of `ps -a`: Name, Service, State, Health, ExitCode and more."""
        told = self.command("ps", "-a", "--format", "json").stdout
        rows = [json.loads(line) for line in told.splitlines() if line.strip()]
        return rows[0] if rows and isinstance(rows[0], list) else rows

    def logs(self, *services: str) -> str:
        """What the services have printed, with their names before it: standard output, then error."""
        done = self.command("logs", "--no-color", *services)
        return done.stdout + done.stderr

    def exec(self, service: str, *command: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002
        """The output of a command in a running container. Raises CommandFailedError."""
        return self.command("exec", "-T", service, *command, input=input, check=check).stdout

    def kill(self, *services: str, number: str = "KILL") -> None:
        """Send a signal as the user does: a container killed so is not restarted. See `crash`."""
        self.command("kill", "-s", number, *services)

    def crash(self, service: str) -> None:
        """End the first process of each of a service's containers as a fault would, not as a user: what
        follows is up to the restart policy. Raises AssertionError when none runs."""
        rows = client.ask(self._paths, {"verb": "ps", "stack": self.name}) or []
        pids = [row["pid"] for row in rows if row["service"] == service and row["pid"]]
        if not pids:
            raise AssertionError(f"{service} does not run")
        for pid in pids:
            fd = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            finally:
                os.close(fd)

    def address(self, service: str, port: int, *, protocol: str = "tcp") -> tuple[str, int]:
        """Where a published port is found on this machine: host and port."""
        said = self.command("port", "--protocol", protocol, service, str(port)).stdout.strip()
        host, _, number = said.rpartition(":")
        host = host.strip("[]")
        return "127.0.0.1" if host in ("0.0.0.0", "", "::") else host, int(number)  # noqa: S104 - read, not bound

    def url(self, service: str, port: int) -> str:
        """http://HOST:PORT of a published port."""
        host, number = self.address(service, port)
        return f"http://{host}:{number}"

    # --- waiting ------------------------------------------------------------------------------------

    def wait(self, service: str, state: str = "running", *, timeout: float = 30.0) -> float:
        """Until every container of a service is running, healthy or exited; returns the seconds it took.

        Raises AssertionError with what `ps` shows when that takes longer than `timeout` seconds.
        """
        began = time.monotonic()
        while True:
            rows = [row for row in self.ps() if row["Service"] == service]
            if rows and all(_is(row, state) for row in rows):
                return time.monotonic() - began
            if time.monotonic() - began > timeout:
                raise AssertionError(f"{service} is not {state} after {timeout:g} s: {_seen(rows)}")
            time.sleep(LOOK)

    def healed(self, *, timeout: float = 30.0) -> float:
        """Until the stack is what its file says (`plan` has nothing to do); returns the seconds it took."""
        began = time.monotonic()
        while True:
            told = json.loads(self.command("plan", "--format", "json", check=False).stdout or "{}")
            left = [*(told.get("lines") or ()), *(told.get("waits") or ())]
            if not left:
                return time.monotonic() - began
            if time.monotonic() - began > timeout:
                raise AssertionError(f"{self.name} has not healed after {timeout:g} s: {left[0]}")
            time.sleep(LOOK)


def _is(row: Mapping[str, Any], state: str) -> bool:
    if state == "healthy":
        return bool(row["State"] == "running" and row.get("Health") == "healthy")
    return bool(row["State"] == state)


def _seen(rows: list[dict[str, Any]]) -> str:
    return (
        ", ".join(f"{row['Name']} {row['State']} {row.get('Health') or ''}".strip() for row in rows) or "none"
    )
