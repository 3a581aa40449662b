"""Starts the worker in a container (see visitor) and talks to it."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator.images.files.packing import FilesError
from orchestrator.model.errors import EngineError
from orchestrator.model.frozen import dataclass

_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from orchestrator.images.files.visitor import main; main(sys.argv[2:])"
)
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])
_ANSWER_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """How to get at the files of one container, called `name`.

    `init`: pidfd of its first process, -1 when none runs. `view`, for one that does not run: its root, what
    is bound into it, the volumes to fill first. `run`: the run directory of an ordinary user's state root.
    `bare`: without what is mounted into it, but for `targets`, which are parts of the root.
    """

    name: str
    init: int = -1
    view: Mapping[str, Any] | None = None
    mountpoint: str = ""
    run: str = ""
    bare: bool = False
    targets: tuple[str, ...] = ()


class Visitor:
    """The worker in one container, for the length of a `with`."""

    def __init__(self, entry: Entry, *, reads: bool = False) -> None:
        """`reads`: it gets an archive, on `input`; else what it sends comes out of `output`."""
        ours, theirs = socket.socketpair()
        with theirs:
            numbers = [theirs.fileno(), *([entry.init] if entry.init >= 0 else [])]
            words = [_PACKAGE_ROOT, str(theirs.fileno()), str(entry.init)]
            self._worker = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, *words],
                stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if reads else subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                bufsize=0,
                pass_fds=numbers,
            )
        self._control = ours
        self._lines = ours.makefile("rb")
        self._entry = entry

    def __enter__(self) -> Self:
        try:
            entry = self._entry
            way = "stopped" if entry.init < 0 else "bare" if entry.bare else "running"
            self._send(
                way=way,
                run=entry.run,
                view=entry.view,
                mountpoint=entry.mountpoint,
                targets=list(entry.targets),
            )
            self.answer()
        except FilesError as error:
            self._end()
            said = f"container {self._entry.name}: its files can't be reached: {error}"
            raise EngineError(said, retryable=False) from error
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._control.close()
        self._lines.close()
        if self._worker.poll() is None:
            self._worker.kill()
        for pipe in (self._worker.stdin, self._worker.stdout):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._worker.wait()

    @property
    def input(self) -> int:
        assert self._worker.stdin is not None
        return self._worker.stdin.fileno()

    @property
    def output(self) -> int:
        assert self._worker.stdout is not None
        return self._worker.stdout.fileno()

    def close_input(self) -> None:
        """The archive has ended."""
        assert self._worker.stdin is not None
        self._worker.stdin.close()

    def ask(self, op: str, **values: object) -> dict[str, Any]:
        """What it answers. Raises FilesError with what went wrong, EngineError when it has died."""
        self.begin(op, **values)
        return self.answer()

    def begin(self, op: str, **values: object) -> None:
        self._send(op=op, **values)

    def _send(self, **message: object) -> None:
        self._control.sendall(json.dumps(message).encode() + b"\n", socket.MSG_NOSIGNAL)

    def answer(self) -> dict[str, Any]:
        line = self._lines.readline(_ANSWER_LIMIT)
        if not line.endswith(b"\n"):
            raise EngineError(f"the process that copies has ended: {self._last_words()}", retryable=True)
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise FilesError(str(message["error"]), int(message.get("errno") or 0))
        done: dict[str, Any] = message["done"]
        return done

    def _last_words(self) -> str:
        code = self._worker.wait(5)
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
