"""A keeper to play with: a synchronous client of its socket, bundles over a busybox root, FIFOs for output.

with Machine(tmp_path) as machine:
    run = machine.start(["sh", "-c", "echo hello; exit 3"])
    assert run.wait() == 3
    assert run.output() == "hello\\n"
"""

from __future__ import annotations

import _socket
import atexit
import contextlib
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import orchestrator.kernel
from orchestrator.kernel import packets, pins, syscalls
from orchestrator.kernel.spawn import seal
from tests.kit.patience import patient

BUSYBOX = Path("/usr/bin/busybox")
SCRIPT = Path(orchestrator.kernel.__file__).parent / "keeper.py"
PATIENCE = patient(20.0)
REMEMBERS_EXITS = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 15)
"""Whether a pidfd tells the exit code of a process that somebody else has reaped."""
DOCKER_CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
        "SYS_CHROOT KILL AUDIT_WRITE"
    ).split()
]
MASKED = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
NEW = ("mount", "uts", "ipc", "pid", "network", "cgroup")


class Refused(Exception):
    """The `error` of a reply."""

    def __init__(self, error: Mapping[str, object]) -> None:
        super().__init__(f"{error.get('step')}: {error.get('message')}")
        self.errno = error["errno"]
        self.step = str(error["step"])
        self.message = str(error["message"])
        self.exit_code = error["exit_code"]


class Client:
    """One connection. Replies come by tag; what comes unasked is kept in `events`."""

    def __init__(self, path: Path) -> None:
        self.sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(path))
        self.events: list[dict[str, object]] = []
        self._replies: dict[object, tuple[dict[str, object], list[int]]] = {}
        self._tag = 0

    def send(self, op: str, fds: Sequence[int] = (), **values: object) -> int:
        self._tag += 1
        packets.send(self.sock, packets.pack({"op": op, "tag": self._tag, **values}), tuple(fds))
        return self._tag

    def reply(self, tag: int) -> tuple[dict[str, object], list[int]]:
        """The reply to a request, whatever comes before it is put aside. Raises Refused."""
        while tag not in self._replies:
            self._take()
        message, fds = self._replies.pop(tag)
        error = message.get("error")
        if isinstance(error, dict):
            raise Refused(error)
        return message, fds

    def ask(self, op: str, fds: Sequence[int] = (), **values: object) -> tuple[dict[str, object], list[int]]:
        return self.reply(self.send(op, fds, **values))

    def exited(self, name: str) -> dict[str, object]:
        """The event that tells the end of a run."""
        while True:
            for event in self.events:
                if event["id"] == name:
                    self.events.remove(event)
                    return event
            self._take()

    def _take(self) -> None:
        received = packets.receive(self.sock)
        if received is None:
            raise ConnectionError("the keeper closed the connection")
        message, fds = received
        if "event" in message:
            self.events.append(message)
        else:
            self._replies[message["tag"]] = (message, fds)

    def close(self) -> None:
        for _, fds in self._replies.values():
            packets.close(fds)
        self._replies.clear()
        self.sock.close()


class Run:
    """A container that was started, with what it wrote."""

    def __init__(self, machine: Machine, name: str, bundle: Path, outputs: tuple[int, int]) -> None:
        self.machine = machine
        self.name = name
        self.bundle = bundle
        self.outputs = outputs
        self.pid = 0
        self.pidfd = -1
        self.master = -1

    def wait(self) -> int:
        """Its exit code, as the event tells it."""
        return int(str(self.machine.client.exited(self.name)["exit_code"]))

    def output(self, stream: int = 1) -> str:
        """What it has written so far and nobody has read."""
        return drain(self.outputs[stream - 1])

    def said(self, text: str) -> None:
        """Wait until it wrote `text`."""
        seen, deadline = "", time.monotonic() + PATIENCE
        while text not in seen:
            assert time.monotonic() < deadline, f"{text!r} never came, but {seen!r} {self.output(2)!r}"
            select.select([self.outputs[0]], [], [], 1)
            seen += drain(self.outputs[0])

    def kill(self, number: int = signal.SIGKILL) -> None:
        syscalls.pidfd_send_signal(self.pidfd, number)

    def record(self) -> dict[str, object]:
        return json.loads((self.bundle / "exit.json").read_text())


