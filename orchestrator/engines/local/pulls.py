"""Images that the supervisor pulls, by a process of their own: it speaks HTTP, and leaves when it is done.

See images.puller for what it is told and tells.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from orchestrator.images import reference as references
from orchestrator.model.errors import EngineError, ExitCode
from orchestrator.model.frozen import dataclass as frozen
from orchestrator.model.images import kept

_LINE_LIMIT = 1 << 20
_PATIENCE = 3.0


@frozen(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an image is: `here` of `size` bytes have come."""

    here: int = 0
    size: int = 0
    extracting: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class _Order:
    name: str
    done: trio.Event = field(default_factory=trio.Event)
    error: EngineError | None = None
    process: trio.Process | None = None
    """Who carries it out."""


class Pulls:
    """What is being pulled. Everything here belongs to the trio thread."""

    def __init__(self, images: str, nursery: trio.Nursery) -> None:
        self._images = images
        self._nursery = nursery
        self._orders: dict[int, _Order] = {}
        self._count = 0
        self._process: trio.Process | None = None
        self._lock = trio.Lock()
        self.environments: dict[str, Mapping[str, str]] = {}
        """Stack -> what its user's environment says. Only in memory: passwords may be among it."""
        self.progress: dict[str, Progress] = {}
        """Familiar name -> how far it is."""

    def remember(self, stack: str, environment: Mapping[str, str]) -> None:
        self.environments[stack] = kept(environment)

    async def pull(self, stack: str, name: str, platform: str) -> None:
        """Returns when the image is here. Raises EngineError."""
        environment = self.environments.get(stack) or kept(os.environ)
        self._count += 1
        number = self._count
        order = self._orders[number] = _Order(name=references.familiar(name))
        sent = {"id": number, "name": name, "platform": platform, "environment": dict(environment)}
        try:
            order.process = await self._send(sent)
            await order.done.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await self._send({"cancel": number})
            raise
        finally:
            del self._orders[number]
            if all(other.name != order.name for other in self._orders.values()):
                self.progress.pop(order.name, None)
            self._leave()
        if order.error is not None:
            raise order.error

    async def _send(self, order: Mapping[str, object]) -> trio.Process | None:
        async with self._lock:
            if self._process is None:
                if "cancel" in order:
                    return None
                self._process = await self._start()
            stdin = self._process.stdin
            assert stdin is not None
            try:
                await stdin.send_all(json.dumps(order).encode() + b"\n")
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise _died() from error
            return self._process

    def _leave(self) -> None:
        """Nobody waits any more: the process ends with its input."""
        process = self._process
        if process is not None and not self._orders:
            self._process = None
            assert process.stdin is not None
            self._nursery.start_soon(process.stdin.aclose)

    async def _start(self) -> trio.Process:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "orchestrator.images.transfer.puller", self._images],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        self._nursery.start_soon(self._listen, process)
        return process

    async def _listen(self, process: trio.Process) -> None:
        assert process.stdout is not None
        held = b""
        try:
            with contextlib.suppress(trio.BrokenResourceError):
                while piece := await process.stdout.receive_some(1 << 16):
                    held += piece
                    *lines, held = held.split(b"\n")
                    for line in lines:
                        self._hear(json.loads(line))
                    if len(held) > _LINE_LIMIT:
                        break
        finally:
            with trio.CancelScope(shield=True):
                await _ended(process)
        if self._process is process:
            self._process = None
        for order in self._orders.values():
            if order.process is process and not order.done.is_set():
                order.error = _died()
                order.done.set()

    def _hear(self, said: Mapping[str, Any]) -> None:
        if "image" in said:
            if any(order.name == said["image"] for order in self._orders.values()):
                self.progress[said["image"]] = Progress(
                    here=said["here"], size=said["size"], extracting=said["extracting"]
                )
            return
        order = self._orders.get(said["id"])
        if order is None:
            return
        if "error" in said:
            wrong = said["error"]
            text = wrong["message"]
            order.error = EngineError(
                text if order.name in text else f"{order.name}: {text}",
                retryable=bool(wrong.get("retryable")),
                lasting=bool(wrong.get("lasting")),
                exit_code=ExitCode(wrong.get("exit_code", int(ExitCode.IMAGE))),
                hint=wrong.get("hint", ""),
            )
        order.done.set()


def _died() -> EngineError:
    return EngineError("the process that pulls images has died", exit_code=ExitCode.IMAGE)


async def _ended(process: trio.Process) -> None:
    """Its input ends, so it leaves; one that does not is killed."""
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.aclose()
    with trio.move_on_after(_PATIENCE):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    await process.stdout.aclose()
