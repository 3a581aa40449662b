"""OCI bundles over a busybox root, run by `kernel.create` as pystack-oci does it.

with Box(tmp_path) as box:
    assert box.outcome(["echo", "hello"]) == (0, "hello\\n", "")
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator.kernel import create, packets, seccomp
from orchestrator.kernel.reading import Document
from tests.kit.keeper import (
    MASKED,
    NEW,
    PATIENCE,
    READ_ONLY,
    build_image,
    default_mounts,
    default_process,
    drain,
)


class Held:
    """A container that waits for its start, or runs."""

    def __init__(
        self, made: create.Made, config: Document, fifo: Path, outputs: Sequence[int], master: int
    ) -> None:
        self.config = config
        self.pid = made.pid
        self.start_time = made.start_time
        self.fifo = fifo
        self.outputs = outputs
        self.master = master
        self.code: int | None = None

    def start(self) -> None:
        """Let it go. Raises RuntimeError with what it complains about."""
        gate = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(gate, b"0")
            poll = select.poll()
            poll.register(gate, select.POLLERR)
            assert poll.poll(PATIENCE * 1000), "neither started nor failed"
        finally:
            os.close(gate)
        said = Path(f"{self.fifo}.error").read_text()
        if said:
            self.wait()
            raise RuntimeError(json.loads(said)["message"])

    def wait(self) -> int:
        if self.code is None:
            deadline = time.monotonic() + PATIENCE
            while not (found := os.waitpid(self.pid, os.WNOHANG))[0]:
                assert time.monotonic() < deadline, "the container did not end"
                time.sleep(0.002)
            self.code = os.waitstatus_to_exitcode(found[1])
        return self.code

    def output(self, stream: int = 1) -> str:
        return drain(self.outputs[stream - 1])

    def kill(self) -> None:
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()


class Agent:
    """Listens for a seccomp listener and answers: calls named in `refuse` get EIO, the others go on."""

    _RECEIVE, _SEND = (3 << 30 | size << 16 | 0x21 << 8 | number for number, size in ((0, 80), (1, 24)))

    def __init__(self, path: Path, refuse: Sequence[str]) -> None:
        self.told: dict[str, Any] = {}
        table = seccomp.numbers(os.uname().machine)
        self._refuse = {table[name] for name in refuse if name in table}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._thread.join(PATIENCE)

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            data, fds, _, _ = socket.recv_fds(connection, 65536, 1)
        self.told = json.loads(data)
        poll = select.poll()
        poll.register(fds[0], select.POLLIN)
        # POLLHUP: nobody is left who has the filter.
        while poll.poll()[0][1] & select.POLLIN:
            asked = bytearray(80)
            with contextlib.suppress(OSError):
                fcntl.ioctl(fds[0], self._RECEIVE, asked)
                number, _, _, call = struct.unpack_from("QIIi", asked)
                no = call in self._refuse
                answer = struct.pack("QqiI", number, 0, -5 if no else 0, 0 if no else 1)
                fcntl.ioctl(fds[0], self._SEND, answer)
        os.close(fds[0])


class Box:
    """A bundle to change and to run; kills what is left when it is closed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bundle = root / "bundle"
        self.rootfs = build_image(self.bundle / "rootfs")
        self.host = create.open_host()
        self.held: list[Held] = []
        self.warnings: list[str] = []
        self._fds: list[int] = [self.host.proc, self.host.null]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for held in self.held:
            held.kill()
            create.release(held.config, str(self.bundle))
        packets.close(self._fds)

    def config(
        self,
        args: Sequence[str],
        *,
        process: Mapping[str, object] | None = None,
        linux: Mapping[str, object] | None = None,
        mounts: Sequence[Mapping[str, object]] = (),
        config_mounts: Sequence[Mapping[str, object]] | None = None,
        namespaces: Sequence[str | Mapping[str, object]] = NEW,
        **config: object,
    ) -> dict[str, object]:
        """A whole config.json; what is given replaces the defaults key by key."""
        return {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {**default_process(args), **(process or {})},
            "mounts": [*(default_mounts() if config_mounts is None else config_mounts), *mounts],
            "linux": {
                "namespaces": [
                    {"type": entry} if isinstance(entry, str) else dict(entry) for entry in namespaces
                ],
                "maskedPaths": MASKED,
                "readonlyPaths": READ_ONLY,
                **(linux or {}),
            },
            **config,
        }

    def create(
        self,
        args: Sequence[str],
        *,
        cgroups: Sequence[str] = (),
        console: int = -1,
        preserve: int = 0,
        seccomp: bytes = b"",
        seccomp_flags: int = 0,
        **config: object,
    ) -> Held:
        document = Document(json.loads(json.dumps(self.config(args, **config))))  # type: ignore[arg-type]
        name = f"c{len(self.held)}-{time.monotonic_ns()}"
        fifo = self.root / f"{name}.fifo"
        os.mkfifo(fifo, 0o600)
        out, out_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        err, err_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        for fd in (out_in, err_in):
            os.set_blocking(fd, True)
        self._fds += [out, err]

        def state(status: str, pid: int) -> bytes:
            return json.dumps(
                {"ociVersion": "1.0.2", "id": name, "status": status, "pid": pid, "bundle": str(self.bundle)}
            ).encode()

        try:
            made = create.create(
                self.host,
                create.Request(
                    id=name,
                    bundle=str(self.bundle),
                    config=document,
                    cgroups=tuple(cgroups),
                    seccomp=seccomp,
                    seccomp_flags=seccomp_flags,
                    stdio=(nothing, out_in, err_in),
                    console=console,
                    preserve=preserve,
                    fifo=str(fifo),
                    state=state,
                    warn=self.warnings.append,
                ),
            )
        finally:
            packets.close([out_in, err_in, nothing])
        held = Held(made, document, fifo, (out, err), -1)
        self.held.append(held)
        return held

    def belong_to(self, first: int) -> None:
        """Give the root filesystem to the root of a user namespace whose ids begin there."""
        for directory, _, names in os.walk(self.rootfs):
            os.lchown(directory, first, first)
            for name in names:
                os.lchown(f"{directory}/{name}", first, first)

    def start(self, args: Sequence[str], **config: object) -> Held:
        held = self.create(args, **config)  # type: ignore[arg-type]
        held.start()
        return held

    def exec(
        self, held: Held, args: Sequence[str], *, preserve: int = 0, **process: object
    ) -> tuple[int, str, str]:
        """Run a command in a container to the end: exit code, stdout, stderr."""
        out, out_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        err, err_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        init = os.pidfd_open(held.pid)
        try:
            entry = create.Entry(
                init=init,
                config=held.config,
                process=Document({"args": list(args), "cwd": "/", **process}),
                cgroups=(),
                seccomp=b"",
                seccomp_flags=0,
                stdio=(nothing, out_in, err_in),
                console=-1,
                preserve=preserve,
            )
            pid = create.execute(self.host, entry)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            return code, drain(out), drain(err)
        finally:
            packets.close([out, out_in, err, err_in, nothing, init])

    def outcome(self, args: Sequence[str], **config: object) -> tuple[int, str, str]:
        """Run to the end: exit code (negative for a signal), stdout, stderr."""
        held = self.start(args, **config)
        return held.wait(), held.output(1), held.output(2)

    def shell(self, script: str, **config: object) -> str:
        """What a shell script prints in a container; it has to succeed."""
        code, out, err = self.outcome(["sh", "-c", script], **config)
        assert code == 0, (code, out, err)
        return out