class Machine:
    """A state root with a keeper, an image and containers; leaves nothing when it is closed."""

    def __init__(self, root: Path, *, python: str = sys.executable, sealed: bool = True) -> None:
        """`sealed` as the keeper is started by us; without it, attacks can be seen to work."""
        self.root = root
        self.python = python
        self.sealed = sealed
        self.run_dir = root / "run"
        self.run_dir.mkdir(mode=0o700, parents=True)
        self._image: Path | None = None
        self.socket = self.run_dir / "keeper.sock"
        self._runs: list[Run] = []
        self._fds: list[int] = []
        self.keeper = self.launch_keeper()
        self.client = self.connect()
        self.hello()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    @property
    def image(self) -> Path:
        """The root of its containers, from now on one of its own: for who wants to change something in it."""
        if self._image is None:
            self._image = build_image(self.root / "image")
        return self._image

    # -- the keeper

    def launch_keeper(self) -> subprocess.Popen[bytes]:
        """Start a keeper and wait until it listens."""
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()
        command = [self.python, "-I", "-S", str(SCRIPT), str(self.run_dir)]
        view, program = seal(self.python) if self.sealed else (-1, self.python)
        quiet = subprocess.DEVNULL
        # close_fds would close what the program is found by before it is run.
        keeper = subprocess.Popen(command, executable=program, stdin=quiet, stdout=quiet, close_fds=False)
        if view >= 0:
            os.close(view)
        until(self.socket.exists, "the keeper's socket")
        return keeper

    def connect(self) -> Client:
        return Client(self.socket)

    def hello(
        self, respawn: Sequence[str] = (), environ: Mapping[str, str] | None = None
    ) -> dict[str, object]:
        return self.client.ask("hello", respawn=list(respawn), environ=dict(environ or {}))[0]

    def kill_keeper(self) -> None:
        """SIGKILL, and a new one in its place."""
        self.keeper.kill()
        self.keeper.wait(PATIENCE)
        self.client.close()
        self.keeper = self.launch_keeper()
        self.client = self.connect()
        self.hello()

    # -- containers

    def bundle(
        self,
        name: str,
        args: Sequence[str],
        *,
        process: Mapping[str, object] | None = None,
        linux: Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
        launch: Mapping[str, object] | None = None,
        mounts: Sequence[Mapping[str, object]] = (),
        namespaces: Sequence[str] = NEW,
    ) -> Path:
        """Write a bundle as the engine does; what is given replaces the defaults key by key."""
        path = self.run_dir / "bundles" / name
        path.mkdir(parents=True, mode=0o700, exist_ok=True)
        for stream in ("stdout", "stderr"):
            if not (path / stream).exists():
                os.mkfifo(path / stream, 0o600)
        document = {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs", "readonly": False},
            "process": {**default_process(args), **(process or {})},
            **({"hostname": name[:60]} if "uts" in namespaces else {}),
            "mounts": [*default_mounts(), *mounts],
            "linux": {
                "namespaces": [{"type": kind} for kind in namespaces],
                "maskedPaths": MASKED,
                "readonlyPaths": READ_ONLY,
                **(linux or {}),
            },
            **(config or {}),
        }
        more = {
            "format": 1,
            "stdin": None,
            "stdout": str(path / "stdout"),
            "stderr": str(path / "stderr"),
            "cgroups": [],
            "seccomp": None,
            "user": "",
            "groups": [],
            "root": [
                {
                    "target": "",
                    "lower": [str(self._image or untouched())],
                    "upper": str(self.root / "layers" / name / "upper"),
                    "work": str(self.root / "layers" / name / "work"),
                }
            ],
            "seed": [],
            **(launch or {}),
        }
        (path / "config.json").write_text(json.dumps(document))
        (path / "launch.json").write_text(json.dumps(more))
        return path

    def prepare(self, name: str, args: Sequence[str], **bundle: object) -> Run:
        """A container that is not started yet, its output open."""
        path = self.bundle(name, args, **bundle)  # type: ignore[arg-type]
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
        outputs = (os.open(path / "stdout", flags), os.open(path / "stderr", flags))
        run = Run(self, name, path, outputs)
        self._runs.append(run)
        return run

    def start(
        self, args: Sequence[str], *, name: str = "", joins: Mapping[str, int] | None = None, **bundle: object
    ) -> Run:
        """Start a container of the image and return when its program runs. Raises Refused."""
        run = self.prepare(name or f"c{len(self._runs)}", args, **bundle)
        self.confirm(run, self.request(run, joins or {}))
        return run

    def request(self, run: Run, joins: Mapping[str, int] | None = None) -> int:
        """Ask for a start without waiting for the reply; returns its tag."""
        fds = list((joins or {}).values())
        return self.client.send(
            "start", fds, id=run.name, bundle=str(run.bundle), namespaces=list(joins or {})
        )

    def confirm(self, run: Run, tag: int) -> None:
        reply, fds = self.client.reply(tag)
        self._fds += fds
        run.pid, run.pidfd = int(str(reply["pid"])), fds[0]
        if len(fds) > 1:
            run.master = fds[1]

    def outcome(self, args: Sequence[str], **bundle: object) -> tuple[int, str, str]:
        """Run to the end: exit code, stdout, stderr."""
        run = self.start(args, **bundle)
        return run.wait(), run.output(1), run.output(2)

    def shell(self, script: str, **bundle: object) -> str:
        """What a shell script prints in a container; it has to succeed."""
        code, out, err = self.outcome(["sh", "-c", script], **bundle)
        assert code == 0, (code, out, err)
        return out

    def exec(
        self,
        run: Run,
        args: Sequence[str],
        *,
        name: str = "",
        request: Mapping[str, object] | None = None,
        **process: object,
    ) -> tuple[int, str, str]:
        """Run a command in a container to the end: exit code, stdout, stderr."""
        name = name or f"exec-{run.name}-{time.monotonic_ns()}"
        out, out_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        err, err_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            wanted = {"args": list(args), "cwd": "/", **process}
            _, fds = self.client.ask(
                "exec",
                [nothing, out_in, err_in],
                id=name,
                container=run.name,
                process=wanted,
                **(request or {}),
            )
            packets.close(fds)
            end = self.client.exited(name)
            return int(str(end["exit_code"])), drain(out), drain(err)
        finally:
            packets.close([out, out_in, err, err_in, nothing])

    def own(self, fd: int) -> int:
        """Close this descriptor at the end."""
        self._fds.append(fd)
        return fd

    def close(self) -> None:
        """Kill what runs, let the keeper go, and look that it took its files along."""
        for run in self._runs:
            with contextlib.suppress(OSError):
                if run.pidfd >= 0:
                    run.kill()
        packets.close(self._fds)
        for run in self._runs:
            packets.close(run.outputs)
        if self.keeper.poll() is None:
            with contextlib.suppress(OSError, Refused):
                self.client.ask("goodbye")
        self.client.close()
        try:
            self.keeper.wait(PATIENCE)
        finally:
            self.keeper.kill()
        self.log = (self.run_dir / "keeper.log").read_text() if (self.run_dir / "keeper.log").exists() else ""
        for bundle in self.run_dir.glob("bundles/*"):
            pins.unpin(str(bundle))
        shutil.rmtree(self.run_dir)
        assert not self.log, self.log


def until(condition: object, what: str) -> None:
    """Wait for something that another process does."""
    assert callable(condition)
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what} in vain"
        time.sleep(0.002)


def drain(fd: int) -> str:
    """What can be read right now from a descriptor that doesn't block."""
    parts = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(fd, 65536):
            parts.append(part)
    return b"".join(parts).decode("utf-8", "surrogateescape")


@functools.cache
def untouched() -> Path:
    """A root for all containers that only ever write to a layer of their own: one takes 15 ms to make."""
    folder = tempfile.mkdtemp(prefix="pystack-root-")
    atexit.register(shutil.rmtree, folder)
    return build_image(Path(folder) / "image")


def build_image(path: Path) -> Path:
    """A root filesystem with busybox, passwd and group."""
    (path / "bin").mkdir(parents=True)
    for directory in ("etc", "tmp", "root", "var", "home/app"):
        (path / directory).mkdir(parents=True)
    (path / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, path / "bin" / "busybox")
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (path / "bin" / applet).symlink_to("busybox")
    (path / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\nweb:x:33:33:web:/var:/bin/sh\n"
    )
    (path / "etc/group").write_text(
        "root:x:0:\napp:x:1000:\nweb:x:33:\nlog:x:44:app,web\naudio:x:29:app\ntty:x:5:\n"
    )
    return path


def default_process(args: Sequence[str]) -> dict[str, object]:
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": list(args),
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), DOCKER_CAPABILITIES),
        "noNewPrivileges": False,
    }


def default_mounts() -> list[dict[str, object]]:
    """Docker's, save for the cgroups."""
    quiet = ["nosuid", "noexec", "nodev"]
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    return [
        mount("/proc", "proc", quiet),
        mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", pts),
        mount("/sys", "sysfs", [*quiet, "ro"]),
        mount("/dev/mqueue", "mqueue", quiet),
        mount("/dev/shm", "tmpfs", [*quiet, "mode=1777", "size=64m"]),
    ]


def mount(destination: str, fstype: str, options: Sequence[str], source: str = "") -> dict[str, object]:
    return {"destination": destination, "type": fstype, "source": source or fstype, "options": list(options)}


def bind(source: Path | str, destination: str, *options: str) -> dict[str, object]:
    return mount(destination, "bind", ["bind", *options], str(source))
